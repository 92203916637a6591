# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memories of the demo's agent: realistic, varied, and the same text again for the same key and version."""
from __future__ import annotations

import hashlib
import json
import random
import re
import typing as t

PEOPLE = (
    "the account manager", "the night shift", "the finance lead", "the customer's assistant", "the on-call engineer",
    "the new contractor", "the legal reviewer", "the office in Zürich", "the supplier", "the product owner",
)  # fmt: skip
PROJECTS = ("Heron", "Basalt", "Quartz", "Lantern", "Meridian", "Sparrow", "Tundra", "Citadel", "Juniper", "Zephyr")
TOPICS = (
    "the migration of the billing service", "a late shipment to Rotterdam", "the on-call rota for the holidays",
    "access to the test environment", "the quarterly forecast", "flaky integration tests", "a refund of 3,240 €",
    "the wording of the privacy notice", "a failed certificate renewal", "the seating plan of the fourth floor",
)  # fmt: skip
HABITS = (
    "answers in short bullet points", "metric units", "meetings before noon", "a call rather than a long mail",
    "tables over prose", "British spelling", "links to the sources", "no emoji in customer mails", "週次の要約",
)  # fmt: skip
SENTENCES = (
    "{who} asked about {topic} and wants an answer before the {day}th.",
    "We agreed that {other} prepares the numbers for project {project}-{number} first.",
    "The attempt of {day} November failed with a timeout; retrying at night worked.",
    "{who} prefers {habit}, and said so twice.",
    "Next step: compare the offer with last year's and tell {other} what changed.",
    "Budget left in {project}-{number}: {money:,} €; nothing may be ordered above 5,000 € without approval.",
    "They had already tried turning the feature off, which did not help with {topic}.",
    "Keep in mind: {other} is away until the {day}th and {who} decides meanwhile.",
    "The customer called it 'good enough', so the case stays open but is no longer urgent.",
)
#: The part of each sentence that is in a memory's text as it stands here: nothing that is stored may show it.
FRAGMENTS = tuple(max(re.split(r"{[^}]*}", sentence), key=len).strip() for sentence in SENTENCES)
#: What share of a namespace's memories is of which kind.
KINDS = (("fact", 0.35), ("conversation", 0.25), ("preference", 0.20), ("task", 0.20))


def keys(namespace: str, count: int) -> list[str]:
    """The keys of a namespace's stable memories."""
    found = []
    for kind, share in KINDS:
        found += [f"{kind}/{namespace}/{number:05}" for number in range(round(count * share))]
    return found


def current(stable: t.Sequence[str]) -> list[str]:
    """The memories that the agent works with these days: it asks for them much more often than for the rest."""
    return list(stable[::25])


def value(namespace: str, key: str, version: int = 1) -> t.Any:
    """A text, or a small mapping, of some 100 to 1,200 bytes."""
    dice = random.Random(f"{namespace}|{key}|{version}")
    words = {
        "who": dice.choice(PEOPLE),
        "other": dice.choice(PEOPLE),
        "project": dice.choice(PROJECTS),
        "number": int(hashlib.sha256(f"{namespace}|{key}".encode()).hexdigest()[:8], 16) % 10_000_000,
        "topic": dice.choice(TOPICS),
        "habit": dice.choice(HABITS),
        "day": dice.randint(1, 28),
        "money": dice.randint(400, 90_000),
    }
    kind = key.partition("/")[0]
    if kind == "preference":
        since = f"2025-{dice.randint(1, 12):02}-{words['day']:02}"
        return {"person": words["who"], "prefers": words["habit"], "since": since}
    if kind == "task":
        return {
            "project": f"{words['project']}-{words['number']}",
            "owner": words["other"],
            "state": dice.choice(("open", "waiting", "done")),
            "note": dice.choice(SENTENCES).format(**words),
            "version": version,
        }
    count = dice.randint(3, 9) if kind == "conversation" else dice.randint(1, 3)
    text = " ".join(sentence.format(**words) for sentence in dice.sample(SENTENCES, count))
    return f"[{words['project']}-{words['number']}, v{version}] {text}"


def digest(data: t.Any) -> str:
    """What the agent notes instead of the content, and what a benchmark may expect: "sha256:…" of the JSON."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return "sha256:" + hashlib.sha256(body).hexdigest()


def question(namespace: str, key: str) -> str:
    """Words by which a search finds the memory: its project number occurs nowhere else."""
    text = value(namespace, key)
    return str(text["project"] if isinstance(text, dict) else text[1:].partition(",")[0])

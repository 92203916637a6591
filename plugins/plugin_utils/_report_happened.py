# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step that passed did, or in check mode would do, in a few words from its own result.

PRIVATE to the collection. A result that does not say enough gives no words: nothing here is guessed.
"""

from __future__ import annotations

import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_input as given
from . import _report_words as words

_AWAY = "absent and left away"
_WOULD = {
    "isolate": "would quarantine the namespace",
    "snapshot": "would copy the damaged state",
    "apply": "would carry out the plan",
    "undo": "would take the rebuild back",
    "validate": "would judge what was rebuilt",
    "release": "would lift the quarantine",
    "baseline": "would publish a new baseline",
    "monitor": "would watch the namespace",
}

#: Steps that undo an earlier one of the same run.
_AFTER = {"release": "isolate", "failback": "failover"}


def happened(name: str, result: t.Mapping[str, t.Any]) -> str:
    """The words for a step of the runbook; "" for any other, or when its result does not say."""
    tell = _TELLERS.get(name)
    return tell(result) if tell else ""


def would_happen(steps: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[t.Tuple[str, bool, str]]:
    """(name, whether it would change something, words) of each rehearsed step, in the order of ``steps``.

    A step that found nothing to do, because an earlier one of the same rehearsal did not really happen, would have
    something to do in the real run: what is isolated is released, what is applied is judged, what is served elsewhere
    comes home, and is judged there once more.
    """
    names = {step["name"] for step in steps}
    would = {step["name"] for step in steps if step["changed"]}
    told: t.List[t.Tuple[str, bool, str]] = []
    for step, refused in zip(steps, refusals(steps)):
        name = step["name"]
        changes = not refused and (bool(step["changed"]) or _AFTER.get(name) in would)
        said = str(step["detail"] or "")
        if not said and (changes or (name == "validate" and "apply" in names)):
            said = _WOULD.get(name, "")
        if name == "validate" and "failover" in would and any(before[0] == "validate" for before in told):
            said = "would judge what came home"
        seen = happened(name, given.mapping(step["result"]))
        said = said or seen
        if refused:
            why = refused.partition(" Next: ")[0]
            said = f"{seen}; without --check: {why}" if seen and name in ("diagnose", "plan") else why
        told.append((name, changes, said))
    return told


def refusals(steps: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """Of each rehearsed step why the real one would not pass, "" where it would: it lacks a step before it that was not
    rehearsed either, or its verdict is no pass and nothing before it would change what it judges."""
    names = {step["name"] for step in steps}
    told = []
    for step in steps:
        result, why = given.mapping(step["result"]), ""
        if "isolate" not in names:  # else what a real run has done by then was not done in the rehearsal
            why = given.text(result.get("refused")) or ""
        if not why and step["name"] == "validate" and step.get("verdict") in (given.FAIL, given.UNKNOWN):
            reasons = "; ".join(given.texts(result.get("reasons"), 5))
            if not names & {"isolate", "apply"}:
                why = f"as it is the verdict is {step['verdict']}" + (f": {reasons}" if reasons else "")
        told.append(why)
    return told


def planned(plan: t.Mapping[str, t.Any]) -> str:
    """The plan's numbers in words: "501 expected, 476 good, 25 to repair, strategy soft"; "" when it has none."""
    records = given.mapping(plan.get("records"))
    named = (
        ("expected", "expected"),
        ("good_before", "good"),
        ("repair", "to repair"),
        ("suspect", "suspect"),
        ("lost", "lost"),
        ("conflicted", "in conflict"),
        ("expired", "expired"),
        ("absent", _AWAY),
    )
    found = [(label, given.count(records.get(name))) for name, label in named]
    seldom = ("in conflict", "expired", _AWAY)
    parts = [f"{n:,} {label}" for label, n in found if n is not None and (n or label not in seldom)]
    strategy = given.text(plan.get("strategy"))
    return ", ".join(parts + ([f"strategy {strategy}"] if parts and strategy else []))


def _records(result: t.Mapping[str, t.Any]) -> str:
    n = given.count(result.get("records"))
    return "" if n is None else counted(n, "record")


def _preflight(result: t.Mapping[str, t.Any]) -> str:
    newest = given.text(result.get("newest_snapshot"))
    ended = given.text(result.get("watch_ended"))
    watch = f"the watch of the run before ends: {ended}" if ended else ""
    return ", ".join(p for p in (_records(result), f"newest snapshot {newest}" if newest else "", watch) if p)


def _isolate(result: t.Mapping[str, t.Any]) -> str:
    proof = given.mapping(result.get("proof"))
    return "reads and writes are refused" if proof.get("reads_refused") and proof.get("writes_refused") else ""


def _snapshot(result: t.Mapping[str, t.Any]) -> str:
    return ", ".join(p for p in (given.text(result.get("snapshot")) or "", _records(result)) if p)


def _diagnose(result: t.Mapping[str, t.Any]) -> str:
    kinds = given.mapping(result.get("findings"))
    n = sum(given.count(v) or 0 for v in kinds.values())
    first = next((given.text(given.mapping(c).get("cause")) for c in given.sequence(result.get("causes"))), None)
    if "findings" not in result:
        return ""
    return (f"damaged or absent: {n:,}" if n else "no damage found") + (f"; likely {first}" if first else "")


def _plan(result: t.Mapping[str, t.Any]) -> str:
    records = given.mapping(result.get("records"))
    named = (("repair", "to repair"), ("suspect", "suspect"), ("lost", "lost"), ("absent", _AWAY))
    found = [(label, given.count(records.get(name))) for name, label in named]
    return ", ".join(f"{n:,} {label}" for label, n in found if n is not None and (n or label != _AWAY))


def _apply(result: t.Mapping[str, t.Any]) -> str:
    applied, method = given.count(result.get("applied")), given.text(result.get("method"))
    if applied is None:
        return ""
    return f"{counted(applied, 'change')} made" + (f", {method}" if method else "")


def _undo(result: t.Mapping[str, t.Any]) -> str:
    back, to = given.mapping(result.get("records")), given.count(given.mapping(result.get("generation")).get("to"))
    if to is not None:
        return f"generation {to} is the active one again"
    n = sum(given.count(back.get(name)) or 0 for name in ("back", "removed"))
    return f"{counted(n, 'change')} taken back" if back else ""


def _validate(result: t.Mapping[str, t.Any]) -> str:
    probes = given.mapping(result.get("probes"))
    checked, passed = given.count(probes.get("checked")), given.count(probes.get("passed"))
    accuracy = given.ratio(given.mapping(result.get("benchmark")).get("accuracy"))
    parts = [f"{passed:,} of {counted(checked, 'probe')} as before"] if checked and passed is not None else []
    return ", ".join(parts + ([f"accuracy {words.percent(accuracy)}"] if accuracy is not None else []))


def _release(result: t.Mapping[str, t.Any]) -> str:
    at = given.rfc3339(result.get("released_at"))
    return f"quarantine lifted at {words.clock(at)} UTC" if at else ""


def _monitor(result: t.Mapping[str, t.Any]) -> str:
    rate = given.mapping(result.get("hit_rate"))
    value, reads = given.ratio(rate.get("value")), given.count(rate.get("reads"))
    return f"hit rate {words.percent(value)} of {counted(reads, 'read')}" if value is not None and reads else ""


_TELLERS: t.Dict[str, t.Callable[[t.Mapping[str, t.Any]], str]] = {
    "preflight": _preflight,
    "isolate": _isolate,
    "snapshot": _snapshot,
    "baseline": _snapshot,
    "diagnose": _diagnose,
    "plan": _plan,
    "apply": _apply,
    "undo": _undo,
    "validate": _validate,
    "release": _release,
    "monitor": _monitor,
}

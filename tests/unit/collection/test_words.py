# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers in the sentences that people read: one of a thing is not several."""

from __future__ import annotations

import pathlib
import re

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

ROOT = pathlib.Path(__file__).resolve().parents[3]
NOUNS = (
    "attempt|case|change|checkpoint|conflict|copie|entrie|event|key|line|member|namespace|object|probe|read|record|row|"
    "sample|schedule|session|snapshot|value|vector|write"
)
#: A number that is put straight before a plural, in Python and in Jinja.
AFTER = "of|are|have|were|would|in|with|changed|belong|lie|do|keep|open|that|could|more"
PUT = re.compile(rf"\}}\}}? (?:{NOUNS})s (?:{AFTER})\b")
#: What stands there is no number, or a total of which a part is told.
OTHERS = re.compile(r"\bof (?:the )?\{[^{}]*\} |namespace!r|namespaces? \}|\{(?:what|name|kind|playbook)\}")


def test_one_is_not_several() -> None:
    assert [counted(n, "record") for n in (0, 1, 2, 1234)] == ["0 records", "1 record", "2 records", "1,234 records"]
    assert [counted(n, "entry is", "entries are") for n in (1, 2)] == ["1 entry is", "2 entries are"]


def test_numbers_before_plurals_are_put_by_counted() -> None:
    found = []
    for folder, kind in (("plugins", "*.py"), ("roles", "*.yml"), ("roles", "*.j2")):
        for path in sorted((ROOT / folder).rglob(kind)):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if PUT.search(line) and not OTHERS.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's journal as evidence: what a read should have given."""
from __future__ import annotations

import typing as t

import pytest

from demo.journal import Journal, Write, lapsed

S = 1_000_000


def line(at: int, operation: str, result: str, **more: t.Any) -> dict[str, t.Any]:
    return {
        "begun": at * S, "ended": at * S + 1000, "operation": operation, "namespace": "a", "key": "k",
        "result": result, **more,
    }  # fmt: skip


HISTORY = [
    line(1, "write", "ok", digest="one"),
    line(2, "write", "ok", digest="two"),
    line(3, "write", "refused", digest="three"),
]


@pytest.mark.parametrize(
    ("more", "read", "verdict"),
    [
        ([], line(5, "read", "hit", digest="two"), "right"),
        ([], line(5, "read", "hit", digest="one"), "stale"),
        ([], line(5, "read", "hit", digest="three"), "foreign"),
        ([], line(5, "read", "miss"), "missing"),
        ([], line(5, "read", "corrupt"), "corrupt"),
        ([], line(5, "read", "error"), "error"),
        ([line(4, "delete", "ok")], line(5, "read", "miss"), "right"),
        ([line(4, "delete", "ok")], line(5, "read", "hit", digest="two"), "resurrected"),
        ([line(4, "delete", "refused")], line(5, "read", "miss"), "missing"),
        ([line(4, "write", "ok", digest="four", ttl=10.0)], line(5, "read", "hit", digest="four"), "right"),
        ([line(4, "write", "ok", digest="four", ttl=0.5)], line(5, "read", "miss"), "expired"),
        ([line(4, "write", "ok", digest="four", ttl=0.5)], line(5, "read", "hit", digest="four"), "resurrected"),
    ],
)
def test_what_a_read_should_have_given(more: list[t.Any], read: dict[str, t.Any], verdict: str) -> None:
    assert Journal([*HISTORY, *more, read]).verdict(read) == verdict


def test_a_key_that_was_never_written_misses_rightly() -> None:
    read = {**line(5, "read", "miss"), "key": "other"}
    assert Journal([*HISTORY, read]).verdict(read) == "right"


def test_later_writes_do_not_judge_earlier_reads() -> None:
    read = line(5, "read", "hit", digest="two")
    journal = Journal([*HISTORY, read, line(6, "write", "ok", digest="six")])
    assert journal.verdict(read) == "right"
    assert journal.newest("a", "k") == Write(6 * S, 6 * S + 1000, "six", None)


def test_between_takes_only_what_lies_wholly_inside() -> None:
    journal = Journal(HISTORY)
    assert [one["result"] for one in journal.of("a", "write", 2 * S, 3 * S)] == ["ok"]
    assert list(journal.of("a", "write", 2 * S, 2 * S + 500)) == []
    assert list(journal.of("b")) == []


@pytest.mark.parametrize(("begun", "word"), [(2.0, "no"), (3.0005, "perhaps"), (3.5, "yes")])
def test_expiry_has_a_grey_zone_as_long_as_the_write(begun: float, word: str) -> None:
    write = Write(1 * S, 1 * S + 1000, "x", 2.0)
    assert lapsed(write, int(begun * S), int(begun * S) + 100) == word

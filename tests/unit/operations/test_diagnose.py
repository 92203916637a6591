# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the log and the findings make of causes, windows, onset and strategy."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._model import LogEntry
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import access_log_review, diagnose

SECOND = 1_000_000
SOUND = {"intact": True, "corrupt": 0, "missing": 0}


def entry(
    at: float, operation: str, sequence: int | None = None, lock: int | None = 1, actor: str = "app", **more: t.Any
) -> LogEntry:
    fields = {"id": 0, "at": int(at * SECOND), "namespace": "n", "operation": operation, "key": "k", "epoch": 1}
    return LogEntry(
        **{
            **fields,
            "sequence": sequence,
            "digest": b"",
            "lock": lock,
            "actor": actor,
            "reason": None,
            "checksum": b"",
            **more,
        }
    )


def review(*entries: LogEntry, **options: t.Any) -> access_log_review.Review:
    return access_log_review.review(iter([list(entries)]), **options)


def judge(
    found: access_log_review.Review,
    rows: int = 1000,
    structure: t.Sequence[str] = (),
    logged: bool = True,
    **findings: int,
) -> dict[str, t.Any]:
    return diagnose.diagnose(
        review=found, findings=findings, rows=rows, log_health=SOUND, structure=structure, logged=logged
    )


def causes(found: dict[str, t.Any]) -> list[str]:
    return [one["cause"] for one in found["causes"]]


def test_writes_under_the_lock_are_no_cause_and_no_window() -> None:
    found = review(*(entry(n, "write", n) for n in range(1, 500)))
    assert diagnose.windows(found) == []
    assert causes(judge(found)) == []


def test_an_unlocked_bulk_write_is_a_window_of_its_actor_alone() -> None:
    bulk = [entry(100 + n / 10, "write", 100 + n, lock=None, actor="importer") for n in range(60)]
    found = review(entry(1, "write", 1), *bulk[:30], entry(103.01, "write", 900), *bulk[30:])
    (window,) = diagnose.windows(found)
    assert (window.cause, window.first_sequence, window.last_sequence) == ("bulk-write", 100, 159)
    assert window.covers(1, 120, None, "importer")
    assert not window.covers(1, 120, 7, "app")
    judged = judge(found)
    assert causes(judged) == ["bulk-write", "concurrent-writes-without-lock"]
    assert judged["onset"]["sequence"] == 100


def test_few_unlocked_writes_are_no_bulk_write() -> None:
    found = review(*(entry(n, "write", n, lock=None) for n in range(1, 5)))
    assert [window.cause for window in diagnose.windows(found)] == ["unlocked-write"]
    assert causes(judge(found)) == ["concurrent-writes-without-lock"]


def test_what_an_earlier_incident_judged_is_settled() -> None:
    found = review(*(entry(n, "write", n, lock=None) for n in range(1, 100)), settled=99)
    assert diagnose.windows(found) == []


def test_a_given_onset_distrusts_every_later_write_in_the_stores_epoch() -> None:
    (window,) = diagnose.windows(review(), epoch=3, onset_sequence=50)
    assert window.covers(3, 50, 1, "anybody")
    assert not window.covers(3, 49, None, None)


def test_a_rotation_that_never_ended() -> None:
    begun = entry(10, "rotate", reason="start: from k1 to k2")
    ended = entry(20, "rotate", reason="end: from k1 to k2")
    assert causes(judge(review(begun), **{"key-missing": 5})) == ["key-rotation"]
    assert causes(judge(review(begun, ended), **{"key-missing": 5})) == ["missing-record-key"]
    assert review(entry(5, "write", 7), begun).rotated_to["k2"] > (9, 9)
    assert review(entry(5, "write", 7), begun, ended, entry(30, "write", 8)).rotated_to == {"k2": (1, 7)}


def test_an_expiry_storm() -> None:
    reads = [entry(n, "hit") for n in range(70)] + [entry(n, "expired") for n in range(30)]
    assert causes(judge(review(*reads))) == ["ttl-expiry-storm"]
    assert causes(judge(review(*reads[:80]))) == []


def test_confidence_is_the_share_that_a_cause_explains() -> None:
    judged = judge(review(), checksum=3, absent=1)
    assert [(one["cause"], one["confidence"]) for one in judged["causes"]] == [
        ("storage-failure", 0.75),
        ("lost-rows", 0.25),
    ]


def test_without_a_log_what_was_changed_has_its_share_and_no_log_is_spoken_of() -> None:
    judged = judge(review(), logged=False, changed=5, absent=1)
    assert [(one["cause"], one["confidence"]) for one in judged["causes"]] == [
        ("changed-in-window", 0.8333),
        ("lost-rows", 0.1667),
    ]
    assert judged["causes"][1]["evidence"] == ["1 record is gone, deleted or lost: there is no log"]
    assert judged["causes"][0]["evidence"][0].startswith("5 records are other than before the window")


@pytest.mark.parametrize(
    ("findings", "structure", "strategy"),
    [
        ({}, [], "none"),
        ({"checksum": 200}, [], "soft"),
        ({"checksum": 201}, [], "hard"),
        ({}, ["row 5 missing from index memory_records_expires"], "soft"),
        ({}, ["database disk image is malformed"], "hard"),
    ],
)
def test_strategy(findings: dict[str, int], structure: list[str], strategy: str) -> None:
    assert judge(review(), structure=structure, **findings)["strategy"] == strategy


def test_the_series_stays_small_and_keeps_every_read() -> None:
    found = review(*(entry(n * 10, "hit" if n % 4 else "miss") for n in range(5000)))
    assert len(found.series) <= access_log_review.MAX_BUCKETS
    assert sum(one["hits"] + one["misses"] for one in found.series) == 5000
    assert found.hit_rate() == 0.75

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Expired records leave the store by and by, with a log entry each; damaged ones and quarantines are left alone."""
from __future__ import annotations

import sqlite3
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _session
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from tests.support.stores import keyring_params

NOW = 1_800_000_000_000_000


@pytest.fixture
def memory(tmp_path: t.Any, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[tuple[Memory, dict[str, t.Any], list[int]]]:
    monkeypatch.setattr(_session, "SWEEP_SECONDS", 0.0)
    store, clock = {"engine": "sqlite", "path": str(tmp_path / "m.db")}, [NOW]
    with Memory(store=store, keyring=keyring_params(tmp_path), clock=lambda: clock[0]) as made:
        made.write_many("a", [(f"short-{n}", n) for n in range(5)], ttl=10)
        made.write("a", "long", "kept", ttl=1000)
        yield made, store, clock


def rows(store: t.Mapping[str, t.Any]) -> set[str]:
    opened = open_store(store)
    with opened.reader() as reader:
        found = {row[0] for batch in reader.scan("a") for row in batch}
    opened.close()
    return found


def test_a_later_write_takes_expired_records_away_and_logs_each(memory: t.Any) -> None:
    made, store, clock = memory
    clock[0] += 20_000_000
    made.write("a", "next", 1)
    assert rows(store) == {"long", "next"}
    swept = [entry for entry in made.get_access_logs("a") if entry["actor"] == "memops:sweep"]
    assert sorted(entry["key"] for entry in swept) == [f"short-{n}" for n in range(5)]
    assert {entry["operation"] for entry in swept} == {"delete"}
    opened = open_store(store)
    with opened.reader() as reader:
        assert reader.log_health()["intact"]
    opened.close()


def test_a_damaged_record_that_looks_expired_stays(memory: t.Any) -> None:
    made, store, clock = memory
    raw = sqlite3.connect(store["path"])
    raw.execute("UPDATE memory_records SET expires = 1 WHERE key = 'long'")
    raw.commit()
    raw.close()
    clock[0] += 20_000_000
    made.write("a", "next", 1)
    assert rows(store) == {"long", "next"}


def test_nothing_is_swept_in_a_quarantine(memory: t.Any) -> None:
    _made, store, clock = memory
    opened = open_store(store)
    claim = opened.claim("a", "x:1:1", "me", new_incident="inc-1")
    opened.fence(claim)
    assert opened.sweep("a", clock[0] + 20_000_000) == 0
    opened.unfence(claim)
    assert opened.sweep("a", clock[0] + 20_000_000) == 5
    opened.close()


def test_a_clock_that_was_set_ahead_takes_nothing_away_until_it_has_stood_for_a_day(
    memory: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, store, clock = memory
    clock[0] += 86400 * 1_000_000
    made.write("a", "next", 1)
    assert made.read("a", "long") is None  # it looks expired, and is a miss
    assert {"long", "short-0", "next"} <= rows(store)
    clock[0] -= 86400 * 1_000_000
    assert made.read("a", "long") == "kept"
    running = [_session.since_start()]
    monkeypatch.setattr(_session, "since_start", lambda: running[0])
    for hours in (24, 25):
        clock[0] = NOW + hours * 3_600_000_000
        running[0] += (hours - 23) * 43_300
        made.write("a", "next", hours)
    assert rows(store) == {"next"}

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The one reading of the access log that a diagnosis makes, beside the scan of the records."""

from __future__ import annotations

import os

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.access_log_reading import (
    LogReading,
    read_beside,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.acknowledged import Acknowledged
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.workers import Worker
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS


def reading(place, onset_sequence=None):
    return LogReading(NS, onset_sequence, 0, 1 << 60, 0, str(place.folder / "believed"))


def read(place, onset_sequence=None):
    """(what was read, the health of the log, the newest write of every key as the engine has it)."""
    store = open_store(place.store)
    try:
        with store.reader() as reader:
            found = reading(place, onset_sequence).read(reader)
            newest = {write.key: write for batch in reader.last_writes(NS) for write in batch}
            return found, reader.log_health(), newest
    finally:
        store.close()


def believed(found, newest):
    """{key: sequence} of the newest writes that can be believed."""
    acknowledged = Acknowledged(found.believed, existing=True)
    try:
        writes = {key: acknowledged.newest(key, write) for key, write in newest.items()}
    finally:
        acknowledged.close()
    return {key: write and write.sequence for key, write in writes.items()}


def test_a_sound_log_needs_no_second_reading(place):
    place.fill(20)
    found, health, newest = read(place)
    assert found.health == health
    assert (found.review.entries, found.distrust, found.believed) == (health["entries"], [], None)
    assert not os.path.exists(place.folder / "believed")
    assert believed(found, newest) == {key: write.sequence for key, write in newest.items()}


def test_older_entries_are_believed_where_the_newest_is_damaged_or_was_made_without_the_lock(place):
    place.fill(20)
    before = {entry.key: entry.sequence for entry in place.log("write")}
    place.fill(3)
    last = max(before.values())
    place.sql("UPDATE memory_access_log SET lock = NULL WHERE key = 'user/00000' AND sequence > ?", last)
    place.sql("UPDATE memory_access_log SET at = at + 1 WHERE key = 'user/00001' AND sequence > ?", last)
    with place.memory() as memory:
        memory.write("another", "user/00005", 1)
    place.sql("UPDATE memory_access_log SET at = at + 1 WHERE namespace = 'another'")
    found, health, newest = read(place)
    assert found.health == health
    assert (health["corrupt"], health["intact"]) == (3, False)
    assert found.review.entries == len(place.log()) - 2
    late = newest["user/00002"].sequence
    assert believed(found, newest) == {**before, "user/00002": late}


def test_from_a_given_onset_on_locked_writes_are_distrusted_too(place):
    place.fill(20)
    before = {entry.key: entry.sequence for entry in place.log("write")}
    place.fill(3)
    found, health, newest = read(place, onset_sequence=max(before.values()) + 1)
    assert health["intact"]
    assert [window.cause for window in found.distrust] == ["given-onset"]
    assert believed(found, newest) == before


def test_nothing_is_mended_before_the_other_process_says_so(place):
    place.fill(20)
    place.sql("DROP INDEX memory_access_log_writes")
    worker = Worker(read_beside, place.store, reading(place), False)
    try:
        assert worker.receive() == ("broken", None)
        assert not place.sql("SELECT 1 FROM sqlite_master WHERE name = 'memory_access_log_writes'")
        worker.send("go on")
        kind, (structure, found) = worker.receive()
    finally:
        worker.stop()
    assert (kind, structure.broken, bool(structure.found), bool(structure.mended)) == ("read", [], True, True)
    assert place.sql("SELECT 1 FROM sqlite_master WHERE name = 'memory_access_log_writes'")
    assert found.health["intact"]

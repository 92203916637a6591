# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Probes that were fixed before the damage, the benchmark's threshold, the canary, and how they combine."""

from __future__ import annotations

import json
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    application_benchmark,
    rotate,
    validate,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.probes import CANARY, fix_probes
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS, now_us

COUNT = 40


@pytest.fixture
def read(place):
    """Memories that were all read once before the onset; the values."""
    values = place.fill(COUNT)
    assert place.values(list(values)) == values
    return values


def fix(place, **options):
    store = open_store(place.store)
    try:
        with store.reader() as reader:
            return fix_probes(reader=reader, namespace=NS, **({"before_at": now_us()} | options))
    finally:
        store.close()


def judge(place, **options):
    options = {"keyring": place.keyring, **options}
    return validate.validate(store_params=place.store, namespace=NS, **options)


def failed(result):
    return {one["key"]: one["why"] for one in result["probes"]["failed"]}


# --- fixing probes ------------------------------------------------------------------------------------------------
def test_probes_are_what_was_read(place, read):
    probes = fix(place)
    rows = {row[0]: row for row in place.rows()}
    assert [probe["key"] for probe in probes] == sorted(read)
    for probe in probes:
        row = rows[probe["key"]]
        assert (probe["digest"], probe["epoch"], probe["sequence"]) == (row[9].hex(), row[1], row[2])
    assert json.loads(json.dumps(probes)) == probes
    some = fix(place, count=7)
    assert len(some) == 7
    assert some == fix(place, count=7)
    assert [probe["key"] for probe in some] == sorted(probe["key"] for probe in some)


def test_reads_after_the_onset_are_no_probes(place, read):
    onset = place.rows()[0][2] + COUNT
    with place.memory() as memory:
        memory.write(NS, "late", 1)
        memory.read(NS, "late")
    assert "late" not in {probe["key"] for probe in fix(place, before_sequence=onset)}
    assert len(fix(place, before_sequence=onset)) == COUNT
    assert "late" in {probe["key"] for probe in fix(place)}
    assert fix(place, before_sequence=1) == []
    assert fix(place, before_at=1) == []


def test_misses_and_damaged_entries_are_no_probes(place, read):
    with place.memory() as memory:
        memory.read(NS, "absent")
    place.sql("UPDATE memory_access_log SET actor = 'forged' WHERE operation = 'hit' AND key = 'user/00003'")
    keys = {probe["key"] for probe in fix(place)}
    assert "absent" not in keys
    assert "user/00003" not in keys
    assert len(keys) == COUNT - 1


def test_the_newest_read_of_a_key_counts(place, read):
    with place.memory() as memory:
        memory.write(NS, "user/00001", "newer")
        memory.read(NS, "user/00001")
    (probe,) = [probe for probe in fix(place) if probe["key"] == "user/00001"]
    row = next(row for row in place.rows() if row[0] == "user/00001")
    assert probe["digest"] == row[9].hex()


# --- probes ---------------------------------------------------------------------------------------------------------
def test_a_sound_namespace_passes(place, read):
    result = judge(place, probes=fix(place))
    assert result["verdict"] == "pass", result["reasons"]
    wanted = {"value": 1.0, "source": "probes", "threshold": 0.8, "verdict": "pass"}
    assert wanted.items() <= result["hit_rate"].items()
    assert result["benchmark"]["verdict"] == "not-asked"
    assert result["canary"]["verdict"] == "not-asked"
    assert result["reasons"] == []
    json.dumps(result)


def test_newer_writes_deletions_expiry_and_rotation_are_good_reasons(place, read):
    with place.memory() as memory:
        ttl = 1.5
        while memory.write(NS, "short", 1, ttl=ttl) and memory.read(NS, "short") != 1:
            ttl *= 4  # long enough to be read before
    probes = fix(place)
    with place.memory() as memory:
        memory.write(NS, "user/00001", "newer")
        memory.delete(NS, "user/00002")
        memory.delete(NS, "user/00003", soft=False)
    time.sleep(ttl)
    store = open_store(place.store)
    store.sweep(NS, now_us())
    store.close()
    assert failed(judge(place, probes=probes)) == {}
    rotate.rotate(store_params=place.store, keyring=place.keyring, namespace=NS, force=True)
    result = judge(place, probes=probes)
    assert failed(result) == {}
    assert result["probes"]["checked"] == COUNT + 1


def test_what_is_no_good_reason(place, read):
    with place.memory() as memory:
        memory.write(NS, "user/00006", "before the read")
        old = next(row for row in place.rows() if row[0] == "user/00006")
        memory.write(NS, "user/00006", "read")
        memory.read(NS, "user/00006")
    probes = fix(place)
    place.sql("DELETE FROM memory_records WHERE key = 'user/00001'")
    place.flip("user/00002")
    place.rewrite("user/00003", key_id="gone")
    ring, codec_row = place.ring(), next(row for row in place.rows() if row[0] == "user/00004")
    from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec

    sealed = ring.seal(b"j1", RecordCodec(NS).head(codec_row), codec_row[7])
    place.rewrite("user/00004", payload=sealed)  # opens, but is not what was written
    newer = codec_row[:2] + (999,) + codec_row[3:]
    place.rewrite(
        "user/00005",
        sequence=999,
        payload=ring.seal(b"j2", RecordCodec(NS).head(("user/00005",) + newer[1:]), newer[7]),
    )
    place.sql("DELETE FROM memory_records WHERE key = 'user/00006'")
    place.sql("INSERT INTO memory_records SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?", 1, *old)
    found = failed(judge(place, probes=probes))
    assert found.keys() == {f"user/0000{n}" for n in range(1, 7)}
    assert found["user/00001"] == "absent"
    assert found["user/00002"].startswith("corrupt")
    assert "key is missing" in found["user/00003"]
    assert "no rotation is logged" in found["user/00004"]
    assert found["user/00006"].startswith("an older version")


def test_a_tombstone_of_the_rebuild_is_no_deletion(place, read):
    probes = fix(place)
    store = open_store(place.store)
    claim = store.claim(NS, "host:1:1", "o", new_incident="inc")
    store.note(claim, fenced_sequence=store.identity().sequence)
    with place.memory() as memory:  # by its sequence it comes after the fence
        memory.delete(NS, "user/00001")
    assert failed(judge(place, probes=probes)) == {"user/00001": "deleted by the rebuild, not by an application"}
    store.note(claim, fenced_sequence=10**9)
    store.close()
    assert failed(judge(place, probes=probes)) == {}


@pytest.mark.parametrize(("gone", "verdict"), [(8, "pass"), (9, "fail")])
def test_the_share_of_passed_probes_is_held_against_the_slo(place, read, gone, verdict):
    probes = fix(place)
    for number in range(gone):
        place.sql("DELETE FROM memory_records WHERE key = ?", f"user/{number:05d}")
    result = judge(place, probes=probes)
    assert result["hit_rate"]["value"] == (COUNT - gone) / COUNT
    assert result["probes"]["verdict"] == result["verdict"] == verdict
    assert judge(place, probes=probes, thresholds={"hit_rate": 1.0})["verdict"] == "fail"


def test_without_reads_to_compare_it_could_not_be_verified(place):
    place.fill(5)
    result = judge(place, probes=fix(place))
    assert result["verdict"] == "could-not-verify"
    assert result["hit_rate"]["value"] is None
    assert judge(place, probes=None)["verdict"] == "pass"


def test_a_finding_fails_whatever_the_probes_say(place, read):
    probes = fix(place, count=5)
    key = next(key for key in read if key not in {probe["key"] for probe in probes})
    place.flip(key)
    result = judge(place, probes=probes)
    assert (result["probes"]["verdict"], result["verdict"]) == ("pass", "fail")
    assert result["integrity"]["findings"] == {"checksum": 1}
    assert result["reasons"] == ["integrity: 1 × checksum"]


def test_without_keys_it_is_intact_but_not_verified(place, read):
    result = judge(place, probes=fix(place), keyring=None)
    assert (result["verdict"], result["integrity"]["intact"]) == ("could-not-verify", True)


def test_a_namespace_in_quarantine_is_judged_too(place, read):
    probes = fix(place)
    store = open_store(place.store)
    store.fence(store.claim(NS, "host:1:1", "o", new_incident="inc"))
    store.close()
    assert judge(place, probes=probes)["verdict"] == "pass"


# --- benchmark ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("baseline", "threshold"), [(0.0, 0.80), (0.5, 0.80), (0.7, 0.91), (0.75, 0.975), (0.8, 0.99), (1.0, 0.99)]
)
def test_the_accuracy_to_reach(baseline, threshold):
    assert application_benchmark.accuracy_threshold(baseline) == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("right", "baseline", "part", "whole"),
    [
        (10, 0.5, "pass", "pass"),
        (8, 0.5, "pass", "pass"),
        (7, 0.5, "fail", "fail"),
        (9, 0.8, "fail", "fail"),
        (10, 0.8, "pass", "pass"),
        (10, None, "could-not-verify", "could-not-verify"),
    ],
)
def test_the_benchmark(place, read, tmp_path, right, baseline, part, whole):
    path = tmp_path / "benchmark.jsonl"
    keys = sorted(read)[:10]
    cases = [{"key": key, "expect": read[key] if n < right else "wrong"} for n, key in enumerate(keys)]
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    result = judge(place, probes=fix(place), benchmark=str(path), baseline=baseline)
    assert result["benchmark"]["accuracy"] == right / 10
    assert (result["benchmark"]["verdict"], result["verdict"]) == (part, whole)
    if part != "pass":
        assert result["reasons"][0].startswith("benchmark: ")


def test_a_benchmark_makes_up_for_missing_reads(place):
    values = place.fill(3)
    cases = [{"key": key, "expect": value} for key, value in values.items()]
    assert judge(place, probes=[], benchmark=cases, baseline=0.1)["verdict"] == "pass"


def test_a_benchmark_of_another_namespace_is_none_and_one_that_cannot_be_read_is_refused(place, read):
    cases = [{"key": "a", "expect": 1, "namespace": "other"}]
    result = judge(place, probes=fix(place), benchmark=cases, baseline=0.5)
    assert result["benchmark"]["verdict"] == "not-asked" and result["verdict"] == "pass"
    with pytest.raises(InvalidInput):
        judge(place, benchmark="/nonexistent")


# --- canary -----------------------------------------------------------------------------------------------------------
def put_canary(place):
    from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec

    codec, ring, store = RecordCodec(NS), place.ring(), open_store(place.store)
    with store.writing(NS, 1) as w:
        row = (CANARY, w.epoch, w.first_sequence, w.at, w.at, None, None, ring.active_id, b"", b"")
        row = row[:8] + (ring.seal(b"j1", codec.head(row), ring.active_id), b"")
        row = row[:9] + (codec.checksum(row),)
        w.put([row], [(0, w.at, NS, "write", row[0], row[1], row[2], row[9], w.lock, "memops:backup", "canary", b"")])
    store.close()


def test_the_canary_must_come_back(place, read):
    probes = fix(place)
    result = judge(place, probes=probes)
    assert (result["canary"]["verdict"], result["verdict"]) == ("not-asked", "pass")
    put_canary(place)
    result = judge(place, probes=probes)
    assert (result["canary"]["verdict"], result["verdict"]) == ("pass", "pass")
    place.sql("DELETE FROM memory_records WHERE key = ?", CANARY)
    result = judge(place, probes=probes)
    assert (result["canary"]["verdict"], result["verdict"]) == ("fail", "fail")


def test_a_damaged_canary_fails(place, read):
    put_canary(place)
    place.flip(CANARY)
    assert judge(place, probes=fix(place))["canary"]["verdict"] == "fail"

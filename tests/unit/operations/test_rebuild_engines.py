# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of damage, on every engine, by both strategies: what has a good copy comes back, the rest is named."""

from __future__ import annotations

import itertools
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, rotate
from tests.unit.operations.runbook import NS, OTHER, Site, attempt

KEYS = (
    "plain", "with/slash", "\0nul", "nul\0inside", "new\nline", "ключ", "\U0001f9e0", "\uffff", "a", "a\0", "_" * 3000,
)  # fmt: skip
VALUES = {**{key: {"v": key} for key in KEYS}, **{f"k{n:03d}": {"v": n} for n in range(60)}}


@pytest.fixture
def site(bench, tmp_path):
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {f"o{n}": n for n in range(5)})
        memory.delete(NS, "k059")
    site.backup()
    return site


def flip(site):
    for key in KEYS:
        site.raw.flip(NS, key)
    return {}


def swap(site):
    site.raw.swap(NS, "k001", "k002")
    return {}


def swap_with_checksums_that_fit(site):
    a, b = site.raw.live(NS, ["k001", "k002"])
    for one, other in ((a, b), (b, a)):
        row = (*one[:8], other[8], b"")
        site.raw.put(NS, [(*row[:9], RecordCodec(NS).checksum(row))])
    return {}


def loss(site):
    site.raw.remove(NS, ["k003", "\0nul", "a"])
    return {}


def loss_of_all(site):
    site.raw.remove(NS, [key for key in VALUES if key != "k059"])
    return {}


def loss_without_a_copy(site):
    with site.memory() as memory:
        memory.write(NS, "fresh", 1)
    site.raw.remove(NS, ["fresh"])
    return {"lost_keys": ["fresh"]}


def unlocked_bulk_write(site):
    site.unlocked({"k004": "forged", "k005": "forged", "foreign": "forged"})
    return {"suspect_keys": ["foreign", "k004", "k005"]}


def unlogged_bulk_write(site):
    site.unlocked({"k006": "forged", "plain": "forged"}, logged=False)
    return {"suspect_keys": ["k006", "plain"]}


def forged_tombstone(site):
    site.unlocked({"k007": None}, logged=False, deleted=True)
    return {}


def lost_index(site):
    site.raw.lose_index(NS)
    site.raw.flip(NS, "k008")
    return {}


CATALOGUE = (
    flip, swap, swap_with_checksums_that_fit, loss, loss_of_all, loss_without_a_copy, unlocked_bulk_write,
    unlogged_bulk_write, forged_tombstone, lost_index,
)  # fmt: skip


@pytest.mark.parametrize("strategy", ["soft", "hard"])
@pytest.mark.parametrize("damage", CATALOGUE)
def test_damage_is_repaired_and_nothing_else_is_touched(site, damage, strategy):
    elsewhere = site.untouched()
    expected = damage(site)
    done = site.rebuild(strategy)
    plan = done["plan"]
    for name in ("lost_keys", "suspect_keys"):
        assert sorted(plan[name]) == expected.get(name, []), plan
    assert site.served() == {key: value for key, value in VALUES.items() if key != "k059"}
    assert site.untouched() == elsewhere
    assert site.state() == "serving"
    with site.open() as store, store.reader() as reader:
        assert reader.structure() == []
        assert reader.log_health()["missing"] == 0 or "unlogged" in damage.__name__ or "forged" in damage.__name__
    scan = integrity.scan(store_params=site.store, keyring=site.ring(), namespace=NS)
    assert scan["verdict"] == "pass", scan
    again = site.step("apply", attempt(incident=done["isolate"]["incident"]))
    assert not again["changed"]


def test_the_application_meets_the_fence_and_comes_back(site):
    run = attempt()
    with site.memory() as memory:
        proof = site.step("isolate", run)["proof"]
        assert proof["writes_refused"] and proof["reads_refused"]
        with pytest.raises(NamespaceQuarantined):
            memory.write(NS, "plain", 1)
        assert memory.read(NS, "plain", "nothing") == "nothing"
        assert memory.read(OTHER, "o1") == 1
        memory.write(OTHER, "o1", 2)
    assert not site.step("isolate", run)["changed"]
    for name in ("forensic", "diagnose", "plan", "apply", "validate"):
        site.step(name, run)
    site.step("release", run, force=True)
    with site.memory() as memory:
        assert memory.read(NS, "plain") == {"v": "plain"}
        memory.write(NS, "plain", 1)


def test_keys_turn_and_every_record_still_opens(site):
    turned = rotate.rotate(store_params=site.store, keyring=site.ring(), force=True)
    assert turned["complete"]
    assert {row[7] for row in site.rows().values()} == {site.ring().active_id}
    assert site.served() == {key: value for key, value in VALUES.items() if key != "k059"}
    site.backup()
    site.raw.flip(NS, "k010")
    site.rebuild("auto")
    assert site.served()["k010"] == {"v": 10}


def test_a_backup_under_writes_brings_back_the_newest_or_says_that_it_is_lost(site):
    """Also where an engine has no point in time: the snapshot holds some later writes beside all up to its point."""
    newest, ended = {}, threading.Event()

    def write():
        with site.memory(actor="busy") as memory:
            for n in itertools.count():
                if ended.is_set():
                    return
                batch = {f"w{(n + i) % 40:02d}": n * 10 + i for i in range(4)}
                memory.write_many(NS, batch)
                newest.update(batch)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _turn in range(3):
            site.backup(purpose="drill")
    finally:
        ended.set()
        writer.join()
    assert len(newest) > 4
    rows = site.rows()
    site.raw.remove(NS, sorted(newest))
    done = site.rebuild("soft")
    lost = set(done["plan"]["lost_keys"])
    served = site.served()
    assert {key: served.get(key) for key in set(newest) - lost} == {k: v for k, v in newest.items() if k not in lost}
    for key in lost & set(served):
        assert served[key] != newest[key]
    assert {key: row for key, row in site.rows().items() if key not in newest} == {
        key: row for key, row in rows.items() if key not in newest
    }

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What _store.py promises readers and those who open a store, on every engine."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    NamespaceQuarantined,
    NamespaceUnknown,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.preflight import preflight
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.store_info import store_info
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils._store_address import location
from ansible_collections.memops.agent_memory.plugins.module_utils._store_optional import Resealer
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, row, structure, write


def seen(reader, namespace="n"):
    return [r for batch in reader.scan(namespace, batch=7) for r in batch]


# --- opening --------------------------------------------------------------------------------------------------------
def test_a_store_is_made_once_and_only_when_asked(bench):
    with pytest.raises(StoreMissing) as missing:
        bench.open(create=False)
    assert missing.value.code == "store-missing"
    assert missing.value.next_step
    first, second = bench.open(), bench.open()
    assert first.identity() == second.identity()
    assert first.identity().engine == bench.engine
    assert first.identity().lineage == first.identity().store_id
    assert (first.identity().epoch, first.identity().sequence) == (1, 0)
    other = bench.open("other")
    assert other.identity().store_id != first.identity().store_id
    assert location(bench.params("other")) != location(bench.params())
    for store in (first, second, other):
        assert structure(store) == []
        store.close()


def test_where_it_is_has_to_be_said(bench):
    params = {k: v for k, v in bench.params().items() if k not in ("path", "url")}
    with pytest.raises(InvalidInput, match=r"memory_store\.(path|url)"):
        open_store(params)
    if "url" in bench.params():
        url = bench.params()["url"].replace("//", "//somebody:hidden@")
        with pytest.raises(InvalidInput, match="password") as refused:
            open_store({**params, "url": url})
        assert "hidden" not in str(refused.value)
        with pytest.raises(StoreUnavailable) as refused:
            open_store({**bench.params(), "password": "hidden"})
        assert "hidden" not in str(refused.value)


def test_a_password_may_lie_in_a_file(bench, tmp_path):
    store = bench.open()
    params = bench.params()
    if "password" in params:
        file = tmp_path / "password"
        file.write_text(params.pop("password") + "\n")
        again = open_store({**params, "password_file": str(file)})
        assert again.identity() == store.identity()
        again.close()
    store.close()


def test_an_application_works_with_its_own_login(store, claim, bench):
    agent = open_store(bench.application(), create=True)
    write(agent, "n", {"a": b"1"})
    write(agent, "made by it", {"a": b"1"})
    write(agent, "n", {"a": None}, aside="deleted")
    number = agent.lock("n", "agent", wait=1, lease=60)
    agent.unlock("n", number)
    agent.set_ttl("n", 5.0)
    write(agent, "n", {"b": b"1"}, expires=5)
    assert agent.sweep("n", 6) == 1
    agent.append_log([(0, 5, "n", "hit", "b", None, None, None, None, "agent", None, b"")])
    assert keys_of(agent, "n") == ["a"]
    store.fence(claim)
    with pytest.raises(NamespaceQuarantined):
        write(agent, "n", {"a": b"2"})
    write(agent, "made by it", {"a": b"2"})
    agent.append_log([(0, 5, "n", "miss", "b", None, None, None, None, "agent", None, b"")])
    with agent.reader() as reader:
        assert reader.namespace("n").state == "quarantined"
    store.unfence(claim)
    write(agent, "n", {"a": b"2"})
    assert health(store)["intact"]
    agent.close()


# --- one point in time ----------------------------------------------------------------------------------------------
def test_a_reader_stays_at_its_point_or_says_that_the_namespace_moved(store, claim):
    """What writers did meanwhile it does not see, unless ``moved`` says so; other namespaces never move this one."""
    rows = write(store, "n", {f"{n:03}": b"old" for n in range(100)})
    with store.reader() as reader:
        write(store, "elsewhere", {"x": b"1"})
        store.append_log([(0, 5, "n", "hit", "000", None, None, None, None, "r", None, b"")])
        assert not reader.moved("n")
        assert seen(reader) == rows
        write(store, "n", {"000": b"new", "100": b"new"})
        found = seen(reader)
        assert found == rows or reader.moved("n")
        assert not reader.moved("elsewhere") or len(seen(reader, "elsewhere")) == 1
    with store.reader() as reader:
        assert not reader.moved("n")
        assert len(seen(reader)) == 101
    for act in (
        lambda: store.change(claim, []),
        lambda: store.switch(claim, store.begin_generation(claim), store.generations("n")[0]),
    ):
        with store.reader() as reader:
            before = reader.namespace("n")
            act()
            assert reader.namespace("n") == before or reader.moved("n")
    assert all_rows(store, "n") == []


def test_readers_of_one_point_see_the_same(store, bench):
    rows = write(store, "n", {f"{n:03}": b"x" for n in range(50)})
    other = bench.open()
    with store.point() as point:
        first, second = store.reader(point), other.reader(point)
    assert first.identity == second.identity == store.identity()
    if not first.moved("n"):
        assert seen(first) == seen(second) == rows
    first.close()
    second.close()
    other.close()


def test_nothing_is_known_of_what_is_not_there(store):
    with store.reader() as reader:
        assert reader.namespaces() == []
        for look in (
            lambda: reader.namespace("absent"),
            lambda: reader.count("absent"),
            lambda: list(reader.scan("absent")),
            lambda: reader.get_many("absent", ["a"]),
            lambda: reader.boundaries("absent", 2),
        ):
            with pytest.raises(NamespaceUnknown):
                look()
        assert list(reader.log("absent")) == list(reader.last_writes("absent")) == []
        assert reader.log_health() == {
            "entries": 0, "corrupt": 0, "missing": 0, "first_sequence": 0, "last_sequence": 0, "intact": True,
            "pruned": (reader.identity.epoch, 0),
        }  # fmt: skip


@pytest.mark.parametrize("namespace", ["\x00odd", "a:b{c}*?[", "\U0001f600/é", "n'; DROP TABLE x; --", "x" * 256])
def test_names_and_texts_of_any_kind(store, namespace):
    with store.writing(namespace, 1) as w:
        one = row(namespace, "\x00", w.epoch, w.first_sequence, w.at, b"\x00", key_id="k \U0001f600")
        entry = (0, w.at, namespace, "write", "\x00", w.epoch, 1, one[9], w.lock, "actor \x00 é", "why\x00\n", b"")
        w.put([one], [entry])
    assert all_rows(store, namespace) == [one]
    with store.reader() as reader:
        (found,) = [e for batch in reader.log(namespace) for e in batch]
        assert tuple(found)[1:11] == entry[1:11]
        assert reader.namespace(namespace).name == namespace
        assert reader.log_health()["intact"]
    claim = store.claim(namespace, "a", "op é", new_incident="i")
    store.note(claim, text="\x00 \U0001f600 '")
    assert store.incident(claim).facts == {"text": "\x00 \U0001f600 '"}
    assert (store.fence(claim), store.prove(namespace)["writes_refused"], store.unfence(claim)) == (True, True, True)


def test_the_log_gives_operations_that_are_asked_for(store):
    write(store, "n", {"a": b"1"})
    reads = ("hit", "miss", "hit")
    store.append_log([(0, 5, "n", kind, "a", None, None, None, None, "r", None, b"") for kind in reads])
    write(store, "m", {"a": None})
    with store.reader() as reader:
        for wanted, found in ((["hit"], [2, 4]), (["miss", "delete"], [3, 5]), ([], []), (None, [1, 2, 3, 4, 5])):
            assert [e.id for batch in reader.log(operations=wanted, batch=1) for e in batch] == found
        assert [e.id for batch in reader.log("n", after_id=2, operations=["hit"]) for e in batch] == [4]


# --- rotation -------------------------------------------------------------------------------------------------------
def test_rows_that_are_replaced_whole_are_compared_with_the_former_ones(store, claim):
    """By an engine that does it so; all others are given the same by ``reseal``."""
    rows = write(store, "n", {f"{n:04}": b"old" for n in range(60)})
    want = [("k2", b"new " + r[0].encode(), b"c" * 32, r[0], r[9]) for r in rows]
    new = [(*r[:7], "k2", b"new " + r[0].encode(), b"c" * 32) for r in rows]

    def replace(former, wanted):
        if isinstance(store, Resealer):
            return store.replace(claim, former, wanted)
        return store.reseal(claim, wanted)

    assert replace(rows[:20], want[:20]) == []
    assert all_rows(store, "n") == [*new[:20], *rows[20:]]
    changed = write(store, "n", {"0030": b"newer", "0035x": b"in between"})
    assert replace(rows[20:40], want[20:40]) == ["0030"]
    assert replace(rows[40:][::-1], want[40:][::-1]) == []  # in whatever order
    expected = {r[0]: r for r in [*new, *changed]}
    assert all_rows(store, "n") == [expected[key] for key in sorted(expected)]
    with store.reader() as reader:
        assert reader.count("n") == 61


def test_reseal_is_compare_and_set_and_keeps_everything_else(store, claim):
    rows = write(store, "n", {f"{n:04}": b"old" for n in range(600)}, expires=10**15)
    grave = write(store, "n", {"grave": None})[0]
    want = [("k2", b"new " + r[0].encode(), b"c" * 32, r[0], r[9]) for r in rows]
    want[3] = (*want[3][:4], b"another")
    want[7] = (*want[7][:3], "absent", b"c" * 32)
    assert sorted(store.reseal(claim, want)) == ["0003", "absent"]
    store.settle()
    kept = {"0003", "0007"}
    wanted = [r if r[0] in kept else (*r[:7], "k2", b"new " + r[0].encode(), b"c" * 32) for r in rows]
    assert all_rows(store, "n") == [*wanted, grave]
    assert sorted(store.reseal(claim, want[:2])) in ([], ["0000", "0001"])
    assert all_rows(store, "n") == [*wanted, grave]
    assert store.identity().sequence == 601
    store.fence(claim)
    assert store.reseal(claim, [("k3", b"x", b"d" * 32, "0000", b"c" * 32)]) == []
    assert health(store)["intact"]
    assert structure(store) == []


# --- what should be known -------------------------------------------------------------------------------------------
def test_what_a_crash_may_cost_is_told_by_preflight_and_info(bench):
    store = bench.open()
    write(store, "n", {"a": b"1"})
    told = store.warnings()
    assert told == {
        "sqlite": [],
        "postgresql": ["fsync is off: a crash of the server's machine may damage the whole store"],
        "valkey": ["the server saves nothing to its disk: a crash or a restart loses the whole store"],
    }[bench.engine]

    def missing():
        raise InvalidInput("There is none.", "set it")

    found = preflight(
        store=store, store_params=bench.params(), namespace="n", run=Run("test:1:1", "the test"),
        open_keyring=missing, open_repository=missing, name="memory",
    )  # fmt: skip
    assert found["warnings"][: len(told)] == told == store_info(store)["warnings"]
    store.close()

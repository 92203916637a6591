# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A point of a Valkey store that is read while others write: what writers keep of it, and when that does not help."""
from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest
from redis.exceptions import NoPermissionError

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import (
    valkey_keep,
    valkey_pages,
    valkey_point,
    valkey_transactions,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_control import counters_of
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.processes import PROCESSES
from tests.support.valkey_server import APPLICATION
from tests.unit.engines.sqlite_help import KEYS, all_rows, entries, row, write
from tests.unit.engines.valkey_help import Mortal, application_keys, new_valkey, same

PAST = 1_000_000  # µs since 1970


@pytest.fixture
def store(valkey_server):
    opened = new_valkey(valkey_server)
    yield opened
    opened.close()


@contextlib.contextmanager
def reading(store, readers=1):
    """Readers of one kept point."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.keeping())
        with store.point() as point:
            opened = [stack.enter_context(store.reader(point)) for _number in range(readers)]
        yield opened[0] if readers == 1 else opened


def seen(reader, namespace="n", **more):
    return [one for rows in reader.scan(namespace, **more) for one in rows]


def left(store, raw):
    """What the copies of a point leave behind."""
    keys = [key.decode() for key in raw.scan_iter(match=f"{store.place.prefix}:*", count=1000)]
    marks = [key for key in keys if ":store:keep:" in key or ":store:kept:" in key or ":k:" in key]
    return sorted(marks), sorted(name for name in raw.hkeys(store.names.store) if name.startswith(b"keep"))


NOTHING_LEFT = ([], [])


# --- the point ------------------------------------------------------------------------------------------------------
class Work:
    """Whatever changes records, in an order that a seed gives."""

    def __init__(self, store, other, claim, chance):
        self.store, self.other, self.claim, self.chance = store, other, claim, chance
        self.former = None
        self.keys = [*KEYS, *(f"{number:03}" for number in range(40))]

    def some(self, most=12):
        return self.chance.sample(self.keys, self.chance.randint(1, most))

    def once(self):
        self.chance.choice(
            [self.put, self.put, self.delete, self.put_twice, self.expire, self.change, self.seal, self.reseal]
            + [self.generation, self.back, self.log]
        )()  # fmt: skip

    def put(self):
        size = self.chance.choice([1, 10, 2000])
        write(self.other, "n", {key: self.chance.randbytes(size) for key in self.some()})

    def put_twice(self):
        with self.other.writing("n", 2) as w:
            for number in range(2):
                rows = [row("n", "a/b", w.epoch, w.first_sequence + number, w.at, b"%d" % number)]
                w.current(["a/b"])
                w.put(rows, entries("n", rows, w.lock))

    def delete(self):
        write(self.other, "n", dict.fromkeys(self.some()), aside=self.chance.choice([None, "soft"]))

    def expire(self):
        write(self.other, "n", dict.fromkeys(self.some(4), b"soon"), expires=PAST)
        self.other.sweep("n", 2 * PAST, limit=self.chance.randint(1, 6))

    def change(self):
        rows = self.chance.sample(now := all_rows(self.store, "n"), min(3, len(now)))
        self.store.change(self.claim, [Change(one[0], one[9], None, self.chance.choice([None, "bad"])) for one in rows])
        fresh = row("n", "new one", 1, 1, 1, self.chance.randbytes(5))
        self.store.change(self.claim, [Change("new one", None, fresh)])

    def wanted(self, rows):
        return [("k2", self.chance.randbytes(9), self.chance.randbytes(32), one[0], one[9]) for one in rows]

    def seal(self):
        rows = all_rows(self.store, "n")
        start = self.chance.randrange(len(rows) + 1)
        if rows[start : start + 20]:
            self.store.replace(self.claim, rows[start : start + 20], self.wanted(rows[start : start + 20]))

    def reseal(self):
        self.store.reseal(self.claim, self.wanted(all_rows(self.store, "n")[::2]))

    def generation(self):
        """A repair: what is there is copied, a record is brought, and all is switched to."""
        was = self.store._space("n")["generation"]
        new = self.store.begin_generation(self.claim)
        self.store.copy_generation(self.claim, was, new, after=None, limit=1000, excluding=None)
        self.store.load(self.claim, new, [row("n", key, 1, 1, 1, b"restored") for key in sorted(self.some())])
        self.store.switch(self.claim, new, was)
        self.former = was

    def back(self):
        """To a generation that may be the one of the point, after a change in it."""
        now = self.store._space("n")["generation"]
        if self.former is not None and self.former != now:
            rows = all_rows(self.store, "n", generation=self.former)[:2]
            self.store.change(self.claim, [Change(one[0], one[9], None, None) for one in rows], self.former)
            self.store.switch(self.claim, self.former, now)
            self.former = now

    def log(self):
        self.other.append_log([(0, 5, "n", "hit", "a", None, None, None, None, "r", None, b"")])


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_written_meanwhile_the_point_stays(store, valkey_server, raw, seed, monkeypatch):
    chance = random.Random(seed)
    if seed % 3 == 0:  # records so big that pages are brought one by one
        monkeypatch.setattr(valkey_pages, "AT_ONCE", 5000)
    other = same(store, valkey_server)
    store.create_namespace("n")
    claim = store.claim("n", "a", "op", new_incident="i", lease=600)
    work = Work(store, other, claim, chance)
    for _turn in range(chance.randint(0, 8)):
        work.once()
    odd = store.names.records("n", store._space("n")["generation"])
    for member in (b"twice\0\0\xa1x", b"twice\0\0\xa1y", b"damaged\0\0\xc1", b"no key"):
        raw.zadd(odd, {member: 0})
    truth, logged = all_rows(store, "n"), [one for page in store.reader().log("n") for one in page]
    with reading(store, 2) as (first, second):
        pages = first.scan("n", batch=chance.randint(1, 7))
        back = second.scan("n", batch=chance.randint(1, 7), descending=True)
        up, down = [], []
        for _turn in range(12):
            for _page in range(chance.randint(0, 6)):
                up += next(pages, [])
                down += next(back, [])
            work.once()
        assert up + [one for page in pages for one in page] == truth
        assert down + [one for page in back for one in page] == truth[::-1]
        bounds = sorted(chance.sample(work.keys, 2), key=str.encode)
        between = [one for one in truth if bounds[0].encode() < one[0].encode() <= bounds[1].encode()]
        assert seen(second, after=bounds[0], until=bounds[1], batch=3) == between
        wanted = [*work.keys, "twice", "damaged", "new one"]
        assert first.get_many("n", wanted) == {one[0]: one for one in truth if one[0] in wanted}
        assert [one for page in second.log("n") for one in page] == logged
        assert not first.moved("n") and not second.moved("n")
        assert left(store, raw) != NOTHING_LEFT
    assert left(store, raw) == NOTHING_LEFT
    other.close()


def test_namespaces_are_those_of_the_point(store, valkey_server):
    write(store, "n", {"a": b"1"})
    store.set_ttl("n", 60.0)
    with reading(store) as reader:
        write(store, "later", {"a": b"1"})
        store.set_ttl("n", 5.0)
        assert [(one.name, one.ttl) for one in reader.namespaces()] == [("n", 60.0)]
        assert reader.namespace("n").ttl == 60.0
        with pytest.raises(MemoryOpsError, match="has no namespace 'later'"):
            reader.namespace("later")
        assert not reader.moved("n") and reader.moved("later")


# --- when copies do not help ----------------------------------------------------------------------------------------
def test_a_writer_that_keeps_nothing_is_told_of(store, valkey_server, raw, monkeypatch):
    """A program of an older version that shares the store."""
    write(store, "n", {"a": b"1"})
    write(store, "quiet", {"a": b"1"})
    other = same(store, valkey_server)

    def older(raw, where):
        said, numbers = counters_of(raw, where)
        return {name: value for name, value in said.items() if name not in valkey_keep.FIELDS}, numbers

    with reading(store) as reader:
        write(store, "n", {"b": b"1"})
        assert not reader.moved("n")
        with monkeypatch.context() as patch:
            patch.setattr(valkey_transactions, "counters_of", older)
            write(other, "n", {"a": b"2"})
        assert (reader.moved("n"), reader.moved("quiet")) == (True, False)
        write(other, "n", {"c": b"1"})  # by one that does keep, later
        assert (reader.moved("n"), reader.moved("quiet")) == (True, False)
    assert left(store, raw) == NOTHING_LEFT
    other.close()


@pytest.mark.parametrize("lost", ["the copies", "their list", "both", "the lease", "the mark"])
def test_what_the_server_dropped_is_missed(store, raw, lost):
    write(store, "n", {"a": b"1", "b": b"1"})
    for again in (False, True):
        with reading(store) as reader:
            write(store, "n", {"a": b"2"})
            assert not reader.moved("n")
            copies, known = (next(raw.scan_iter(match=f"{store.place.prefix}*:{kind}:*", count=1000)).decode()
                             for kind in ("k", "kept"))  # fmt: skip
            if lost == "the mark":
                raw.hdel(store.names.store, "keep")
            else:
                raw.delete(*{"the copies": [copies], "their list": [known], "both": [copies, known]}.get(
                    lost, [known.replace(":kept:", ":keep:")]))  # fmt: skip
            if again:
                write(store, "n", {"b": b"2"})
            assert reader.moved("n")
        raw.delete(copies, known)


def read_and_die(params):
    store = open_store(params)
    with reading(store) as reader:
        write(store, "n", {"a": b"2"})
        assert seen(reader) and not reader.moved("n")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_that_was_killed_leaves_nothing_for_longer_than_its_lease(store, valkey_server, raw):
    write(store, "n", {"a": b"1"})
    reader = PROCESSES.Process(target=read_and_die, args=(valkey_server.store(store.place.prefix),))
    reader.start()
    reader.join(300)
    assert reader.exitcode == -signal.SIGKILL
    marks, noted = left(store, raw)
    assert noted and len(marks) == 3
    assert all(60_000 < raw.pttl(key) <= valkey_keep.COPIES_SECONDS * 1000 for key in marks)
    write(store, "n", {"b": b"1"})
    assert left(store, raw) == (marks, noted)  # somebody might still read
    for key in marks:
        raw.pexpire(key, 1)
    while left(store, raw)[0]:
        time.sleep(0.01)
    write(store, "n", {"a": b"3"})
    assert left(store, raw) == NOTHING_LEFT


def test_a_reader_keeps_its_lease_as_long_as_it_reads(store, raw, monkeypatch):
    write(store, "n", {f"{number}": b"1" for number in range(9)})
    with reading(store) as reader:
        write(store, "n", {"5": b"2"})
        marks = left(store, raw)[0]
        for key in marks:
            raw.pexpire(key, 20_000)
        monkeypatch.setattr(valkey_point, "EXTEND_SECONDS", 0.0)
        assert len(seen(reader)) == 9
        assert len(marks) == 3 and all(raw.pttl(key) > 60_000 for key in marks)
        raw.delete(next(key for key in marks if ":keep:" in key))
        assert seen(reader) and left(store, raw)[0] and reader.moved("n")  # it does not come back


def test_one_point_at_a_time_is_kept(store, valkey_server, raw):
    rows = write(store, "n", {"a": b"1"})
    other = same(store, valkey_server)
    with reading(store) as first:
        with reading(other) as second:
            write(other, "n", {"a": b"2"})
            assert (first.moved("n"), second.moved("n")) == (False, True)
        write(other, "n", {"b": b"2"})
        assert seen(first) == rows and not first.moved("n")
    with reading(other) as third:
        rows = all_rows(store, "n")
        write(store, "n", {"a": None})
        assert seen(third) == rows and not third.moved("n")
    assert left(store, raw) == NOTHING_LEFT
    other.close()


def test_a_fence_that_breaks_the_point_leaves_a_reader_without_it(store, valkey_server):
    write(store, "n", {"a": b"1"})
    operator = same(store, valkey_server)
    claim = operator.claim("n", "a", "op", new_incident="i")
    with store.keeping():
        with store.point() as point:
            reader = store.reader(point)
            assert operator.fence(claim)
        assert not reader.moved("n")
        operator.unfence(claim)
        write(operator, "n", {"a": b"2"})
        assert reader.moved("n")
        reader.close()
    operator.close()


def test_what_is_taken_from_the_log_or_mended_is_not_kept(store, raw):
    for act in (
        lambda: store.prune_log(1000, (1, 1)),
        lambda: raw.zincrby(store.names.records("n", 1), 1, b"stray") and store.repair_structure(),
    ):
        write(store, "n", {"a": b"1"})
        with reading(store) as reader:
            act()
            assert reader.moved("n")


def test_a_generation_that_is_dropped_under_a_kept_reader_is_no_short_result(store):
    write(store, "n", {f"{i}": b"x" for i in range(10)})
    claim = store.claim("n", "a", "op", new_incident="i")
    with reading(store) as reader:
        scan = reader.scan("n", batch=4)
        next(scan)
        first = store.generations("n")[0]
        store.switch(claim, store.begin_generation(claim), first)
        store.drop_generation(claim, first)
        with pytest.raises(MemoryOpsError, match="was dropped while it was read"):
            list(scan)


def test_copies_lie_in_the_fence_and_need_no_right_that_records_do_not(store, valkey_server, raw):
    """An application that may use one namespace alone, while a reader of all of them was killed."""
    write(store, "n", {"a": b"1"})
    write(store, "m", {"a": b"1"})
    name = store.place.prefix
    agent = open_store(valkey_server.application(name))
    try:
        raw.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", *application_keys(name, "n"))
        with reading(store) as reader:
            write(store, "m", {"a": b"2"})
            write(agent, "n", {"a": b"2"})
            assert not reader.moved("n") and not reader.moved("m")
            copies = [key.decode() for key in raw.scan_iter(match=f"{name}:*:k:*", count=1000)]
            assert len(copies) == 2
            claim = store.claim("n", "a", "op", new_incident="i")
            with valkey_server.client(APPLICATION) as client:
                mine = next(key for key in copies if key.startswith(store.names.fenced("n")))
                assert len(client.zrange(mine, 0, -1)) == 1
                store.fence(claim)
                for key in copies:
                    with pytest.raises(NoPermissionError):
                        client.zrange(key, 0, -1)
                store.unfence(claim)
            raw.delete(next(raw.scan_iter(match=f"{name}:store:keep:*", count=1000)))
            write(agent, "n", {"a": b"3"})  # it ends what it has no right to
            assert reader.moved("n")
    finally:
        valkey_server.reset_users()
        agent.close()


def test_a_point_outlives_a_restart_of_the_server(tmp_path):
    with Mortal(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        store = open_store(server.params(), create=True)
        rows = write(store, "n", {"a": b"1", "b": b"1"})
        with reading(store) as reader:
            write(store, "n", {"a": b"2"})
            server.kill()
            server.start()
            write(store, "n", {"b": None, "c": b"3"})
            assert seen(reader) == rows and not reader.moved("n")
        store.close()

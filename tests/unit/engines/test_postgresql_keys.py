# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys that are longer than an index entry may be: their order, their ranges, their copies."""
from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.engines.postgresql_help import new_postgresql
from tests.unit.engines.sqlite_help import all_rows, keys_of, structure, write

# Many that are alike in their first 1,024 bytes, and some that end near that place, in the middle of a character too.
ends = st.text(st.sampled_from("\x00aé\U0001f600"), max_size=3)
starts = st.sampled_from(["", "a" * 1022, "a" * 1023, "a" * 1024, "é" * 512, "\x00" * 1030, "\U0001f600" * 300])
keys = st.builds(lambda start, end: start + end, starts, ends).filter(bool)


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def store(postgresql_server):
    opened = new_postgresql(postgresql_server)
    yield opened
    opened.close()


@settings(max_examples=40)
@given(names=st.lists(keys, unique=True, min_size=1, max_size=12), after=keys, until=keys)
def test_long_keys_are_ordered_by_their_bytes(store, names, after, until):
    space = f"n{next(NUMBERS)}"
    rows = {r[0]: r for r in write(store, space, dict.fromkeys(names, b"x"))}
    wanted = sorted(names, key=str.encode)
    assert keys_of(store, space, batch=2) == wanted
    assert all_rows(store, space) == [rows[key] for key in wanted]
    assert keys_of(store, space, batch=3, descending=True) == wanted[::-1]
    part = [k for k in wanted if after.encode() < k.encode() <= until.encode()]
    assert keys_of(store, space, after=after, until=until, batch=2) == part
    assert keys_of(store, space, after=after, until=until, batch=2, descending=True) == part[::-1]
    with store.reader() as reader:
        assert reader.get_many(space, [*names, "absent", "a" * 3000]) == rows
        assert [w.key for b in reader.last_writes(space, after, until, batch=2) for w in b] == part
        assert {e.key for b in reader.log(space) for e in b} == set(names)
    claim = store.claim(space, "a", "op", new_incident="i")
    source = store.generations(space)[0]
    target = store.begin_generation(claim)
    last = None
    while (last := store.copy_generation(claim, source, target, after=last, limit=2, excluding=None)) is not None:
        assert last in rows
    assert all_rows(store, space, generation=target) == [rows[key] for key in wanted]
    second = store.begin_generation(claim)
    store.load(claim, second, list(rows.values()))
    store.load(claim, second, list(rows.values()))
    assert all_rows(store, space, generation=second) == [rows[key] for key in wanted]
    changed = [("k2", b"new", b"sum", key, rows[key][9]) for key in names]
    assert store.reseal(claim, changed) == []
    assert store.reseal(claim, [(*one[:4], b"other") for one in changed]) == []  # they are as wanted already
    assert [r[7:] for r in all_rows(store, space)] == [("k2", b"new", b"sum")] * len(names)
    assert store.drop_generation(claim, second) == store.drop_generation(claim, target) == len(names)


def test_the_structure_is_sound_afterwards(store):
    write(store, "end", {"a" * 5000: b"x"})
    assert structure(store) == []

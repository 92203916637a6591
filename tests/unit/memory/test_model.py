# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory against a dictionary: write, overwrite, delete, expire, list, in any order."""
from __future__ import annotations

import pathlib
import shutil
import tempfile

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import decode_value, encode_value
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

from .conftest import Place

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
odd_keys = st.sampled_from(["k", "k/1", "k/2", "\n", "nul\0", "ü", "\U0001f600"])
keys = odd_keys | text.filter(lambda key: not key.startswith("\0memops/"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
values = json_values | st.binary(max_size=50)


@given(values)
def test_values_come_back(value):
    assert decode_value(encode_value(value)) == value


class AgainstADictionary(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="memops-model-"))
        self.place = Place(self.folder)
        self.memory = self.place.memory()
        self.model = {}  # key → (value, time of expiry or None)
        self.ttl = None
        self.writes = 0

    def teardown(self):
        self.memory.close()
        shutil.rmtree(self.folder)

    def alive(self):
        return {k: v for k, (v, until) in self.model.items() if until is None or self.place.clock.now < until}

    def note(self, key, value, ttl):
        self.model[key] = (value, None if ttl is None else self.place.clock.now + int(ttl * 1e6))
        self.writes += 1

    @rule(key=keys, value=values, ttl=st.none() | st.sampled_from([10, 1000]))
    def write(self, key, value, ttl):
        self.memory.write("a", key, value, ttl=ttl)
        self.note(key, value, ttl or self.ttl)

    @rule(items=st.dictionaries(keys, values, max_size=5))
    def write_many(self, items):
        assert self.memory.write_many("a", items) == len(items)
        for key, value in items.items():
            self.note(key, value, self.ttl)

    @rule(key=keys, soft=st.booleans())
    def delete(self, key, soft):
        there = key in self.alive()
        assert self.memory.delete("a", key, soft=soft) == there
        self.writes += there
        if there:
            del self.model[key]

    @rule(ttl=st.sampled_from([None, 100]))
    def set_ttl(self, ttl):
        self.memory.set_ttl("a", ttl)
        self.ttl = ttl

    @rule(seconds=st.sampled_from([5, 50, 500]))
    def wait(self, seconds):
        self.place.clock.turn(seconds)

    @rule()
    def reopen(self):
        self.memory.close()
        self.memory = self.place.memory()

    @rule(key=keys)
    def read(self, key):
        assert self.memory.read("a", key, default="absent") == self.alive().get(key, "absent")

    @invariant()
    def same(self):
        alive = self.alive()
        listed = list(self.memory.list_keys("a"))
        assert listed == sorted(alive, key=str.encode)
        assert self.memory.read_many("a", listed) == alive

    @invariant()
    def every_sequence_has_its_entry(self):
        store = open_store(self.place.store)
        with store.reader() as reader:
            health = reader.log_health()
        assert store.identity().sequence == self.writes
        store.close()
        assert health["intact"]


AgainstADictionary.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestAgainstADictionary = AgainstADictionary.TestCase

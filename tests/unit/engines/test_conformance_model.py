# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Every engine against a dictionary: any order of writes, deletes and operator changes.

MEMOPS_MODEL_EXAMPLES sets how many orders of some twenty are tried on each engine.
"""
from __future__ import annotations

import itertools
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils._model import Change
from tests.unit.engines.sqlite_help import KEYS, all_rows, entries, row, write

EXAMPLES = int(os.environ.get("MEMOPS_MODEL_EXAMPLES", "10"))
keys = st.one_of(st.sampled_from(KEYS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4))
payloads = st.binary(max_size=20)


class Model(RuleBasedStateMachine):
    """``live``, ``shelf`` and ``log`` are what the store must hold; one incident works beside the application."""

    def __init__(self, bench, name):
        super().__init__()
        self.bench, self.name = bench, name

    @initialize()
    def begin(self):
        self.store = self.bench.open(self.name)
        self.store.create_namespace("n")
        self.claim = self.store.claim("n", "a", "op", new_incident="i")
        self.live, self.shelf, self.log = {}, [], {}
        self.fenced = False

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()

    def remember(self, rows):
        for r in rows:
            self.live[r[0]] = r
            self.log[r[0]] = (r[2], "delete" if r[6] else "write", r[9])

    @rule(items=st.dictionaries(keys, st.one_of(payloads, st.none()), min_size=1, max_size=5), keep=st.booleans())
    def application_writes(self, items, keep):
        former = [self.live[key] for key in items if key in self.live]
        try:
            rows = write(self.store, "n", items, aside="soft" if keep else None)
        except NamespaceQuarantined:
            assert self.fenced
            return
        assert not self.fenced
        if keep:
            self.shelf += [("", "soft", r) for r in former]
        self.remember(rows)

    @rule(
        items=st.lists(st.tuples(keys, st.one_of(payloads, st.none()), st.booleans(), st.booleans()), max_size=6),
        again=st.booleans(),
    )
    def operator_changes(self, items, again):
        changes, expected_refusals, after, shelf = [], [], dict(self.live), []
        for key, payload, known, keep in items:
            live = after.get(key)
            expected = (live[9] if live else None) if known else b"another"
            wanted = None if payload is None else row("n", key, 1, 1, 1, payload)
            changes.append(Change(key, expected, wanted, "why" if keep else None))
            if live == wanted:
                continue
            if known:
                if keep and live is not None:
                    shelf.append(("i", "why", live))
                after[key] = wanted
                if wanted is None:
                    del after[key]
            else:
                expected_refusals.append(key)
        assert sorted(self.store.change(self.claim, changes)) == sorted(expected_refusals)
        self.live, self.shelf = after, self.shelf + shelf
        distinct = {change.key for change in changes}
        if again and len(distinct) == len(changes):  # what was applied is the wanted state already
            assert sorted(self.store.change(self.claim, changes)) == sorted(expected_refusals)

    @precondition(lambda self: hasattr(self, "live") and self.live)
    @rule(data=st.data())
    def operator_buries(self, data):
        key = data.draw(st.sampled_from(sorted(self.live)))
        epoch, sequence = self.store.reserve(self.claim, 2)
        grave = row("n", key, epoch, sequence, self.live[key][4] + 1, b"", deleted=5)
        former = self.live[key]
        assert self.store.change(self.claim, [Change(key, former[9], grave, "buried")]) == []
        self.store.log_operation(self.claim, entries("n", [grave]))
        self.shelf.append(("i", "buried", former))
        self.remember([grave])

    @rule(quarantine=st.booleans())
    def fence(self, quarantine):
        changed = self.store.fence(self.claim) if quarantine else self.store.unfence(self.claim)
        assert changed == (quarantine != self.fenced)
        self.fenced = quarantine

    @rule(leave_out=st.booleans())
    def rebuild_in_a_new_generation(self, leave_out):
        old = self.store.generations("n")[-1]
        generation = self.store.begin_generation(self.claim)
        after = None
        while True:
            after = self.store.copy_generation(self.claim, old, generation, after=after, limit=3, excluding=None)
            if after is None:
                break
        assert self.store.switch(self.claim, generation, old)
        assert self.store.drop_generation(self.claim, old) == len(self.live)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = self.bench.open(self.name, create=False)

    @invariant()
    def the_store_holds_what_the_model_holds(self):
        if not hasattr(self, "store"):
            return
        wanted = [self.live[key] for key in sorted(self.live)]
        assert all_rows(self.store, "n", batch=3) == wanted
        with self.store.reader() as reader:
            assert reader.count("n") == len(wanted)
            assert reader.get_many("n", list(self.live)) == self.live
            assert sorted(x for batch in reader.aside("n") for x in batch) == sorted(self.shelf)
            writes = [w for batch in reader.last_writes("n", batch=2) for w in batch]
            newest = {w.key: (w.sequence, w.operation, w.digest) for w in writes}
            assert newest == self.log
            assert list(newest) == sorted(newest)
            assert reader.log_health()["intact"]
            assert reader.structure() == []


def test_a_store_is_a_dictionary_whatever_happens(bench):
    numbers = itertools.count()
    run_state_machine_as_test(
        lambda: Model(bench, f"m{next(numbers)}"), settings=settings(max_examples=EXAMPLES, stateful_step_count=20)
    )

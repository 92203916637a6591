# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy that serves reads alone, on every engine: read by everybody, written by nobody, by the store's own fence."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    NamespaceQuarantined,
    NamespaceReadOnly,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.engines.sqlite_help import all_rows, keys_of, structure, write


@pytest.fixture
def application(store, claim, bench):
    """The same store as an application has it open, since before anything was fenced."""
    write(store, "n", {"a": b"1", "b": b"2"})
    write(store, "m", {"a": b"1"})
    opened = open_store(bench.application())
    write(opened, "n", {"c": b"3"})
    yield opened
    opened.close()


def state(store, name="n"):
    with store.reader() as reader:
        return reader.namespace(name).state


def test_reads_are_answered_and_writes_refused_by_the_store_itself(store, claim, application):
    assert not store.prove("n")["writes_refused"]
    assert (store.set_state(claim, "reading"), store.set_state(claim, "reading")) == (True, False)
    proof = store.prove("n")
    assert (proof["writes_refused"], proof["reads_refused"], proof["reads_accepted"]) == (True, False, True), proof
    assert keys_of(application, "n") == ["a", "b", "c"]
    with pytest.raises(NamespaceReadOnly, match="'n' takes no writes: it is served read-only") as caught:
        write(application, "n", {"d": b"4"})
    assert "failback" in caught.value.next_step
    with pytest.raises(NamespaceReadOnly):
        application.lock("n", "x", 0.0, 1.0)
    assert application.sweep("n", 1 << 60) == 0
    write(application, "m", {"d": b"4"})
    assert structure(store) == []
    assert store.set_state(claim, "standby") and not store.prove("n")["reads_refused"]
    assert (store.set_state(claim, "serving"), store.set_state(claim, "serving")) == (True, False)
    write(application, "n", {"d": b"4"})
    assert not store.prove("n")["writes_refused"]


def test_a_quarantine_goes_over_it_and_its_release_brings_it_back(store, claim, application):
    store.set_state(claim, "reading")
    store.fence(claim)
    proof = store.prove("n")
    assert (proof["writes_refused"], proof["reads_refused"], proof["reads_accepted"]) == (True, True, False), proof
    with pytest.raises(NamespaceQuarantined, match="quarantined"):
        write(application, "n", {"d": b"4"})
    store.unfence(claim)
    proof = store.prove("n")
    assert state(store) == "reading" and proof["writes_refused"] and proof["reads_accepted"], proof
    store.fence(claim)
    assert store.set_state(claim, "serving")
    store.unfence(claim)
    write(application, "n", {"d": b"4"})
    assert keys_of(application, "n") == ["a", "b", "c", "d"]


def test_an_operator_still_works_on_the_copy(store, claim, application):
    store.set_state(claim, "reading")
    rows = all_rows(store, "n")
    number = store.begin_generation(claim)
    store.load(claim, number, rows)
    with store.reader() as reader:
        active = reader.namespace("n").generation
    assert store.switch(claim, number, active)
    store.drop_generation(claim, active)
    assert keys_of(application, "n") == ["a", "b", "c"]
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_accepted"], proof

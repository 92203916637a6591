# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of lost and misleading control rows share: a store with the namespaces "n", whose row is damaged, and
"m"."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    NamespaceDamaged,
    NamespaceQuarantined,
)
from tests.unit.engines.sqlite_help import all_rows, structure, write


def filled(store):
    write(store, "n", {"a": b"1", "b": b"2"})
    write(store, "m", {"a": b"another's"})
    return store


def refused(store, why):
    """Nothing is read or written by such a row; the other namespace goes on."""
    said = f"The control row of namespace 'n' {why}."
    with store.reader() as reader:
        for ask in (reader.namespaces, lambda: reader.namespace("n"), lambda: reader.get_many("n", ["a"])):
            with pytest.raises(NamespaceDamaged) as caught:
                ask()
            assert caught.value.message == said
        assert caught.value.next_step == "ansible-playbook memops.agent_memory.rebuild -e memory_namespace=n"
        assert said[0].lower() + said[1:-1] in reader.structure()
        assert len(reader.get_many("m", ["a"])) == 1
    for attempt in (lambda: write(store, "n", {"a": b"3"}), lambda: store.claim("n", "a", "o", new_incident="i")):
        with pytest.raises(NamespaceDamaged):
            attempt()
    write(store, "m", {"b": b"goes on"})


def led_back(store, before, serving):
    """The repair leads it back; it is quarantined where nobody knows whether it was."""
    assert store.repair_structure()
    assert (structure(store), store.lead_back()) == ([], [])
    assert all_rows(store, "n") == before
    if not serving:
        with pytest.raises(NamespaceQuarantined):
            write(store, "n", {"a": b"3"})
        claim = store.claim("n", "a", "o", new_incident="i")
        assert store.fence(claim) and store.unfence(claim)
    assert write(store, "n", {"a": b"3"})

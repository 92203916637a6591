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

#: What is wrong with the row, and the SQL after which it is so.
ROWS = {
    "is gone, its records are there": ["DELETE FROM memops_namespace WHERE name = 'n'"],
    "names generation 99, which it does not have": ["UPDATE memops_namespace SET generation = 99 WHERE name = 'n'"],
    "names generation 1, which it does not have": ["DELETE FROM memops_generation WHERE namespace = 'n'"],
    "names generation 2, which it does not have": [
        "DROP INDEX memops_namespace_generation", "UPDATE memops_namespace SET generation = 2 WHERE name = 'n'",
    ],
    "has the state 'serv', which there is not": ["UPDATE memops_namespace SET state = 'serv' WHERE name = 'n'"],
    "has lost the state from before its quarantine (None stands there)": [
        "UPDATE memops_namespace SET state = 'quarantined' WHERE name = 'n'"
    ],
}  # fmt: skip


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
    for attempt in (
        lambda: write(store, "n", {"a": b"3"}),
        lambda: store.lock("n", "me", 0, 1),
        lambda: store.create_namespace("n") or store.set_ttl("n", 1.0),
        lambda: store.claim("n", "a", "o", new_incident="i"),
    ):
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

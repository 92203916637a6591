# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of key rotation share."""

from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, rotate
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.operations.operations_help import NS


def run(place, **options):
    options = {"attempt": "host:1:1", "owner": "an operator", "namespace": NS, **options}
    return rotate.rotate(store_params=place.store, keyring=place.keyring, **options)


def assert_all_open(place, values):
    assert place.values(list(values)) == values
    found = integrity.scan(store_params=place.store, namespace=NS, keyring=place.keyring)
    assert found["verdict"] == "pass", found["examples"]


def open_incidents(place):
    store = open_store(place.store)
    try:
        return [one for one in store.incidents(NS) if one.state == "open"]
    finally:
        store.close()


def holder(place):
    """The attempt of the incident that a killed rotation left open."""
    return next((one.attempt for one in open_incidents(place)), None)

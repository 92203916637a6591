# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of key rotation share."""

from __future__ import annotations

import contextlib
import threading
import time

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


@contextlib.contextmanager
def live_writer(place, chance, records):
    """An application that writes to records of ``Place.fill`` until the context ends; {key: what it last wrote}."""
    stop, written = threading.Event(), {}

    def live():
        with place.memory() as memory:
            while not stop.is_set():
                key = f"user/{chance.randrange(records):05d}"
                written[key] = chance.random()
                memory.write(NS, key, written[key])
                time.sleep(0.005)

    writer = threading.Thread(target=live)
    writer.start()
    try:
        yield written
    finally:
        stop.set()
        writer.join()

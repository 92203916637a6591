# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Taking single records out of service and bringing them back, and what is left of it."""

from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import (
    integrity,
    isolate_records,
    release_records,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate_choice import choose
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.store_info import store_info
from tests.unit.operations.runbook import NS, OTHER, Site, attempt

VALUES = {f"user/{n:03d}": {"n": n} for n in range(30)}
CHOSEN = [f"user/{n:03d}" for n in range(10, 20)]


def filled(folder, bench):
    """A site with these values, one record that was deleted, and a namespace beside it."""
    made = Site(folder, bench=bench)
    with made.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {"calm": 1})
        memory.delete(NS, "user/029")
    return made


def isolate(site, *, run=None, check=False, namespace=NS, **chosen):
    with site.open() as store:
        return isolate_records.isolate_records(
            store=store, store_params=site.store, namespace=namespace, choice=choose(**chosen), open_keyring=site.ring,
            run=run or attempt(), check=check,
        )  # fmt: skip


def release(site, *, run=None, check=False, **chosen):
    with site.open() as store:
        return release_records.release_records(
            store=store, store_params=site.store, namespace=NS, choice=choose(**chosen), run=run or attempt(),
            check=check,
        )  # fmt: skip


def scan(site):
    found = integrity.scan(store_params=site.store, keyring=site.ring(), namespace=NS)
    return {name: found[name] for name in ("verdict", "findings", "damaged", "structure")}


def told(site, namespace=NS):
    with site.open() as store:
        return next(one["isolated"] for one in store_info(store)["namespaces"] if one["name"] == namespace)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A read-only replica that is given as the store: what writes, saves or judges says so, before anything is done."""

from __future__ import annotations

import contextlib

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import integrity, isolate, monitor_step
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.preflight import preflight
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.release_records import release_records
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot_step import publish
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_replicas import ReplicaSet, wait_for
from tests.unit.operations.pair_help import NAMESPACES, Pair
from tests.unit.operations.test_failover_store_valkey import ValkeyPair

NS = NAMESPACES[0]


@pytest.fixture(scope="module", params=["valkey", "postgresql"])
def pair(request, tmp_path_factory):
    """Host a is the primary, b its replica."""
    folder = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        if request.param == "valkey":
            pair = ValkeyPair(folder, stack.enter_context(ReplicaSet(replicas=1)))
        else:
            pair = Pair(folder)
            stack.callback(pair.stop)
        pair.start()
        wait_for("the replica has all of it", lambda: replicated(pair))
        yield pair


def replicated(pair):
    with contextlib.closing(open_store(pair.params("b"))) as store, store.reader() as reader:
        return reader.count(NAMESPACES[-1]) == 50


@pytest.fixture
def steps(pair):
    """Of a host, by their names."""

    def of(host, check=False):
        store, ring = stack.enter_context(contextlib.closing(open_store(pair.params(host)))), Keyring.open(pair.keyring)
        given = {"store": store, "store_params": pair.params(host), "name": "memory", "run": pair.run()}
        place = {"url": f"file://{pair.folder}/repository"}

        def save(purpose, namespaces):
            return publish(
                **given, keyring=ring, repository=place, purpose=purpose, namespaces=namespaces, check=check
            )

        one = {name: given[name] for name in ("store", "store_params", "run")} | {"namespace": NS, "check": check}
        return {
            "release": lambda: isolate.release(**one),
            "release of records": lambda: release_records(**one, choice=None),
            "preflight": lambda: preflight(
                **given, namespace=NS, open_keyring=lambda: ring, open_repository=lambda: Repository.open(place)
            ),
            "backup": lambda: save("scheduled", None),
            "baseline": lambda: save("baseline", [NS]),
            "monitor": lambda: monitor_step.watch(
                **given, namespace=NS, keyring=ring, repository=None, seconds=1, check=check
            ),
        }

    with contextlib.ExitStack() as stack:
        yield of


@pytest.mark.parametrize("step", ["preflight", "backup", "baseline", "monitor", "release", "release of records"])
def test_a_step_that_needs_the_primary_says_so_in_a_rehearsal_too(pair, steps, step):
    for check in (False, True):
        with pytest.raises(StoreUnavailable, match=r"is a read-only (replica|standby)") as told:
            steps("b", check)[step]()
        assert "memory_store.url" in told.value.next_step
    if step != "monitor":  # there is nothing to watch
        assert steps("a")[step]()


def test_what_only_reads_goes_on(pair):
    found = integrity.scan(store_params=pair.params("b"), keyring=Keyring.open(pair.keyring), namespace=NS)
    assert found["verdict"] == "pass"

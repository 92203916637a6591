# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memories under another name where the name is part of more than a column: of a JSON value, or of an encryption. The
framework that made them reads them afterwards."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.keys_help import OLD, keyed
from tests.unit.tables.tables_help import Framework

ANN, ZOE = "user_id=ann", 'user_id=zoë"\\\x01\x7f/'


def bring(site, namespace, target, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
        to_namespace=target, create=True, attempt=attempt().attempt, owner="the test", **options,
    )  # fmt: skip


def test_a_user_inside_the_payload_of_mem0(tmp_path, postgresql_server):
    site = Framework(tmp_path, postgresql_server, "mem0", ("mem0",))
    try:
        for namespace in (ANN, "user_id=anne"):
            site.app.ask("fill", namespace=namespace)
        before, sibling = (site.app.ask("view", namespace=one) for one in (ANN, "user_id=anne"))
        site.backup()
        rows = site.dump(tables=("mem0",))
        with pytest.raises(InvalidInput, match="not made of the same fields"):
            bring(site, ANN, "user_id=zoe&agent_id=7")
        with pytest.raises(CannotProceed, match=r"another database.*memory_store\.url"):  # one memory per identifier
            bring(site, ANN, ZOE)
        assert site.dump(tables=("mem0",)) == rows
        site.sql("DELETE FROM mem0 WHERE payload ->> 'user_id' = 'ann'")
        assert bring(site, ANN, ZOE)["restored"] == len(before[0])
        after = site.app.ask("view", namespace=ZOE)
        as_before = json.loads(json.dumps(after).replace(json.dumps(ZOE[8:]), '"ann"'))
        assert as_before == before and site.app.ask("view", namespace="user_id=anne") == sibling
        assert site.app.ask("view", namespace=ANN) == [[], []]
        again = bring(site, ANN, ZOE)
        assert (again["changed"], again["unchanged"]) == (False, len(before[0]))
    finally:
        site.wipe()


def test_a_session_that_the_application_encrypted_for_its_name(tmp_path, processes):
    site = keyed(tmp_path, processes["openai_agents"], "openai_agents", "sqlite")
    site.say("ann")
    before = site.told("ann")
    site.backup()
    for table in site.tables:
        site.sql(f"DELETE FROM {table} WHERE session_id = 'ann'")
    site.use()
    with pytest.raises(CannotProceed, match=r"for the name of its session.*application_key_file"):
        bring(site, "ann", "zoë")
    assert site.told("zoë") == []
    site.use(OLD)
    assert bring(site, "ann", "zoë")["restored"] == len(before) + 1
    assert site.told("zoë") == before and site.told("ann") == []
    with pytest.raises(CannotProceed, match=r"belong.*another file.*memory_store\.path"):
        bring(site, "ann", "noa")
    site.end()

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memories under another name where the application encrypted them for the name that they had."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.keys_help import OLD, keyed


def bring(site, namespace, target, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
        to_namespace=target, create=True, attempt=attempt().attempt, owner="the test", **options,
    )  # fmt: skip


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

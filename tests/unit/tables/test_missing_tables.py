# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A restore into a place where the application has made no tables yet, or where its file does not open."""

from __future__ import annotations

import itertools
import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import StoreDamaged, StoreMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from tests.unit.operations.runbook import NAME, NS, attempt
from tests.unit.tables.keys_help import keyed


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request, tmp_path, processes, postgresql_server):
    one = keyed(tmp_path, processes["openai_agents"], "openai_agents", request.param, postgresql_server)
    one.say(NS, 3, None)
    one.backup()
    yield one
    one.end()


def bring(site, store, whole=False, **options):
    given = {
        "store_params": store, "repository": site.repository, "keyring": site.ring(), "name": NAME,
        "attempt": attempt().attempt, "owner": "the test", "create": True, **options,
    }  # fmt: skip
    return restore.restore_whole(**given) if whole else restore.restore(namespace=NS, **given)


def test_what_only_the_application_can_make_is_not_said_to_be_restored(site):
    if site.engine == "sqlite":
        elsewhere = {**site.store, "path": os.path.join(site.folder, "another.db")}
    else:
        site.sql(f"CREATE SCHEMA {site.schema}_empty AUTHORIZATION agent")
        elsewhere = {**site.store, "table_schema": f"{site.schema}_empty"}
    said = r"let the application make its tables there first|set memory_store\.table_schema"
    for check, whole in itertools.product((False, True), repeat=2):
        with pytest.raises(StoreMissing, match=said):
            bring(site, elsewhere, whole, check=check)
    assert not os.path.exists(os.path.join(site.folder, "another.db"))
    if site.engine == "postgresql":
        site.sql(f"DROP SCHEMA {site.schema}_empty")


def test_a_file_that_was_cut_off_comes_back_as_the_sentence_says(site):
    if site.engine == "postgresql":
        return
    before = site.told(NS, None)
    site.app.close()
    os.truncate(site.path, 9000)
    with pytest.raises(StoreDamaged, match=r"move that file .* away.* -e memory_create=true"):
        bring(site, site.store)
    for more in ("", "-wal", "-shm"):
        if os.path.exists(site.path + more):
            os.rename(site.path + more, f"{site.path}.away{more}")
    site.app.open(site.path)
    assert bring(site, site.store)["restored"] > 0 and site.told(NS, None) == before

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the doctor, the list of namespaces and the refusals say of another application's tables in PostgreSQL. Tables as
LangGraph makes them, without LangGraph: nobody here asks the framework anything."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CannotProceed,
    CapabilityMissing,
    InvalidInput,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor import doctor
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor_base import Limits
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.store_info import store_info
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import APPLICATION
from tests.unit.operations.runbook import NAME, NS, attempt
from tests.unit.tables.tables_help import TablesSite


@pytest.fixture
def site(tmp_path, postgresql_server):
    one = TablesSite(tmp_path, postgresql_server, "langgraph_store")
    one.sql(
        "CREATE TABLE store (prefix text NOT NULL, key text NOT NULL, value jsonb NOT NULL, "
        "created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), expires_at timestamptz, "
        "ttl_minutes int, PRIMARY KEY (prefix, key))"
    )
    one.sql(f"ALTER TABLE store OWNER TO {APPLICATION}")
    for prefix in (NS, f"{NS}.notes"):
        one.sql("INSERT INTO store (prefix, key, value) VALUES (%s, 'a', '{\"text\": \"a\"}')", prefix)
    yield one
    one.wipe()


def fence(site):
    with site.open() as store:
        found = doctor(
            open_store=lambda: store, store_params=site.store, keyring_params=None, repository_params=None,
            open_keyring=lambda: None, open_repository=lambda: None, name=NAME, limits=Limits(), only=["fence"],
        )  # fmt: skip
    (one,) = found["checks"]
    return one


def test_before_anything_was_isolated_there_is_no_fence_and_nothing_is_lost(site):
    one = fence(site)
    assert one["verdict"] == "not-applicable" and "no fence" in one["says"] and "backup" in one["next"], one
    with site.open() as store:
        proof = store.prove(NS)
    assert proof["reads_accepted"] and not proof["writes_refused"] and not store.made


def test_a_second_layout_in_the_same_schema_is_told_to_take_one_of_its_own(site):
    run = attempt()
    site.step("isolate", run)
    site.step("release", run)
    with pytest.raises(InvalidInput, match=r"not native.* native a memory_store.schema of its own"):
        open_store({**site.store, "layout": "native"})


def test_an_application_that_owns_its_tables_is_bound_by_the_fence_and_not_told_as_free(site):
    run = attempt()
    site.step("isolate", run)
    assert APPLICATION not in fence(site)["says"]
    site.step("release", run)
    one = fence(site)
    assert one["verdict"] == "pass" and APPLICATION not in one["says"], one


def test_what_lies_in_a_quarantined_namespace_is_told_as_fenced(site):
    run = attempt()
    site.step("isolate", run)
    with site.open() as store:
        found = {one["name"]: (one["state"], one["fenced_by"]) for one in store_info(store, site.store)["namespaces"]}
    assert found == {NS: ("quarantined", None), f"{NS}.notes": ("serving", NS)}
    site.step("release", run)


def test_an_application_user_that_cannot_be_fenced_is_refused_with_the_reason(site):
    with site.as_user("postgres"), pytest.raises(CapabilityMissing, match="postgres, which is a superuser") as told:
        site.step("isolate", attempt())
    assert "plain user of its own" in told.value.next_step
    with site.as_user("nobody-there"), pytest.raises(CapabilityMissing, match="which is not there"):
        site.step("isolate", attempt())


def test_a_key_that_is_not_written_as_the_layout_writes_it_is_told(site):
    site.sql("INSERT INTO store (prefix, key, value) VALUES (%s, 'a/b%%c', '{\"text\": \"a\"}')", NS)
    site.backup()
    with pytest.raises(CannotProceed, match=r"'a/b%c'.*%2F.*name 'a%2Fb%25c'"):
        restore.restore(
            store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=NS,
            keys=["a/b%c"], attempt=attempt().attempt, owner="the test",
        )  # fmt: skip

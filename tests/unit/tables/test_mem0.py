# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""mem0's memories, whose namespaces are fields of a JSON value; the framework made them and reads them afterwards."""
from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, snapshot_step
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from tests.unit.operations.runbook import NAME, attempt
from tests.unit.tables.tables_help import Framework

ANN, ZOE = "user_id=ann", 'user_id=zoë"\\\x01\x7f/'


@pytest.fixture(scope="module")
def shared(tmp_path_factory, postgresql_server):
    one = Framework(tmp_path_factory.mktemp("mem0"), postgresql_server, "mem0", ("mem0",))
    one.app.ask("view", namespace=ANN)  # makes its tables
    yield one
    one.wipe()


@pytest.fixture
def site(shared, tmp_path):
    shared.clear(tmp_path)
    return shared


def bring(site, namespace, target, **options):
    return restore.restore(
        store_params=site.store, repository=site.repository, keyring=site.ring(), name=NAME, namespace=namespace,
        to_namespace=target, create=True, attempt=attempt().attempt, owner="the test", **options,
    )  # fmt: skip


def hashes(site):
    with site.open() as store:
        return [line for line in store.warnings() if "hash" in line]


def test_a_text_of_mem0_that_is_not_the_one_of_its_hash(site):
    site.app.ask("fill", namespace="user_id=ann")
    site.app.ask("damage", namespace="user_id=ann")  # by the framework's own API: updated, deleted, added
    assert hashes(site) == []
    site.sql(
        "UPDATE mem0 SET payload = jsonb_set(payload, '{data}', '\"poisoned\"') WHERE payload ->> 'n' IN ('5', '7')"
    )
    assert hashes(site) == ["2 rows of mem0 have a text that is not the one their hash was made of"]


@pytest.mark.parametrize(
    ("namespace", "inside", "beside"),
    [
        ("agent_id=7", "user_id=bob&agent_id=7", "agent_id=70"),
        ("run_id=r", "agent_id=8&run_id=r", "user_id=r"),
        ("user_id=ann&agent_id=7", "user_id=ann&agent_id=7&run_id=r", "user_id=ann&agent_id=8"),
    ],
)
def test_a_namespace_is_a_user_an_agent_a_run_or_several_of_them(site, namespace, inside, beside):
    for one in (namespace, inside, beside):
        site.app.ask("fill", namespace=one)

    def view():  # all memories of each; a search behind a filter is an approximate one
        return [site.app.ask("view", namespace=one)[0] for one in (namespace, inside, beside)]

    before, rows = view(), site.dump(tables=("mem0",))
    with site.open() as store:
        snapshot_step.publish(
            store=store, store_params=site.store, keyring=site.ring(), repository=site.repository, name=NAME,
            purpose="scheduled", namespaces=[namespace], run=attempt(),
        )  # fmt: skip
    started, run = now_us(), attempt()
    site.app.ask("damage", namespace=inside)
    site.step("isolate", run, namespace)
    assert view() == [[], [], before[2]]
    with pytest.raises(RuntimeError, match="memops"):
        site.app.ask("write", namespace=inside)
    site.rebuild(namespace, Window(onset=started), "hard", run=run)
    assert view() == before and site.dump(tables=("mem0",)) == rows


def test_a_user_inside_the_payload_of_mem0(site):
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


def test_vectors_of_another_length_are_repaired_and_keep_nobody_from_going_on(site):
    """A column that lost its length takes any; what others have in it is none of this namespace's business."""
    for namespace in (ANN, "user_id=anne"):
        site.app.ask("fill", namespace=namespace)
    before = site.app.ask("view", namespace=ANN)[0]
    rows = site.dump("payload ->> 'user_id' = 'ann'", ("mem0",))
    site.backup()
    index = site.sql("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s AND indexdef LIKE '%%hnsw%%'",
                     site.schema)  # fmt: skip
    try:
        for name, _definition in index:
            site.sql(f"DROP INDEX {name}")
        site.sql("ALTER TABLE mem0 ALTER COLUMN vector TYPE vector")
        site.sql("UPDATE mem0 SET vector = '[1, 2, 3]' WHERE payload ->> 'n' IN ('3', '4')")
        with site.open() as store:
            assert [line.partition(",")[0] for line in store.warnings() if "dimensions" in line] == [
                "4 vectors of mem0.vector have 3 dimensions"
            ]
        run = attempt()
        found = site.rebuild(ANN, Window(), "hard", run=run)
        assert found["diagnose"]["findings"] == {"silent-change": 2}
        assert found["plan"]["escalate"] is False and found["validate"]["verdict"] == "pass"
        assert site.app.ask("view", namespace=ANN)[0] == before
        assert site.dump("payload ->> 'user_id' = 'ann'", ("mem0",)) == rows
    finally:
        site.sql("DELETE FROM mem0")
        site.sql("ALTER TABLE mem0 ALTER COLUMN vector TYPE vector(8)")
        for _name, definition in index:
            site.sql(definition)

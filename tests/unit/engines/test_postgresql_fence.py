# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence of a PostgreSQL store, met by programs that were connected before and do not use Memory."""
from __future__ import annotations

import contextlib
import threading

import pytest
from psycopg import errors

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceQuarantined, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.engines.postgresql_help import new_postgresql, raw, same
from tests.unit.engines.sqlite_help import all_rows, structure, write

COLUMNS = "generation, key, epoch, sequence, created, updated, key_id, payload, checksum"
VALUES = f"INSERT INTO memory_records ({COLUMNS}) VALUES (1, %s, 1, 1, 1, 1, '', '', '')"


@pytest.fixture
def store(postgresql_server):
    opened = new_postgresql(postgresql_server, busy_timeout=1)
    yield opened
    opened.close()
    with postgresql_server.connect() as con:
        con.execute(f'DROP SCHEMA "{opened.sql.plain_schema}" CASCADE')


@pytest.fixture
def agent(postgresql_server, store, claim):
    write(store, "n", {"a": b"1", "b": b"2"})
    write(store, "other", {"a": b"1"})
    con = raw(postgresql_server, store)
    yield con
    con.close()


def fenced(con, text, *values):
    """The statement raises, and says that it is the fence."""
    with pytest.raises(errors.DatabaseError) as caught:
        con.execute(text, values)
    assert "memops fence" in str(caught.value) or "row-level security" in str(caught.value), caught.value


@pytest.mark.parametrize("plan", ["enable_seqscan", "enable_indexscan"])
def test_an_open_connection_meets_the_fence_at_once(store, claim, agent, plan):
    agent.execute(f"SET {plan} = off; SET enable_bitmapscan = off")
    agent.execute("UPDATE memory_records SET updated = updated WHERE generation = 1")
    assert agent.execute("SELECT count(*) FROM memory_records").fetchone() == (3,)
    store.fence(claim)
    assert agent.execute("SELECT count(*) FROM memory_records").fetchone() == (1,)  # the other namespace's
    fenced(agent, VALUES, b"c")
    fenced(agent, VALUES + " ON CONFLICT (generation, key, key_mark) DO UPDATE SET payload = ''", b"a")
    fenced(agent, VALUES + " ON CONFLICT DO NOTHING", b"c")
    fenced(agent, "UPDATE memory_records SET payload = ''")
    fenced(agent, "UPDATE memory_records SET payload = '' WHERE key = 'a'")
    fenced(agent, "UPDATE memory_records SET payload = '' WHERE generation = 1")
    fenced(agent, "UPDATE memory_records SET generation = 1 WHERE generation = 2")
    fenced(agent, "DELETE FROM memory_records")
    fenced(agent, "DELETE FROM memory_records WHERE generation = 1 AND key = 'a'")
    fenced(agent, "SELECT * FROM memory_records WHERE generation = 1 FOR UPDATE")
    merge = agent.execute(
        "MERGE INTO memory_records r USING (SELECT 1::bigint AS g, 'a'::bytea AS k) w ON r.generation = w.g "
        "AND r.key = w.k WHEN MATCHED THEN DELETE"
    )
    assert merge.rowcount == 0  # it says no more than that, and ``prove`` says so
    assert any("MERGE" in line for line in store.prove("n")["not_fenced"])
    assert agent.execute("UPDATE memory_records SET updated = updated WHERE generation = 2").rowcount == 1
    assert agent.execute("DELETE FROM memory_records WHERE generation = 2 AND key = 'a'").rowcount == 1
    store.unfence(claim)
    assert agent.execute("DELETE FROM memory_records").rowcount == 2


def test_an_open_connection_reads_and_does_not_write_what_is_served_read_only(store, claim, agent):
    store.set_state(claim, "reading")
    assert agent.execute("SELECT count(*) FROM memory_records").fetchone() == (3,)
    fenced(agent, VALUES, b"c")
    fenced(agent, "UPDATE memory_records SET payload = ''")
    fenced(agent, "DELETE FROM memory_records WHERE generation = 1 AND key = 'a'")
    assert agent.execute("DELETE FROM memory_records WHERE generation = 2").rowcount == 1
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_accepted"]
    assert "raw SELECT as agent: sees records" in proof["detail"]
    store.set_state(claim, "serving")
    assert agent.execute("DELETE FROM memory_records").rowcount == 2


def test_rows_of_an_inactive_generation_are_not_there_for_applications(store, claim, agent):
    new_one = store.begin_generation(claim)
    store.copy_generation(claim, 1, new_one, after=None, limit=10, excluding=None)
    assert agent.execute("SELECT count(*) FROM memory_records").fetchone() == (3,)
    assert agent.execute("UPDATE memory_records SET updated = updated WHERE key = 'b'").rowcount == 1
    fenced(agent, VALUES.replace("(1, ", f"({new_one}, "), b"x")
    store.switch(claim, new_one, 1)
    assert agent.execute("DELETE FROM memory_records WHERE key = 'b'").rowcount == 1
    assert [r[0] for r in all_rows(store, "n", generation=1)] == ["a", "b"]


def test_an_application_cannot_lift_the_fence(postgresql_server, store, claim, agent):
    store.fence(claim)
    agent.execute("SET memops.operating = 'on'")
    fenced(agent, "DELETE FROM memory_records WHERE key = 'a'")
    for text in (
        "UPDATE memops_namespace SET state = 'serving'",
        "UPDATE memops_namespace SET generation = 9",
        "INSERT INTO memops_namespace (name, state, generation) VALUES ('x', 'serving', 1)",
        "UPDATE memops_store SET epoch = 9",
        "UPDATE memory_access_log SET actor = 'x'",
        "DELETE FROM memory_access_log",
        "SELECT * FROM memops_aside",
        "SELECT * FROM memops_incident",
        "TRUNCATE memory_records",
        "DROP TRIGGER memops_fence_update ON memory_records",
        "ALTER TABLE memory_records DISABLE TRIGGER ALL",
        "ALTER TABLE memory_records DISABLE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
        "ALTER FUNCTION memops_fence() RENAME TO gone",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            agent.execute(text)
    agent.execute("SELECT memops_create_namespace('n', 'serving', NULL, 1)")
    with store.reader() as reader:
        assert reader.namespace("n").state == "quarantined"


def test_owners_and_superusers_meet_it_too_when_they_write(postgresql_server, store, claim, agent):
    store.fence(claim)
    for user in ("memops", "postgres"):
        with raw(postgresql_server, store, user) as con:
            assert con.execute("SELECT count(*) FROM memory_records").fetchone() == (3,)  # not bound, and told so
            fenced(con, "DELETE FROM memory_records WHERE generation = 1")
            fenced(con, "TRUNCATE memory_records")
            fenced(con, "UPDATE memory_records SET payload = '' WHERE key = 'a'")
            fenced(con, VALUES, b"c")
    with raw(postgresql_server, store, "postgres") as con:
        con.execute("SET session_replication_role = replica")
        fenced(con, "DELETE FROM memory_records WHERE generation = 1")
    told = " ".join(store.prove("n")["not_fenced"])
    assert "memops (owner)" in told and "postgres (superuser)" in told


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_from_before_the_fence_writes_nothing_after_it(store, claim, agent, level):
    agent.execute(f"BEGIN ISOLATION LEVEL {level}")
    assert agent.execute("SELECT count(*) FROM memory_records WHERE generation = 1").fetchone() == (2,)
    store.fence(claim)
    with pytest.raises(errors.DatabaseError):
        agent.execute("UPDATE memory_records SET payload = '' WHERE generation = 1 AND key = 'a'")
    agent.execute("ROLLBACK")
    agent.execute(f"BEGIN ISOLATION LEVEL {level}")
    with pytest.raises(errors.DatabaseError):
        agent.execute(VALUES, (b"c",))
    agent.execute("ROLLBACK")
    assert [r[0] for r in all_rows(store, "n")] == ["a", "b"]


def test_the_fence_waits_for_a_transaction_that_has_written_and_names_it_when_it_does_not_end(
    postgresql_server, store, claim, agent
):
    agent.execute("SET application_name = 'planner 7'")
    agent.execute("BEGIN")
    agent.execute("UPDATE memory_records SET payload = 'early' WHERE generation = 1 AND key = 'a'")
    pid = agent.info.backend_pid
    with pytest.raises(StoreUnavailable, match=rf"cannot be fenced yet.*pid {pid}, agent planner 7, since") as caught:
        store.fence(claim)
    assert caught.value.next_step.endswith(f"SELECT pg_terminate_backend({pid})")
    with store.reader() as reader:
        assert reader.namespace("n").state == "serving"
    timer = threading.Timer(0.3, agent.execute, ["COMMIT"])
    timer.start()
    with contextlib.closing(same(store, postgresql_server, busy_timeout=300)) as patient:
        assert patient.fence(claim)
    timer.join()
    assert [r[8] for r in all_rows(store, "n")] == [b"early", b"2"]  # it was before the fence
    fenced(agent, "UPDATE memory_records SET payload = 'late' WHERE generation = 1 AND key = 'a'")


def test_a_write_that_waits_for_the_fence_is_refused(postgresql_server, store, claim, agent):
    """Memory's own write meets a fence that is being raised."""
    application = open_store(postgresql_server.application(store.sql.plain_schema, busy_timeout=20))
    met = []
    with store._operating(claim) as session:
        store._namespace(session, "n", "FOR NO KEY UPDATE")

        def late():
            try:
                write(application, "n", {"late": b"x"})
            except NamespaceQuarantined as exc:
                met.append(exc)

        writer = threading.Thread(target=late)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        session.run(f"UPDATE {store.sql.namespace} SET state = 'quarantined', prior_state = 'serving' WHERE name = 'n'")
    writer.join(300)
    assert len(met) == 1
    assert [r[0] for r in all_rows(store, "n")] == ["a", "b"]
    application.close()


def test_the_proof_is_tried_as_the_application(store, claim, agent):
    proof = store.prove("n")
    assert not proof["writes_refused"] and not proof["reads_refused"]
    assert "raw SELECT as agent: sees records" in proof["detail"]
    store.fence(claim)
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"]
    assert "raw SELECT as agent: sees nothing" in proof["detail"]
    assert sum("as agent: refused (" in line for line in proof["detail"]) == 4
    assert "fence-raw-reads" in store.capabilities()


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        ("DROP POLICY memops_read ON memory_records; CREATE POLICY memops_read ON memory_records "
         "USING (true)", "reads"),
        ("ALTER TABLE memory_records DISABLE ROW LEVEL SECURITY", "reads"),
        ("DROP TRIGGER memops_fence_truncate ON memory_records", "writes"),
        ("ALTER TABLE memory_records DISABLE TRIGGER memops_fence_insert", "writes"),
        ("ALTER TABLE memory_records ENABLE TRIGGER memops_fence_delete", "writes"),
        ("CREATE OR REPLACE FUNCTION memops_fence() RETURNS trigger LANGUAGE plpgsql AS "
         "$$BEGIN RETURN NULL; END$$", "writes"),
        ("DROP POLICY memops_update ON memory_records", "writes"),  # it answers UPDATE 0 now
    ],
)  # fmt: skip
def test_a_fence_with_a_hole_is_found_and_mended(postgresql_server, store, claim, agent, damage, lost):
    store.fence(claim)
    with raw(postgresql_server, store, "memops") as con:
        con.execute(damage)
    proof = store.prove("n")
    assert proof["writes_refused"] == (lost != "writes")
    if lost == "reads":
        assert not proof["reads_refused"] or any("does not bind" in line for line in proof["not_fenced"][:1])
    assert structure(store) != []
    assert store.repair_structure() != []
    assert structure(store) == []
    proof = store.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"]
    assert store.repair_structure() == []


def test_an_application_that_is_the_owner_is_said_not_to_be_bound(postgresql_server, store, claim):
    mine = same(store, postgresql_server, application_user=None)
    mine.fence(claim)
    proof = mine.prove("n")
    assert proof["writes_refused"] and proof["reads_refused"]  # Memory reads nothing
    assert proof["not_fenced"][0] == "raw reads by memops: row-level security does not bind that role"
    assert "fence-raw-reads" not in mine.capabilities()
    mine.close()


@pytest.mark.parametrize("role", ["service", "memops"])
def test_an_application_that_may_set_a_role_past_the_rules_is_said_not_to_be_bound(
    postgresql_server, store, claim, agent, role
):
    """One whose rights it does not inherit: SET ROLE is enough."""
    with postgresql_server.connect() as con:
        con.execute("CREATE ROLE service BYPASSRLS")
        con.execute(f"ALTER ROLE agent NOINHERIT; REVOKE agent FROM memops; GRANT {role} TO agent")
    try:
        store.fence(claim)
        told = store.prove("n")["not_fenced"]
        assert told[0] == "raw reads by agent: row-level security does not bind that role"
        fresh = same(store, postgresql_server)
        assert "fence-raw-reads" not in fresh.capabilities()
        fresh.close()
    finally:
        with postgresql_server.connect() as con:
            con.execute(f"REVOKE {role} FROM agent; ALTER ROLE agent INHERIT; GRANT agent TO memops; DROP ROLE service")


def test_a_role_that_the_owner_may_not_act_as_is_named(postgresql_server, store, claim):
    with postgresql_server.connect() as con:
        con.execute("CREATE ROLE stranger")
    try:
        strange = same(store, postgresql_server, application_user="stranger")
        strange.fence(claim)
        proof = strange.prove("n")
        assert proof["writes_refused"]
        assert any('GRANT "stranger" TO "memops"' in line for line in proof["detail"])
        strange.close()
    finally:
        with postgresql_server.connect() as con:
            con.execute("DROP ROLE stranger")

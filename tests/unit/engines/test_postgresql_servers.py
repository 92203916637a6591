# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an administrator has set for sessions, and other servers around the one that a PostgreSQL store is on."""
from __future__ import annotations

import contextlib
import time

import pytest

from tests.support.postgresql_server import ADMINISTRATOR, DATABASE
from tests.unit.engines.postgresql_help import new_postgresql, raw, same
from tests.unit.engines.sqlite_help import all_rows, write


@pytest.fixture
def store(postgresql_server):
    opened = new_postgresql(postgresql_server, busy_timeout=0.5)
    write(opened, "n", {"a": b"1"})
    yield opened
    opened.close()


@pytest.fixture
def claim(store):
    return store.claim("n", "attempt-1", "operator", new_incident="inc-1")


@contextlib.contextmanager
def configured(server, name, value):
    """A setting of the whole server, for a while."""
    try:
        with server.connect() as con:
            con.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            con.execute("SELECT pg_reload_conf()")
            while con.execute(f"SHOW {name}").fetchone() != (value,):
                time.sleep(0.01)
        yield
    finally:
        with server.connect() as con:
            con.execute(f"ALTER SYSTEM RESET {name}")
            con.execute("SELECT pg_reload_conf()")
            while con.execute(f"SHOW {name}").fetchone() == (value,):
                time.sleep(0.01)


def test_no_timeout_that_was_set_for_the_user_ends_a_long_step(postgresql_server, store):
    with postgresql_server.connect() as con:
        names = con.execute(
            "SELECT name FROM pg_settings WHERE name LIKE '%timeout' AND context = 'user' AND name NOT LIKE 'tcp%'"
        ).fetchall()
        assert ("statement_timeout",) in names
        for (name,) in names:
            con.execute(f"ALTER ROLE memops SET {name} = '100ms'")
        try:
            with contextlib.closing(same(store, postgresql_server)) as again, again.point() as point:
                time.sleep(0.3)
                with again.reader(point) as reader:
                    assert reader.count("n") == 1
        finally:
            con.execute("ALTER ROLE memops RESET ALL")


def test_an_isolation_does_not_wait_for_a_standby_that_is_gone(postgresql_server, store, claim):
    assert len(store.warnings()) == 1
    with configured(postgresql_server, "synchronous_standby_names", "gone"):
        with contextlib.closing(same(store, postgresql_server, busy_timeout=0.5)) as again:
            assert again.fence(claim)
            again.note(claim, fenced_at="now")
            assert any("no standby of synchronous_standby_names is there" in line for line in again.warnings())
            with contextlib.closing(raw(postgresql_server, store)) as agent:
                assert agent.execute("SELECT count(*) FROM memory_records").fetchone() == (0,)
    assert store.prove("n")["reads_refused"]


def test_a_subscription_that_writes_past_the_triggers_fails_the_proof(postgresql_server, store, claim):
    """The worker that applies it fires no trigger for statements. Here it finds no slot at its publisher."""
    server, name = postgresql_server, store.sql.plain_schema
    store.fence(claim)
    assert store.prove("n")["writes_refused"]
    login = f"host={server.address} port={server.port} user={ADMINISTRATOR} password={server.passwords[ADMINISTRATOR]}"
    with server.connect() as con:
        con.execute(f'CREATE PUBLICATION "{name}" FOR TABLE {store.sql.table}')
        con.execute(
            f"CREATE SUBSCRIPTION \"{name}\" CONNECTION '{login} dbname={DATABASE}' PUBLICATION \"{name}\" "
            "WITH (create_slot = false, copy_data = false, slot_name = 'never_made')"
        )
        try:
            proof = store.prove("n")
            assert not proof["writes_refused"]
            assert proof["detail"][0].endswith(f'ALTER SUBSCRIPTION "{name}" DISABLE')
            con.execute(f'ALTER SUBSCRIPTION "{name}" DISABLE')
            assert store.prove("n")["writes_refused"]
        finally:
            con.execute(f'ALTER SUBSCRIPTION "{name}" DISABLE')
            con.execute(f'ALTER SUBSCRIPTION "{name}" SET (slot_name = NONE)')
            con.execute(f'DROP SUBSCRIPTION "{name}"')
            con.execute(f'DROP PUBLICATION "{name}"')
    assert [row[0] for row in all_rows(store, "n")] == ["a"]

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reaching a PostgreSQL store, and everything that may be wrong there: one sentence and the next step."""
from __future__ import annotations

import subprocess
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import postgresql_session
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_errors import translate
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    MemoryOpsError,
    NamespaceQuarantined,
    StoreDamaged,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.postgresql_server import PostgresqlServer, Standby
from tests.support.s3_server import free_ports
from tests.unit.engines.postgresql_help import crash, new_postgresql, raw, same, schema
from tests.unit.engines.sqlite_help import all_rows, health, keys_of, write


@pytest.fixture(scope="module")
def own_server():
    """A server that may be hurt."""
    with PostgresqlServer() as server:
        yield server


@pytest.fixture
def store(own_server):
    opened = new_postgresql(own_server, busy_timeout=2)
    yield opened
    opened.close()


def refused(params, kind=StoreUnavailable, **more):
    with pytest.raises(kind) as caught:
        open_store({**params, **more}).close()
    text = str(caught.value)
    assert caught.value.next_step and "\n" not in text
    assert not params.get("password") or params["password"] not in text
    return text


def test_what_cannot_be_meant_is_refused_without_a_connection():
    good = {"engine": "postgresql", "url": "postgresql://nowhere.invalid/db"}
    for url in (None, "", "db.example", "mysql://x/y", "postgresql://[::1", "postgresql://x/y?nonsense=1"):
        assert "memory_store.url" in refused({**good, "url": url}, InvalidInput)
    for url in ("postgresql://me:hidden@x/y", "postgresql://x/y?password=hidden", "postgresql://me:hidden@[x/y"):
        text = refused({**good, "url": url}, InvalidInput)
        assert "hidden" not in text
    assert "busy_timeout" in refused(good, InvalidInput, busy_timeout="soon")
    assert "schema" in refused(good, InvalidInput, schema="x" * 64)
    assert "password_file" in refused(good, InvalidInput, password_file="/nowhere/at/all")
    assert "both" in refused(good, InvalidInput, password_file="/nowhere", password="x")
    assert "layout" in refused(good, InvalidInput, layout="other")


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://one/memory", "one:5432"),
        ("postgresql://one:1,two:2/memory", "one:1,two:2"),
        ("postgresql:///memory?host=one,two&port=7", "one:7,two:7"),
    ],
)
def test_each_of_several_servers_is_named_with_its_port(url, where):
    assert postgresql_session.Address({"url": url}, 1.0).where == f"postgresql://{where}/memory"


def test_what_the_server_refuses(own_server):
    params = own_server.store(schema())
    assert "the password is wrong" in refused(params, password="not-that-one")
    assert "asks for a password" in refused({**params, "password": None})
    assert "no such database" in refused(params, url=own_server.url.replace("/memory", "/nothing"))
    assert "nothing listens there" in refused(params, url=f"postgresql://127.0.0.1:{free_ports(1)[0]}/memory")
    assert "host name is not known" in refused(params, url="postgresql://nowhere.invalid/memory")
    assert "has no TLS" in refused(params, url=own_server.url + "?sslmode=require")
    assert f"no memory store in schema {params['schema']}" in refused(params, StoreMissing)
    agent = own_server.application(params["schema"])
    with pytest.raises(StoreUnavailable, match=r"may not make the schema .* GRANT CREATE ON DATABASE memory TO"):
        open_store(agent, create=True)


def test_a_server_that_is_too_old_is_named(own_server, monkeypatch):
    monkeypatch.setattr(postgresql_session, "OLDEST", 990_000)
    assert "; this needs 15 or newer" in refused(own_server.store(), InvalidInput)


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("53100", StoreUnavailable, "cannot grow"),
        ("53200", StoreUnavailable, "has no resources left"),
        ("58030", StoreUnavailable, "disk under the store"),
        ("XX001", StoreDamaged, "is damaged"),
        ("XX002", StoreDamaged, "is damaged"),
        ("42P01", StoreDamaged, "lost a part of its structure"),
        ("40001", StoreUnavailable, "is busy"),
        ("40P01", StoreUnavailable, "is busy"),
        ("57P01", StoreUnavailable, "was lost"),
        ("25006", StoreUnavailable, "read-only standby"),
        ("54000", InvalidInput, "does not take this record"),
        ("22003", InvalidInput, "does not take this record"),
        ("MO001", NamespaceQuarantined, "refused a write"),
        ("0A000", StoreUnavailable, "does not work"),
    ],
)
def test_states_that_no_test_can_bring_about_have_a_sentence_too(state, kind, said):
    class Failed(Exception):
        sqlstate = state

    error = translate(Failed("what the server\nsaid."), "postgresql://db/memory")
    assert error.__class__ is kind and said in error.message and error.next_step
    assert "what the server said" in error.message or state == "25006"
    assert error.message.endswith(".") and ".." not in error.message


def test_a_missing_client_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(StoreUnavailable, match="needs the Python package psycopg") as caught:
        open_store({"engine": "postgresql", "url": "postgresql://x/y"})
    assert "pip install 'psycopg[binary]==" in caught.value.next_step


def test_a_password_comes_from_a_file_or_from_libpqs_own(own_server, tmp_path, monkeypatch):
    params = own_server.store(schema())
    open_store(params, create=True).close()
    secret = tmp_path / "secret"
    secret.write_text(params["password"] + "\n")
    open_store({**params, "password": None, "password_file": str(secret)}).close()
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:*:*:memops:{params['password']}\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    store = open_store({**params, "password": None})
    assert params["password"] not in repr(store.address) and params["password"] not in store.path
    shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert params["password"] not in shown
    with own_server.connect() as con:
        names = {row[0] for row in con.execute("SELECT application_name FROM pg_stat_activity")}
    assert "memops.agent_memory" in names
    store.close()


def test_a_replica_given_as_primary_is_read_and_not_written(own_server, store):
    write(store, "n", {"a": b"1"})
    with Standby(own_server) as standby:
        copy = same(store, own_server, url=standby.url)
        assert keys_of(copy, "n") == ["a"]
        with copy.point() as point, copy.reader(point) as reader:
            assert reader.count("n") == 1
        for attempt in (
            lambda: write(copy, "n", {"b": b"2"}),
            lambda: copy.claim("n", "a", "op", new_incident="i"),
            lambda: copy.append_log([(0, 5, "n", "hit", "a", None, None, None, None, "r", None, b"")]),
        ):
            with pytest.raises(StoreUnavailable, match="read-only standby") as caught:
                attempt()
            assert "name the primary" in caught.value.next_step
        copy.close()
        gone = free_ports(1)[0]  # the other one, where libpq looks for one that takes writes
        url = f"postgresql://127.0.0.1:{gone},127.0.0.1:{standby.port}/memory?target_session_attrs=read-write"
        with pytest.raises(StoreUnavailable, match=f":{gone},.*{standby.port}.*: none of its servers takes writes"):
            same(store, own_server, url=url)


def killed(administrator):
    """Every session of a store has ended."""
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
    while administrator.execute(kill, (postgresql_session.APPLICATION,)).fetchone() != (0,):
        time.sleep(0.02)


def test_a_session_that_is_lost_fails_once_and_the_next_call_has_a_new_one(own_server, store):
    write(store, "n", {"a": b"1"})
    with own_server.connect() as con:
        with pytest.raises(StoreUnavailable, match=r"connection to the store .* was lost"):
            with store.writing("n", 1) as w:
                killed(con)
                w.current(["a"])
        write(store, "n", {"b": b"1"})
        with pytest.raises(StoreUnavailable, match="was lost"):
            with store.reader() as reader:
                killed(con)
                reader.count("n")
        assert keys_of(store, "n") == ["a", "b"]


def test_a_busy_namespace_and_a_cancelled_statement_are_said_so(own_server, store):
    write(store, "n", {"a": b"1"})
    quick, patient = same(store, own_server, busy_timeout=0.1), same(store, own_server, busy_timeout=300)
    with raw(own_server, store) as agent:
        agent.execute("BEGIN")
        agent.execute("UPDATE memory_records SET updated = updated")
        with pytest.raises(StoreUnavailable, match="is busy: another session held"):
            write(quick, "n", {"a": b"2"})
        with own_server.connect() as administrator:
            cancel = threading.Thread(target=cancelled, args=(administrator,))
            cancel.start()
            with pytest.raises(StoreUnavailable, match="was cancelled by the server"):
                write(patient, "n", {"a": b"2"})
            cancel.join()
        agent.execute("ROLLBACK")
    write(store, "n", {"a": b"3"})
    assert [r[8] for r in all_rows(store, "n")] == [b"3"]
    quick.close()
    patient.close()


def cancelled(administrator):
    """Whoever waits for a lock next is told not to."""
    while not administrator.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted").fetchall():
        time.sleep(0.02)


def test_a_crashed_server_loses_nothing_that_was_acknowledged(own_server, store):
    write(store, "n", {"a": b"1"})
    with pytest.raises(MemoryOpsError):
        with store.writing("n", 1) as w:
            store._put_rows(store._session(), w.generation, all_rows(store, "n"))
            crash(own_server)
            w.current(["a"])
    assert keys_of(store, "n") == ["a"]
    write(store, "n", {"b": b"1"})
    assert health(store)["intact"]


def test_values_that_fit_no_column_are_refused(store):
    for bad in ({4: "soon"}, {2: 1 << 70}, {8: "text"}, {0: "\ud800"}):
        with pytest.raises(InvalidInput, match="does not take this record"):
            with store.writing("n", 1) as w:
                row = ["k", w.epoch, w.first_sequence, w.at, w.at, None, None, "k1", b"x", b"c"]
                for at, value in bad.items():
                    row[at] = value
                w.put([tuple(row)], [])
    with store.reader() as reader:
        assert reader.namespaces() == []

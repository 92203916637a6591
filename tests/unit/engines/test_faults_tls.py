# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""TLS with servers that really speak it: Debian's, as those of the Python packages were built without."""
from __future__ import annotations

import os

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import valkey_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput, StoreUnavailable
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.certificates import Authority
from tests.support.debian import need
from tests.support.guard import Guarded
from tests.support.postgresql_server import PostgresqlServer
from tests.support.s3_server import free_ports
from tests.support.valkey_server import OWNER, ValkeyServer
from tests.unit.engines.sqlite_help import keys_of, write
from tests.unit.engines.valkey_help import prefix


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that signed nobody's certificate."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def refused(params, kind=StoreUnavailable, **more):
    with pytest.raises(kind) as caught:
        open_store({**params, **more}).close()
    text = str(caught.value)
    assert caught.value.next_step and "\n" not in text and caught.value.message.count(". ") == 0, text
    assert params["password"] not in text
    assert "Traceback" not in text and "_ssl" not in text and "[SSL" not in text, text
    return text


def serves(params):
    store = open_store(params, create=True)
    write(store, "n", {"a": b"1"})
    assert keys_of(store, "n") == ["a"]
    store.close()


# --- PostgreSQL -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def postgresql(authority):
    server = PostgresqlServer("ssl = on", binaries=os.path.dirname(os.path.realpath(need("postgresql", "postgres"))))
    certificate, key = authority.certificate("localhost", server.directory, server.user)
    server.settings += (f"ssl_cert_file = '{certificate}'", f"ssl_key_file = '{key}'")
    with server:
        yield server


def test_postgresql(postgresql, authority, stranger, tmp_path):
    url = f"postgresql://localhost:{postgresql.port}/memory?hostaddr=127.0.0.1"
    params = postgresql.store("tls", url=url, tls_ca=authority.ca)
    serves(params)
    serves({**params, "url": f"{url}&sslmode=verify-full"})
    assert "its TLS certificate is for another host name" in refused(params, url=postgresql.url)
    assert "its TLS certificate is not trusted" in refused(params, tls_ca=stranger.ca)
    assert "the password is wrong" in refused(params, password="not-that-one")
    broken = tmp_path / "broken.crt"
    broken.write_text("no certificate")
    assert "TLS" in refused(params, tls_ca=str(broken))
    _certificate, key = authority.certificate("agent", tmp_path)
    assert "the TLS certificate cannot be used" in refused(params, tls_cert=str(broken), tls_key=key)
    for name in ("tls_ca", "tls_cert", "tls_key"):
        assert f"memory_store.{name}" in refused(params, InvalidInput, **{name: str(tmp_path / "none")})


def test_postgresql_that_demands_tls_and_one_that_has_none(postgresql, postgresql_server, authority):
    with open(os.path.join(postgresql.data, "pg_hba.conf"), encoding="ascii") as file:
        before = file.read()
    with open(os.path.join(postgresql.data, "pg_hba.conf"), "w", encoding="ascii") as file:
        file.write("hostssl all memops all scram-sha-256\nhost all postgres all scram-sha-256\n")
    try:
        with postgresql.connect() as con:
            con.execute("SELECT pg_reload_conf()")
            con.execute("SELECT pg_sleep(0.3)")
        serves(postgresql.store("tls"))  # libpq takes TLS where it is offered
        assert "does not let this user in from here without TLS" in refused(
            postgresql.store("tls", url=f"{postgresql.url}?sslmode=disable")
        )
    finally:
        with open(os.path.join(postgresql.data, "pg_hba.conf"), "w", encoding="ascii") as file:
            file.write(before)
        with postgresql.connect() as con:
            con.execute("SELECT pg_reload_conf()")
    assert "the server has no TLS" in refused(postgresql_server.store("tls", tls_ca=authority.ca))


# --- Redis ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def redis(authority):
    port = free_ports(1)[0]
    server = ValkeyServer(binary=need("redis-server", "redis-server"))
    certificate, key = authority.certificate("localhost", server.directory)
    server.settings = (
        f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {authority.ca}",
        "tls-auth-clients optional",
    )  # fmt: skip
    server.tls = f"valkeys://localhost:{port}/0"
    with server:
        yield server


def test_redis(redis, authority, stranger, tmp_path):
    params = redis.store(prefix(), url=redis.tls, tls_ca=authority.ca)
    serves(params)
    assert "its certificate is for another name" in refused(params, url=redis.tls.replace("localhost", "127.0.0.1"))
    assert "its certificate is not trusted" in refused(params, tls_ca=stranger.ca)
    assert "its certificate is not trusted" in refused({**params, "tls_ca": None})  # the machine's
    assert "refuses the login of user memops" in refused(params, password="not-that-one")
    certificate, key = authority.certificate("agent", tmp_path)
    serves({**params, "tls_cert": certificate, "tls_key": key})
    for name in ("tls_ca", "tls_cert", "tls_key"):
        assert f"correct memory_store.{name}" in refused(params, **{name: str(tmp_path / "none")})
    broken = tmp_path / "broken.crt"
    broken.write_text("no certificate")
    assert "tls_ca" in refused(params, tls_ca=str(broken))
    assert "tls_cert" in refused(params, tls_cert=str(broken), tls_key=key)


def test_redis_that_demands_a_certificate(redis, authority, stranger, tmp_path):
    """It says so in an alert, which a client sees or not: it may write first to the connection that was closed."""
    params = redis.store(prefix(), url=redis.tls, tls_ca=authority.ca)
    with redis.client() as client:
        client.config_set("tls-auth-clients", "yes")
    try:
        assert "client certificate" in refused(params)
        certificate, key = stranger.certificate("agent", tmp_path)
        assert "client certificate" in refused(params, tls_cert=certificate, tls_key=key)
        certificate, key = authority.certificate("agent", tmp_path)
        serves({**params, "tls_cert": certificate, "tls_key": key})
    finally:
        with redis.client() as client:
            client.config_set("tls-auth-clients", "optional")


def test_plain_to_a_tls_port_and_tls_to_a_plain_one(redis, authority, monkeypatch):
    plain = redis.store(prefix(), url=redis.tls.replace("valkeys:", "valkey:"))
    assert "whether it wants TLS" in refused(plain)
    monkeypatch.setattr(valkey_connect, "CONNECT_SECONDS", 0.3)  # the server waits for the end of a line
    url = redis.url.replace("valkey:", "valkeys:").replace("127.0.0.1", "localhost")
    assert "whether it speaks TLS" in refused(redis.store(prefix(), url=url, tls_ca=authority.ca, busy_timeout=0.3))


# --- Sentinel -------------------------------------------------------------------------------------------------------
def test_a_sentinel_that_speaks_tls_alone(redis, authority, stranger):
    sentinel, port = Guarded("sentinel"), free_ports(1)[0]
    certificate, key = authority.certificate("localhost", sentinel.directory)
    primary = redis.tls.rpartition(":")[2].partition("/")[0]
    config = os.path.join(sentinel.directory, "sentinel.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(
            f"port 0\ntls-port {port}\ndir {sentinel.directory}\ntls-cert-file {certificate}\ntls-key-file {key}\n"
            f"tls-ca-cert-file {authority.ca}\ntls-auth-clients optional\ntls-replication yes\n"
            f"sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
            f"sentinel monitor mymaster localhost {primary} 1\nsentinel auth-user mymaster {OWNER}\n"
            f"sentinel auth-pass mymaster {redis.passwords[OWNER]}\n"
        )
    sentinel.run([need("redis-server", "redis-server"), config, "--sentinel"])
    try:
        params = redis.store(
            prefix(), url="valkeys://elsewhere/0", tls_ca=authority.ca, sentinels=[f"localhost:{port}"],
            sentinel_service="mymaster",
        )  # fmt: skip
        serves(params)
        nobody = "No Sentinel of mymaster answers and names a primary that is up"
        assert nobody in refused(params, tls_ca=stranger.ca, busy_timeout=0.1)
        assert nobody in refused(params, url=None, busy_timeout=0.1)  # without TLS
    finally:
        sentinel.stop()

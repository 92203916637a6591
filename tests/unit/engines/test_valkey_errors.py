# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a server, said in one sentence with the next step, and never with the password."""
from __future__ import annotations

import socket
import threading
import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_connect import (
    Wire,
    packed,
    place_of,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_errors import (
    translate,
    valkey_errors,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    CapabilityMissing,
    InvalidInput,
    MemoryOpsError,
    StoreDamaged,
    StoreMissing,
    StoreUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.s3_server import free_ports
from tests.unit.engines.sqlite_help import keys_of, structure, write
from tests.unit.engines.valkey_help import Mortal, new_valkey, prefix, same

SECRET = "the-secret-word"


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"url": None}, "does not name a Valkey"),
        ({"url": "http://localhost:1"}, "does not name a Valkey"),
        ({"url": "valkey://localhost:port/0"}, "does not name a Valkey"),
        ({"url": "valkey://localhost/first"}, "does not name a Valkey"),
        ({"url": f"valkey://user:{SECRET}@localhost/0"}, "contains a password"),
        ({"prefix": "a*"}, "prefix is 'a.'"),
        ({"prefix": "a{b"}, "only letters"),
        ({"busy_timeout": "soon"}, "busy_timeout is 'soon'"),
        ({"tls_ca": "/does/not/exist"}, "There is no file /does/not/exist"),
        ({"password_file": "/does/not/exist"}, "password file /does/not/exist cannot be read: No such file"),
    ],
)
def test_parameters_that_cannot_be_meant(more, match):
    with pytest.raises((InvalidInput, StoreUnavailable), match=match) as caught:
        open_store({"engine": "valkey", "url": "valkey://localhost:1/0", **more})
    assert SECRET not in str(caught.value)
    assert caught.value.next_step


def test_a_password_is_read_from_its_file_and_shown_nowhere(valkey_server, tmp_path):
    file = tmp_path / "password"
    file.write_text(valkey_server.passwords["memops"] + "\n")
    params = {**valkey_server.store(prefix()), "password": None, "password_file": str(file)}
    store = open_store(params, create=True)
    assert valkey_server.passwords["memops"] not in repr(store.place)
    store.close()


def test_wrong_logins(valkey_server):
    for wrong in ({"password": SECRET}, {"user": "nobody", "password": SECRET}, {"user": None, "password": None}):
        with pytest.raises(StoreUnavailable, match=r"refuses the login of user (memops|nobody|default)") as caught:
            open_store({**valkey_server.store(), **wrong}, create=True)
        assert SECRET not in str(caught.value)


def test_no_server_and_no_store(valkey_server):
    with pytest.raises(StoreUnavailable, match="cannot be reached: the connection was refused"):
        open_store({"engine": "valkey", "url": f"valkey://127.0.0.1:{free_ports(1)[0]}/0"})
    with pytest.raises(StoreUnavailable, match="cannot be reached: its name is not known"):
        open_store({"engine": "valkey", "url": "valkey://no-such-host.invalid:6379/0"})
    with pytest.raises(StoreMissing, match=r"There is no memory store at valkey://127.0.0.1"):
        open_store(valkey_server.store(prefix()))


def test_tls_where_the_server_has_none(valkey_server):
    wire = Wire(place_of({**valkey_server.store(), "url": valkey_server.url.replace("valkey:", "valkeys:")}))
    wire._con.socket_timeout = 0.3
    with pytest.raises(StoreUnavailable, match="TLS"), valkey_errors(wire.place):
        wire.call("PING")


def test_a_server_that_never_answers():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"valkey://127.0.0.1:{silent.getsockname()[1]}/0"
        wire = Wire(place_of({"url": url}))
        wire._con.socket_timeout = 0.2
        with pytest.raises(StoreUnavailable, match="did not answer in time"), valkey_errors(wire.place):
            wire.call("PING")


@pytest.mark.parametrize("hiredis", [True, False])
def test_each_of_many_commands_gets_its_own_reply(valkey_server, hiredis):
    wire = Wire(place_of(valkey_server.store()))
    if not hiredis:
        wire._nothing = None
    name, value = prefix(), b"x" * 3000
    asked = [packed("SET", name, value), *[packed("GET", name), packed("LPUSH", name, "y")] * 2000, packed("DEL", name)]
    for _turn in range(2):
        set_, *replies, deleted = wire.many(asked)
        assert (set_, deleted, set(replies[::2])) == (b"OK", 1, {value})
        assert all(isinstance(one, wire._refusal) and "WRONGTYPE" in str(one) for one in replies[1::2])
    assert wire.connected
    wire.close()


def test_a_server_that_closes_after_some_replies():
    from redis.exceptions import ConnectionError as Lost

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        wire = Wire(place_of({"url": f"valkey://127.0.0.1:{server.getsockname()[1]}/0"}))
        for last in (b"", b"-LOADING the data set\r\n:3\r\n:4\r\n:5\r\n"):
            answering = threading.Thread(target=_answer, args=(server, b":1\r\n:2\r\n" + last))
            answering.start()
            with pytest.raises(Lost):
                wire.many([packed("PING")] * 5)
            answering.join()
            assert not wire.connected


def _answer(server, replies):
    link, _address = server.accept()
    with link:
        link.recv(1 << 16)
        link.sendall(replies)


def test_rights_that_are_missing_are_named(valkey_server):
    store = new_valkey(valkey_server)
    with valkey_server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">reader", f"%R~{store.place.prefix}*", "+@read", "+@connection"
        )
    reader = same(store, valkey_server, user="reader", password="reader")
    write(store, "n", {"a": b"1"})
    assert keys_of(reader, "n") == ["a"]
    assert reader.warnings() == ["the server's user may not use INFO, so nothing is known about what is on its disk"]
    with pytest.raises(StoreUnavailable, match="does not allow user reader to run unwatch"):
        write(reader, "n", {"a": b"1"})
    with valkey_server.client() as client:
        client.execute_command("ACL", "DELUSER", "reader")
    store.close()


def test_another_format_layout_or_type(valkey_server):
    store = new_valkey(valkey_server)
    params = valkey_server.store(store.place.prefix)
    write(store, "n", {"a": b"1"})
    with valkey_server.client() as client:
        client.hset(store.names.store, "format", 99)
        with pytest.raises(InvalidInput, match="has format 99; this version knows format 1"):
            open_store(params)
        client.hset(store.names.store, "format", 1)
        client.hset(store.names.store, "layout", "other")
        with pytest.raises(InvalidInput, match="has the layout other, not native"):
            open_store(params)
        client.delete(store.names.store)
        with pytest.raises(StoreDamaged, match="has lost its identity"):
            open_store(params, create=True)
        client.set(store.names.store, "text")
        with pytest.raises(StoreDamaged, match="a key of a wrong type"):
            open_store(params)
    store.close()


def test_a_full_server_writes_nothing_and_says_so(tmp_path):
    with Mortal(tmp_path) as server:
        store = open_store(server.params(), create=True)
        write(store, "n", {"a": b"1"})
        with server.client() as client:
            client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match=r"used all of its maxmemory. Nothing was written"):
            write(store, "n", {f"{n}": bytes(100_000) for n in range(20)})
        with server.client() as client:
            client.config_set("maxmemory", 0)
        assert keys_of(store, "n") == ["a"]
        write(store, "n", {"b": b"1"}, wait=0)
        assert structure(store) == []
        store.close()


def test_memory_that_runs_out_in_the_middle_of_a_transaction_leaves_nothing_half_done(tmp_path):
    with Mortal(tmp_path) as server:
        store = open_store(server.params(busy_timeout=1), create=True)
        rows = write(store, "n", {"a": b"1"})
        with server.client() as client:
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory", used + 200_000)
        with pytest.raises(StoreUnavailable, match="used all of its maxmemory"):
            for n in range(1000):
                write(store, "n", {f"{n}-{i}": bytes(900) for i in range(50)})
        with server.client() as client:
            client.config_set("maxmemory", 0)
        found = keys_of(store, "n")
        assert (len(found) - len(rows)) % 50 == 0
        with store.reader() as reader:
            assert reader.log_health()["intact"]
            assert reader.structure() == []
        store.close()


def test_a_server_that_may_drop_records_is_a_finding(tmp_path):
    with Mortal(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        store = open_store(server.params(), create=True)
        assert structure(store) == [
            "maxmemory-policy is allkeys-lru: the server may drop records; set it to noeviction"
        ]
        store.close()


def test_a_replica_is_no_primary(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with Mortal(tmp_path / "one") as primary:
        store = open_store(primary.params(), create=True)
        write(store, "n", {"a": b"1"})
        with Mortal(tmp_path / "two", "--replicaof", "127.0.0.1", str(primary.port)) as second:
            replica = _open_when_filled(second)
            assert keys_of(replica, "n") == ["a"]
            with pytest.raises(StoreUnavailable, match="is a read-only replica") as caught:
                write(replica, "n", {"a": b"2"})
            assert caught.value.next_step == "set memory_store.url to the primary"
            assert structure(replica) == []
            assert replica.warnings() == ["the server is a replica: it takes no writes"]
            at = f"raw clients of user default at the replica valkey://127.0.0.1:{second.port}/0"
            assert not any(at in line for line in store.prove("n")["not_fenced"])  # the operator's own user
            replica.close()
        store.close()


def _open_when_filled(server):
    for _turn in range(3000):
        try:
            return open_store(server.params())
        except MemoryOpsError:
            time.sleep(0.1)
    raise AssertionError("the replica was not filled")


def test_a_server_in_cluster_mode_is_refused(tmp_path):
    with Mortal(tmp_path, "--cluster-enabled", "yes") as server:
        with pytest.raises(CapabilityMissing, match="cluster mode"):
            open_store(server.params(), create=True)


def test_a_disk_that_cannot_be_written_stops_writes_with_a_reason(tmp_path):
    with Mortal(tmp_path, "--appendonly", "no") as server:
        store = open_store(server.params(), create=True)
        with server.client() as client:
            client.config_set("save", "3600 1")
            (tmp_path / "dump.rdb").mkdir()  # the dump cannot take its name
            client.execute_command("BGSAVE")
            for _turn in range(3000):
                if client.info("persistence")["rdb_last_bgsave_status"] == "err":
                    break
                time.sleep(0.1)
        with pytest.raises(StoreUnavailable, match="because it cannot save to its disk"):
            write(store, "n", {"a": b"1"})
        store.close()


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ("LOADING Redis is loading the dataset in memory", "still loading"),
        ("MASTERDOWN Link with MASTER is down", "lost its primary"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("MOVED 1 127.0.0.1:1", "cluster mode"),
        ("ERR unknown command 'ZMSCORE', with args beginning with: 'secret'", "does not know a command"),
        ("ERR something about secret", "refused a command"),
    ],
)
def test_answers_of_a_server_in_words(answer, match):
    from redis._parsers.base import BaseParser

    place = place_of({"url": "valkey://h:1/0", "password": SECRET})
    error = translate(BaseParser.parse_error(answer), place)
    assert match in error.message
    assert error.next_step
    assert "secret" not in str(error)

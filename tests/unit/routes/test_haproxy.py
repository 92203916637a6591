# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""HAProxy's runtime API: real instances before real TCP servers."""
from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    RouteShared,
    RouteUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._routes import move, open_route
from tests.support.haproxy_server import HAProxyServer, Talker

SERVERS = {"memory-1": "one", "memory-2": "two"}


@pytest.fixture
def talkers():
    both = [Talker("one"), Talker("two")]
    yield {talker.name: talker.port for talker in both}
    for talker in both:
        talker.close()


@pytest.fixture
def proxies(talkers):
    """Two instances of the same configuration."""
    with HAProxyServer({"memory": talkers}, disabled=["two"]) as one:
        with HAProxyServer({"memory": talkers}, disabled=["two"]) as two:
            yield one, two


def params(*proxies, **more):
    return {
        "kind": "haproxy", "sockets": [proxies[0].socket, *(p.address for p in proxies[1:])], "backend": "memory",
        "servers": SERVERS, "timeout": 60.0, **more,
    }  # fmt: skip


def led(given, to, **options):
    return move(open_route(given, "agent-7", to=to), **options)


def test_there_and_back_on_all_instances(proxies):
    given = params(*proxies)
    assert [p.reached() for p in proxies] == ["one", "one"]
    open_before, name = proxies[1].connect()
    assert name == "one"
    checked = led(given, "memory-2", check=True)
    assert (checked.changed, checked.elsewhere, [p.reached() for p in proxies]) == (True, True, ["one", "one"])
    there = led(given, "memory-2")
    assert (there.changed, there.before, there.after) == (True, checked.before, checked.after)
    assert {at["host"] for at in there.before.values()} == {"memory-1"}
    assert there.after == {
        address: {"host": "memory-2", "sessions_elsewhere": 0} for address in (proxies[0].socket, proxies[1].address)
    }
    assert [p.reached() for p in proxies] == ["two", "two"]
    assert open_before.recv(10) == b""  # the session to the former server was shut down
    open_before.close()
    assert not led(given, "memory-2").changed
    home = led(given, "memory-1")
    assert (home.changed, home.elsewhere, [p.reached() for p in proxies]) == (True, True, ["one", "one"])
    assert not led(given, "memory-1").changed


def test_what_an_operator_left_open_on_the_former_server_is_shut_down(proxies):
    given = params(proxies[0])
    connection, name = proxies[0].connect()
    assert name == "one"
    route = open_route(given, "agent-7", to="memory-2")
    for server, state in (("one", "maint"), ("two", "ready")):
        route._instances[0].order(f"set server memory/{server} state {state}")
    moved = move(route)
    assert (moved.changed, moved.elsewhere) == (True, False)
    assert moved.before == {proxies[0].socket: {"host": "memory-2", "sessions_elsewhere": 1}}
    assert connection.recv(10) == b""
    connection.close()
    assert not led(given, "memory-2").changed


def test_an_instance_that_is_away_leaves_the_others_as_they_are(proxies):
    given = params(*proxies, timeout=1.0)
    given["sockets"].append("127.0.0.1:1")
    with pytest.raises(RouteUnavailable, match=r"127\.0\.0\.1:1 cannot be asked: Connection refused"):
        led(given, "memory-2")
    assert [p.reached() for p in proxies] == ["one", "one"]


def test_an_instance_that_fails_in_the_middle_puts_the_others_back(proxies, monkeypatch):
    given = params(*proxies)
    route = open_route(given, "agent-7", to="memory-2")
    last = route._instances[1]
    genuine, told = last.order, []

    def order(*commands):
        told.append(commands)
        if len(told) == 1:
            genuine(commands[0])  # the connection breaks after the first one
            raise RouteUnavailable("HAProxy went away.", "look")
        genuine(*commands)

    monkeypatch.setattr(last, "order", order)
    with pytest.raises(RouteUnavailable, match=r"went away.*was not moved; every instance is as it was before"):
        move(route)
    assert [p.reached() for p in proxies] == ["one", "one"]
    assert led(given, "memory-2").changed
    assert [p.reached() for p in proxies] == ["two", "two"]


def test_an_instance_that_cannot_be_put_back_is_named(proxies, monkeypatch):
    route = open_route(params(*proxies), "agent-7", to="memory-2")

    def order(*_commands):
        raise RouteUnavailable("HAProxy went away.", "look")

    monkeypatch.setattr(route._instances[1], "order", order)
    with pytest.raises(RouteUnavailable, match=f"could not be put back at {proxies[1].address}"):
        move(route)
    assert proxies[0].reached() == "one"


def test_a_server_that_fails_its_health_check_takes_nothing_over(talkers):
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(socket.socket())
        dead.bind(("127.0.0.1", 0))  # held, so that nobody else comes to listen there
        servers = {"one": talkers["one"], "two": dead.getsockname()[1]}
        proxy = stack.enter_context(
            HAProxyServer({"memory": servers}, disabled=["two"], check="check inter 100ms fall 2")
        )
        with pytest.raises(RouteUnavailable, match=r"the way to memory-2 is not up after 1 s.*as it was before"):
            led(params(proxy, timeout=1.0), "memory-2")
        connection, name = proxy.connect()
        assert name == "one"
        connection.close()


def test_a_healthy_server_is_waited_for(talkers):
    with HAProxyServer({"memory": talkers}, disabled=["two"], check="check inter 200ms") as proxy:
        assert led(params(proxy), "memory-2").changed
        assert proxy.reached() == "two"


def test_a_backup_server_stands_by_until_it_is_led_to(talkers):
    with HAProxyServer({"memory": talkers}, backup=["two"]) as proxy:
        given = params(proxy)
        assert not led(given, "memory-1").changed
        assert led(given, "memory-2").changed
        assert proxy.reached() == "two"
        assert led(given, "memory-1").changed
        assert proxy.reached() == "one"


def test_a_saved_state_survives_a_reload(talkers):
    with HAProxyServer({"memory": talkers}, backup=["two"]) as proxy:
        route = open_route(params(proxy), "agent-7", to="memory-2")
        move(route)
        state = route._instances[0].ask("show servers state")
    reloaded = HAProxyServer({"memory": talkers}, backup=["two"])
    with open(reloaded.state, "w", encoding="utf-8") as file:
        file.write(state + "\n")
    with reloaded:
        assert reloaded.reached() == "two"
        assert not led(params(reloaded), "memory-2").changed


def test_a_backend_for_each_namespace_moves_alone(talkers):
    backends = {"memory-agent-7": talkers, "memory-agent-8": talkers}
    with HAProxyServer(backends, disabled=["two"]) as proxy:
        given = params(proxy, backend="memory-{namespace}")
        moved = led(given, "memory-2", along=["agent-8"])
        assert (moved.changed, proxy.reached()) == (True, "two")
        other = open_route(given, "agent-8", to="memory-1")
        assert not move(other).changed
        for namespace in ("agent 8", "agent-8;show info", "agent-8\nshow info", "ä"):
            with pytest.raises(InvalidInput, match="HAProxy does not take"):
                open_route(given, namespace, to="memory-1")


def test_one_backend_for_the_store_is_not_moved_for_one_namespace(proxies):
    with pytest.raises(RouteShared, match="leads to the whole store, so agent-8, agent-9 would move along") as refused:
        led(params(*proxies), "memory-2", along=["agent-9", "agent-8"])
    assert "memory_route.backend" in refused.value.next_step
    assert proxies[0].reached() == "one"


def test_a_map_entry_moves(talkers):
    backends = {"primary": {"only": talkers["one"]}, "secondary": {"only": talkers["two"]}}
    with HAProxyServer(backends, entries={"agent-7": "primary", "agent-8": "primary"}) as proxy:
        given = params(
            proxy, backend=None, map=proxy.map, servers={"memory-1": "primary", "memory-2": "secondary"}
        )
        connection, name = proxy.connect()
        assert name == "one"
        there = led(given, "memory-2", along=["agent-8"])
        assert (there.changed, there.elsewhere, proxy.reached()) == (True, True, "two")
        assert connection.recv(10) == b""
        connection.close()
        assert not led(given, "memory-2").changed
        assert not move(open_route(given, "agent-8", to="memory-1")).changed  # its entry is its own
        assert led(given, "memory-1").changed
        assert proxy.reached() == "one"
        with pytest.raises(InvalidInput, match=r"Entry agent-9 .* is not there"):
            move(open_route(given, "agent-9", to="memory-2"))
        with pytest.raises(InvalidInput, match="has no backend third"):
            led({**given, "servers": {"memory-1": "primary", "memory-2": "third"}}, "memory-2")
        with pytest.raises(InvalidInput, match="has loaded no map /none"):
            led({**given, "map": "/none"}, "memory-2")
        with pytest.raises(InvalidInput, match="the same for every namespace"):
            led({**given, "key": "all"}, "memory-2")
        assert proxy.reached() == "one"


def test_a_backend_that_is_not_as_declared(talkers):
    third = {**talkers, "three": talkers["one"]}
    with HAProxyServer({"memory": third}, disabled=["two"]) as proxy:
        for given, why in (
            (params(proxy), "has the server three in service, too"),
            (params(proxy, backend="none"), "has no backend none"),
            (params(proxy, servers={"memory-1": "one", "memory-2": "none"}), "lacks the server none"),
            (params(proxy, servers={"memory-1": "one"}), "does not say what stands for memory-2"),
            (params(proxy, servers={"memory-1": "one", "memory-2": "one"}), "the same name for two"),
            (params(proxy, sockets=[]), "No HAProxy is named"),
            (params(proxy, sockets=["localhost"]), "no address of a stats socket"),
            (params(proxy, backend=None), "either the backend of HAProxy or its map"),
            (params(proxy, map="/m"), "either the backend of HAProxy or its map"),
            (params(proxy, servers={"memory-1": "one", "memory-2": "two three"}), "HAProxy does not take"),
        ):
            with pytest.raises(InvalidInput, match=why):
                led(given, "memory-2")


def test_two_servers_in_service_at_once_are_no_route(talkers):
    with HAProxyServer({"memory": talkers}) as proxy:
        with pytest.raises(InvalidInput, match="one and two in service at once") as refused:
            led(params(proxy), "memory-2")
        assert "memory_route.kind=none" in refused.value.next_step


def test_a_socket_that_may_not_change_anything_says_so(talkers):
    proxy = HAProxyServer({"memory": talkers}, disabled=["two"])
    with open(proxy.config, encoding="utf-8") as file:
        text = file.read().replace("level admin", "level user")
    with open(proxy.config, "w", encoding="utf-8") as file:
        file.write(text)
    with proxy:
        with pytest.raises(RouteUnavailable, match="Permission denied") as refused:
            led(params(proxy), "memory-2")
        assert "level admin" in refused.value.next_step
        assert proxy.reached() == "one"


def test_an_instance_that_hangs_or_is_something_else(tmp_path, talkers):
    path = str(tmp_path / "hangs.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(RouteUnavailable, match="did not answer in time"):
            led(params(type("Proxy", (), {"socket": path}), timeout=0.3), "memory-2")
    with pytest.raises(RouteUnavailable, match="No such file"):
        led(params(type("Proxy", (), {"socket": str(tmp_path / "none")})), "memory-2")
    other = f"127.0.0.1:{talkers['one']}"  # answers, but is no HAProxy
    with pytest.raises(RouteUnavailable):
        led({**params(type("Proxy", (), {"socket": other}), timeout=0.5)}, "memory-2")


def test_killed_at_any_order_the_next_run_ends_it(proxies):
    """One line carries a whole switch, so an instance is before it or after it; the next run does the rest."""
    given = params(*proxies)
    first = open_route({**given, "sockets": given["sockets"][:1]}, "agent-7", to="memory-2")
    move(first)  # the second instance was not reached any more
    assert [p.reached() for p in proxies] == ["two", "one"]
    ends = led(given, "memory-2")
    assert (ends.changed, [p.reached() for p in proxies]) == (True, ["two", "two"])


def test_connections_under_way_lose_no_answer_to_a_wrong_server(proxies):
    """Applications that connect again and again meet one server before the switch and the other one after it."""
    proxy, names, stop = proxies[0], [], threading.Event()

    def work():
        while not stop.is_set():
            names.append(proxy.reached())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        led(params(proxy), "memory-2")
        reached = len(names)
        while len(names) < reached + 20:
            assert worker.is_alive()
    finally:
        stop.set()
        worker.join()
    assert set(names[reached + 1 :]) == {"two"}

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failover, failback and rebuild over other routes than the file: real HAProxy, the inventory's own tasks, none."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import sqlite3
import sys
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Outcome, Site
from tests.support.haproxy_server import HAProxyServer, Talker


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status != 0, outcome.text
    assert "Traceback" not in outcome.text
    for word in words:
        assert word in outcome.text, outcome.text


def site_with_backup(folder: pathlib.Path, route: dict[str, t.Any], *namespaces: str) -> Site:
    site = Site(folder, memory_route=route)
    for namespace in namespaces or ("agent-7",):
        site.fill(namespace, 200)
        site.read(namespace, 150)
    passed(site.play("backup"), changed=True)
    return site


def states(site: Site, namespace: str) -> dict[str, str]:
    found = {}
    for host, store in site.stores.items():
        with contextlib.closing(sqlite3.connect(store["path"])) as con:
            (found[host],) = con.execute("SELECT state FROM memops_namespace WHERE name = ?", (namespace,)).fetchone()
    return found


AWAY = {"primary": "quarantined", "secondary": "serving"}
HOME = {"primary": "serving", "secondary": "standby"}


@pytest.fixture
def talkers() -> t.Iterator[dict[str, int]]:
    both = [Talker("primary"), Talker("secondary")]
    yield {talker.name: talker.port for talker in both}
    for talker in both:
        talker.close()


def haproxy(*proxies: HAProxyServer, **more: t.Any) -> dict[str, t.Any]:
    return {"kind": "haproxy", "sockets": [p.socket for p in proxies], "timeout": 5, **more}


def test_haproxy_with_a_backend_for_the_namespace(tmp_path: pathlib.Path, talkers: dict[str, int]) -> None:
    backends = {"memory-agent-7": talkers}
    proxies = [HAProxyServer(backends, backup=["secondary"]) for _number in range(2)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(proxies[0])
        site = site_with_backup(tmp_path, haproxy(*proxies, backend="memory-{namespace}"), "agent-7", "agent-8")
        away = site.play("failover", memory_namespace="agent-7")
        refused(away, f"HAProxy at {proxies[1].socket} cannot be asked", "memory_route.sockets")
        assert proxies[0].reached() == "primary"
        stack.enter_context(proxies[1])
        site.flip("agent-7", ["key-00003"])
        checked = site.play("failover", "--check", "--diff", memory_namespace="agent-7")
        assert checked.status == 0, checked.text
        assert "would serve" in checked.text
        assert [p.reached() for p in proxies] == ["primary", "primary"]
        passed(site.play("failover", memory_namespace="agent-7"), changed=True)
        assert [p.reached() for p in proxies] == ["secondary", "secondary"]
        assert states(site, "agent-7") == AWAY
        passed(site.play("failover", memory_namespace="agent-7"), changed=False)
        refused(site.play("release", memory_namespace="agent-7"), "is served by the secondary", "failback")
        with site.working("agent-8"):
            rebuilt = site.play("rebuild", memory_namespace="agent-7", memory_slo={"hit_rate": 0.0})
        assert [p.reached() for p in proxies] == ["primary", "primary"], rebuilt.text
        assert states(site, "agent-7") == HOME
        passed(site.play("failback", memory_namespace="agent-7"), changed=False)


def test_haproxy_with_one_backend_moves_the_whole_store_or_nothing(
    tmp_path: pathlib.Path, talkers: dict[str, int]
) -> None:
    both = ["agent-7", "agent-8"]
    with HAProxyServer({"memory": talkers}, backup=["secondary"]) as proxy:
        site = site_with_backup(tmp_path, haproxy(proxy, backend="memory"), *both)
        alone = site.play("failover", memory_namespace="agent-7")
        refused(alone, "leads to the whole store, so agent-8 would move along", "memory_route.backend")
        assert (states(site, "agent-7"), proxy.reached()) == (HOME, "primary")
        without = site.play("rebuild", "--check", memory_namespace="agent-7")
        assert without.status == 0, without.text
        assert "No failover: HAProxy's backend memory leads to the whole store" in without.text
        passed(site.play("failover", memory_namespace=both), changed=True)
        assert [states(site, name) for name in both] == [AWAY, AWAY]
        assert proxy.reached() == "secondary"
        refused(site.play("failback", memory_namespace="agent-7"), "so agent-8 would move along")
        assert [states(site, name) for name in both] == [AWAY, AWAY]
        passed(site.play("failback", memory_namespace=both), changed=True)
        assert proxy.reached() == "primary"
        passed(site.play("release", memory_namespace=both), changed=True)
        assert [states(site, name) for name in both] == [HOME, HOME]


MOVE = """
- name: Write down where to
  ansible.builtin.copy:
    content: >-
      {{ memory_route_namespace }} {{ memory_route_to }} {{ memory_route_direction }} {{ memory_route_store.path }}
    dest: "%s"
    mode: "0644"
"""
CHECK = """
- name: Look whether it leads there
  ansible.builtin.slurp:
    src: "%s"
  register: site_led
- name: Refuse another host
  ansible.builtin.assert:
    that: site_led.content | b64decode is search(' ' ~ memory_route_to ~ ' ')
"""
FAIL = """
- name: Ask the switch
  ansible.builtin.fail:
    msg: the switch does not answer
"""


def test_tasks_of_the_inventory(tmp_path: pathlib.Path) -> None:
    tasks, check, led = tmp_path / "move.yml", tmp_path / "check.yml", tmp_path / "led"
    route = {"kind": "tasks", "tasks": str(tasks), "check": str(check)}
    site = site_with_backup(tmp_path, route)
    site.flip("agent-7", ["key-00003"])
    refused(site.play("failover", memory_namespace="agent-7"), "is no file on the controller", "nothing was changed")
    assert states(site, "agent-7") == HOME
    tasks.write_text(MOVE % led)
    check.write_text(FAIL)
    checked = site.play("failover", "--check", memory_namespace="agent-7")
    assert checked.status == 0, checked.text
    assert not led.exists()
    failed = site.play("failover", memory_namespace="agent-7")
    refused(failed, "was not led to secondary", "the task 'Ask the switch' failed (the switch does not answer)")
    assert states(site, "agent-7") == AWAY
    refused(site.play("release", memory_namespace="agent-7"), "is served by the secondary")
    check.write_text(CHECK % led)
    passed(site.play("failover", memory_namespace="agent-7"), changed=True)
    assert led.read_text() == f"agent-7 secondary away {site.stores['secondary']['path']}"
    led.unlink()
    passed(site.play("failover", memory_namespace="agent-7"), changed=False)
    assert not led.exists()
    refused(site.play("release", memory_namespace="agent-7"), "is served by the secondary")
    tasks.write_text(FAIL)
    failed = site.play("rebuild", memory_namespace="agent-7")
    refused(failed, "was not led to primary", "the switch does not answer")
    refused(site.play("release", memory_namespace="agent-7"), "is served by the secondary")
    tasks.write_text(MOVE % led)
    with site.working("agent-7"):
        site.play("rebuild", memory_namespace="agent-7")
    assert led.read_text() == f"agent-7 primary home {site.stores['primary']['path']}"
    assert states(site, "agent-7") == HOME


def test_no_route_that_has_to_be_moved(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path, {"kind": "none"})
    site.flip("agent-7", ["key-00003"])
    over = site.play("failover", memory_namespace="agent-7")
    passed(over, changed=True)
    assert "no route was moved (memory_route.kind is none), so whether applications arrive there is not" in over.text
    assert states(site, "agent-7") == AWAY
    passed(site.play("failover", memory_namespace="agent-7"), changed=False)
    refused(site.play("release", memory_namespace="agent-7"), "is served by the secondary")
    report = json.loads(next(site.reports.glob("inc-*/report.json")).read_text())
    assert any("is not proven" in step["detail"] for step in report["steps"]), report["steps"]
    site.play("rebuild", memory_namespace="agent-7")
    assert states(site, "agent-7") == HOME
    passed(site.play("failback", memory_namespace="agent-7"), changed=False)


HANG = """
- name: Ask the switch
  ansible.builtin.command: sleep 100
"""


def test_a_task_of_the_inventory_that_does_not_end_is_ended(tmp_path: pathlib.Path) -> None:
    tasks, led = tmp_path / "move.yml", tmp_path / "led"
    route = {"kind": "tasks", "tasks": str(tasks), "timeout": 5}
    site = site_with_backup(tmp_path, route)
    tasks.write_text(HANG)
    hung = site.play("failover", memory_namespace="agent-7")
    refused(hung, "was not led to secondary", "the task 'Ask the switch' failed", "). Next: mend that")
    assert states(site, "agent-7") == AWAY
    del route["timeout"]
    site.write_inventory()
    tasks.write_text(MOVE % led)
    passed(site.play("failover", memory_namespace="agent-7"), changed=True)
    assert led.read_text().startswith("agent-7 secondary away ")


class Mute:
    """A stats socket that takes connections and answers nothing."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen()
        self._connections: list[socket.socket] = []

    def asked(self) -> None:
        """Wait until somebody asks."""
        self._connections.append(self._server.accept()[0])

    def __enter__(self) -> Mute:
        return self

    def __exit__(self, *_: t.Any) -> None:
        for connection in (*self._connections, self._server):
            connection.close()


def test_a_haproxy_that_answers_nothing_is_not_waited_for_for_ever(tmp_path: pathlib.Path) -> None:
    with Mute(tmp_path / "admin.sock") as proxy:
        route = {"kind": "haproxy", "sockets": [proxy.path], "timeout": 2, "backend": "memory"}
        site = site_with_backup(tmp_path, route)
        refused(
            site.play("failover", memory_namespace="agent-7"),
            f"HAProxy at {proxy.path} cannot be asked: it did not answer in time", "memory_route.sockets",
        )  # fmt: skip
        assert states(site, "agent-7") == HOME


def test_a_play_ends_although_nobody_reads_it_any_more(tmp_path: pathlib.Path) -> None:
    """Ansible would wait for ever for what its worker says of an item of the loop."""
    with Mute(tmp_path / "admin.sock") as proxy:
        route = {"kind": "haproxy", "sockets": [proxy.path], "timeout": 5, "backend": "memory"}
        site = site_with_backup(tmp_path, route)
        with site.start("failover", memory_namespace="agent-7") as play:
            proxy.asked()
            assert play.stdout
            play.stdout.close()  # as when the terminal, or the test, ends that the play wrote to
            try:
                assert play.wait(300) != 0
            finally:
                if play.poll() is None:
                    os.killpg(play.pid, signal.SIGKILL)
        assert states(site, "agent-7") == HOME

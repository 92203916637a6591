# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks, unchanged, against stores in PostgreSQL and Valkey.

Operator and application have logins of their own; neither password is in anything that a run says or leaves.
"""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import NamespaceQuarantined
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import Outcome, Site, holding
from tests.support.engines import ENGINES, Bench

SERVED = [engine for engine in ENGINES if engine != "sqlite"]


class Watched(Site):
    """Every run is looked through for passwords."""

    def play(self, playbook: str, *arguments: str, timeout: int = 900, **variables: t.Any) -> Outcome:
        outcome = super().play(playbook, "-vvv", *arguments, timeout=timeout, **variables)
        for secret in self.bench.server.passwords.values():
            assert secret not in outcome.text
            leaks = [path for path in self.reports.rglob("*") if path.is_file() and secret in path.read_text()]
            assert not leaks
            assert secret not in self.route.read_text()
        return outcome

    def follower(self) -> Memory:
        """An application that knows nothing but the route."""
        return Memory(route=str(self.route), keyring=self.keyring, actor="test")


@pytest.fixture(params=SERVED)
def bench(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> t.Iterator[Bench]:
    one = Bench(request.param, tmp_path, request.getfixturevalue(f"{request.param}_server"))
    yield one
    one.close()


@pytest.fixture
def site(bench: Bench, tmp_path: pathlib.Path) -> Watched:
    made = Watched(tmp_path, bench=bench)
    for namespace in ("agent-7", "agent-8"):
        made.fill(namespace, 100)
        made.read(namespace, 100)
    return made


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text[-6000:]
    assert (outcome.changed > 0) is changed, outcome.text[-6000:]


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status != 0, outcome.text[-6000:]
    assert "Traceback" not in outcome.text
    assert [word for word in words if word not in outcome.text] == [], outcome.text[-6000:]


def state(site: Site, namespace: str, host: str = "primary") -> str:
    spaces = holding(site.stores[host])[2]
    return str(next(space.state for space in spaces if space.name == namespace))


def test_backup_and_rebuild_each_check_first_then_twice_around_a_failover(site: Watched) -> None:
    before = site.fingerprint()
    assert site.play("backup", "--check").status == 0
    assert site.fingerprint() == before
    passed(site.play("backup"), changed=True)
    passed(site.play("backup"), changed=False)
    assert state(site, "agent-7", "secondary") == "standby"
    raw = site.bench.raw("primary").client()
    assert raw.sees()
    site.flip("agent-7", ["key-00003", "key-00077"])
    site.bench.raw("primary").remove("agent-7", ["key-00050"])
    before = site.fingerprint()
    checked = site.play("rebuild", "--check", "--diff", memory_namespace="agent-7")
    assert checked.status == 0, checked.text[-6000:]
    assert "to repair: 3" in checked.text
    assert site.fingerprint() == before

    # The application is fenced while the secondary serves, and its writes come home.
    passed(site.play("failover", memory_namespace="agent-7"), changed=True)
    with site.memory() as memory, pytest.raises(NamespaceQuarantined):
        memory.write("agent-7", "late", 1)
    with site.follower() as memory:
        memory.write("agent-7", "written-elsewhere", {"fact": "new"})
        memory.write("agent-8", "healthy", {"fact": "new"})
        assert memory.read("agent-7", "key-00003") == {"fact": "agent-7 fact 3"}
    untouched = holding(site.stores["primary"])[0]["agent-8"]
    with site.working("agent-7", "agent-8"):
        passed(site.play("rebuild", memory_namespace="agent-7"), changed=True)
        again = site.play("rebuild", memory_namespace="agent-7")
    passed(again, changed=False)
    assert "Nothing to rebuild" in again.text
    with site.follower() as memory:
        assert {memory.read("agent-7", f"key-{n:05}")["fact"] for n in range(100)} == {
            f"agent-7 fact {n}" for n in range(100)
        }
    with site.memory() as memory:
        assert memory.read("agent-7", "written-elsewhere") == {"fact": "new"}
    assert holding(site.stores["primary"])[0]["agent-8"] == untouched
    report = site.report()
    assert (report["namespace"], report["verdict"], report["state"]) == ("agent-7", "pass", "closed")
    assert (report["records"]["lost"], report["records"]["recovered"]) == (0, 3)
    assert (state(site, "agent-7"), state(site, "agent-7", "secondary")) == ("serving", "standby")
    assert raw.sees()
    raw.close()


def test_the_other_playbooks(site: Watched, tmp_path: pathlib.Path) -> None:
    passed(site.play("backup"), changed=True)
    passed(site.play("verify"), changed=False)
    passed(site.play("drill"), changed=False)
    passed(site.play("info"), changed=False)
    passed(site.play("rotate_keys", memory_force=True), changed=True)
    passed(site.play("export", memory_namespace="agent-7", memory_export_dir=str(tmp_path / "out")), changed=True)
    with site.memory() as memory:
        memory.delete("agent-7", "key-00001")
    one = ("-e", "memory_keys=[key-00001]")  # text, as a shell passes it
    passed(site.play("restore", *one, memory_namespace="agent-7", memory_to_namespace="copy"), changed=True)
    with site.memory() as memory:
        assert memory.read("copy", "key-00001") == {"fact": "agent-7 fact 1"}
    refused(site.play("disaster_recovery"), "holds 3 namespaces already", "Next: ")
    fresh = {**site.bench.params("fresh"), "application_password_file": str(tmp_path / "agent.password")}
    part = {name: fresh[name] for name in ("schema", "prefix") if name in fresh}
    checked = site.play("disaster_recovery", "--check", memory_dr_store=part)
    assert checked.status == 0, checked.text[-6000:]
    assert holding(fresh) is None
    passed(site.play("disaster_recovery", memory_dr_store=part, memory_dr_switch=True), changed=True)
    with site.follower() as memory:
        assert memory.read("agent-8", "key-00002") == {"fact": "agent-8 fact 2"}
        memory.write("agent-8", "goes-on", 1)


def test_a_store_that_does_not_let_the_operator_in_is_said(site: Watched) -> None:
    right = dict(site.stores["primary"])
    for wrong, words in (
        ({"password": "wrong"}, ("password", "Next: ")),
        ({"url": right["url"].replace(str(site.bench.server.port), "1")}, ("Next: ",)),
        ({"url": None}, ("memory_store.url", "Next: ")),
    ):
        site.stores["primary"] = {k: v for k, v in {**right, **wrong}.items() if v is not None}
        site.write_inventory()
        refused(site.play("isolate", memory_namespace="agent-7"), *words)
    site.stores["primary"] = right
    assert state(site, "agent-7") == "serving"

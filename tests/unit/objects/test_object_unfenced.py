# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory objects with the methods of the runbook alone: nothing fences them, and nobody says that something does."""

from __future__ import annotations

import time

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CapabilityMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import doctor, monitor
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import claim, now_us
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.unit.objects.objects_help import NOTEBOOK, PLAIN, ObjectSite, written
from tests.unit.operations.runbook import NAME, NS, STEPS, attempt

OUTSIDE = "the service agent is stopped"
#: what set_ttl may do beside hiding from the application what is too old
OTHERWISE = {
    "hides from everybody": "def _over(self, con, namespace, at):\n        self._operator = False\n"
    "        return super()._over(con, namespace, at)",
    "takes away": "def read(self, namespace, key):\n        ttl = self.ttl(namespace)\n        if ttl is not None:\n"
    "            import time\n            with self._file() as con:\n"
    "                con.execute('DELETE FROM notes WHERE space = ? AND written < ?', (namespace, time.time() - ttl))\n"
    "        return super().read(namespace, key)",
    "raises": "def set_ttl(self, namespace, seconds):\n        raise ValueError('no')",
    "is not there": "ttl = None",
}


def isolated(site, said=OUTSIDE):
    return site.step("isolate", attempt(), outside_fence=said)


def test_without_a_fence_it_is_not_isolated_unless_somebody_says_what_keeps_applications_away(tmp_path):
    for name, factory, more in (("plain", PLAIN, {}), ("blind", NOTEBOOK, {"operator_arguments": None})):
        (tmp_path / name).mkdir()
        site = ObjectSite(tmp_path / name, factory, namespaces=[NS], **more)
        site.fill(count=2)
        with site.open() as store:
            assert store.capabilities() == {"generations", "outside-fence"}
            assert "isolate needs memory_outside_fence" in store.warnings()[0]
        for said in (None, " "):
            with pytest.raises(CapabilityMissing, match="Nothing in the store keeps an application from agent-7"):
                isolated(site, said)
        assert site.state() == "serving"
    said = doctor.doctor(
        name=NAME, store_params=site.store, open_store=lambda: open_store(site.store), keyring_params=None,
        open_keyring=site.ring,
        repository_params=None, open_repository=lambda: None, limits=doctor.Limits(),
    )  # fmt: skip
    fence = next(one for one in said["checks"] if one["check"] == "fence")
    assert fence["verdict"] == "fail" and "give the memory object quarantine and release" in fence["next"]


def test_a_rebuild_rests_on_what_was_said_and_says_so(tmp_path):
    site = ObjectSite(tmp_path, PLAIN, namespaces=[NS, "empty"])
    site.fill(count=5)
    site.app.set_ttl(NS, 3600.0)
    before = site.values()
    assert site.backup()["records"] == 8
    started = now_us()
    site.app.write(NS, "note 001", "wrong")
    site.app.delete(NS, "note 002")
    run = attempt()
    done = site.step("isolate", run, outside_fence=OUTSIDE)
    proof = done["proof"]
    assert proof["outside"] == OUTSIDE and not proof["writes_refused"] and done["warnings"]
    assert "writes through the memory object" in proof["not_fenced"][0]
    assert site.app.ttl(NS) == 1.0 and "the TTL is 1 s" in proof["detail"]
    options = {"diagnose": {"window": Window(onset=started)}, "plan": {"strategy": "soft"}}
    fuzzy = site.step("forensic", run)["warnings"]
    assert "fuzzy" in fuzzy[0]  # nobody knows that nothing changed meanwhile
    for name in STEPS[2:-1]:
        site.step(name, run, **options.get(name, {}))
    time.sleep(1.05)
    with site.open() as store:
        proof = store.prove(NS)
    assert proof["reads_refused"] and "read as the application: refused" in proof["detail"]
    assert len(site.rows()) == 8  # an operator reads on
    site.step("release", run)
    assert site.app.ttl(NS) == 3600.0 and site.values() == before


@pytest.mark.parametrize("kind", OTHERWISE)
def test_a_ttl_that_would_do_harm_is_left_alone(tmp_path, kind):
    written(tmp_path, f"from tests.support.notebook import Notebook\nclass Mine(Notebook):\n    {OTHERWISE[kind]}\n")
    site = ObjectSite(tmp_path, "mine:Mine")
    site.fill(count=2)
    before = site.everything()
    said = "; ".join(isolated(site)["proof"]["detail"])
    assert {
        "hides from everybody": "an operator could not have read the records while it is 1 s",
        "takes away": "an operator could not have read",
        "raises": "set_ttl of the memory object of mine:Mine raised ValueError: no",
        "is not there": "the object has no set_ttl and ttl",
    }[kind] in said
    assert site.everything() == before and site.app.ttl(NS) is None
    with site.app._file() as con:  # nothing of the trial is left
        assert con.execute("SELECT DISTINCT space FROM notes").fetchall() == [(NS,)]


def test_a_monitor_that_meets_a_breach_says_that_the_application_has_to_be_stopped(tmp_path):
    site = ObjectSite(tmp_path, PLAIN)
    site.fill(count=2)
    run = attempt()
    with site.open() as store:
        held = claim(store, NS, run)
    site.garble("note 001")
    found = monitor.monitor(
        store_params=site.store, keyring=None, claim=held, namespace=NS, deadline=now_us() + 60_000_000, interval=0.1
    )
    assert found["verdict"] == "fail" and not found["fenced"]
    assert found["breaches"][-1] == "nothing in the store keeps the application away: stop it"

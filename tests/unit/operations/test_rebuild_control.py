# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on a namespace whose control row is gone or leads elsewhere, on every engine."""

from __future__ import annotations

import json

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, NamespaceDamaged
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import preflight
from tests.support.engines import ENGINES, Bench
from tests.unit.operations.runbook import NS, OTHER, Site, attempt

VALUES = {f"k{n:02}": {"v": n} for n in range(30)}


@pytest.fixture(params=ENGINES)
def site(request, tmp_path):
    server = None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_server")
    bench = Bench(request.param, tmp_path, server)
    one = Site(tmp_path / "site", bench=bench)
    with one.memory() as memory:
        memory.write_many(NS, VALUES)
        memory.write_many(OTHER, {"o": 1})
        memory.set_ttl(NS, 86400)
        memory.read_many(NS, VALUES)  # of which validation takes its probes
    one.backup()
    yield one
    bench.close()


def damage(site, what):
    """The control row as a raw client with all rights leaves it."""
    with site.open() as store:
        if site.store["engine"] == "valkey":
            if what == "gone":
                store._ask("HDEL", store.names.namespaces, NS)
            else:
                space = json.loads(store._ask("HGET", store.names.namespaces, NS))
                space["generation"] = 2
                store._ask("HSET", store.names.namespaces, NS, json.dumps(space))
            return
        text = {
            "gone": "DELETE FROM {} WHERE name = {}",
            "elsewhere": "UPDATE {} SET generation = 77 WHERE name = {}",
        }[what]
        with store._transaction() as session:
            if site.store["engine"] == "sqlite":
                session.execute(text.format("memops_namespace", "?"), (NS,))
            else:
                session.run(text.format(store.sql.namespace, "%s"), NS.encode())


def looked(site, run):
    with site.open() as store:
        return preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=run, open_keyring=site.places()["open_keyring"],
            open_repository=site.places()["open_repository"], name="main",
        )  # fmt: skip


@pytest.mark.parametrize("what", ["gone", "elsewhere"])
def test_every_step_refuses_and_a_hard_rebuild_brings_it_back(site, what):
    site.raw.remove(NS, ["k03"])
    damage(site, what)
    with site.memory() as memory:
        for ask in (
            lambda: memory.read(NS, "k01"),
            lambda: list(memory.list_keys(NS)),
            lambda: memory.write(NS, "k01", 1),
            lambda: memory.delete(NS, "k01"),
        ):
            with pytest.raises(NamespaceDamaged, match=r"ansible-playbook memops\.agent_memory\.rebuild"):
                ask()
        assert memory.read(OTHER, "o") == 1
    run = attempt()
    seen = looked(site, run)
    assert (seen["state"], seen["nothing_to_do"], seen["can_resolve"]) == ("damaged", False, True)
    assert "Isolating the namespace leads it back to its records first." in seen["warnings"][0]
    for name in ("diagnose", "plan", "validate", "release"):
        with pytest.raises(NamespaceDamaged if name != "plan" else CannotProceed) as caught:
            site.step(name, run)
        assert caught.value.next_step
    with pytest.raises(NamespaceDamaged):
        site.step("isolate", run, check=True)
    with pytest.raises(NamespaceDamaged):  # a backup without it would be taken for one of everything
        site.backup()
    done = site.rebuild("hard", run=run)
    assert done["isolate"]["warnings"] and done["isolate"]["proof"]["reads_refused"]
    assert done["validate"]["verdict"] == "pass"
    assert (site.state(), site.served()) == ("serving", VALUES)
    told = [f"New records of {NS} live 86400.0 s (snapshot"] if what == "gone" else []
    assert [line.partition("snapshot")[0] + "snapshot" for line in done["apply"]["warnings"]] == told
    assert done["release"]["warnings"] == []
    with site.memory() as memory:
        assert memory.ttl(NS) == 86400


def test_a_backup_between_two_runs_of_isolate_does_not_forget_the_ttl(site):
    """The first one was killed after it had made the control row again."""
    damage(site, "gone")
    with site.open() as store:
        store.lead_back()
    site.backup()
    run = attempt()
    for name in ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release"):
        site.step(name, run)
    with site.memory() as memory:
        assert memory.ttl(NS) == 86400


def test_where_nothing_is_rebuilt_it_is_said_that_the_ttl_is_lost(site):
    damage(site, "gone")
    run = attempt()
    for name in ("isolate", "release"):
        (*_mended, told) = site.step(name, run)["warnings"]
        assert told.startswith(f"Whether new records of {NS} expire (its ttl) was lost with its control row.")
        assert f"Memory.set_ttl('{NS}', seconds)" in told
    assert not site.step("isolate", attempt())["warnings"]


def test_a_row_that_goes_in_the_middle_is_noticed_and_the_same_run_goes_on(site):
    site.raw.remove(NS, ["k03"])
    run = attempt()
    site.rebuild("hard", until="plan", run=run)
    damage(site, "gone")
    for name in ("apply", "release"):
        with pytest.raises(NamespaceDamaged):
            site.step(name, run)
    site.rebuild("hard", run=run)
    assert (site.state(), site.served()) == ("serving", VALUES)


def test_an_incident_whose_row_cannot_be_read_stops_no_other_and_is_closed(site):
    """What was done in it nobody knows: a release would lift the quarantine of a rebuild that never ended."""
    site.raw.remove(NS, ["k03"])
    site.rebuild("hard", until="plan")
    with site.open() as store:
        if site.store["engine"] == "valkey":
            (field,) = store._ask("HKEYS", store.names.incidents)
            store._ask("HSET", store.names.incidents, field, b'{"incident": "inc')
        elif site.store["engine"] == "sqlite":
            with store._transaction() as con:
                con.execute("UPDATE memops_incident SET facts = ?", ('{"plan": {',))
        else:
            with store._transaction() as session:
                session.run(f"UPDATE {store.sql.incident} SET facts = %s", '{"plan": {')
        assert store.incidents() == []
        with store.reader() as reader:
            assert any("row of incident" in line for line in reader.structure())
    run = attempt()
    for name in ("diagnose", "apply", "release"):
        with pytest.raises(NamespaceDamaged, match=r"The row of incident inc-.* cannot be read"):
            site.step(name, run)
    with site.memory() as memory:
        memory.write("new", "a", 1)
    assert site.step("isolate", attempt(), OTHER)["changed"]
    assert looked(site, run)["state"] == "damaged"
    done = site.rebuild("hard", run=run)
    assert "whose row cannot be read" in done["isolate"]["warnings"][0]
    assert (site.state(), site.served()) == ("serving", VALUES)

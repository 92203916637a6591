# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A namespace that passed lately is left alone by the same command, and not by one that names something else."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident, preflight
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_unlogged import Window, told
from tests.unit.operations.runbook import NS, Site, attempt

SINCE = Window(onset=1_000_000, keys=frozenset({"a", "b"}))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(20)})
    site.backup()
    site.raw.set(NS, "k3", payload=bytes(40))
    site.rebuild("hard")
    return site


@pytest.fixture(scope="module")
def passed(site):
    """Its watch is over, too. Tests of one that still watches come before, or in another process."""
    with site.open() as store:
        opened = next(one for one in store.incidents(NS) if one.state == "open")
        claim = incident.claim(store, NS, incident.Run(opened.attempt, "the test"))
        store.note(claim, monitored={"verdict": "pass"})
        store.close_incident(claim)
    return site


def look(site, **options):
    with site.open() as store:
        held = next((one.attempt for one in store.incidents(NS) if one.state == "open"), None)
        return preflight.preflight(
            store=store, store_params=site.store, namespace=NS, run=attempt(takeover=held), **site.places(), **options
        )


def test_while_the_watch_is_left_another_wish_takes_it_over(site):
    same = look(site, strategy="hard")
    assert same["watching"] and not same["warnings"]
    other = look(site, strategy="soft")
    (said,) = other["warnings"]
    assert not other["watching"] and other["incident"] == same["incident"]
    assert "That watch ends here, since this run names another strategy or window" in said


def test_while_the_watch_is_left_new_damage_takes_it_over(tmp_path):
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": n for n in range(20)})
    site.backup()
    site.unlocked({"k1": "forged"})  # what the incident is about is no new damage
    run = attempt()
    site.rebuild("soft", run=run)
    before = look(site)
    assert before["watch_ended"] is None
    assert before["watching"] and not before["warnings"]
    site.raw.set(NS, "k3", payload=bytes(40))
    found = look(site)
    assert not found["watching"] and found["incident"] == before["incident"]
    assert found["watch_ended"] == "there is new damage"
    assert "there is new damage: the namespace is isolated and rebuilt again" in found["warnings"][-1]
    site.rebuild("soft", run=run)
    assert look(site)["watching"] and site.served()["k3"] == 3
    site.unlocked({"k5": "forged"})
    assert not look(site)["watching"]


def test_only_the_same_intent_has_nothing_to_do(passed):
    for same in ({}, {"strategy": "hard"}, {"absent": "auto"}):
        assert look(passed, **same)["nothing_to_do"], same
    for other in ({"strategy": "soft"}, {"absent": "restore"}, {"onset": "2026-01-05T10:00:00Z"}, {"force": True}):
        assert not look(passed, **other)["nothing_to_do"], other


def test_where_a_log_tells_a_window_of_keys_chooses_nothing_and_that_is_said(passed):
    found = look(passed, window=SINCE)
    assert preflight.WITH_LOG in found["warnings"] and found["nothing_to_do"]


@pytest.mark.parametrize(
    ("window", "other"),
    [
        (None, False), (Window(), False), (SINCE, False),
        (Window(onset=1_000_000), True), (Window(onset=1_000_000, keys=frozenset("ac")), True),
        (Window(onset=1_000_000, until=2_000_000, keys=SINCE.keys), True), (Window(pattern="a*"), True),
    ],
)  # fmt: skip
def test_another_window_is_another_intent(window, other):
    facts = {"diagnosed": True, "told": told(None, SINCE), "plan": {"strategy": "soft"}}
    assert preflight.Wish("auto", "auto", told(None, window)).other(facts) is other

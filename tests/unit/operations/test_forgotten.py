# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A Valkey server without persistence is started again while a quarantine stands: with everything else it has lost the
fence, and an application begins the namespace anew."""

from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed, StoreMissing
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import monitor_step, scrub
from tests.support.engines import Bench
from tests.support.valkey_server import ValkeyServer
from tests.unit.operations.runbook import NAME, NS, OTHER, Site, attempt


@pytest.fixture
def server():
    with ValkeyServer() as started:
        yield started


def watch(site, run):
    with site.open() as store:
        return monitor_step.watch(
            store=store, store_params=site.store, namespace=NS, keyring=site.ring(), repository=None, run=run,
            name=NAME, seconds=0.1, interval=0.1,
        )  # fmt: skip


def begin(site):
    with site.memory() as memory:
        memory.write(NS, "k", "new")
        memory.write(OTHER, "k", "new")


def test_no_step_takes_what_was_begun_anew_for_what_was_quarantined(tmp_path, server):
    site = Site(tmp_path / "site", bench=Bench("valkey", tmp_path, server))
    begin(site)
    site.backup()
    run = attempt()
    site.step("isolate", run)
    server.kill()
    server.again()
    steps = [lambda name=name: site.step(name, run) for name in ("apply", "validate", "release")]
    for step in (*steps, lambda: watch(site, run)):
        with pytest.raises(StoreMissing):
            step()
    begin(site)
    for step in (*steps, lambda: watch(site, run)):
        with pytest.raises(CannotProceed, match=r"has forgotten incident inc-.* was begun anew, without") as caught:
            step()
        assert caught.value.next_step.startswith("ansible-playbook memops.agent_memory.isolate -e memory_namespace=")
    assert site.step("validate", attempt(), OTHER)["verdict"] == "pass"
    site.step("isolate", run)
    site.step("release", run)
    assert not site.step("release", attempt())["changed"]
    assert site.step("validate", attempt())["verdict"] == "pass"


def test_what_a_scrub_noted_beside_the_incidents_is_none_of_them(tmp_path):
    site = Site(tmp_path)
    begin(site)
    with site.open() as store:
        scrub.scrub(store=store, store_params=site.store, keyring=site.ring(), repository=None, name=NAME)
    assert not site.step("release", attempt())["changed"]
    assert site.step("validate", attempt())["verdict"] == "pass"

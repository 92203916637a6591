# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failover to a secondary that may not take writes, and home again, by the playbooks."""
from __future__ import annotations

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory, NamespaceReadOnly
from playbooks import Outcome, Site, holding


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text


def states(site: Site) -> dict[str, str]:
    spaces = {host: holding(store)[2] for host, store in site.stores.items()}
    return {host: next(s.state for s in found if s.name == "agent-7") for host, found in spaces.items()}


def test_a_secondary_that_may_not_take_writes_serves_reads_until_the_namespace_is_home(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    inventory = json.loads(site.inventory.read_text())
    inventory["memory"]["hosts"]["secondary"]["memory_secondary_writes"] = False
    site.inventory.write_text(json.dumps(inventory))
    site.fill("agent-7", 100)
    site.read("agent-7", 100)
    passed(site.play("backup"), changed=True)
    before = site.fingerprint()
    checked = site.play("failover", "--check", memory_namespace="agent-7")
    assert checked.status == 0 and "would serve the namespace read-only" in checked.text, checked.text
    assert site.fingerprint() == before
    done = site.play("failover", memory_namespace="agent-7")
    passed(done, changed=True)
    assert "secondary serves the namespace read-only: applications read there" in done.text
    assert "served read-only from secondary" in done.text
    assert states(site) == {"primary": "quarantined", "secondary": "reading"}
    with Memory(route=str(site.route), keyring=site.keyring, actor="test") as memory:
        assert memory.read("agent-7", "key-00001") == {"fact": "agent-7 fact 1"}
        with pytest.raises(NamespaceReadOnly, match="served read-only from this copy"):
            memory.write("agent-7", "key-00001", 2)
        with pytest.raises(NamespaceReadOnly):
            memory.delete("agent-7", "key-00001")
    passed(site.play("failover", memory_namespace="agent-7"), changed=False)
    rebuilt = site.play("rebuild", memory_namespace="agent-7", memory_failback="never")
    assert states(site) == {"primary": "quarantined", "secondary": "reading"}, rebuilt.text
    report = site.report()
    assert report["details"]["failover"]["read_only"] is True and report["state"] == "failed-over", report
    assert any("served read-only" in reason["text"] for reason in report["details"]["reasons"])
    before = site.fingerprint()
    rehearsed = site.play("failback", "--check", memory_namespace="agent-7")
    assert rehearsed.status == 0, rehearsed.text
    assert site.fingerprint() == before
    home = site.play("failback", memory_namespace="agent-7")
    passed(home, changed=True)
    assert "served read-only: nothing was written there, so there is nothing to merge" in home.text
    assert states(site) == {"primary": "quarantined", "secondary": "standby"}
    passed(site.play("failback", memory_namespace="agent-7"), changed=False)
    passed(site.play("release", memory_namespace="agent-7"), changed=True)
    with Memory(route=str(site.route), keyring=site.keyring, actor="test") as memory:
        memory.write("agent-7", "key-00001", 2)
    assert states(site) == {"primary": "serving", "secondary": "standby"}

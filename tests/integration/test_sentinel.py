# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook on a store behind Sentinel, which fails over as a whole, and an application that knows Sentinel alone."""

from __future__ import annotations

import pathlib
import sys
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Site, holding
from tests.support.valkey_replicas import SERVICE, ReplicaSet, wait_for


class Behind:
    """One store behind Sentinel; each host names its own server. What a Site needs of a bench."""

    def __init__(self, group: ReplicaSet) -> None:
        self.group, self.of = group, dict(zip(("primary", "secondary"), group.servers))

    def params(self, host: str) -> dict[str, t.Any]:
        return self.group.store(at=self.of[host])

    def application(self, _host: str) -> dict[str, t.Any]:
        return self.group.application()


def test_the_whole_store_fails_over_by_sentinel_under_an_application(tmp_path: pathlib.Path) -> None:
    with ReplicaSet(replicas=1, sentinels=3) as group:
        site = Site(tmp_path, bench=Behind(group), memory_route={"kind": "none"})
        site.fill("agent-7", 20)
        with site.memory() as memory:  # an application that goes on, without being told
            outcome = site.play("failover")
            assert outcome.status == 0, outcome.text[-6000:]
            memory.write("agent-7", "after", {"fact": 1})
            assert memory.read("agent-7", "key-00007") == {"fact": "agent-7 fact 7"}
        assert group.primary() is group.servers[1]
        group.settled()
        report = site.report()
        told = report["details"]["failover"]
        assert (report["verdict"], report["state"], told["scope"], told["epoch"]) == ("pass", "failed-over", "store", 2)
        (space,) = holding(site.stores["primary"])[2]
        assert space.state == "serving"
        with group.sentinels[0].client() as client:  # it goes home, without a playbook
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        wait_for("Sentinel promotes", lambda: group.primary() is group.servers[0])
        group.settled()
        taken_up = site.play("failback")
        assert taken_up.status == 2, taken_up.text[-6000:]  # nobody compared both servers before
        report = site.report()
        assert (report["verdict"], report["details"]["failback"]["epoch"]) == ("could-not-verify", 3)
        assert "Sentinel made the other server the primary by itself" in taken_up.text
        again = site.play("failback", memory_accept_loss=True)
        assert again.status == 0 and "changed=0" in again.text, again.text[-6000:]
        for secret in (*group.servers[0].passwords.values(), group.sentinels[0].password):
            assert secret not in outcome.text + taken_up.text

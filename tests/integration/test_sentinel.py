# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook against a store that only Sentinel knows the place of, before and after it moved."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils._replication import open_server
from playbooks import Site, holding
from tests.support.valkey_replicas import ReplicaSet


class Behind:
    """Stores behind Sentinel; what a Site needs of a bench."""

    def __init__(self, group: ReplicaSet) -> None:
        self.group, self.server = group, group.servers[0]

    def params(self, name: str) -> dict[str, t.Any]:
        return self.group.store(name)

    def application(self, name: str) -> dict[str, t.Any]:
        return self.group.application(name)


def test_isolate_finds_the_primary_and_the_fence_holds_on_every_server(tmp_path: pathlib.Path) -> None:
    with ReplicaSet(replicas=1, sentinels=3) as group:
        site = Site(tmp_path, secondary=False, bench=Behind(group))
        site.fill("agent-7", 20)
        with contextlib.closing(open_server(group.store(at=group.servers[1]))) as replica:
            replica.promote(20.0)
        outcome = site.play("isolate", memory_namespace="agent-7")
        assert outcome.status == 0, outcome.text[-6000:]
        assert outcome.changed > 0
        for secret in (*group.servers[0].passwords.values(), group.sentinels[0].password):
            assert secret not in outcome.text
        (space,) = holding(site.stores["primary"])[2]
        assert space.state == "quarantined"
        for server in group.servers:
            with server.client() as client:
                said = client.execute_command("ACL", "DRYRUN", "agent", "GET", "primary:{agent-7}:r:1")
                assert b"no permissions" in said

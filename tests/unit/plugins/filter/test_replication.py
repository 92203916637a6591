# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of two hosts is taken for the primary, from what their servers said."""
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.memops.agent_memory.plugins.filter.memory_replication import memory_replication

DEAD = {"failed": True, "msg": "cannot be reached"}


def server(role, epoch=1, store="s", switch=None, replicas=()):
    return {"role": role, "epoch": epoch, "store_id": store, "last_switch": switch, "replicas": list(replicas)}


@pytest.mark.parametrize(
    ("home", "away", "scope", "swapped"),
    [
        (server("primary"), server("replica"), "store", False),
        (server("replica"), server("primary"), "store", True),
        # the former primary did not rejoin yet, on either side
        (server("primary", 1), server("primary", 2), "store", True),
        (server("primary", 3), server("primary", 2), "store", False),
        # two servers of their own, filled by backups
        (server("primary", store="a"), server("primary", 9, store="b"), "namespace", False),
        (server("primary", store=None), server("primary", store=None), "namespace", False),
        # Sentinel made the home follow a third one meanwhile
        (server("replica", store="a"), server("primary", store="b"), "namespace", False),
        # one of them is dead
        (DEAD, server("replica"), "store", False),
        (DEAD, server("primary"), "namespace", False),
        (DEAD, server("primary", 2, switch={"to": "it"}), "store", True),
        (DEAD, {**server("primary"), "appointed": True}, "store", True),
        (server("primary"), DEAD, "namespace", False),
        (server("primary", replicas=[{"address": "x"}]), DEAD, "store", False),
        (server("replica"), DEAD, "store", False),
        (DEAD, DEAD, "namespace", False),
        ({}, {}, "namespace", False),
    ],
)
def test_who_is_the_primary(home, away, scope, swapped):
    assert memory_replication(home, away) == {"scope": scope, "swapped": swapped}


def test_what_is_no_result_is_said():
    with pytest.raises(AnsibleFilterError, match="Next: "):
        memory_replication("primary", {})

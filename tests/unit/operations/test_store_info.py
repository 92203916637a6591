# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the playbook info tells of a store."""

from __future__ import annotations

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.store_info import store_info
from tests.unit.operations.runbook import NS, Site


def test_the_canary_of_a_backup_is_not_counted_among_the_records(bench, tmp_path):
    site = Site(tmp_path / "site", bench=bench)
    with site.memory() as memory:
        memory.write_many(NS, {f"k{n}": {"v": n} for n in range(3)})

    def told():
        with site.open() as store:
            (one,) = store_info(store, site.store)["namespaces"]
        return one["name"], one["records"], one["canary"]

    assert told() == (NS, 3, False)
    site.backup()
    assert told() == (NS, 3, True)

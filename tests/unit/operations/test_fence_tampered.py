# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Somebody takes a part of the fence away in a rebuild: the next step notices, and the same command mends."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from tests.support.engines import Bench
from tests.unit.operations.runbook import NS, Site, attempt

VALUES = {f"k{n:02}": {"v": n} for n in range(30)}
TAMPERED = {
    "sqlite": ["DROP TRIGGER memops_fence_insert"],
    "postgresql": [
        "DROP TRIGGER memops_fence_delete ON memory_records",
        "DROP POLICY memops_read ON memory_records; CREATE POLICY memops_read ON memory_records USING (true)",
    ],
    "valkey": ["~*"],
}


def tamper(site, bench, how):
    if bench.engine == "sqlite":
        with contextlib.closing(sqlite3.connect(site.path)) as con:
            con.execute(how)
    elif bench.engine == "postgresql":
        with bench.server.connect() as con:
            con.execute(f"SET search_path = {site.store['schema']}; {how}")
    else:
        with bench.server.client() as client:
            client.execute_command("ACL", "SETUSER", site.store["application_user"], how)


@pytest.mark.parametrize(("engine", "how"), [(engine, how) for engine, some in TAMPERED.items() for how in some])
def test_the_next_step_notices_and_the_same_command_mends(tmp_path, request, engine, how):
    server = None if engine == "sqlite" else request.getfixturevalue(f"{engine}_server")
    bench = Bench(engine, tmp_path, server)
    site = Site(tmp_path / "site", bench=bench)
    try:
        with site.memory() as memory:
            memory.write_many(NS, VALUES)
            memory.read_many(NS, VALUES)
        site.backup()
        site.raw.remove(NS, ["k03"])
        run = attempt()
        site.rebuild("hard", until="plan", run=run)
        tamper(site, bench, how)
        with pytest.raises(CannotProceed, match=f"The fence around {NS} does not hold any more") as caught:
            site.step("apply", run)
        assert caught.value.next_step.startswith("ansible-playbook memops.agent_memory.rebuild -e memory_namespace=")
        assert site.step("isolate", run)["changed"]
        site.step("apply", run)
        assert site.step("validate", run)["verdict"] == "pass"
        tamper(site, bench, how)
        with pytest.raises(CannotProceed, match="does not hold any more"):
            site.step("release", run)
        assert site.step("validate", run)["verdict"] == "fail"
        assert site.step("isolate", run)["changed"]
        assert site.step("validate", run)["verdict"] == "pass"
        site.step("release", run)
        assert (site.state(), site.served()) == ("serving", VALUES)
    finally:
        bench.close()

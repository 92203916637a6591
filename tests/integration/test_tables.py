# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on LangGraph's store in PostgreSQL, which a sibling goes on using all the while."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from tests.support.application_plays import ApplicationPlays, next_second
from tests.support.frameworks import frameworks
from tests.unit.tables.tables_help import LangGraph

NAMESPACE = "agent-7"
SUPPORT = pathlib.Path(__file__).parents[1] / "support"


@pytest.fixture
def site(tmp_path: pathlib.Path, postgresql_server: t.Any) -> t.Iterator[t.Any]:
    one = LangGraph(tmp_path, postgresql_server)
    one.fill(NAMESPACE, 120)  # as many as a verdict on the hit rate needs
    one.fill("agent-8", 5)
    yield one
    one.wipe()


def killed_in_apply(plays: ApplicationPlays, site: t.Any, **window: t.Any) -> None:
    """While this test holds a row that is to be repaired, the step that repairs it waits."""
    writer = site.server.connect()
    me = writer.info.backend_pid

    def holds(noted: str) -> bool:
        if noted in ("plan result", "apply intent") and not writer.info.transaction_status:
            writer.execute("BEGIN")
            row = f"(prefix, key) = ('{NAMESPACE}', 'fact 00001')"
            writer.execute(f"SELECT 1 FROM {site.schema}.store WHERE {row} FOR UPDATE")
        elif noted == "killed":
            writer.execute("ROLLBACK")
        return bool(site.sql("SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", me))

    killed = plays.killed_in_apply(holds, **window)
    writer.close()
    assert killed.status == 2 and site.state(NAMESPACE) == "quarantined", killed.text[-6000:]


def test_backup_damage_check_rebuild_and_again(site: t.Any, tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(site.store.pop("password"), encoding="ascii")
    site.store["password_file"] = str(secret)
    plays = ApplicationPlays(tmp_path, site, site.server)
    before, dump, sibling, catalogue = site.view(), site.dump_of(), site.dump_of("agent-8"), site.catalogue()
    plays.told("backup", changed=True)
    since = next_second()
    site.put(NAMESPACE, {"fact 00001": {"text": "garbage"}, "a/b": {"text": "wrong"}})
    site.app.ask("delete", namespace=[NAMESPACE], keys=["fact 00002"])
    damaged = site.dump_of()
    questions = tmp_path / "benchmark.jsonl"
    cases = [{"query": f"fact {n} of {NAMESPACE}", "expect": f"fact {n:05}"} for n in range(1, 5)]
    questions.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    asking = {"factory": "search_factories:langgraph", "interpreter": frameworks(), "python_path": [str(SUPPORT)]}
    window = {
        "memory_namespace": NAMESPACE, "memory_since": since, "memory_absent": "restore",
        "memory_benchmark": str(questions),
        "memory_search": {**asking, "top": 1, "timeout": 300},
    }  # fmt: skip
    checked = plays.told("rebuild", "--check", "--diff", changed=True, **window)
    assert "to repair: 3" in checked.text and site.dump_of() == damaged and site.catalogue() == catalogue
    with site.agent("agent-9") as neighbour:
        assert neighbour.line() == "at work\n"
        killed_in_apply(plays, site, **window)
        plays.told("rebuild", changed=True, **window)
        said = json.loads(neighbour.end())
    assert said["writes"] and not said["refused"] and not said["wrong"] and not said["other"]
    assert site.view() == before and (site.dump_of(), site.dump_of("agent-8")) == (dump, sibling)
    assert site.catalogue() == catalogue
    assert "Nothing to rebuild" in plays.told("rebuild", changed=False, **window).text
    report = plays.report()
    assert (report["verdict"], report["state"]) == ("pass", "closed"), report
    assert report["records"]["lost"] == 0 and report["records"]["recovered"] == 3
    assert report["hit_rate"] == {"before": None, "after": 1.0, "source": "search: 4 reads after release"}
    assert report["accuracy"] == {"baseline": 0.5, "after": 1.0}
    everything = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("*.html"))
    assert everything and secret.read_text(encoding="ascii") not in everything + checked.text

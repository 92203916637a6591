# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a damaged record to the fence and its evidence, by Prometheus, Alertmanager and ansible-rulebook themselves."""
from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils._metrics import Sample, write_textfile
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from playbooks import Site
from tests.support.alert_servers import ROOT, Alertmanager, NodeExporter, Prometheus, Rulebook

STALE = {
    "status": "firing",
    "labels": {"alertname": "MemoryBackupStale", "memops_action": "backup", "cluster": "site"},
}
TOKEN = "alert-token-of-this-test"


def wait(what: str, found: t.Callable[[], t.Any], rulebook: Rulebook, seconds: float = 900) -> t.Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"{what} did not come\n{rulebook.whole()[-6000:]}"
        assert not rulebook.ended(), rulebook.whole()[-6000:]
        time.sleep(0.1)
    return value


class Seen:
    """What the primary's store knows."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def state(self, namespace: str) -> str:
        store = open_store(self.site.stores["primary"])
        try:
            with store.reader() as reader:
                return reader.namespace(namespace).state
        finally:
            store.close()

    def incidents(self, namespace: str) -> list[dict[str, t.Any]]:
        """The facts of each."""
        store = open_store(self.site.stores["primary"])
        try:
            return [state.facts for state in store.incidents(namespace)]
        finally:
            store.close()

    def purposes(self) -> list[str]:
        """Of each snapshot what it was taken for."""
        repository = Repository.open({"url": f"file://{self.site.folder}/repository"})
        return [info.purpose for info in repository.snapshots("site")]

    def fenced(self, namespace: str) -> bool:
        """It is up, and noted, which comes a moment later."""
        return self.state(namespace) == "quarantined" and all("fenced_at" in one for one in self.incidents(namespace))

    def evidence(self, namespace: str) -> bool:
        return any(facts.get("diagnosed") and facts.get("forensic") for facts in self.incidents(namespace))

    def reported(self, namespace: str) -> bool:
        """The report is the last thing that the evidence brings."""
        return any(
            json.loads(path.read_text())["namespace"] == namespace for path in self.site.reports.glob("*/report.json")
        )


def alert(namespace: str, status: str = "firing", cluster: str = "site") -> dict[str, t.Any]:
    labels = {"alertname": "MemoryCorruption", "memops_action": "isolate", "cluster": cluster, "namespace": namespace}
    return {"status": status, "labels": labels}


def test_an_alert_starts_the_runbook(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    seen = Seen(site)
    for namespace in ("agent-7", "agent-8", "agent-9"):
        site.fill(namespace, 150)
    site.read("agent-7", 150)
    textfiles, token = tmp_path / "textfiles", tmp_path / "alert.token"
    textfiles.mkdir()
    token.write_text(TOKEN)
    site.variables["memory_metrics_dir"] = str(textfiles)
    site.write_inventory()
    with NodeExporter(textfiles) as node, Rulebook(site.inventory, TOKEN) as rulebook:
        with Alertmanager(rulebook.port, token) as manager, Prometheus([node.port], manager.port) as prometheus:
            assert site.play("backup").status == 0
            checked = site.play("metrics", "--check")
            assert (checked.status, checked.changed, list(textfiles.iterdir())) == (0, 0, []), checked.text
            heartbeat = [Sample("memops_job_last_exit_code", {"job": "drill"}, 0)]
            heartbeat += [Sample("memops_drill_last_success_timestamp_seconds", {}, time.time())]
            write_textfile(str(textfiles / "memops_job_drill.prom"), heartbeat)
            assert site.play("metrics").status == 0
            wait("all metrics", lambda: prometheus.query('memops_records{memory_host="secondary"}'), rulebook)
            ask_the_dashboard(prometheus, rulebook)
            assert not prometheus.query('ALERTS{alertstate="firing"}')

            site.flip("agent-7", ["key-00003", "key-00011"])
            told = site.play("metrics", "--limit", "primary")
            crossed = (textfiles / "memops_site_primary.prom").stat().st_mtime
            assert told.status == 0, told.text
            wait("the fence", lambda: seen.fenced("agent-7"), rulebook)
            (first,) = seen.incidents("agent-7")
            print(f"the fence stood {fenced_at(first) - crossed:.1f} s after the metric crossed its threshold")
            wait("the evidence", lambda: seen.reported("agent-7"), rulebook)
            assert seen.evidence("agent-7")
            report = site.report()
            assert [step["name"] for step in report["steps"]] == ["isolate", "snapshot", "diagnose"]
            assert report["causes"][0]["cause"] == "storage-failure"
            assert "memops.agent_memory.rebuild" in report["next_command"]

            # Without Alertmanager now: what it may say twice, late, or in somebody else's name.
            assert rulebook.tell(alert("agent-8"), token="another") == 401
            hostile = alert("{{ lookup('ansible.builtin.pipe', 'touch pwned') }}")
            assert rulebook.tell(alert("agent-7", "resolved"), hostile, alert("agent-9", cluster="elsewhere")) == 200
            assert rulebook.tell(alert("agent-7"), alert("agent-8"), alert("agent-8")) == 200
            assert rulebook.tell(alert("agent-8"), STALE) == rulebook.tell(STALE) == 200
            wait("the other evidence", lambda: seen.reported("agent-8"), rulebook)
            wait("the backup", lambda: "Say what was backed up" in rulebook.whole(), rulebook)
        plays = rulebook.whole()
    assert [len(seen.incidents(f"agent-{n}")) for n in (7, 8, 9)] == [1, 1, 0]
    assert [seen.state(f"agent-{n}") for n in (7, 8, 9)] == ["quarantined", "quarantined", "serving"]
    assert plays.count("TASK [memops.agent_memory.diagnose : Find the cause of the damage]") == 2
    assert plays.count("TASK [memops.agent_memory.backup : Publish a scheduled snapshot]") == 1
    assert sorted(seen.purposes()) == ["forensic", "forensic", "scheduled", "scheduled"]
    assert "No memory host of this inventory belongs to the cluster elsewhere" in plays
    assert TOKEN not in plays
    assert not list(tmp_path.rglob("pwned"))


def fenced_at(facts: dict[str, t.Any]) -> float:
    from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import microseconds

    return (microseconds(facts["fenced_at"]) or 0) / 1e6


def ask_the_dashboard(prometheus: Prometheus, rulebook: Rulebook) -> None:
    dashboard = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 14
    for query in queries:
        wait(query, functools.partial(prometheus.query, query.replace("$cluster", ".*")), rulebook)


def test_a_rulebook_without_a_token_lets_nobody_in(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    with Rulebook(site.inventory, "") as rulebook:
        for guess in ("", "{{ memops_alert_token }}", "{{memops_alert_token}}", "None", "null"):
            assert rulebook.tell(alert("agent-7"), token=guess) in (401, 500), guess
        assert rulebook.answer("/alerts", {"alerts": [alert("agent-7")]})[0] == 401

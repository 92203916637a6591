# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on a real site: stores, keyring, directory repository, route file, secondary."""
from __future__ import annotations

import contextlib
import copy
import http.server
import json
import os
import pathlib
import signal
import sqlite3
import sys
import threading
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decoded import agreed

from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import Outcome, Site


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text
    assert "[WARNING]" not in outcome.text, outcome.text


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status != 0, outcome.text
    assert "Traceback" not in outcome.text
    for word in words:
        assert word in outcome.text, outcome.text


@contextlib.contextmanager
def webhook() -> t.Iterator[tuple[str, list[dict[str, t.Any]]]]:
    """A real HTTP server that keeps what it is told."""
    told: list[dict[str, t.Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: t.Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret-path", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def site_with_backup(folder: pathlib.Path, *namespaces: str, **more: t.Any) -> Site:
    site = Site(folder, **more)
    for namespace in namespaces or ("agent-7",):
        site.fill(namespace, 200)
        site.read(namespace, 150)
    passed(site.play("backup"), changed=True)
    return site


def kept(site: Site) -> tuple[dict[str, t.Any], str, str]:
    """Its repository, the file of its master key, and the file of its primary."""
    return site.variables["memory_repository"], site.keyring["master_key_file"], site.stores["primary"]["path"]


def test_rebuild_of_two_namespaces_check_first_then_twice(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path, "agent-7", "agent-8")
    site.flip("agent-7", ["key-00003", "key-00077"])
    before = site.fingerprint()
    checked = site.play("rebuild", "--check", "--diff", memory_namespace="agent-7")
    assert checked.status == 0, checked.text
    assert "to repair: 2" in checked.text
    assert site.fingerprint() == before
    unread = site.play("rebuild", memory_namespace=["agent-7", "agent-8"])
    refused(unread, "could-not-verify")
    assert states(site, "agent-7") == {"primary": "serving", "secondary": "standby"}
    with site.working("agent-7", "agent-8"):
        watched = site.play("rebuild", memory_namespace=["agent-7", "agent-8"])  # only the watch was left
        again = site.play("rebuild", memory_namespace=["agent-7", "agent-8"])
    passed(watched, changed=True)
    assert "TASK [memops.agent_memory.isolate" not in watched.text
    passed(again, changed=False)
    assert "Nothing to rebuild" in again.text
    memory = site.memory()
    assert memory.read("agent-7", "key-00077") == {"fact": "agent-7 fact 77"}
    agreed(site.reports, memory, *kept(site))
    memory.close()
    report = json.loads((site.reports / sorted(p.name for p in site.reports.iterdir())[0] / "report.json").read_text())
    assert (report["namespace"], report["verdict"], report["state"]) == ("agent-7", "pass", "closed")
    assert report["records"]["lost"] == 0
    assert report["records"]["recovered"] == 2
    passed(site.play("backup"), changed=True)
    passed(site.play("backup"), changed=False)


def test_new_damage_while_a_watch_is_left_takes_one_command(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path)
    site.flip("agent-7", ["key-00003"])
    refused(site.play("rebuild", memory_namespace="agent-7"), "could-not-verify")  # nobody read: the watch is left
    site.flip("agent-7", ["key-00077"])
    with site.working("agent-7"):
        done = site.play("rebuild", memory_namespace="agent-7")
    assert done.status == 0, done.text
    assert "That watch ends here, since there is new damage" in done.text
    assert states(site, "agent-7") == {"primary": "serving", "secondary": "standby"}
    (folder,) = site.reports.iterdir()
    report = (folder / "report.json").read_text()
    assert (json.loads(report)["verdict"], json.loads(report)["state"]) == ("pass", "closed")
    assert "the watch of the run before ends: there is new damage" in report


def states(site: Site, namespace: str) -> dict[str, str]:
    """Each host's state of the namespace, as its store has it."""
    found = {}
    for host, store in site.stores.items():
        with contextlib.closing(sqlite3.connect(store["path"])) as con:
            (found[host],) = con.execute("SELECT state FROM memops_namespace WHERE name = ?", (namespace,)).fetchone()
    return found


def write_where_the_route_leads(site: Site, namespace: str, key: str) -> None:
    application = Memory(route=str(site.route), keyring=site.keyring, actor="test")
    application.write(namespace, key, {"fact": key})
    application.close()


def test_the_secondary_serves_by_force_where_the_store_of_the_home_is_gone(tmp_path: pathlib.Path) -> None:
    """Its host answers, and has nothing that could be fenced: a disk that is not there any more."""
    site = site_with_backup(tmp_path)
    gone = pathlib.Path(site.stores["primary"]["path"])
    gone.rename(gone.with_name("gone.db"))
    refused(site.play("failover", memory_namespace="agent-7"), "There is no memory store", "memory_failover=force")
    passed(
        site.play(
            "failover", memory_namespace="agent-7", memory_failover="force", memory_outside_fence="its disk is gone"
        ),
        changed=True,
    )
    write_where_the_route_leads(site, "agent-7", "written-elsewhere")
    assert not gone.exists()


def test_a_failback_too_early_or_cut_short_says_so_and_no_write_is_lost(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path, "agent-7", "agent-8")
    site.flip("agent-7", ["key-00005"])
    over = site.play("failover", memory_namespace=["agent-7", "agent-8"])
    assert over.status == 0, over.text
    served = {"primary": "quarantined", "secondary": "serving"}
    assert states(site, "agent-7") == states(site, "agent-8") == served
    early = site.play("failback", memory_namespace="agent-7")
    refused(early, "The home of agent-7 does not pass", "so nothing was changed", "Next: ")
    assert "stands by" not in early.text
    assert states(site, "agent-7") == served
    for step in ("snapshot", "diagnose", "plan"):
        done = site.play(step, memory_namespace="agent-7")
        assert done.status == 0, done.text
    refused(site.play("failback", memory_namespace="agent-7"), "was not carried out yet", "Next: ")
    assert states(site, "agent-7") == served
    for step in ("apply", "validate"):
        done = site.play(step, memory_namespace="agent-7")
        assert done.status == 0, done.text
    for namespace in ("agent-7", "agent-8"):
        write_where_the_route_leads(site, namespace, "written-elsewhere")
    away = {"memory_repository": {"url": f"file://{site.keyring['path']}/nowhere"}}
    failed = site.play("failback", memory_namespace="agent-7", **away)
    refused(failed, "secondary stands by", "the same command continues")
    assert states(site, "agent-7") == {"primary": "quarantined", "secondary": "standby"}
    over = site.play("failover", memory_namespace="agent-7")
    refused(over, "secondary stands by: a failback began and did not end", "Next: ")
    assert "serves the namespace" not in over.text
    with site.working("agent-7", "agent-8"):
        passed(site.play("rebuild", memory_namespace=["agent-7", "agent-8"]), changed=True)
    memory = site.memory()
    for namespace in ("agent-7", "agent-8"):
        assert memory.read(namespace, "written-elsewhere") == {"fact": "written-elsewhere"}
    memory.close()


def test_killed_and_run_again_nothing_written_on_the_secondary_is_lost(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path)
    site.flip("agent-7", ["key-00005"])
    failed_over = site.play("failover", memory_namespace="agent-7")
    assert failed_over.status == 0, failed_over.text
    write_where_the_route_leads(site, "agent-7", "written-elsewhere")
    with site.working("agent-7"):
        for step in ("[Diagnose]", "[Validate what came home]", "[Release]"):
            killed_at(site, step)
        passed(site.play("rebuild", memory_namespace="agent-7"), changed=True)
    memory = site.memory()
    assert memory.read("agent-7", "written-elsewhere") == {"fact": "written-elsewhere"}
    assert memory.read("agent-7", "key-00005") == {"fact": "agent-7 fact 5"}
    memory.close()
    assert json.loads(site.route.read_text())["namespaces"] == {}
    passed(site.play("backup"), changed=True)


def killed_at(site: Site, step: str) -> None:
    process = site.start("rebuild", memory_namespace="agent-7")
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("TASK") and step in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "".join(seen)


def test_every_step_alone_twice_and_in_check_mode(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path)
    site.flip("agent-7", ["key-00011"])
    with site.working("agent-7"), webhook() as (url, told):
        for step in (
            "isolate", "snapshot", "failover", "diagnose", "plan",
            "apply", "validate", "failback", "release", "monitor",
        ):  # fmt: skip
            more: dict[str, t.Any] = {"memory_namespace": "agent-7"}
            if step in ("release", "monitor"):
                more["memory_notify"] = [{"kind": "webhook", "url": url}]
            checked = site.play(step, "--check", **more)
            assert checked.status == 0, checked.text
            first = site.play(step, **more)
            assert first.status == 0, first.text
            if step in ("failover", "failback"):
                continue
            passed(site.play(step, **more), changed=False)
        passed(site.play("report", memory_namespace="agent-7"), changed=False)
    assert site.report()["state"] == "closed"
    assert [one["event"] for one in told] == ["released", "closed"]


def test_cluster_playbooks(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path, "agent-7", "agent-8")
    export = tmp_path / "export"
    before = site.fingerprint()
    for playbook, more in (
        ("info", {}), ("verify", {}), ("drill", {}), ("restore", {"memory_namespace": "agent-8"}),
        ("export", {"memory_export_dir": str(export)}), ("rotate_keys", {"memory_force": "yes"}), ("backup", {}),
    ):  # fmt: skip
        checked = site.play(playbook, "--check", **more)
        assert checked.status == 0, checked.text
    assert site.fingerprint() == before
    shown = site.play("info")
    passed(shown, changed=False)
    assert "namespace agent-8: serving" in shown.text
    passed(site.play("verify", memory_depth="opened"), changed=False)
    passed(site.play("drill"), changed=False)
    restored = site.play("restore", memory_namespace="agent-8")
    passed(restored, changed=False)
    assert "Nothing to restore from snapshot" in restored.text
    assert "agent-8 (records restored: 0, unchanged: 201)." in restored.text
    exported = site.play("export", memory_export_dir=str(export))
    passed(exported, changed=True)
    assert f"as JSON Lines into {export} on primary (records: 402," in exported.text
    assert (export / "records.jsonl").is_file()
    rotated = site.play("rotate_keys", memory_force="yes")
    passed(rotated, changed=True)
    assert "Records re-encrypted with the new record key" in rotated.text
    kept = site.play("rotate_keys")
    passed(kept, changed=False)
    assert "is younger than 1h (memory_key_age); to replace it all the same, set memory_force=true." in kept.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"memory_namespaces": ["agent-7"]},
            ["memory_namespace has to be a namespace", "Next: ", "(memory_namespaces is what a backup covers)."],
        ),
        ({"memory_namespace": ""}, ["memory_namespace has to be a namespace"]),
        ({"memory_namespace": []}, ["memory_namespace has to be a namespace"]),
        ({"memory_namespace": {"agent": 7}}, ["memory_namespace has to be a namespace"]),
        ({"memory_namespace": ["agent-7", 7]}, ["memory_namespace has to be a namespace"]),
        (
            {"memory_namespace": ["agent-7", "agent-8"], "memory_incident": "inc-1"},
            ["memory_incident names one incident"],
        ),
        ({"memory_namespace": "agent-77"}, ["agent-77", "Next: "]),
        ({"memory_namespace": "agent-7", "memory_strategy": "nuke"}, ["memory_strategy cannot be nuke", "auto, soft"]),
        ({"memory_namespace": "agent-7", "memory_failover": "maybe"}, ["memory_failover cannot be maybe"]),
        ({"memory_namespace": "agent-7", "memory_slo": {"max_los": 1}}, ["max_los;", "did you mean max_loss?"]),
        ({"memory_namespace": "agent-7", "memory_repository": {"buckett": "b"}}, ["no option buckett", "did you"]),
    ],
)
def test_bad_variables_change_nothing(site: Site, variables: dict[str, t.Any], words: list[str]) -> None:
    before = site.store_bytes()
    outcome = site.play("rebuild", **variables)
    refused(outcome, *words)
    assert outcome.changed == 0
    assert site.store_bytes() == before


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    one = Site(tmp_path_factory.mktemp("site"), secondary=False)
    one.fill("agent-7", 5)
    return one


def test_an_inventory_without_memory_hosts_is_no_success(site: Site) -> None:
    inventory = site.folder / "empty.json"
    inventory.write_text('{"web": {"hosts": {"www": {}}}}')
    other = copy.copy(site)
    other.inventory = inventory
    refused(other.play("rebuild", memory_namespace="agent-7"), "No host of this inventory has memory_store", "Next: ")


def test_a_loss_above_the_limit_tells_the_owners_and_stays_quarantined(tmp_path: pathlib.Path) -> None:
    owners = {"agent-*": {"owner": "support", "impact": "agents forget tickets", "persistence": "persistent"}}
    site = Site(tmp_path, secondary=False, memory_owners=owners)
    site.fill("agent-8", 5)
    passed(site.play("backup"), changed=True)
    site.fill("agent-7", 20)
    site.flip("agent-7", [f"key-{n:05}" for n in range(10)])
    with webhook() as (url, told):
        outcome = site.play("rebuild", memory_namespace="agent-7", memory_webhook=url)
    refused(outcome, "have no good copy", "owners notified", "memops.agent_memory.info")
    assert "secret-path" not in outcome.text
    assert [(one["namespace"], one["impact"][0]["owner"]) for one in told] == [("agent-7", "support")]
    assert site.report()["state"] == "quarantined"
    assert site.report()["verdict"] == "fail"


def test_disaster_recovery_into_a_fresh_store_and_never_over_memories(tmp_path: pathlib.Path) -> None:
    site = site_with_backup(tmp_path, "agent-7", "agent-8", secondary=False)
    refused(site.play("disaster_recovery"), "holds 2 namespaces already", "Next: ")
    fresh = tmp_path / "fresh.db"
    checked = site.play("disaster_recovery", "--check", memory_dr_store=str(fresh))
    assert checked.status == 0, checked.text
    assert not fresh.exists()
    with webhook() as (url, told):
        channels = [{"kind": "webhook", "url": url}]
        words = {"memory_dr_store": str(fresh), "memory_dr_switch": "true"}
        done = site.play("disaster_recovery", memory_notify=channels, **words)
    assert done.status == 0, done.text
    assert [one["event"] for one in told] == ["escalated"]
    site.stores["fresh"] = {"engine": "sqlite", "layout": "native", "path": str(fresh)}
    memory = site.memory("fresh")
    assert memory.read("agent-8", "key-00001") == {"fact": "agent-8 fact 1"}
    memory.close()
    assert json.loads(site.route.read_text())["namespaces"]["agent-7"]["path"] == str(fresh)

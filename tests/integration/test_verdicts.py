# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run has one verdict: in report.json, in the table, in what the job hands over, and in the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.diagnose_step import investigate
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.isolate import isolate
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot import create
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import attempt
from tests.support.playbooks import Site
from tests.support.valkey_replicas import ReplicaSet, wait_for

#: A run of this controller whose process is gone, so that its lease need not be waited for.
ENDED = attempt().replace(f":{os.getpid()}:", f":{2**22 + 1}:")
#: Cluster: the verdict of the verification of its newest snapshot.
CLUSTERS = {"sound": "pass", "broken": "fail", "unkeyed": "could-not-verify"}
#: Namespace: the verdict of its validation, as a report says it, and how the table begins.
NAMESPACES = {
    "calm": ("could-not-verify", "VALIDATE PASSED"),  # of the step; the runbook was not carried out
    "damaged": ("fail", "FAIL"),
    "unread": ("could-not-verify", "COULD NOT VERIFY"),
}


def of_clusters(folder: pathlib.Path) -> Site:
    sites = {name: Site(made(folder / name), secondary=False, memory_cluster=name) for name in CLUSTERS}
    for name, site in sites.items():
        for namespace in NAMESPACES:
            site.fill(namespace, 5)
        given = {"store_params": site.stores["primary"], "keyring": Keyring.open(site.keyring), "name": name}
        create(repository=site.variables["memory_repository"], purpose="scheduled", **given)
    (pack, *_more) = (folder / "broken" / "repository").rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:-9] + b"damaged!!")
    one = sites["sound"]
    one.flip("damaged", ["key-00001"])
    isolated(one, "unread")
    variables = {name: {**site.variables, "memory_store": site.stores["primary"]} for name, site in sites.items()}
    del variables["unkeyed"]["memory_keyring"]
    one.inventory.write_text(json.dumps({"memory": {"hosts": variables}}))
    return one


def isolated(site: Site, namespace: str) -> None:
    """With its probes fixed, of which there are none, since nobody read it."""
    params, run = site.stores["primary"], Run(ENDED, "ann")
    with contextlib.closing(open_store(params)) as store:
        common: dict[str, t.Any] = {"store": store, "store_params": params, "namespace": namespace, "run": run}
        isolate(**common)
        investigate(**common, keyring=Keyring.open(site.keyring), repository=None, name="sound", logs=[])


def made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    return folder


def handed_over(text: str) -> dict[str, t.Any]:
    """memory_results of all playbooks of a run, each of which shows its own."""
    found: dict[str, t.Any] = {}
    for part in text.split("RUN: ")[1:]:
        found.update(json.JSONDecoder().raw_decode(part)[0]["memory_results"])
    return found


def test_report_table_outcome_and_exit_status_agree(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_SHOW_CUSTOM_STATS", "1")
    site = of_clusters(tmp_path)
    # in one file, since ansible-playbook goes no further with a file that failed
    both = tmp_path / "both.yml"
    both.write_text(json.dumps([{"import_playbook": f"memops.agent_memory.{name}"} for name in ("verify", "validate")]))
    given = {"memory_depth": "opened", "memory_doctor_checks": ["drill"], "memory_namespace": [*NAMESPACES]}
    run = site.play("doctor", str(both), memory_doctor_fail=False, **given)
    assert run.status != 0
    told = handed_over(run.text)
    failed = dict(re.findall(r"^(\w+) +: .*failed=(\d)", run.text, re.MULTILINE))
    for cluster, verdict in CLUSTERS.items():
        assert told[f"{cluster}/doctor"]["verdict"] == "fail", "no drill was ever run; here that fails no run"
        assert told[f"{cluster}/verify"]["verdict"] == verdict, told
        if cluster != "sound":
            assert failed[cluster] != "0" and f"The verdict is {verdict}: " in run.text
    reports = [json.loads(path.read_text()) for path in site.reports.glob("*/report.json")]
    for namespace, (verdict, title) in NAMESPACES.items():
        (report,) = (one for one in reports if one["namespace"] == namespace)
        outcome = told[f"sound/{namespace}"]
        assert (report["verdict"], outcome["verdict"], outcome["title"].upper()) == (verdict, verdict, title)
        assert re.search(rf"\n{title}  {namespace} in sound  (?:no )?incident", run.text)
        stopped = re.search(rf"{namespace}: The verdict is ([\w-]+): ", run.text)
        assert (stopped and stopped[1]) == (None if title.endswith("PASSED") else verdict), run.text


def test_what_is_refused_hands_over_a_verdict(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variables' names and values, by a role's specification, in a play without a cluster, without a report."""
    monkeypatch.setenv("ANSIBLE_SHOW_CUSTOM_STATS", "1")
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 5)
    before = site.fingerprint()
    twice = {"kind": "file", "path": str(site.route), "retries": "twice"}
    for playbook, key, said, given in (
        ("isolate", "inventory", "did you mean memory_namespace?", {"memory_namspace": "agent-7"}),
        ("isolate", "site/isolate", "memory_namespace has to be a namespace", {}),
        ("hold", "site/hold", "memory_force cannot be perhaps", {"memory_hold": "case-17", "memory_force": "perhaps"}),
        ("rebuild", "site/agent-7", "twice", {"memory_namespace": "agent-7", "memory_route": twice}),
        ("metrics", "site/metrics/primary", "soon", {"memory_metrics_window": "soon"}),
    ):
        run = site.play(playbook, **given)
        (outcome,) = handed_over(run.text).items()
        assert run.status != 0 and (outcome[0], outcome[1]["verdict"]) == (key, "fail"), run.text
        assert said in outcome[1]["reason"], outcome
    assert site.fingerprint() == before
    (tmp_path / "file").touch()
    unreported = site.play("isolate", memory_namespace="agent-7", memory_report_dir=str(tmp_path / "file" / "reports"))
    told = handed_over(unreported.text)["site/agent-7"]
    assert unreported.status != 0 and told["verdict"] == "fail" and "cannot be written" in told["reason"], told


class Pair:
    """A primary and its replica. What a Site needs of a bench."""

    def __init__(self, group: ReplicaSet) -> None:
        self.of = dict(zip(("primary", "secondary"), group.servers))

    def params(self, host: str) -> dict[str, t.Any]:
        return self.of[host].store()

    def application(self, host: str) -> dict[str, t.Any]:
        return self.of[host].application()


def test_what_nobody_can_tell_of_a_whole_store_is_no_pass(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_SHOW_CUSTOM_STATS", "1")
    with ReplicaSet() as group:
        site = Site(tmp_path, bench=Pair(group), memory_route={"kind": "none"}, memory_failover_min_interval="0s")
        home, away = group.servers
        written = home.said_of()["master_repl_offset"]
        wait_for("the replica has it", lambda: away.said_of()["slave_repl_offset"] >= written)
        home.kill()
        forced = site.play("failover", memory_failover="force", memory_outside_fence="its power is off")
        assert forced.status == 0, forced.text
        home.again()
        with home.client() as client:  # as Sentinels do
            client.replicaof("127.0.0.1", str(away.port))
        wait_for("it follows", lambda: home.said_of()["master_link_status"] == "up")
        back = site.play("failback")
    report = site.report()
    (outcome,) = handed_over(back.text).values()
    assert [one["verdict"] for one in (report, outcome)] == ["could-not-verify"] * 2 and report["state"] == "closed"
    assert back.status != 0 and "\nCOULD NOT VERIFY  the whole store  " in back.text, back.text
    assert "The verdict for the whole store is could-not-verify: What the former primary alone" in back.text

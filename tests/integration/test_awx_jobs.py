# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as jobs of AWX: relaunched, in a workflow, with questions left empty; no secret is in what is kept."""
from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import threading
import time
import typing as t

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from awx_job import ROOT, Job, script_of

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _attempt
from playbooks import Site

SECRET = "the-secret-key-of-the-repository"
WAITS = "Waiting for the end of that lease"
PLAIN = "the-plain-text-of-a-memory"


class Plain(yaml.SafeLoader):
    """``!unsafe`` keeps Ansible from rendering a text, no more."""


Plain.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def credential_type(name: str) -> dict[str, t.Any]:
    text = (ROOT / "roles" / "awx_setup" / "vars" / "main.yml").read_text(encoding="utf-8")
    kinds = yaml.load(text, Plain)["awx_setup_credential_types"]
    return next(kind for kind in kinds if kind["name"] == name)


def survey(playbook: str, **given: t.Any) -> dict[str, t.Any]:
    """A job's extra variables when a person leaves every other question as it is: defaults, and empty texts."""
    text = (ROOT / "roles" / "awx_setup" / "vars" / "main.yml").read_text(encoding="utf-8")
    (template,) = [one for one in yaml.load(text, Plain)["awx_setup_templates"] if one["playbook"] == playbook]
    answers = {one["variable"]: one.get("default", "") for one in template["survey"]}
    assert set(given) <= set(answers)
    return {**answers, **given}


def inventory_of(site: Site) -> dict[str, t.Any]:
    return script_of(json.loads(site.inventory.read_text(encoding="utf-8")))


def lease(site: Site, seconds: float) -> None:
    """Let the lease of whoever worked last end in so many seconds."""
    until = int((time.time() + seconds) * 1e6)
    with contextlib.closing(sqlite3.connect(site.stores["primary"]["path"], timeout=30)) as con:
        changed = con.execute("UPDATE memops_incident SET lease_until = ? WHERE state = 'open'", (until,))
        con.commit()
        assert changed.rowcount == 1


@contextlib.contextmanager
def until_it_waits(site: Site, job: Job) -> t.Iterator[None]:
    """A lease that ends when the job has said that it waits for that, rather than after a minute."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            if (job.artifacts_folder / "stdout").is_file() and WAITS in job.said:
                return lease(site, 0)

    lease(site, 300)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def incidents(site: Site) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(site.stores["primary"]["path"])) as con:
        return con.execute("SELECT incident, state FROM memops_incident").fetchall()


def test_a_failed_job_that_is_relaunched_resumes_its_incident_and_keeps_no_secret(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "site"
    home.mkdir()
    site = Site(home, secondary=False, memory_monitor_interval="0.5")
    site.fill("agent-7", 150)
    site.fill("archive", 250_000)  # more than a second to copy, in memory too
    memory = site.memory()
    memory.write_many("agent-7", {f"plain-{n}": {"fact": f"{PLAIN} {n}"} for n in range(50)})
    memory.close()
    site.read("agent-7", 150)
    # the secrets are AWX's: nothing of them is on the host or in the inventory
    master = pathlib.Path(site.keyring["master_key_file"]).read_text().strip()
    pathlib.Path(site.keyring["master_key_file"]).unlink()
    site.variables["memory_keyring"] = {
        "source": "value", "master_key": "{{ memops_master_key }}", "path": site.keyring["path"],
    }  # fmt: skip
    site.variables["memory_repository"] = {
        **site.variables["memory_repository"],
        "access_key": "{{ memops_repository_access_key }}",
        "secret_key": "{{ memops_repository_secret_key }}",
        "session_token": "{{ memops_repository_session_token }}",
    }
    site.write_inventory()
    credentials = [
        (credential_type("keyring"), {"master_key": master}),
        (credential_type("repository"), {"access_key": "AKEXAMPLE", "secret_key": SECRET}),
    ]
    secrets = [master, SECRET, PLAIN]

    backup = Job(tmp_path, 40, "backup", inventory_of(site), survey("backup"))
    backup.answers["memory_progress_seconds"] = 0.1
    backup.credentials = credentials
    assert backup.run().status == 0, backup.said
    assert re.search(r"^ +\S+: copying records: [\d,]+ .*/s", backup.said, re.M), backup.said
    assert backup.artifacts["memory_results"] == {"site/backup": {"verdict": "pass", "reason": ""}}

    site.flip("agent-7", ["key-00003", "plain-7"])
    hosts = inventory_of(site)
    away = json.loads(json.dumps(hosts))
    away["memory"]["vars"]["memory_report_dir"] = str(tmp_path / "gone with its container")
    away["memory"]["vars"]["memory_repository"]["url"] = f"file://{site.keyring['path']}/nowhere"
    failed = Job(tmp_path, 41, "rebuild", away, survey("rebuild", memory_namespace="agent-7"))
    failed.answers["memory_monitor_seconds"] = 1
    failed.credentials = credentials
    assert failed.run("-vvv", "--diff").status != 0
    (one,) = failed.artifacts["memory_results"].values()
    assert one["verdict"] == "fail"
    assert incidents(site) == [(one["incident"], "open")]

    failed.inventory = hosts
    again = failed.relaunched(42)
    with site_works(site, master), until_it_waits(site, again):
        again.run()
    assert again.status == 0, again.said
    assert WAITS in again.said
    (passed,) = again.artifacts["memory_results"].values()
    assert (passed["incident"], passed["verdict"], passed["state"]) == (one["incident"], "pass", "closed")
    assert passed["verdicts"]["apply"] == "pass"
    assert pathlib.Path(passed["report"]).is_file()
    assert incidents(site) == [(one["incident"], "closed")]

    for job in (backup, failed, again):
        assert found(job.artifacts_folder, secrets) == []
    assert found(again.artifacts_folder, [passed["incident"]]) != []
    assert found(again.private / "env", secrets) != []


@contextlib.contextmanager
def site_works(site: Site, master: str) -> t.Iterator[None]:
    """The application has the master key by its own means."""
    path = site.folder / "application.key"
    path.write_text(master)
    path.chmod(0o600)
    site.keyring = {**site.keyring, "master_key_file": str(path)}
    with site.working("agent-7"):
        yield


def found(folder: pathlib.Path, words: t.Sequence[str]) -> list[str]:
    every = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [f"{path}: {word}" for path in every for word in words if word.encode() in path.read_bytes()]


ATTEMPT = """
import sys
from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import alive, attempt
print(attempt(), alive(sys.argv[1]))
"""


def test_another_container_of_this_host_name_is_not_judged_by_its_pids() -> None:
    """With its host's network a container has the host's name, and a process table of its own all the same."""
    mine = _attempt.attempt()
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", ATTEMPT, mine]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    there, judged = done.stdout.split()
    assert judged == "None"
    assert _attempt.alive(there) is None


def test_nodes_of_a_workflow_with_questions_left_empty_and_the_artifacts_before_them(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("1042", 20)  # which Ansible takes for a number when AWX hands it over
    told: dict[str, t.Any] = {}
    number = 50
    for playbook, more in (
        ("isolate", {}),
        ("failover", {"memory_failover_required": "false"}),
        ("failback", {"memory_failover_required": "false"}),
    ):
        number += 1
        answers = {**survey(playbook, memory_namespace="1042", **more), **told}
        job = Job(tmp_path, number, playbook, inventory_of(site), answers)
        job.workflow = 7
        assert job.run().status == 0, job.said
        assert "[WARNING]" not in job.said, job.said
        told.update(job.artifacts)
        assert told["memory_results"]["site/1042"]["state"] == "quarantined"
        assert "Waiting" not in job.said
    assert len(incidents(site)) == 1

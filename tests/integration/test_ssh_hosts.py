# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on hosts behind SSH: prepared, cut off, killed and overtaken in the middle of a step.

The tests go on from each other, as the life of a site does. tests/support/ssh_hosts.py says what these hosts are.
"""
from __future__ import annotations

import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import time
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decoded import agreed
from s3_server import S3Server
from ssh_hosts import Lab
from ssh_site import SshSite, wheels

from playbooks import Outcome


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[SshSite]:
    with Lab(["h1", "h2"]) as lab, S3Server(str(lab.folder / "s3"), address=lab.address) as s3:
        yield SshSite(tmp_path_factory.mktemp("site"), lab, s3)
        assert s3.process
        s3.process.kill()  # nobody needs what it still has to write


def ended(process: subprocess.Popen[str]) -> Outcome:
    try:
        text = process.communicate(timeout=900)[0]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Outcome(process.returncode, -1, text)


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status != 0, outcome.text
    assert "Traceback" not in outcome.text
    for word in words:
        assert word in outcome.text, outcome.text


def passed(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.text[-6000:]
    assert "[WARNING]" not in outcome.text, outcome.text


def test_prepare_makes_an_empty_host_ready_and_a_second_run_changes_nothing(site: SshSite) -> None:
    checked = site.play("prepare", "--check", memory_wheels=str(wheels()))
    passed(checked)
    assert checked.changed > 0
    assert not (site.hosts["primary"].folder / "opt").exists()
    passed(site.play("prepare", memory_wheels=str(wheels())))
    again = site.play("prepare")
    passed(again)
    assert again.changed == 0, again.text
    assert "put the master key" in again.text
    for host in site.hosts.values():
        assert (host.folder / "agents").stat().st_mode & 0o7777 == 0o750
        assert (host.folder / "opt" / "memops" / "venv").stat().st_mode & 0o7777 == 0o755
        assert host.run("ls -d /tmp/*memops-wheels 2>/dev/null", check=False).stdout == ""


def test_a_host_that_was_not_prepared_is_told_so(site: SshSite) -> None:
    refused(
        site.play("info", memory_venv=f"{site.hosts['primary'].root}/nothing"),
        "has no Python at", "Next: correct its ansible_python_interpreter", "memops.agent_memory.prepare",
    )  # fmt: skip


def test_a_power_cut_in_the_snapshot_then_the_whole_runbook_with_a_failover(site: SshSite) -> None:
    site.give_master_key()
    site.fill("agent-7", 300)
    site.read("agent-7", 150)
    passed(site.play("backup"))
    site.flip("agent-7", ["key-00003", "key-00077"])
    primary = site.hosts["primary"]
    with site.working("agent-7"):
        process = site.start("rebuild", memory_namespace="agent-7")
        site.await_step(process, "isolate")
        with site.s3_away():
            site.await_intent(process, "snapshot")
            primary.kill()
        refused(ended(process), "h1 cannot be reached", "Next: mend the connection")
        assert site.report()["verdict"] == "fail"
        primary.start()
        passed(site.play("rebuild", memory_namespace="agent-7"))
    report = site.report()
    assert (report["verdict"], report["records"]["recovered"], report["records"]["lost"]) == ("pass", 2, 0)
    by_name = {step["name"]: step for step in report["steps"]}
    assert by_name["failover"]["detail"] == "served from h2"
    assert by_name["failback"]["verdict"] == "pass"
    memory = site.memory()
    assert memory.read("agent-7", "key-00077") == {"fact": "agent-7 fact 77"}
    live = site.stores["primary"]["path"]
    agreed(site.reports, memory, site.variables["memory_repository"], site.keyring["master_key_file"], live)
    memory.close()


def test_a_long_step_on_another_host_tells_how_far_it_is(site: SshSite) -> None:
    site.fill("archive", 80_000)
    passed(site.play("backup"))
    outcome = site.play("restore", memory_namespace="archive", memory_to_namespace="copy", memory_progress_seconds=0.1)
    passed(outcome)
    line = re.compile(r"^    archive: restoring records: ([\d,]+) of ([\d,]+) records, [\d,]+/s, .* left$", re.M)
    told = line.findall(outcome.text)
    assert told, outcome.text
    for done, total in told:
        assert 0 < int(done.replace(",", "")) <= int(total.replace(",", ""))
    for host in site.hosts.values():
        assert host.run("ls /tmp/memops-progress* 2>/dev/null", check=False).stdout == ""


def test_a_step_that_lost_its_controller_is_harmless_and_another_controller_ends_the_run(site: SshSite) -> None:
    site.flip("agent-7", ["key-00005", "key-00078"])
    primary, secondary = site.hosts["primary"], site.hosts["secondary"]
    former = site.incident()
    secondary.cut()
    lost = site.start("rebuild", memory_namespace="agent-7", memory_force=True)
    site.await_incident(lost, former)
    site.await_step(lost, "plan")
    with site.journal_held() as journal:
        site.await_held(lost, journal)
        primary.freeze()
    primary.cut()
    refused(ended(lost), "h1 cannot be reached", "No failover: h2: cannot be reached")
    assert site.report()["state"] == "quarantined"
    incident = site.incident()
    assert incident

    # The rebuild goes on although the forgotten step is still there, until its controller is killed, too.
    primary.heal()
    secondary.heal()
    killed = site.start("rebuild", memory_namespace="agent-7", memory_failover="never")
    site.await_step(killed, "apply", 2)  # the first one is that of the lost run
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    primary.thaw()
    deadline = time.monotonic() + 300
    while not [line for line in site.journal(incident) if line["phase"] == "failed"]:
        assert time.monotonic() < deadline, site.journal(incident)
        time.sleep(0.1)
    applied = [line for line in site.journal(incident) if line["step"] == "apply"]
    assert [line["phase"] for line in applied] == ["intent", "result", "intent", "failed"]
    assert applied[3]["attempt"] == applied[2]["attempt"] != applied[1]["attempt"]
    assert applied[3]["data"]["error"] == "StaleAttempt"

    with site.working("agent-7"):
        if site.lab.isolated:
            # Elsewhere nobody can tell whether the killed controller still lives: its lease has to run out.
            refused(elsewhere(site), "works on agent-7 in incident", "Next: wait for it to end")
            con = sqlite3.connect(site.stores["primary"]["path"])
            with con:
                con.execute("UPDATE memops_incident SET lease_until = 0 WHERE incident = ?", (incident,))
            con.close()
        passed(elsewhere(site))
    report = site.report()
    assert (report["incident"], report["verdict"], report["records"]["lost"]) == (incident, "pass", 0)
    memory = site.memory()
    assert memory.read("agent-7", "key-00078") == {"fact": "agent-7 fact 78"}
    memory.close()


def elsewhere(site: SshSite) -> Outcome:
    """The rebuild from a controller of another name, where this machine can have one."""
    site.launcher = ["unshare", "--uts", "sh", "-c", 'hostname other && exec "$@"', "sh"] if site.lab.isolated else []
    try:
        return site.play("rebuild", memory_namespace="agent-7", memory_failover="never")
    finally:
        site.launcher = []


def test_a_dead_primary_is_left_only_when_the_operator_vouches_for_its_fence(site: SshSite) -> None:
    passed(site.play("backup"))
    site.hosts["primary"].kill()
    refused(
        site.play("failover", memory_namespace="agent-7"),
        "h1 cannot be reached", "set memory_failover=force and say in memory_outside_fence",
    )  # fmt: skip
    forced = site.play(
        "failover", memory_namespace="agent-7", memory_failover="force", memory_outside_fence="its power is off"
    )
    assert forced.status == 0, forced.text
    memory = site.memory("secondary")
    memory.write("agent-7", "key-00001", {"fact": "written while h1 was dead"})
    memory.close()
    site.hosts["primary"].start()
    with site.working("agent-7"):
        passed(site.play("rebuild", memory_namespace="agent-7"))
    memory = site.memory()
    assert memory.read("agent-7", "key-00001") == {"fact": "written while h1 was dead"}
    memory.close()

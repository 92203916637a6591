# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole runbook on SQLite, PostgreSQL and Valkey, whose hosts are cut off in the middle of each step.

The clusters of tests/support/memory_lab.py are rebuilt in one play. In each run of it every cluster loses a host in
another step; the last one ends the runbook. MEMOPS_LOST_STEPS="plan apply" cuts all clusters off in these steps, one
run for each, and MEMOPS_SEED repeats a run.
"""
from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import machine
import unit_postgresql
from lab_writers import Writers, told_lost
from memory_lab import ENGINES, MemoryLab
from ssh_hosts import OWNER, USERS

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec, decode_value
from ansible_collections.memops.agent_memory.plugins.module_utils._errors import MemoryOpsError
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory
from playbooks import RECAP, Outcome

# Step -> what is said to its module.
STEPS = {
    "isolate": ['"module": "isolate"'],
    "snapshot": ['"module": "snapshot"', "forensic"],
    "failover": ['"module": "promote"', "serving"],
    "diagnose": ['"module": "diagnose"'],
    "plan": ['"module": "plan"'],
    "apply": ['"module": "apply"'],
    "validate": ['"module": "validate"'],
    "failback": ['"module": "failback"'],
    "release": ['"module": "release"'],
    "baseline": ['"module": "snapshot"', "baseline"],
    "verify": ['"module": "snapshot_verify"'],
    "monitor": ['"module": "monitor"'],
}
WHOLE = {"failover of the store": ['"module": "failover_store"']}  # runs on the replica's host
REPLICATED = ("postgresql", "valkey", "debian")
ONLY = ("--limit", ",".join(REPLICATED))
CROWD = max(4, int(os.environ.get("MEMOPS_CROWD", "30")))
SUPPORT = pathlib.Path(__file__).resolve().parents[1] / "support"


def turns(rng: random.Random) -> list[dict[str, str]]:
    """What each run cuts: {engine: step}."""
    chosen = os.environ.get("MEMOPS_LOST_STEPS", "").split()
    if chosen:
        return [dict.fromkeys(ENGINES, step) for step in chosen]
    steps = list(STEPS)
    groups = [steps[at : at + len(ENGINES)] for at in range(0, len(steps), len(ENGINES))]
    return [dict(zip(rng.sample(ENGINES, len(ENGINES)), group)) for group in groups]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[MemoryLab]:
    folder = tmp_path_factory.mktemp("cuts")
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {SUPPORT}/cutting_ssh.py {folder}/plan.json "$@"\n')
    ssh.chmod(0o755)
    (folder / "plan.json").write_text("[]")
    with MemoryLab(crowd=CROWD, units=True, ansible_ssh_executable=str(ssh)) as one:
        one.cuts = folder
        yield one


def plan_cuts(
    lab: MemoryLab, turn: t.Mapping[str, str], rng: random.Random, *, power: bool = False
) -> dict[str, pathlib.Path]:
    """Tell ssh which step of which cluster loses its host; {engine: the file that says that it did}. ``power``: of the
    primary, which the replica hears nothing of for a second before."""
    cuts, told = [], {}
    for engine, step in turn.items():
        told[engine] = lab.cuts / f"{engine}-{step}"
        told[engine].unlink(missing_ok=True)
        for number in (1, 2) if step in WHOLE else (1, 3):
            host = lab.host(f"{engine}-{number}")
            # A rebuild does without a secondary that is lost; what stops it in a failover is the loss of the primary.
            lost = lab.primary(engine) if "failover" in step else host
            cuts.append({
                "address": host.address, "link": lost.link, "pid": host.first,
                "uid": 0 if engine in lab.units else USERS[OWNER],
                "words": {**STEPS, **WHOLE}[step], "delay": rng.random() * 0.3, "done": str(told[engine]),
            })  # fmt: skip
            if power:
                cuts[-1].update(link=lab.host(f"{engine}-2").link, power=lost.first, delay=0)
    (lab.cuts / "plan.json").write_text(json.dumps(cuts))
    return told


def heal(lab: MemoryLab) -> None:
    for host in lab.lab.hosts.values():
        host.heal()


def linked(lab: MemoryLab) -> None:
    """The replicas follow again: after a long cut TCP waits for a minute and more before it sends anything anew."""
    deadline = time.monotonic() + 300
    for engine in REPLICATED:
        while not lab.servers[f"{engine}-1"].linked():
            assert time.monotonic() < deadline, f"the replica of {engine}-1 does not come back"
            time.sleep(0.2)


def fatal(outcome: Outcome) -> list[str]:
    return [line for line in outcome.text.splitlines() if line.startswith("fatal: [")]


def passed(outcome: Outcome) -> None:
    assert outcome.status == 0, outcome.text[-8000:]
    assert "Traceback" not in outcome.text


def test_a_run_that_was_killed_leaves_nothing_for_long() -> None:
    unit_postgresql.install()  # what a host with systemd has
    code = "import time; from s3_server import S3Server; from ssh_hosts import Lab; "
    code += "from systemd_host import SystemdHost; "
    code += "lab = Lab(real=True, kinds={'h3': SystemdHost}).start(); S3Server(str(lab.folder / 's3')).start(); "
    code += "print(lab.folder, lab.bridge, flush=True); time.sleep(600)"
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        place, bridge = process.stdout.readline().split()
        folder = pathlib.Path(place)
        assert machine.owned(folder)
        machine.sweep()
        assert folder.exists() and f"{bridge}:" in machine.ip("link") and list(machine.cgroups().glob(f"{bridge}*"))
        assert len(machine.users_of(folder)) > 3
        process.kill()
    deadline = time.monotonic() + 300
    while any(machine.program(pid) == "unshare" for pid in machine.users_of(folder)):
        assert time.monotonic() < deadline, "its hosts outlived it"
        time.sleep(0.05)
    machine.sweep()
    assert not folder.exists() and f"{bridge}:" not in machine.ip("link")
    assert not list(machine.cgroups().glob(f"{bridge}*"))
    assert machine.users_of(folder) == []
    assert place not in pathlib.Path("/proc/mounts").read_text()


def test_thirty_hosts_are_backed_up_side_by_side_and_two_broken_ones_fail_alone(lab: MemoryLab) -> None:
    for name in lab.crowd:
        with Memory(store=lab.store_of(name), keyring=lab.ring_of(name), actor="test") as memory:
            memory.write_many("agent-7", {f"key-{number:03}": f"{name} {number}" for number in range(100)})
        lab.own_of(name)
    gone, broken, *sound = lab.crowd
    lab.host(gone).cut()
    store = pathlib.Path(lab.store_of(broken)["path"])
    store.write_bytes(b"no database at all" * 1000)
    began = time.monotonic()
    with lab.using(lab.crowded):
        outcome = lab.play("backup", "--forks", str(CROWD), memory_serial=(CROWD + 1) // 2)
    heal(lab)
    print(f"{CROWD} hosts in two batches: {time.monotonic() - began:.1f} s")
    assert outcome.status != 0
    assert "Traceback" not in outcome.text
    recap = {row[0]: row for row in RECAP.findall(outcome.text)}
    assert {name for name, row in recap.items() if row[3:] != ("0", "0")} == {gone, broken}, outcome.text[-8000:]
    assert [line for line in fatal(outcome) if line.startswith(f"fatal: [{broken}]") and "Next: " in line], outcome.text
    repository = Repository.open(lab.s3.repository("lab"))
    for name in sound:
        ring = Keyring.open(lab.ring_of(name))
        (listed,) = repository.snapshots(name, ring)
        snapshot, found = repository.snapshot(name, listed.id, ring), {}
        assert snapshot.namespaces() == ["agent-7"]
        codec = RecordCodec("agent-7")
        for row in (row for rows in snapshot.scan("agent-7") for row in rows):
            found[row[0]] = decode_value(ring.open_payload(row[8], codec.head(row), row[7]))
        found = {key: value for key, value in found.items() if key.startswith("key-")}
        assert found == {f"key-{number:03}": f"{name} {number}" for number in range(100)}
    for name in (gone, broken):
        assert repository.snapshots(name) == []


def test_each_cluster_is_rebuilt_though_a_host_is_cut_off_in_each_step(lab: MemoryLab) -> None:
    seed = int(os.environ.get("MEMOPS_SEED") or random.randrange(1 << 32))
    print(f"MEMOPS_SEED={seed}")
    rng = random.Random(seed)
    lab.fill_all("agent-7", 200)
    lab.fill_all("agent-8", 20)
    lab.read("agent-7", 150)
    passed(lab.play("backup"))
    lab.flip_all("agent-7", ["key-00003", "key-00077"])
    steps = list(STEPS)
    for turn in turns(rng):
        print(turn, flush=True)
        began = time.monotonic()
        told = plan_cuts(lab, turn, rng)
        lost = lab.play("rebuild", memory_namespace="agent-7")
        heal(lab)
        print(f"{time.monotonic() - began:.0f} s", *fatal(lost), sep="\n  ", flush=True)
        assert lost.status != 0, lost.text
        assert "Traceback" not in lost.text
        reports = lab.reports_of("agent-7")
        for engine, step in turn.items():
            assert told[engine].exists(), (engine, step, lost.text[-8000:])
            said = [line for line in fatal(lost) if line.startswith(f"fatal: [{engine}-1]: FAILED!")]
            assert any("cannot be reached" in line and "Next: " in line for line in said), (engine, step, lost.text)
            assert reports[engine]["verdict"] != "pass", (engine, step)
            assert "memory_namespace=agent-7" in reports[engine]["next_command"]
            # The step that was under way may have ended on the host.
            at = steps.index(step)
            states = {"serving", "quarantined"} if step in ("isolate", "release") else {
                "quarantined" if at < steps.index("release") else "serving"
            }  # fmt: skip
            assert lab.state(engine, "agent-7") in states, (engine, step)
    plan_cuts(lab, {}, rng)
    with lab.working("agent-7"):
        passed(lab.play("rebuild", memory_namespace="agent-7"))
    for engine, report in lab.reports_of("agent-7").items():
        counts = report["records"]
        assert (report["verdict"], counts["recovered"], counts["lost"]) == ("pass", 2, 0), (engine, report)
        # In the second form it was home before the last run began.
        detail = {step["name"]: step for step in report["steps"]}["failover"]["detail"]
        assert detail in (f"served from {engine}-3", "not done: the namespace is rebuilt already"), (engine, detail)
        with lab.application(engine) as memory:
            for number in range(200):
                assert memory.read("agent-7", f"key-{number:05}") == {"fact": f"agent-7 fact {number}"}
            assert memory.read("agent-8", "key-00001") == {"fact": "agent-8 fact 1"}


def refuses(lab: MemoryLab, number: int) -> None:
    """These servers take no writes."""
    for engine in REPLICATED:
        with pytest.raises(MemoryOpsError), lab.application(engine, number, direct=True) as memory:
            memory.write("agent-8", "probe", {"at": number})


def share_keys(lab: MemoryLab) -> None:
    """The record keys are the same on both hosts, as with any keyring that hosts share."""
    for engine in REPLICATED:
        with lab.application(engine, direct=True) as memory:
            memory.write("agent-8", "first", {"at": 1})
        shutil.copy(lab.ring(engine, 1)["path"], lab.ring(engine, 2)["path"])
        lab.own(engine)


def test_whole_stores_fail_over_though_the_primary_is_cut_off_in_the_middle_and_come_home(lab: MemoryLab) -> None:
    rng = random.Random(os.environ.get("MEMOPS_SEED"))
    share_keys(lab)
    with lab.using(lab.replicated), Writers(lab, REPLICATED) as writers:
        told = plan_cuts(lab, dict.fromkeys(REPLICATED, "failover of the store"), rng)
        lost = lab.play("failover", *ONLY, memory_failover_min_interval="0s")
        heal(lab)
        plan_cuts(lab, {}, rng)
        assert lost.status != 0, lost.text
        assert "Traceback" not in lost.text
        for engine in REPLICATED:
            assert told[engine].exists(), lost.text[-8000:]
            said = [line for line in fatal(lost) if line.startswith(f"fatal: [{engine}-")]
            assert any("Next: " in line for line in said), lost.text[-8000:]
        linked(lab)
        passed(lab.play("failover", *ONLY, memory_failover_min_interval="0s"))
        refuses(lab, 1)
        writers.wait()
        started = lab.servers["debian-1"].last_start()
        passed(lab.play("failback", *ONLY, memory_failover_min_interval="0s"))
        assert lab.servers["debian-1"].last_start() != started  # its unit did, not pg_ctl
        refuses(lab, 2)
        writers.wait()
    assert writers.missing(1) == {engine: set() for engine in REPLICATED}
    assert {engine: told_lost(lab, engine) for engine in REPLICATED} == {engine: set() for engine in REPLICATED}


def test_what_only_a_primary_had_whose_power_went_in_the_middle_is_told_to_the_record(lab: MemoryLab) -> None:
    """The replica misses its last second. The operator vouches for the fence, and later it is made to follow."""
    share_keys(lab)
    linked(lab)
    with lab.using(lab.replicated), Writers(lab, REPLICATED) as writers:
        told = plan_cuts(lab, dict.fromkeys(REPLICATED, "failover of the store"), random.Random(), power=True)
        refused = lab.play("failover", *ONLY, memory_failover_min_interval="0s")
        for engine in REPLICATED:
            assert told[engine].exists(), refused.text[-8000:]
            lab.primary(engine).kill()
        plan_cuts(lab, {}, random.Random())
        assert refused.status != 0, refused.text
        assert "Traceback" not in refused.text
        passed(lab.play("failover", *ONLY, memory_failover="force", memory_outside_fence="its power is off"))
        writers.wait()
        lab.servers["valkey-1"].hide(True)  # or the Sentinels make it a replica before it is looked at
        for engine in REPLICATED:
            lab.boot(f"{engine}-1")
        with lab.seen_again("valkey-1"):
            passed(lab.play("failback", *ONLY, memory_failover_min_interval="0s"))
        refuses(lab, 2)
        writers.wait()
    lost = writers.missing(1)
    for engine, missing in lost.items():
        listed = told_lost(lab, engine)
        print(f"{engine}: {len(writers.acknowledged[engine])} acknowledged, {len(missing)} lost, {len(listed)} listed")
        assert missing <= listed, (engine, missing - listed)
    assert any(lost.values()), "nobody wrote in the second that the replicas missed"

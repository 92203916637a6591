# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timers and cron entries that the playbook schedule writes: systemd accepts the ones, a shell runs the others."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Outcome, Site
from tests.support.debian import need

CRONTAB = """#!/bin/sh
# The table of a user who has no other: crontab -l | FILE
case "$1" in
-l) cat '{0}' 2>/dev/null || exit 1 ;;
*) cat "$1" > '{0}' ;;
esac
"""


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text
    assert "[WARNING]" not in outcome.text, outcome.text


def analyze(*words: str) -> str:
    command = [need("systemd", "systemd-analyze"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_systemd_accepts_the_timers(tmp_path: pathlib.Path) -> None:
    analyze("--version")  # so that the role finds it, too
    site = Site(tmp_path, secondary=False)
    units = tmp_path / "units"
    home = {"memory_schedule_enable": False, "memory_schedule_dir": str(units)}
    passed(site.play("schedule", "--check", **home), changed=True)
    assert not units.exists() and not (tmp_path / ".local").exists()
    every = {"backup": "10m", "scrub": "6h", "drill": "7d"}
    first = site.play("schedule", memory_schedule_every=every, **home)
    passed(first, changed=True)
    assert "ok: [localhost]" in first.text.partition("TASK [memops.agent_memory.schedule : Check the units]")[2][:200]
    names = ["backup", "drill", "key_age", "scrub"]
    assert sorted(path.name for path in units.glob("*.timer")) == [f"memops-{name}.timer" for name in names]
    texts = {path.name: path.read_text() for path in units.iterdir()}
    assert "Persistent=true" in texts["memops-drill.timer"] and "RandomizedDelaySec=60" in texts["memops-backup.timer"]
    for name, text in texts.items():
        for line in text.splitlines():
            if line.startswith("OnCalendar="):
                assert "Next elapse: " in analyze("calendar", line.partition("=")[2]), name
    passed(site.play("schedule", memory_schedule_every=every, **home), changed=False)
    passed(site.play("schedule", memory_schedule_state="absent", **home), changed=True)
    assert list(units.iterdir()) == []
    refused = site.play("schedule", memory_schedule_every={"backup": "7m", "drill": "1d", "scrub": "often"}, **home)
    told = " ".join(refused.text.split())
    assert refused.status != 0 and list(units.iterdir()) == []
    assert "No calendar repeats backup every 7m, scrub every often (memory_schedule_every)" in told, told
    assert "Next: write one of 1m, 2m, 3m, " in told and "memory_schedule_inventory" not in told


def test_what_the_host_does_not_have_is_one_sentence(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sh", "id", "mkdir", "rm", "chmod", "sleep", "echo"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    stub = tmp_path / "bin" / "systemctl"
    stub.write_text("#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    site = Site(tmp_path, secondary=False)
    for asked, said in (
        ("systemd", "systemd starts no timers of this user here (Failed to connect to bus: No medium found)"),
        ("cron", "There is no crontab here, so no entry can be written; nothing was changed. Next: install cron"),
    ):
        refused = site.play("schedule", memory_schedule=asked)
        told = " ".join(refused.text.split())
        assert refused.status != 0 and refused.changed == 0 and said in told and "Next: " in told, told
    lost = site.play("schedule", memory_schedule="cron", memory_schedule_metrics_dir="/nonexistent")
    assert lost.status != 0 and "There is no folder /nonexistent on localhost" in " ".join(lost.text.split()), lost.text
    assert not (tmp_path / ".local").exists() and not (tmp_path / ".config").exists()
    strange = site.play("schedule", memory_schedule="cron", memory_schedule_inventory="hosts.yml")
    told = " ".join(strange.text.split()).replace('\\"', '"')
    assert 'memory_schedule_inventory is "hosts.yml", which no unit or cron entry can hold' in told, told


def test_the_line_of_cron_backs_up_and_leaves_a_heartbeat(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "crontab"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "crontab").write_text(CRONTAB.format(table))
    (tmp_path / "bin" / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    metrics = tmp_path / "textfile collector"
    metrics.mkdir()
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 20)
    wanted = {"memory_schedule": "cron", "memory_schedule_metrics_dir": str(metrics), "memory_schedule_jitter": "0s"}
    units = tmp_path / "units"  # of who had timers before
    units.mkdir()
    (units / "memops-backup.timer").touch()
    wanted["memory_schedule_dir"] = str(units)
    passed(site.play("schedule", **wanted), changed=True)
    assert list(units.iterdir()) == []
    passed(site.play("schedule", **wanted), changed=False)
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    assert [line.split()[:5] for line in lines] == [["*/10", *"****"], *[["7", *"****"]] * 3]
    job = lines[0].split(None, 5)[5]
    assert "%" not in job  # to cron that is the end of the line
    started = time.time()
    bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["/bin/sh", "-c", job], env=bare, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert list((tmp_path / "repository" / "snapshots" / "site").iterdir())
    beat = dict(line.rsplit(" ", 1) for line in (metrics / "memops_job_backup.prom").read_text().splitlines())
    assert beat['memops_job_last_exit_code{job="backup"}'] == "0"
    assert float(beat['memops_job_last_success_timestamp_seconds{job="backup"}']) > started
    (tmp_path / "master.key").unlink()
    failed = subprocess.run(["/bin/sh", "-c", job], env=bare, capture_output=True, text=True, check=False, cwd="/")
    assert failed.returncode != 0 and "Next: " in failed.stdout
    later = dict(line.rsplit(" ", 1) for line in (metrics / "memops_job_backup.prom").read_text().splitlines())
    name = 'memops_job_last_success_timestamp_seconds{job="backup"}'
    assert later['memops_job_last_exit_code{job="backup"}'] != "0" and later[name] == beat[name]
    passed(site.play("schedule", memory_schedule_enable=False, memory_schedule_dir=str(units)), changed=True)
    assert table.read_text().strip() == "" and len(list(units.glob("*.timer"))) == 4  # each job is there once

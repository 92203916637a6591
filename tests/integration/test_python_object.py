# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on an application's own memory object; the application goes on in a process of its own."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import subprocess
import sys
import time
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Outcome, Site
from tests.unit.objects.objects_help import ObjectSite

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = "agent-7"
#: An application that writes into both namespaces until its input ends; says at last what was refused.
AGENT = """
import json, sys, threading, time
from tests.support.notebook import Notebook, FencedNotebook, Quarantined
memory = FencedNotebook(sys.argv[1])
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
said = {"agent-7": [0, 0], "agent-8": [0, 0]}
while not ended.is_set():
    for space, counts in said.items():
        try:
            memory.write(space, "counter", counts[0])
            counts[0] += 1
        except Quarantined:
            counts[1] += 1
    time.sleep(0.02)
print(json.dumps(said))
"""


class Plays(Site):
    """One memory host; no route, since nobody follows one."""

    def __init__(self, folder: pathlib.Path, objects: t.Any) -> None:
        self.folder, self.stores = folder, {"primary": objects.store}
        self.reports, self.inventory = folder / "reports", folder / "inventory.json"
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "memory_cluster": "site",
            "memory_repository": objects.repository,
            "memory_keyring": {**objects.keyring, "path": str(folder / "no-keyring.json")},
            "memory_route": {"kind": "none"},
            "memory_report_dir": str(self.reports),
            "memory_monitor_seconds": 1,
            "memory_monitor_interval": "0.5",
        }
        self.write_inventory()

    def told(self, playbook: str, *arguments: str, changed: bool, status: int = 0, **variables: t.Any) -> Outcome:
        outcome = self.play(playbook, *arguments, **variables)
        assert outcome.status == status, outcome.text[-6000:]
        assert (outcome.changed > 0) is changed, outcome.text[-6000:]
        assert "Traceback" not in outcome.text
        return outcome


@pytest.fixture
def objects(tmp_path: pathlib.Path) -> t.Any:
    one = ObjectSite(tmp_path)
    one.fill(NAMESPACE, 150)
    one.fill("agent-8", 20)
    return one


def test_backup_damage_check_rebuild_and_again(objects: t.Any, tmp_path: pathlib.Path) -> None:
    plays = Plays(tmp_path, objects)
    before = objects.values(NAMESPACE)
    plays.told("backup", changed=True)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    while time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) < since:
        time.sleep(0.05)
    objects.garble("note 003")
    objects.app.write(NAMESPACE, "note 004", "wrong")
    objects.app.delete(NAMESPACE, "note 005", soft=False)
    damaged = objects.everything(NAMESPACE)
    window = {"memory_namespace": NAMESPACE, "memory_since": since}
    checked = plays.told("rebuild", "--check", "--diff", changed=True, **window)
    assert "to repair: 3" in checked.text
    assert objects.everything(NAMESPACE) == damaged
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, objects.notes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as agent:
        plays.told("rebuild", changed=True, memory_keys=["note 003", "note 004", "note 005"], **window)
        said = json.loads(agent.communicate()[0])
    assert said[NAMESPACE][1] and said[NAMESPACE][0]  # it met the fence, and writes again by itself
    assert said["agent-8"][0] and not said["agent-8"][1]
    after = objects.values(NAMESPACE)
    assert after.pop("counter") == said[NAMESPACE][0] - 1 and after == before
    report = plays.report()
    assert (report["verdict"], report["state"]) == ("pass", "closed"), report
    assert report["records"]["lost"] == 0 and report["records"]["recovered"] == 3
    again = plays.told("rebuild", changed=False, memory_keys=["note 003", "note 004", "note 005"], **window)
    assert "Nothing to rebuild" in again.text


def test_without_a_fence_the_report_says_what_it_rests_on(objects: t.Any, tmp_path: pathlib.Path) -> None:
    objects.store.update(factory="tests.support.notebook:Notebook", namespaces=[NAMESPACE])
    plays = Plays(tmp_path, objects)
    told = plays.told("isolate", changed=True, memory_namespace=NAMESPACE, memory_outside_fence="the agent is stopped")
    assert "The quarantine rests on what was said: the agent is stopped" in told.text
    with sqlite3.connect(objects.notes) as con:
        assert con.execute("SELECT ttl FROM spaces WHERE name = ?", (NAMESPACE,)).fetchone() == (1.0,)
    plays.told("rotate_keys", changed=True, memory_namespace=NAMESPACE)

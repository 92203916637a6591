# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator keeps, and brings back, by playbooks. Several of them in one run: the start costs most."""
from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
import sys
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import isolate
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Run
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.snapshot import create
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from playbooks import Site

OURS = "memops.agent_memory."
CHANGED = re.compile(r"^primary .* changed=([0-9]+) ", re.M)  # the last recap counts all playbooks of the run
KEEP = {"memory_keep_last": 1, "memory_keep_within": "0s"}


def quarantine_and_release(params: dict[str, t.Any], namespace: str) -> str:
    """The incident."""
    run = Run("test:1:1", "the test")
    with contextlib.closing(open_store(params)) as store:
        common = {"store": store, "store_params": params, "namespace": namespace, "run": run}
        isolate.isolate(**common)
        return str(isolate.release(**common)["incident"])


def test_hold_remove_bring_back_and_find(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    with contextlib.closing(site.memory()) as memory:
        memory.write("agent-7", "passing", "soon forgotten")
        memory.delete("agent-7", "passing")
    taken = []
    for count in (50, 51):
        site.fill("agent-7", count)
        given = {"store_params": site.stores["primary"], "keyring": Keyring.open(site.keyring), "name": "site"}
        repository = site.variables["memory_repository"]
        taken.append(create(repository=repository, purpose="scheduled", **given)["snapshot"])
    old = taken[1]  # the other one is its base, and stays
    site.fill("agent-7", 52)
    site.read("agent-7", 20)
    case = {"memory_hold": "case-17", "memory_hold_reason": "a dispute", "memory_snapshot": old}

    before = site.fingerprint()
    checked = site.play("hold", OURS + "undelete", "--check", **case)
    assert checked.status == 0 and CHANGED.findall(checked.text)[-1] == "1", checked.text
    assert site.fingerprint() == before
    assert f"Hold case-17 would be placed on {old}." in checked.text
    held = site.play("hold", OURS + "hold", OURS + "backup", OURS + "info", **case, **KEEP)
    assert held.status == 0, held.text
    assert "Nothing to do: hold case-17 stands already." in held.text
    assert re.search(rf"snapshot {old}: scheduled of \S+, held: case-17 \(.*: a dispute\)", held.text)

    false_alarm = quarantine_and_release(site.stores["primary"], "agent-7")
    lifted = {"memory_hold": "case-17", "memory_hold_state": "absent"}
    more = {**KEEP, "memory_keep_read_log": "0s", "memory_keep_tombstones": "0s", "memory_keep_incidents": "0s"}
    more["memory_verdict"] = "unverified"
    gone = site.play("hold", OURS + "backup", OURS + "info", **lifted, **more)
    assert gone.status == 0 and f"Hold case-17 lifted from {old}." in gone.text, gone.text
    told = " ".join(gone.text.split())
    assert f"Removed 1 old snapshots ({old}); undelete brings them back for 1d." in told, told
    assert "Dropped 20 old entries of the access log. Dropped 1 old tombstones." in told, told
    assert f"Dropped what 1 old incidents left ({false_alarm})." in told, told
    assert f"removed snapshot {old}: since " in gone.text and f"snapshot {old}: scheduled" not in gone.text

    long_ago = {"memory_last_good_before": "2020-01-01T00:00:00Z"}
    back = site.play("undelete", OURS + "undelete", OURS + "info", memory_snapshot=old, **long_ago)
    assert back.status == 0 and CHANGED.findall(back.text)[-1] == "1", back.text
    assert f"Back, and held as undeleted: {old}." in back.text and f"{old} does not wait for its removal." in back.text
    assert "There is no such snapshot." in back.text

    path = site.stores["primary"]["path"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("DELETE FROM memory_records WHERE key > 'key-00010'")
    doubted = create(repository=repository, purpose="scheduled", **given)["snapshot"]
    accept = {"memory_snapshot": doubted, "memory_accept_reason": "the tenant left"}
    done = site.play("info", OURS + "accept", **accept)
    assert done.status == 0 and CHANGED.findall(done.text)[-1] == "1", done.text
    assert re.search(rf"snapshot {doubted}: scheduled of \S+, no source for a rebuild, suspect: ", done.text), done.text
    told = " ".join(done.text.split())
    assert f"Snapshot {doubted} is accepted: it counts as good, and retention goes on." in told

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an on-call engineer sees of a failure: its sentence where it happened, and at the end where to look."""
from __future__ import annotations

import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import microseconds
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from playbooks import Site
from tests.support.s3_server import free_ports


def printed(text: str, sentence: str) -> int:
    """How often; newer versions of Ansible print each failure once in words and once in JSON."""
    return " ".join(text.split()).count(sentence)


def test_a_failure_is_said_where_it_happened(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 5)
    before = site.fingerprint()
    misspelt = site.play("isolate", memory_namespce="agent-7")
    said = "There is no variable memory_namespce; nothing was changed. Next: did you mean memory_namespace?"
    assert misspelt.status != 0 and said in misspelt.text
    assert site.fingerprint() == before

    empty = site.play("restore", memory_namespace="agent-7")
    assert empty.status != 0
    assert printed(empty.text, "There is no repository in") in (1, 2), empty.text
    assert printed(empty.text, "Next: correct memory_repository.url, or run a backup, which makes it") in (1, 2)
    assert "site failed in the task 'Bring records back from the snapshot', which says why" in empty.text
    assert '"error": "repository-refused"' in empty.text

    unknown = site.play("isolate", memory_namespace="nobody")
    assert unknown.status != 0
    above, _task, end = unknown.text.rpartition("TASK [Fail when a namespace failed]")
    assert "nobody failed in the task 'Quarantine the namespace and prove the fence'" in end
    assert printed(end, "has no namespace 'nobody'") == 0
    assert 1 <= printed(above.partition("TASK [Report]")[0], "has no namespace 'nobody'") <= 2
    assert printed(above.partition("TASK [Report]")[2], "has no namespace 'nobody'") == 1, "the report's own sentence"

    no_time = site.play("rebuild", memory_namespace="agent-7", memory_since="yesterday")
    assert no_time.status != 0
    assert "(memory_since, memory_until, memory_onset), not 'yesterday'" in " ".join(no_time.text.split())
    kept = {name: data for name, data in site.fingerprint().items() if not name.startswith("reports/")}
    assert kept == before, "a time that is none is told before anything is fenced"
    nowhere = site.play("export", memory_namespace="agent-7")
    assert nowhere.status != 0 and "memory_export_dir is not set" in nowhere.text

    two = site.play("validate", memory_namespace=["nobody", "no-one"])
    assert two.status != 0
    end = two.text.rpartition("TASK [Fail when a namespace failed]")[2]
    assert "nobody: " in end and "no-one: " in end, "of several, all that they said stands at the end"


def test_where_the_python_of_a_host_does_not_start_the_last_sentence_says_it(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path, secondary=False)
    site.fill("agent-7", 5)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'loader: no libpython3.so' >&2\nexit 1\n")
    broken.chmod(0o755)
    site.write_inventory(primary={"ansible_python_interpreter": str(broken)})
    said = f"primary cannot run {broken} as its Python: loader: no libpython3.so. Next: correct its ansible_python"
    for playbook, name in (("isolate", "agent-7"), ("backup", "site")):
        done = site.play(playbook, memory_namespace="agent-7")
        assert done.status != 0
        end = " ".join(done.text.rpartition("TASK [Fail when ")[2].split())
        assert f"{name}: {said}" in end, done.text
        assert f"ansible-playbook -i {site.inventory} memops.agent_memory.prepare -e memory_hosts=primary" in end
        assert "which says why" not in end


def test_a_failover_that_can_ask_nobody_names_the_server_and_not_a_variable(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    for host, port in zip(site.stores, free_ports(2)):
        site.stores[host] = {"engine": "valkey", "layout": "native", "url": f"valkey://127.0.0.1:{port}"}
    site.write_inventory()
    down = site.play("failover")
    text = " ".join(down.text.split())
    assert down.status != 0 and "primary and secondary cannot be asked; nothing was changed." in text, down.text
    assert f"The server {site.stores['primary']['url']}/0 cannot be reached" in text
    assert "Next: check memory_store.url and that the server runs" in text and "then run the same command again" in text
    assert "memory_namespace has to be" not in text


def test_a_namespace_that_nobody_read_comes_home_by_the_command_that_is_printed(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    site.fill("agent-7", 5)
    assert site.play("backup").status == 0
    away = site.play("failover", memory_namespace="agent-7")
    assert away.status == 0 and "The secondary secondary" not in away.text, away.text
    refused = site.paste(site.report()["next_command"])
    assert refused.status != 0 and "could-not-verify" in refused.text, refused.text
    following = site.report()["next_command"]
    assert following.endswith("memops.agent_memory.failback -e memory_namespace=agent-7 -e memory_force=true")
    home = site.paste(following)
    assert home.status == 0, home.text
    released = site.paste(site.report()["next_command"])
    assert released.status == 0 and "State: released" in released.text, released.text


def test_a_failover_to_what_is_damaged_keeps_nobody_out(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    site.fill("agent-7", 5)
    assert site.play("backup").status == 0
    site.flip("agent-7", ["key-00001"], host="secondary")
    refused = site.play("failover", memory_namespace="agent-7")
    text = " ".join(refused.text.split())
    assert refused.status != 0 and "does not verify: fail, 1 × checksum. Next: mend that, or rebuild" in text, text
    assert "serves as before" in text and "quarantined" not in text, text
    told = site.play("info").text
    assert "agent-7: serving, 5 records and a canary" in " ".join(told.split()), told
    assert site.play("isolate", memory_namespace="agent-7").status == 0
    again = " ".join(site.play("failover", memory_namespace="agent-7").text.split())
    assert "1 × checksum; it is quarantined at home" in again and "State: quarantined." in again, again
    assert site.report()["next_command"].endswith("memops.agent_memory.rebuild -e memory_namespace=agent-7")


def test_how_far_a_secondary_is_behind_counts_until_the_fence_of_its_home(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    site.fill("agent-7", 5)
    assert site.play("backup").status == 0
    assert site.play("isolate", memory_namespace="agent-7").status == 0
    with contextlib.closing(open_store(site.stores["secondary"])) as store, store.reader() as reader:
        filled = reader.namespace("agent-7").restored_at
    with contextlib.closing(open_store(site.stores["primary"])) as store:
        fenced = microseconds(store.incidents("agent-7")[0].facts["fenced_at"])
    assert filled and fenced
    time.sleep(2)
    late = site.play("failover", memory_namespace="agent-7", memory_slo={"rpo": (fenced - filled) / 1e6 + 1})
    assert late.status == 0, late.text


def test_a_rehearsal_says_what_the_real_run_would_do(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    site.fill("agent-7", 5)
    assert site.play("backup").status == 0
    rehearsed = site.play("rebuild", "--check", memory_namespace="agent-7")
    lines = rehearsed.text.rpartition("CHECK MODE  agent-7")[2].splitlines()
    would = {line.split()[0]: line for line in lines if " change" in line}
    assert rehearsed.status == 0, rehearsed.text
    assert "would change" in would["failover"] and "would change" in would["failback"], lines
    planned = site.play("plan", "--check", memory_namespace="agent-7")
    assert "Next: ansible-playbook -i" in planned.text, planned.text
    assert "memops.agent_memory.isolate -e" in planned.text.rpartition("Next: ")[2], planned.text
    home = site.play("failback", "--check", memory_namespace="agent-7")
    assert "the same command without --check changes nothing either" in home.text, home.text

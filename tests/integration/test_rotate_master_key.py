# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rotate_master_key: check first, twice, retire; then everything with the new master key alone."""
from __future__ import annotations

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from playbooks import Outcome, Site


def passed(outcome: Outcome, changed: bool) -> None:
    assert outcome.status == 0, outcome.text
    assert (outcome.changed > 0) is changed, outcome.text


def test_a_master_key_is_replaced_while_applications_read(tmp_path: pathlib.Path) -> None:
    site = Site(tmp_path)
    site.fill("agent-7", 60)
    new = tmp_path / "new.key"
    new.write_text(os.urandom(32).hex() + "\n")
    new.chmod(0o600)
    # the secondary has a keyring file of its own
    (tmp_path / "secondary" / "keyring.json").write_bytes((tmp_path / "keyring.json").read_bytes())
    there = {**site.keyring, "path": str(tmp_path / "secondary" / "keyring.json")}
    site.write_inventory(secondary={"memory_keyring": there})
    passed(site.play("backup"), changed=True)
    before = site.fingerprint()
    asked = {"memory_new_master_key": {"source": "file", "master_key_file": str(new)}}

    checked = site.play("rotate_master_key", "--check", "--diff", **asked)
    passed(checked, changed=True)
    assert "Check mode, nothing was changed" in checked.text
    assert "would open 2 keyring(s), 1 snapshot(s)" in checked.text
    assert site.fingerprint() == before

    with site.working("agent-7"), site.memory() as held:
        passed(site.play("rotate_master_key", **asked), changed=True)
        held.write("agent-7", "during", 1, "test")
        passed(site.play("rotate_master_key", **asked), changed=False)
        # the inventory names the new one from here on
        site.keyring = {**site.keyring, "master_key_file": str(new)}
        site.variables["memory_keyring"] = site.keyring
        site.write_inventory(secondary={"memory_keyring": {**there, "master_key_file": str(new)}})
        passed(site.play("drill"), changed=False)
        ended = site.play("rotate_master_key", memory_retire=True)
        passed(ended, changed=True)
        assert "alone opens 2 keyring(s), 1 snapshot(s)" in ended.text
        assert held.read("agent-7", "during") == 1
    passed(site.play("rotate_master_key", memory_retire=True), changed=False)

    (tmp_path / "master.key").unlink()
    assert [len(list(folder.iterdir())) for folder in tmp_path.glob("repository/snapshots/site/*/keys")] == [1]
    passed(site.play("rotate_keys", memory_force=True), changed=True)
    passed(site.play("verify", memory_depth="restored"), changed=False)
    # a bare machine: the store and the keyring are gone
    (tmp_path / "keyring.json").unlink()
    bare = str(tmp_path / "bare" / "memory.db")
    lost = site.play("disaster_recovery", memory_dr_store=bare)
    passed(lost, changed=True)
    site.stores["primary"]["path"] = bare
    with site.memory() as memory:
        assert memory.read("agent-7", "key-00007") == {"fact": "agent-7 fact 7"}

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How the golden snapshots of formats 1 and 2 were made. Run it again only for a new format, into a new directory.

    PYTHONPATH=.ansible/collections:. python tests/golden/make_golden.py tests/golden/format_2
"""
from __future__ import annotations

import json
import pathlib
import sqlite3
import sys
import tempfile

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.stores import fill, new_store


def main(target: pathlib.Path) -> None:
    target.mkdir(parents=True)
    key = target / "master.key"
    key.write_text("00112233445566778899aabbccddeeff" * 2 + "\n", encoding="ascii")  # protects nothing but this example
    key.chmod(0o600)
    url = {"url": f"file://{target.resolve()}/repository"}
    with tempfile.TemporaryDirectory() as directory:
        ring = {"source": "file", "master_key_file": str(key), "path": f"{directory}/ring.json"}
        keyring = Keyring.open(ring, create=True)
        store = new_store(directory)
        first = {f"user/{number:03d}": {"note": f"note {number}", "tags": ["a", "b"]} for number in range(120)}
        for _turn in range(9):  # so many log entries that a whole block of ids is of one namespace
            fill(store, keyring, "agent-7", first)
        fill(store, keyring, "agent-7", {**first, "bytes": b"\x00\xff", "line\nbreak/é": None, "empty": b""})
        fill(store, keyring, "agent-8", {"gone": 1, "expiring": 2}, expires=4_102_444_800_000_000)
        fill(store, keyring, "agent-8", {"gone": None})
        usual = {"store_params": store, "repository": url, "keyring": keyring, "name": "golden"}
        takes = [snapshot.create(**usual, purpose="scheduled")]
        keyring.activate(keyring.create_key())
        fill(store, keyring, "agent-8", {"later": "under another key"})
        con = sqlite3.connect(store["path"])
        for name in ("insert", "update", "delete"):
            con.execute(f"DROP TRIGGER memops_fence_{name}")
        con.execute("UPDATE memory_records SET epoch = 'damaged' WHERE key = 'user/007'")
        con.commit()
        con.close()
        takes.append(snapshot.create(**usual, purpose="forensic", incident="inc-1"))
        Repository.open(url).put_journal("inc-1", 0, b"first entry", keyring)
        Repository.open(url).put_journal("inc-1", 1, b"second entry", keyring)
    kept = ("snapshot", "purpose", "base", "damaged", "namespaces")
    expected = {"snapshots": [{name: take[name] for name in kept} for take in takes], "values": {"agent-7": first}}
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

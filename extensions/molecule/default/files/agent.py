# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""agent.py DIRECTORY write|look: an application with two namespaces, and what it sees of them (JSON on stdout)."""
from __future__ import annotations

import json
import os
import pathlib
import sys

from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory, NamespaceQuarantined

NAMESPACES = ("agent-1", "agent-2")
KEYS = [f"fact/{number:02}" for number in range(50)]


def look(memory: Memory, namespace: str) -> dict[str, object]:
    """How many of the memories are served, and whether a write is accepted."""
    read = sum(memory.read(namespace, key) is not None for key in KEYS)
    try:
        memory.write(namespace, "note", "seen")
    except NamespaceQuarantined:
        return {"read": read, "written": False}
    return {"read": read, "written": True}


def main(directory: pathlib.Path, what: str) -> None:
    master = directory / "master.key"
    if what == "write":
        master.write_text(os.urandom(32).hex(), encoding="ascii")
        master.chmod(0o600)
    keyring = {"path": str(directory / "keyring.json"), "master_key_file": str(master)}
    with Memory(store={"path": str(directory / "memory.db")}, keyring=keyring) as memory:
        if what == "write":
            for namespace in NAMESPACES:
                memory.write_many(namespace, {key: f"{namespace} knows {key}" for key in KEYS})
        else:
            print(json.dumps({namespace: look(memory, namespace) for namespace in NAMESPACES}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])

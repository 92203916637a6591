# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object as a store, its keyring and its repository; the application is the same class in
processes of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap

from tests.support.notebook import FencedNotebook
from tests.unit.operations.runbook import MASTER, NAME, Site, attempt

ROOT = pathlib.Path(__file__).parents[3]
NOTEBOOK, PLAIN = "tests.support.notebook:FencedNotebook", "tests.support.notebook:Notebook"


def written(folder, text, name="mine"):
    """A module ``name`` in ``folder`` with this text."""
    (pathlib.Path(folder) / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")


class ObjectSite(Site):
    """``factory``: what makes the object; ``more``: of memory_store."""

    def __init__(self, folder, factory=NOTEBOOK, **more):
        self.folder = str(folder)
        master = os.path.join(self.folder, "master.key")
        with open(master, "w", encoding="ascii") as stream:
            stream.write(MASTER)
        os.chmod(master, 0o600)
        self.notes = os.path.join(self.folder, "notes.db")
        self.path = os.path.join(self.folder, "memops.db")
        self.store = {
            "engine": "python", "layout": "python", "name": NAME, "path": self.path, "factory": factory,
            "arguments": {"path": self.notes}, "operator_arguments": {"operator": True}, "busy_timeout": 20,
            "python_path": [str(ROOT), self.folder], **more,
        }  # fmt: skip
        self.keyring = {"source": "file", "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}
        self.app = FencedNotebook(self.notes)

    def fill(self, namespace="agent-7", count=60):
        for number in range(count):
            self.app.write(namespace, f"note {number:03}", json.loads(self.text(number)))
        for key, value in (("odd/\x01 ключ*?", "text"), ("list", [1, [2.5, None, True]]), ("empty", {})):
            self.app.write(namespace, key, value)

    def text(self, number):
        return json.dumps({"n": number, "text": "words " * 5, "vector": [0.1, number]})

    def values(self, namespace="agent-7"):
        """What the application gets."""
        return {key: self.app.read(namespace, key) for key in self.app.list_keys(namespace)}

    def everything(self, namespace="agent-7"):
        """Every note as it lies there, the time of its writing too, and those that are deleted softly."""
        with self.app._file() as con:
            return con.execute("SELECT * FROM notes WHERE space = ? ORDER BY key", (namespace,)).fetchall()

    def garble(self, key, text="{no json", namespace="agent-7"):
        with self.app._file() as con:
            con.execute("UPDATE notes SET data = ? WHERE space = ? AND key = ?", (text, namespace, key))

    def elsewhere(self, call):
        """What the application in another process gets; ``call`` is an expression with ``memory``."""
        code = (
            "import json, sys\nfrom tests.support.notebook import FencedNotebook\n"
            f"memory = FencedNotebook(sys.argv[1])\ntry:\n    print(json.dumps({call}))\n"
            "except Exception as exc:\n    print(json.dumps(type(exc).__name__))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.notes], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def takeover(self, namespace="agent-7"):
        with self.open() as store:
            last = next((one.attempt for one in store.incidents(namespace) if one.state == "open"), None)
        return attempt(takeover=last)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the file of a real MCP memory server, which has it in use."""
from __future__ import annotations

import json
import os

from tests.unit.operations.runbook import MASTER, NAME, STEPS, Site, attempt

MEMORY = "memory"  # the namespace of memory.jsonl
ODD = ("a/b", "50%", "%2F", "", "ключ", "nul\0inside", "new\nline", "'quoted\"", "\u2028", "x" * 3000, "🐙", "\\")


def entity(name, *observations, kind="thing"):
    return {"name": name, "entityType": kind, "observations": list(observations)}


def relation(one, kind, other):
    return {"from": one, "to": other, "relationType": kind}


class LinesSite(Site):
    """The file as a store, its keyring and its repository."""

    def __init__(self, folder, path, **more):
        self.folder, self.path = str(folder), str(path)
        os.makedirs(self.folder, exist_ok=True)
        master = os.path.join(self.folder, "master.key")
        if not os.path.exists(master):
            with open(master, "w", encoding="ascii") as stream:
                stream.write(MASTER)
            os.chmod(master, 0o600)
        self.store = {
            "engine": "jsonl", "layout": "mcp_memory", "path": self.path, "name": NAME, "busy_timeout": 5, **more
        }  # fmt: skip
        self.keyring = {"source": "file", "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}

    # --- the application ----------------------------------------------------------------------------------------
    def fill(self, server, count=30):
        """What an application may have: odd names, several entities of one name, relations to nothing."""
        server.create_entities([entity(f"e{n:03}", f"value {n} " * 5, "more") for n in range(count)])
        server.create_entities([entity(name, name, "odd") for name in ODD])
        server.create_entities([entity("twice", "one"), entity("twice", "two", kind="other")])
        server.create_entities([entity(f"late {n}", "x" * 200) for n in range(5)])
        server.create_relations([relation(f"e{n:03}", "knows", ODD[n % len(ODD)]) for n in range(count)])
        server.create_relations([relation("e001", "a/b", "nobody"), relation("", "", "")])
        return server.read_graph()

    def content(self):
        with open(self.path, "rb") as stream:
            return stream.read()

    def set(self, content):
        """Damage, written in place."""
        with open(self.path, "wb") as stream:
            stream.write(content)

    def lines(self, change):
        """``change`` of the file's lines, a list of bytes."""
        lines = self.content().split(b"\n")
        change(lines)
        self.set(b"\n".join(lines))

    # --- operators ----------------------------------------------------------------------------------------------
    def last_attempt(self, namespace=MEMORY):
        with self.open() as store:
            return next((one.attempt for one in store.incidents(namespace) if one.state == "open"), None)

    def after(self, namespace=MEMORY):
        """A new attempt that knows the former one to be dead."""
        return attempt(takeover=self.last_attempt(namespace))

    def step(self, name, run, namespace=MEMORY, **options):
        return super().step(name, run, namespace, **options)

    def rows(self, namespace=MEMORY, generation=None):
        return super().rows(namespace, generation)

    def aside(self, namespace=MEMORY):
        return super().aside(namespace)

    def state(self, namespace=MEMORY):
        return super().state(namespace)

    def rebuild(self, strategy="auto", until=None, run=None, window=None, absent="auto", namespace=MEMORY,
                accept_loss=False):  # fmt: skip
        run, done = run or self.after(namespace), {}
        planned = {"strategy": strategy, "absent": absent, "accept_loss": accept_loss}
        options = {"diagnose": {"window": window}, "plan": planned}
        for name in STEPS:
            done[name] = self.step(name, run, namespace, **options.get(name, {}))
            if name == until:
                return done
        self.close_incident(namespace)
        return done

    def beside(self):
        """Names in the file's folder."""
        return sorted(os.listdir(os.path.dirname(self.path)))

    def everything(self):
        """Every file in that folder, as bytes."""
        found = {}
        for folder, _folders, names in os.walk(os.path.dirname(self.path)):
            for name in names:
                with open(os.path.join(folder, name), "rb") as stream:
                    found[os.path.join(folder, name)] = stream.read()
        return found


def named(graph):
    """The names of a graph's entities."""
    return [one["name"] for one in graph["entities"]]


def text(line):
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


def spoil(line):
    """A change that takes something out of a line."""
    return lambda lines: lines.__setitem__(line, lines[line][:40] + lines[line][43:-2])

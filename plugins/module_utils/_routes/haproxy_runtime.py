# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runtime API of one running HAProxy, over its stats socket.

PRIVATE to the collection.
"""

from __future__ import annotations

import csv
import socket
import typing as t

from .._errors import InvalidInput, RouteUnavailable

LARGEST_ANSWER = 64 << 20  # bytes; a map of a million entries
#: Bits of srv_admin_state that keep a server out of service; CMAINT (4) only says that it began that way.
OUT = 0x01 | 0x02 | 0x08 | 0x10 | 0x20 | 0x40
DRAIN = 0x08 | 0x10
CHECKED, PASSED, RUNNING = 2, (3, 4), 2


class Server(t.NamedTuple):
    """A server as its backend has it. ``state``: ready, drain or maint, as an operator sets it."""

    name: str
    state: str
    up: bool  # it takes connections now, and passed its health check where it has one
    backup: bool  # it only serves while no other server does
    sessions: int


class Runtime:
    """One instance. ``address``: the path of a UNIX socket, or host:port."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._timeout = timeout

    def ask(self, *commands: str) -> str:
        """The answer to commands that are given in one go. Errors: RouteUnavailable."""
        try:
            with self._connect() as connection:
                connection.sendall("; ".join(commands).encode() + b"\n")
                answer = bytearray()
                while piece := connection.recv(1 << 16):
                    answer += piece
                    if len(answer) > LARGEST_ANSWER:
                        raise OSError("its answer does not end")
        except OSError as exc:
            why = "it did not answer in time" if isinstance(exc, socket.timeout) else exc.strerror or str(exc)
            raise RouteUnavailable(
                f"HAProxy at {self.address} cannot be asked: {why}.",
                "check memory_route.sockets, and that HAProxy runs and lets this user use its stats socket",
            ) from None
        return answer.decode(errors="replace").strip()

    def order(self, *commands: str) -> None:
        """Commands that answer nothing when they are obeyed. Errors: RouteUnavailable."""
        said = " ".join(self.ask(*commands).split())
        if said:
            raise RouteUnavailable(
                f"HAProxy at {self.address} refuses to be changed: {said[:200]}",
                "check memory_route against its configuration; its stats socket needs 'level admin'",
            )

    def servers(self, backend: str) -> dict[str, Server]:
        """Errors: InvalidInput when there is no such backend, RouteUnavailable."""
        lines = self.ask(f"show servers state {backend}").splitlines()
        if len(lines) < 2 or not lines[1].startswith("# "):
            if lines and "backend" in lines[0]:
                raise InvalidInput(
                    f"HAProxy at {self.address} has no backend {backend}.",
                    "check memory_route.backend, or what memory_route.servers says with memory_route.map",
                )
            raise RouteUnavailable(
                f"HAProxy at {self.address} does not tell its servers: {' '.join(lines)[:200] or 'no answer'}.",
                "let this user use its stats socket at 'level admin'",
            )
        names = lines[1][2:].split()
        rows = [dict(zip(names, line.split())) for line in lines[2:]]
        counted = csv.DictReader(self.ask(f"show stat {backend} 4 -1").lstrip("# ").splitlines())
        counts = {row["svname"]: row for row in counted}
        return {row["srv_name"]: _server(row, counts[row["srv_name"]]) for row in rows}

    def entry(self, path: str, key: str) -> str | None:
        """What the map at ``path`` has for ``key``. Errors: InvalidInput when there is no such map."""
        answer = self.ask(f"show map {path}")
        if answer.startswith(("Unknown map", "Missing map")):
            raise InvalidInput(f"HAProxy at {self.address} has loaded no map {path}.", "check memory_route.map")
        rows = (line.split(" ", 2) for line in answer.splitlines())
        return next((row[2] for row in rows if len(row) == 3 and row[1] == key), None)

    def _connect(self) -> socket.socket:
        if self.address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(self._timeout)
                connection.connect(self.address)
            except BaseException:
                connection.close()
                raise
            return connection
        host, colon, port = self.address.rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
            raise InvalidInput(
                f"{self.address!r:.80} is no address of a stats socket.",
                "write memory_route.sockets as /path/of/a/socket or host:port",
            )
        return socket.create_connection((host.strip("[]"), int(port)), timeout=self._timeout)


def _server(row: t.Mapping[str, str], counts: t.Mapping[str, str]) -> Server:
    admin, check = int(row["srv_admin_state"]), int(row["srv_check_state"])
    state = "ready" if not admin & OUT else "drain" if not admin & OUT & ~DRAIN else "maint"
    healthy = not check & CHECKED or int(row["srv_check_result"]) in PASSED
    up = state == "ready" and int(row["srv_op_state"]) == RUNNING and healthy
    return Server(row["srv_name"], state, up, counts["bck"] == "1", int(counts["scur"] or 0))

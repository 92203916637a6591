# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A network link to a server on this machine that can be cut and healed. Standard library only.

    with Link(server_port) as link:
        link.port                      # where to connect in place of the server
        link.cut(); link.heal()        # nothing is delivered meanwhile; then what was under way is
        link.cut(answers=True)         # requests arrive, and nobody hears what came of them
        link.heal(reset=True)          # ... but not on the connections that there were, which break
    link.break_at(3)               # all connections break when the third request from now on comes: it never arrives
    link.break_at(3, answered=True)     # ... or it does, and its answer is lost; then the link is whole again
    link.requests()                # how many there were since, or since the start

It works in a process of its own, so that those who fork hold none of its sockets.
"""
from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import typing as t


class Link:
    def __init__(self, target: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-IS", os.path.abspath(__file__), str(target)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.up = True

    def cut(self, *, answers: bool = False) -> None:
        """``answers``: only what the server says is held up."""
        self._tell("answers" if answers else "cut")
        self.up = False

    def heal(self, *, reset: bool = False) -> None:
        """``reset``: what was held up is lost, and so are the connections."""
        self._tell("reset" if reset else "heal")
        self.up = True

    def break_at(self, number: int, *, answered: bool = False) -> None:
        self._tell(f"break {number} {int(answered)}")

    def requests(self) -> int:
        return int(self._tell("requests"))

    def _tell(self, word: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(300)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Linked:
    """A server of which everybody who opens a store is led over a link; its hands and raw clients are not."""

    def __init__(self, server: t.Any) -> None:
        self._server, self.link = server, Link(server.port)

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._server, name)

    def store(self, *names: str, **more: t.Any) -> dict[str, t.Any]:
        return self._over(self._server.store(*names, **more))

    def application(self, *names: str, **more: t.Any) -> dict[str, t.Any]:
        return self._over(self._server.application(*names, **more))

    def _over(self, params: dict[str, t.Any]) -> dict[str, t.Any]:
        return {**params, "url": params["url"].replace(f":{self._server.port}/", f":{self.link.port}/")}


class _Wire:
    """Both ways of all connections; a gate for each, that is open or not."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.gates = {"requests": threading.Event(), "answers": threading.Event()}
        self.lock = threading.Lock()
        self.pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.requests, self.at, self.answered = 0, 0, False  # since break_at, and where everything breaks
        self.last: tuple[socket.socket, socket.socket] | None = None  # whose answer is lost
        self.open(*self.gates)

    def open(self, *names: str) -> None:
        for name in names:
            self.gates[name].set()

    def shut(self, *names: str) -> None:
        for name in names:
            self.gates[name].clear()

    def accept(self, listening: socket.socket) -> None:
        while True:
            near = listening.accept()[0]
            threading.Thread(target=self.connect, args=(near,), daemon=True).start()

    def connect(self, near: socket.socket) -> None:
        self.gates["requests"].wait()
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            _break(near)
            return
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (near, far)
        with self.lock:
            self.pairs.add(pair)
        for source, sink, gate in ((near, far, "requests"), (far, near, "answers")):
            threading.Thread(target=self.carry, args=(pair, source, sink, gate), daemon=True).start()

    def carry(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, gate: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.gates[gate].wait()
                with self.lock:
                    if pair not in self.pairs:  # broken while this was held up
                        return
                if self.breaks(pair, gate):
                    self.drop(list(self.pairs))
                    return
                sink.sendall(data)
        self.gates[gate].wait()
        self.drop([pair])

    def breaks(self, pair: tuple[socket.socket, socket.socket], gate: str) -> bool:
        with self.lock:
            if gate == "answers":
                lost, self.last = self.last is pair, None if self.last is pair else self.last
                return lost
            self.requests += 1
            if self.requests == self.at and self.answered:
                self.last = pair
            return self.requests == self.at and not self.answered

    def drop(self, pairs: t.Iterable[tuple[socket.socket, socket.socket]]) -> None:
        with self.lock:
            gone = [pair for pair in pairs if pair in self.pairs]
            self.pairs.difference_update(gone)
        for pair in gone:
            for one in pair:
                _break(one)

    def obey(self, word: str) -> None:
        if word.startswith("break"):
            with self.lock:
                self.requests, self.last = 0, None
                self.at, self.answered = int(word.split()[1]), word.endswith("1")
            return
        if word == "requests":
            return
        if word in ("cut", "answers"):
            self.shut(*(self.gates if word == "cut" else ("answers",)))
            return
        if word == "reset":
            self.drop(list(self.pairs))
        self.open(*self.gates)


def _break(one: socket.socket) -> None:
    """End a connection at once, also for who waits in ``recv``. It is closed when nobody has it any more, as else a new
    connection might get its number while somebody still writes there."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def main(target: int) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    wire = _Wire(target)
    threading.Thread(target=wire.accept, args=(listening,), daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    for line in sys.stdin:
        wire.obey(line.strip())
        print(wire.requests, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

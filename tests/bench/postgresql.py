# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL beside pg_dump, pg_restore and COPY."""

from __future__ import annotations

import os
import shutil
import subprocess
import typing as t

from tests.support.postgresql_server import ADMINISTRATOR, DATABASE, OWNER, PostgresqlServer

from . import peers
from .data import Place
from .measure import Table
from .served import COPY, WHOLE, Peer, Served, compare, key

#: As a small production server has it; commits are durable on both sides.
SETTINGS = ("fsync = on", "shared_buffers = 512MB", "max_wal_size = 4GB")
RESTORED = "restored"


def measure(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    with PostgresqlServer(*SETTINGS) as server:
        compare(table, place, Postgresql(server), repository, rounds)


class Postgresql(Served):
    engine = "PostgreSQL"
    raw = "COPY (SELECT …) TO STDOUT, binary"

    def __init__(self, server: PostgresqlServer) -> None:
        self._server = server
        self.pid = server.pid

    def params(self, name: str) -> dict[str, t.Any]:
        return {**self._server.store(name), "layout": "native", "name": "memory"}

    def settle(self) -> None:
        with self._server.connect() as con:
            con.execute("VACUUM ANALYZE")
            con.execute("CHECKPOINT")

    def drop(self, name: str) -> None:
        with self._server.connect() as con:
            con.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
            con.execute("CHECKPOINT")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [os.path.join(self._server.bin, program), "-h", "127.0.0.1", "-p", str(self._server.port), "-U",
             ADMINISTRATOR, *arguments],
            check=True, env={**os.environ, "PGPASSWORD": self._server.passwords[ADMINISTRATOR]},
        )  # fmt: skip

    def _dump(self, target: str, *arguments: str) -> None:
        """pg_dump itself syncs its files: it need not here, as ours keeps none on this machine."""
        if os.path.isdir(target):
            shutil.rmtree(target)
        self._run("pg_dump", "--no-sync", "-n", WHOLE, "-f", target, *arguments, DATABASE)

    def _zstd_built_in(self) -> bool:
        """pg_dump looks at what it was built with before it connects."""
        done = subprocess.run(
            [os.path.join(self._server.bin, "pg_dump"), "-Fd", "-Z", "zstd:1", "-f", "/dev/null/none", "-p", "1"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return "does not support compression" not in done.stderr

    def backups(self, place: Place, repository: t.Mapping[str, t.Any]) -> list[Peer]:
        file, folder = place.path("peer.dump"), place.path("peer.dir")

        def custom(_none: None) -> int:
            self._dump(file, "-Fc", "-Z1")
            return peers.upload([file], repository, key())

        def directory(_none: None) -> int:
            self._dump(folder, "-Fd", "-j2", "-Z", "zstd:1")
            return peers.upload([entry.path for entry in os.scandir(folder)], repository, key())

        def compressed_after(_none: None) -> int:
            self._dump(folder, "-Fd", "-j2", "-Z0")
            files = [entry.path for entry in os.scandir(folder)]
            subprocess.run(["zstd", "-q", "-T2", "-1", "--rm", *files], check=True)
            return peers.upload([file + ".zst" for file in files], repository, key())

        found = [Peer("-Fc", "pg_dump -Fc -Z1 + upload", 0.35, lambda: None, custom)]
        if self._zstd_built_in():
            found.append(Peer("-Fd", "pg_dump -Fd -j2 -Z zstd:1 + upload", 0.9, lambda: None, directory))
        else:
            print("This pg_dump was built without zstd: the program zstd compresses its files.", flush=True)
            if not peers.missing("zstd"):
                what = "pg_dump -Fd -j2 -Z0 + zstd -T2 -1 + upload"
                found.append(Peer("-Fd", what, 0.9, lambda: None, compressed_after))
        return found

    def reloads(self, place: Place) -> list[Peer]:
        folder = place.path("restore.dir")
        self._dump(folder, "-Fd", "-j2", "-Z1")

        def before() -> None:
            self.drop(COPY)
            with self._server.connect() as con:
                con.execute(f"DROP DATABASE IF EXISTS {RESTORED}")
                con.execute(f"CREATE DATABASE {RESTORED} OWNER {OWNER}")
                con.execute("CHECKPOINT")

        def load(_none: None) -> None:
            self._run("pg_restore", "-j2", "-d", RESTORED, folder)
            with self._server.connect(database=RESTORED) as con:
                row = con.execute(f"SELECT count(*) FROM {WHOLE}.memory_records").fetchone()
                if row is None or row[0] < place.records:
                    raise RuntimeError(f"pg_restore brought {row} records")

        return [Peer("pg_restore", "pg_restore -j2", 0.75, before, load)]

    def read(self) -> int:
        size = 0
        columns = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"
        with self._server.connect(OWNER) as con:
            query = f"COPY (SELECT {columns} FROM {WHOLE}.memory_records) TO STDOUT (FORMAT binary)"
            with con.cursor().copy(query) as copy:
                for row in copy:
                    size += len(row)
        return size

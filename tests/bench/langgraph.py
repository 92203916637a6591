# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""LangGraph's store in PostgreSQL with a vector index, beside pg_dump and pg_restore of its tables; and what a
quarantine costs the applications of all others."""

from __future__ import annotations

import functools
import os
import secrets
import time
import typing as t
import urllib.parse

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.applications import Application
from tests.support.postgresql_server import APPLICATION, DATABASE, OWNER, PostgresqlServer

from . import peers
from .data import NAMESPACE, Place
from .measure import Side, Table, median, ratio, run, said, turns
from .postgresql import RESTORED, SETTINGS, Postgresql
from .served import key
from .snapshots import fresh, take

MOST = int(os.environ.get("BENCH_VECTORS", 50_000))  # items, each with an embedding
DIMENSIONS = 384
TABLES = ("store", "store_vectors")
SCHEMA = "app"
#: So that the graph of 500,000 vectors fits: with the 64 MB that are preset, an index takes hours on either side.
MAINTENANCE = "maintenance_work_mem = 2GB"
MANY = 10_000  # namespaces
EACH = 10  # items of each
ASKED = 2000  # reads, and as many writes, of one turn
COST_ROUNDS = 15
#: As LangGraph writes and reads one item.
WRITE = (
    "INSERT INTO store (prefix, key, value, created_at, updated_at) VALUES (%s, %s, %s, now(), now()) "
    "ON CONFLICT (prefix, key) DO UPDATE SET value = EXCLUDED.value, updated_at = now()"
)
READ = "SELECT key, value, created_at, updated_at FROM store WHERE prefix = %s AND key = %s"


def measure(table: Table, place: Place, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    with PostgresqlServer(*SETTINGS, MAINTENANCE) as server:
        agents = _Agents(server, place)
        agents.compare(table, repository, rounds)
        agents.costs(table)


class _Agents(Postgresql):
    """The framework's own tables, filled past it: what it would take hours to write."""

    def __init__(self, server: PostgresqlServer, place: Place) -> None:
        super().__init__(server)
        self._place, self._count = place, min(MOST, place.records)
        with server.connect() as con:
            con.execute("CREATE EXTENSION vector")
            con.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {APPLICATION}")
            con.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {OWNER}")
        path = urllib.parse.quote(f"-csearch_path={SCHEMA},public")
        url = f"postgresql://{APPLICATION}:{server.passwords[APPLICATION]}@127.0.0.1:{server.port}/{DATABASE}"
        with Application("langgraph_app.py", "serve", f"{url}?options={path}", str(DIMENSIONS)) as application:
            application.ask("setup")
        self._store = server.store("ops", layout="langgraph_store", table_schema=SCHEMA, name="memory")

    def _fill(self, namespaces: str, count: int, vectors: bool) -> None:
        """``namespaces``: an expression of n, the number of the item."""
        started = time.monotonic()
        with self._server.connect() as con:
            con.execute(f"SET search_path = {SCHEMA}, public")
            con.execute("DROP INDEX IF EXISTS store_vectors_embedding_idx")
            con.execute(
                f"INSERT INTO store (prefix, key, value) SELECT {namespaces}, 'memory ' || lpad(n::text, 8, '0'), "
                "jsonb_build_object('text', (SELECT string_agg(md5(n::text || m::text), ' ') FROM "
                f"generate_series(1, 9) m), 'n', n) FROM generate_series(0, {count - 1}) n"
            )
            if vectors:
                con.execute(
                    "INSERT INTO store_vectors (prefix, key, field_name, embedding, created_at, updated_at) "
                    "SELECT s.prefix, s.key, 'text', v.embedding, now(), now() FROM store s, LATERAL (SELECT "
                    "array_agg(random() - 0.5 + 0 * m + 0 * length(s.key))::real[]::vector AS embedding "
                    f"FROM generate_series(1, {DIMENSIONS}) m) v"
                )
            con.execute(
                "CREATE INDEX store_vectors_embedding_idx ON store_vectors USING hnsw (embedding vector_cosine_ops)"
            )
        self.settle()
        print(f"Wrote {count:,} items in {time.monotonic() - started:.0f} s.", flush=True)

    def _dumped(self, target: str, *arguments: str) -> None:
        tables = [part for name in TABLES for part in ("-t", f"{SCHEMA}.{name}")]
        self._run("pg_dump", "--no-sync", *tables, "-f", target, *arguments, DATABASE)

    def compare(self, table: Table, repository: t.Mapping[str, t.Any], rounds: int) -> None:
        self._fill(f"'{NAMESPACE}'", self._count, vectors=True)
        what = f"LangGraph, {self._count:,} items × {DIMENSIONS}"
        file, keyring = self._place.path("langgraph.dump"), self._place.keyring

        def dumped(_none: None) -> int:
            self._dumped(file, "-Fc", "-Z1")
            return peers.upload([file], repository, key())

        found = turns(
            rounds,
            {
                "ours": Side(lambda: fresh(repository), lambda at: take(self._store, keyring, at)),
                "pg_dump": Side(lambda: None, dumped),
            },
            self.pid,
        )
        table.add(f"{what}: snapshot : pg_dump -Fc -Z1 + upload", ratio(found["ours"], found["pg_dump"]), 1.0,
                  detail=said(found))  # fmt: skip
        table.memory(f"{what}: snapshot", *found["ours"])
        there = {**repository, "url": f"{repository['url']}/langgraph"}
        taken = run(take, self._store, keyring, there).value["snapshot"]
        found = turns(
            rounds,
            {
                "ours": Side(self._emptied, functools.partial(self._brought, there, taken)),
                "pg_restore": Side(self._scratch, lambda _none: self._reloaded(file)),
            },
            self.pid,
        )
        table.add(f"{what}: restore with check and vector index : pg_restore -j2",
                  ratio(found["ours"], found["pg_restore"]), 1.0, detail=said(found))  # fmt: skip
        table.memory(f"{what}: restore", *found["ours"])

    def _emptied(self) -> None:
        with self._server.connect() as con:
            con.execute("DROP SCHEMA IF EXISTS ops CASCADE")
            con.execute(f"TRUNCATE {', '.join(f'{SCHEMA}.{name}' for name in TABLES)}")
            con.execute("CHECKPOINT")

    def _brought(self, repository: t.Mapping[str, t.Any], taken: str, _none: None) -> None:
        done = restore.restore(
            store_params=self._store, repository=repository, keyring=Keyring.open(self._place.keyring), name="memory",
            snapshot_id=taken, namespace=NAMESPACE, create=True,
        )  # fmt: skip
        if done["restored"] != self._count:
            raise RuntimeError(f"The restore says {done}")

    def _scratch(self) -> None:
        with self._server.connect() as con:
            con.execute(f"DROP DATABASE IF EXISTS {RESTORED}")
            con.execute(f"CREATE DATABASE {RESTORED}")
            con.execute("CHECKPOINT")
        with self._server.connect(database=RESTORED) as con:
            con.execute("CREATE EXTENSION vector")
            con.execute(f"CREATE SCHEMA {SCHEMA}")

    def _reloaded(self, file: str) -> None:
        self._run("pg_restore", "-j2", "-d", RESTORED, file)
        with self._server.connect(database=RESTORED) as con:
            row = con.execute(f"SELECT count(*) FROM {SCHEMA}.store_vectors").fetchone()
            if row is None or row[0] != self._count:
                raise RuntimeError(f"pg_restore brought {row} embeddings")

    # --- what a quarantine costs others -------------------------------------------------------------------------
    def costs(self, table: Table) -> None:
        """Reads and writes of an application among MANY namespaces, in turns with and without one quarantined."""
        self._emptied()
        self._fill(f"'user-' || (n % {MANY})", MANY * EACH, vectors=False)
        took: dict[str, list[float]] = {"reads": [], "writes": []}
        for turn in range(COST_ROUNDS):
            sides = [self._asked, self._asked_beside_a_fence]
            free, fenced = (side() for side in (sides if turn % 2 else reversed(sides)))
            if not turn % 2:
                free, fenced = fenced, free
            for name in took:
                took[name].append(fenced[name] / free[name])
        for name, ratios in took.items():
            spread = f"{ASKED} in a turn, {COST_ROUNDS} turns: {min(ratios):.2f} to {max(ratios):.2f}"
            what = f"one of {MANY:,} namespaces in quarantine: {name} of another"
            table.add(what, median(ratios), 1.1, detail=spread)

    def _asked(self) -> dict[str, float]:
        """Seconds of processor time of an application and its server's process for its reads and for its writes: on a
        busy machine the elapsed time says nothing about a tenth."""
        with self._server.connect(APPLICATION) as con:
            con.execute(f"SET search_path = {SCHEMA}, public")
            places = [1 + n * 7 % (MANY - 1) for n in range(ASKED)]
            for n in places[:50]:
                con.execute(READ, (f"user-{n}", f"memory {n:08}"))
            started = _used(con)
            for n in places:
                con.execute(READ, (f"user-{n}", f"memory {n:08}"))
            middle = _used(con)
            for n in places:
                con.execute(WRITE, (f"user-{n}", f"memory {n:08}", '{"text": "new"}'))
            return {"reads": middle - started, "writes": _used(con) - middle}

    def _asked_beside_a_fence(self) -> dict[str, float]:
        token = secrets.token_hex(4)
        store = open_store(self._store)
        try:
            claim = store.claim("user-0", token, "bench", new_incident=token, lease=600.0)
            store.fence(claim)
            try:
                return self._asked()
            finally:
                store.unfence(claim)
                store.close_incident(claim)
        finally:
            store.close()


def _used(con: t.Any) -> float:
    with open(f"/proc/{con.info.backend_pid}/schedstat", encoding="ascii") as file:
        return time.process_time() + int(file.read().split()[0]) / 1e9

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the tables that a real framework made and uses, in a real PostgreSQL with pgvector. The framework runs
in a process of its own, with a role of its own, and knows nothing of the collection."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import urllib.parse

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import incident as incidents
from tests.support.applications import Application
from tests.support.postgresql_server import APPLICATION, OWNER
from tests.unit.operations.runbook import MASTER, NAME, NS, Site, attempt

STEPS = ("isolate", "forensic", "diagnose", "plan", "apply", "validate", "release")


class TablesSite(Site):
    """A schema of an application with its tables as a store, its keyring and its repository."""

    def __init__(self, folder, server, layout, **options):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        master = os.path.join(self.folder, "master.key")
        with open(master, "w", encoding="ascii") as stream:
            stream.write(MASTER)
        os.chmod(master, 0o600)
        self.server, self.token = server, secrets.token_hex(4)
        self.schema, self.own = f"app_{self.token}", f"ops_{self.token}"
        self.root = server.connect()
        if self.root.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone():
            self.root.execute("CREATE EXTENSION IF NOT EXISTS vector")
        self.root.execute(f"CREATE SCHEMA {self.schema} AUTHORIZATION {APPLICATION}")
        self.root.execute(f"GRANT USAGE ON SCHEMA {self.schema} TO {OWNER}")
        self.root.execute(f"SET search_path = {self.schema}, public")
        self.store = server.store(self.own, layout=layout, table_schema=self.schema, name=NAME, **options)
        self.keyring = {"source": "file", "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}

    @property
    def url(self):
        """Of the application's role, with its schema first. Searches are exact, whatever shape an index has."""
        server = self.server
        options = urllib.parse.quote(f"-csearch_path={self.schema},public -chnsw.ef_search=1000")
        return (
            f"postgresql://{APPLICATION}:{server.passwords[APPLICATION]}@{server.address}:{server.port}/memory"
            f"?options={options}"
        )

    def sql(self, text, *values):
        cursor = self.root.execute(text, values or None)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    def dump(self, where="true", tables=()):
        """Every bit of these tables' rows, as the server writes them."""
        return {
            table: self.sql(f"SELECT r::text FROM {self.schema}.{table} r WHERE {where} ORDER BY r::text COLLATE \"C\"")
            for table in tables
        }  # fmt: skip

    def catalogue(self):
        """Everything about the application's tables that a fence might leave behind."""
        return self.sql(
            "SELECT c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relacl::text, "
            "(SELECT array_agg(tgname ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid), "
            "(SELECT array_agg(polname ORDER BY polname) FROM pg_policy WHERE polrelid = c.oid), "
            "(SELECT array_agg(attname || atttypid::regtype ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid) "
            "FROM pg_class c WHERE c.relnamespace = %s::regnamespace ORDER BY 1",
            self.schema,
        )

    def clear(self, folder):
        """Empty tables, nothing of the collection's, and a repository of its own: as at the beginning."""
        self.folder, self.repository = str(folder), {"url": "file://" + os.path.join(folder, "repository")}
        if self.sql("SELECT 1 FROM pg_namespace WHERE nspname = %s", self.own):
            for (name,) in self.sql(f"SELECT convert_from(name, 'UTF8') FROM {self.own}.memops_namespace "
                                    "WHERE state <> 'serving'"):  # fmt: skip
                self.close_by_release(name)  # of a test that failed
        self.root.execute(f"DROP SCHEMA IF EXISTS {self.own} CASCADE")
        self.root.execute(f"TRUNCATE {', '.join(self.tables)} CASCADE")
        shutil.rmtree(incidents.base(self.store), ignore_errors=True)

    def last_attempt(self, namespace="agent-7"):
        """Of the open incident, if there is one."""
        with self.open() as store:
            return next((one.attempt for one in store.incidents(namespace) if one.state == "open"), None)

    def close_by_release(self, namespace):
        self.step("release", attempt(takeover=self.last_attempt(namespace)), namespace, force=True)

    @contextlib.contextmanager
    def as_user(self, user):
        """With another application_user for a while."""
        before, self.store = self.store, {**self.store, "application_user": user}
        try:
            yield
        finally:
            self.store = before

    def rebuild(self, namespace, window=None, strategy="auto", absent="auto", until="release", run=None):
        run, done = run or attempt(), {}
        options = {"diagnose": {"window": window}, "plan": {"strategy": strategy, "absent": absent}}
        for name in STEPS:
            done[name] = self.step(name, run, namespace, **options.get(name, {}))
            if name == until:
                break
        return done

    def wipe(self):
        self.root.execute(f"DROP SCHEMA IF EXISTS {self.own} CASCADE")
        self.root.execute(f"DROP SCHEMA {self.schema} CASCADE")
        self.root.close()


class Framework(TablesSite):
    """With one of the frameworks of tests/support/framework_apps.py. ``variables``: of its process's environment."""

    def __init__(self, folder, server, layout, tables, **variables):
        super().__init__(folder, server, layout)
        self.tables = tables
        self.app = Application(
            "framework_apps.py", layout, self.url, APP_FOLDER=self.folder, APP_SCHEMA=self.schema, **variables
        )  # fmt: skip

    def wipe(self):
        self.app.__exit__()
        super().wipe()


class LangGraph(TablesSite):
    """With LangGraph's PostgresStore; ``dims`` 0: without a vector index."""

    def __init__(self, folder, server, dims=8):
        super().__init__(folder, server, "langgraph_store")
        self.dims = dims
        self.app = Application("langgraph_app.py", "serve", self.url, str(dims))
        self.app.ask("setup")

    @property
    def tables(self):
        return ("store", "store_vectors") if self.dims else ("store",)

    def put(self, namespace, items, ttl=None):
        return self.app.ask("put", items=[[namespace.split("."), key, value, ttl] for key, value in items.items()])

    def get(self, namespace, key):
        return self.app.ask("get", namespace=namespace.split("."), key=key)

    def drop(self, namespace, keys):
        self.app.ask("delete", namespace=namespace.split("."), keys=keys)

    def fill(self, namespace="agent-7", count=40):
        """What an application may have: odd keys and values, some with an expiry, some below the namespace."""
        self.put(namespace, {f"fact {n:05}": {"text": f"fact {n} of {namespace}", "n": n} for n in range(count)})
        self.put(namespace, {
            "a/b": {"text": "slash"}, "100%": {"text": "per cent"}, "": {"text": "empty key"}, "%2F": {"text": "odd"},
            "Ünï\n\tcode \U0001f600": {"text": "ключ"}, "'; DROP": {"text": "\\ ' \" %s"}, "none": {"other": None},
            "numbers": {"text": "1", "big": 12345678901234567890, "small": 1.10, "minus": -0.0, "deep": [[{"a": []}]]},
            "long " * 200: {"text": "long " * 5000},
        })  # fmt: skip
        self.put(namespace, {"short": {"text": "ends some day"}, "later": {"text": "ends too"}}, ttl=60 * 24 * 365)
        self.put(f"{namespace}.notes", {f"note {n}": {"text": f"note {n}"} for n in range(10)})
        self.put(f"{namespace}.notes.old 100%", {"a/b": {"text": "deep"}})

    def damage(self):
        """Values are garbage, some are gone, one came that nobody knows, and an expiry is another."""
        self.put(NS, {"fact 00001": {"text": "garbage"}, "a/b": {"text": "wrong"}, "made": {"text": "by the damage"}})
        self.app.ask("delete", namespace=[NS], keys=["fact 00002", "100%", ""])
        self.app.ask("delete", namespace=[NS, "notes"], keys=["note 3"])
        later = "expires_at = now() + '1 h', updated_at = now()"
        self.sql(f"UPDATE store SET {later} WHERE prefix = %s AND key = 'short'", NS)

    def view(self, namespace="agent-7"):
        queries = ["fact 3 of agent-7", "something else"] if self.dims else []
        return self.app.ask("view", namespace=namespace.split("."), queries=queries)

    def dump_of(self, namespace="agent-7"):
        found = self.dump("true", self.tables)
        head = (f"({namespace},", f'("{namespace},', f"({namespace}.", f'("{namespace}.')
        return {name: [row for (row,) in rows if row.startswith(head)] for name, rows in found.items()}

    def agent(self, namespace):
        return Application("langgraph_app.py", "agent", self.url, str(self.dims), namespace)

    def wipe(self):
        self.app.__exit__()
        super().wipe()

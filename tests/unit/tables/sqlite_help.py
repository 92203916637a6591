# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The runbook on the tables of a real agent framework in a SQLite file; the framework's program has the file open."""
from __future__ import annotations

import os
import sqlite3

from tests.unit.operations.runbook import MASTER, NAME, NS, Site

FAR = "2099-01-01 00:00:00"
ODD = ("a/b", "50%", "%2F", "", "ключ", "nul\0inside", "x" * 300, "'quoted\"", "zz\uffff")


class TablesSite(Site):
    """The file of one application as a store, its keyring and its repository. ``database`` opens it past everything."""

    layout: str
    namespace: str = NS

    def __init__(self, folder, app):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        master = os.path.join(self.folder, "master.key")
        with open(master, "w", encoding="ascii") as stream:
            stream.write(MASTER)
        os.chmod(master, 0o600)
        self.path = os.path.join(self.folder, "memories.db")
        self.app = app
        app.open(self.path)
        self.store = {"engine": "sqlite", "layout": self.layout, "path": self.path, "name": NAME, "busy_timeout": 20}
        self.keyring = {"source": "file", "master_key_file": master}
        self.repository = {"url": "file://" + os.path.join(self.folder, "repository")}

    def database(self):
        con = sqlite3.connect(self.path, isolation_level=None, timeout=20)
        con.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return con

    def sql(self, text, *values):
        con = self.database()
        try:
            return con.execute(text, values).fetchall()
        finally:
            con.close()

    def dump(self, tables, where="1", rowid=True):
        """The rows of the application's tables with their storage classes, in the order of the file."""
        found = {}
        for table in tables:
            columns = [row[1] for row in self.sql(f"PRAGMA table_info({table})")]
            listed = ", ".join(f"typeof({c}), {c}" for c in columns)
            first = "rowid, " if rowid else ""
            found[table] = self.sql(f"SELECT {first}{listed} FROM {table} WHERE {where} ORDER BY rowid")
        return found

    def last_attempt(self):
        """Of the open incident, if there is one."""
        with self.open() as store:
            return next((one.attempt for one in store.incidents(self.namespace) if one.state == "open"), None)

    def schema(self):
        return self.sql(
            "SELECT type, name, sql FROM sqlite_master WHERE tbl_name NOT LIKE 'memops%' "
            "AND name <> 'sqlite_sequence' ORDER BY name"
        )


class LanggraphSite(TablesSite):
    layout = "langgraph_store"

    def fill(self, namespace="agent-7", count=30):
        """What an application may have: odd keys, labels below, both formats of expiry, values of every size."""
        self.app.fill([namespace], {f"k{number:05}": {"text": f"value {number} of {namespace} " * 5, "n": number}
                                    for number in range(count)})  # fmt: skip
        self.app.fill([namespace], {key: {"odd": key} for key in ODD if key})
        self.app.fill([namespace, "below"], {"one": {"deep": True}, "k00001": {"deep": 1.5}})
        self.app.fill([namespace, "be low/x"], {"one": {"deep": None}})
        self.app.put([namespace], "big", {"text": "x" * 200_000})
        self.app.put([namespace], "ends", {"text": "some day"}, 60 * 24 * 365)
        self.app.put([namespace], "ends too", {"text": "some day"}, 60.5)
        self.sql("UPDATE store SET expires_at = ? WHERE key = 'ends too'", FAR)  # as a refresh of the TTL writes it

    def records(self, namespace="agent-7"):
        """{key: row} as the layout has them."""
        return self.rows(namespace)

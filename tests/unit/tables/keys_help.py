# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Frameworks that encrypt memories themselves, on both engines, and the keys that the collection is given."""
from __future__ import annotations

import os

from tests.unit.tables.sqlite_help import TablesSite as SqliteSite
from tests.unit.tables.tables_help import TablesSite as PostgresqlSite

OLD, NEW, WRONG = "o" * 32, "n" * 32, "w" * 32
PROGRAMS = {
    "langgraph_checkpoint": ("checkpoint_application.py",),
    "openai_agents": ("sessions_application.py", "openai"),
}
TABLES = {
    ("langgraph_checkpoint", "sqlite"): ("checkpoints", "writes"),
    ("langgraph_checkpoint", "postgresql"): ("checkpoints", "checkpoint_blobs", "checkpoint_writes"),
    ("openai_agents", "sqlite"): ("agent_sessions", "agent_messages"),
    ("openai_agents", "postgresql"): ("agent_sessions", "agent_messages"),
}
#: where encrypted values lie: table, column of the value, columns of the primary key
SEALED = {
    ("langgraph_checkpoint", "sqlite"): ("checkpoints", "checkpoint"),
    ("langgraph_checkpoint", "postgresql"): ("checkpoint_blobs", "blob"),
    ("openai_agents", "sqlite"): ("agent_messages", "message_data"),
    ("openai_agents", "postgresql"): ("agent_messages", "message_data"),
}


class Keyed:
    """A site with a framework's application in a process of its own; see sqlite_help and tables_help."""

    def __init__(self, site, app, layout, engine):
        self.site, self.app, self.layout, self.engine = site, app, layout, engine
        self.tables = TABLES[layout, engine]
        self.space = "thread_id" if layout == "langgraph_checkpoint" else "session_id"

    def __getattr__(self, name):
        return getattr(self.site, name)

    @property
    def messages(self):
        return self.layout == "openai_agents"

    def say(self, namespace, count=3, key=OLD):
        """``key`` None: in plain."""
        if self.messages:
            items = [{"role": "user", "content": f"{n} of {namespace} ключ"} for n in range(count)]
            self.app.add(namespace, items, *((True, key) if key else ()))
        else:
            self.app.say(namespace, [f"{n} of {namespace}" for n in range(count)], key)

    def told(self, namespace, key=OLD):
        """All that the framework tells; with a key that is wrong nothing, or an error (RuntimeError)."""
        if self.messages:
            return self.app.items(namespace, *((True, key) if key else ()))
        return self.app.history(namespace, key)

    def use(self, *keys):
        """The application's keys, as the operator names them; none: no file."""
        path = os.path.join(self.site.folder, "application.key")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("\n".join(keys) + "\n")
        self.site.store.pop("application_key_file", None)
        if keys:
            self.site.store["application_key_file"] = path

    def sealed(self, namespace):
        """The encrypted values of one table: [(its row's name in the database, value)] in their order."""
        table, column = SEALED[self.layout, self.engine]
        mark, row = ("%s", "ctid::text") if self.engine == "postgresql" else ("?", "rowid")
        where = f"{self.space} = {mark}"
        if not self.messages:
            where += " AND type LIKE '%%+%%'" if self.engine == "postgresql" else " AND type LIKE '%+%'"
        return self.site.sql(f"SELECT {row}, {column} FROM {table} WHERE {where} ORDER BY 1", namespace)

    def damage(self, namespace, row, value):
        """One byte of an encrypted value is another one."""
        table, column = SEALED[self.layout, self.engine]
        if self.messages:
            at = value.index("payload") + 40
            new = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        else:
            new = value[:-1] + bytes((value[-1] ^ 1,))
        mark, place = ("%s", "ctid::text") if self.engine == "postgresql" else ("?", "rowid")
        self.site.sql(f"UPDATE {table} SET {column} = {mark} WHERE {place} = {mark}", new, row)

    def leak(self, namespace):
        """A value in plain beside encrypted ones, as a program leaves it that was not given the key."""
        if self.messages:
            self.say(namespace, 1, None)
            return
        table, column = SEALED[self.layout, self.engine]
        mark, place = ("%s", "ctid::text") if self.engine == "postgresql" else ("?", "rowid")
        self.site.sql(
            f"UPDATE {table} SET type = 'msgpack', {column} = {mark} WHERE {place} = {mark}",
            b"\xc0", self.sealed(namespace)[0][0],
        )  # fmt: skip

    def dumped(self):
        if self.engine == "postgresql":
            return self.site.dump(tables=self.tables)
        return self.site.dump(self.tables)

    def end(self):
        self.app.close()
        if self.engine == "postgresql":
            self.site.wipe()


def keyed(folder, app, layout, engine, server=None):
    if engine == "sqlite":
        kind = type("Site", (SqliteSite,), {"layout": layout})
        return Keyed(kind(folder, app), app, layout, engine)
    site = PostgresqlSite(folder, server, layout)
    app.open(site.url)
    return Keyed(site, app, layout, engine)

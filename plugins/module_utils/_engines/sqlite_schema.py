# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a SQLite memory store: records, the access log, control tables.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._layouts import Layout

APPLICATION_ID: t.Final = 0x6D656D6F  # "memo"
FORMAT: t.Final = 1
PAGE_SIZE: t.Final = 8192
#: Every refusal by a trigger starts with this.
FENCE_MESSAGE: t.Final = "memops fence"
WRITES: t.Final = "operation IN ('write', 'delete')"  # as the partial index has it, so that the planner recognises it
LOG_COLUMNS: t.Final = "id, at, namespace, operation, key, epoch, sequence, digest, lock, actor, reason, checksum"


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


class RecordsSql:
    """The SQL text of a store with that layout's name. A generation is a number that is unique in the store."""

    def __init__(self, layout: Layout) -> None:
        names = [_name(column) for column in ASIDE_COLUMNS.split(", ")]  # those of a record
        self.layout = layout.name
        self.plain_table, self.plain_log = "memory_records", "memory_access_log"
        self.table, self.log, self.generation = _name(self.plain_table), _name(self.plain_log), _name("generation")
        (
            self.key, self.epoch, self.sequence, self.created, self.updated,
            self.expires, self.deleted, self.key_id, self.payload, self.checksum,
        ) = names  # fmt: skip
        self.columns = ", ".join(names)
        self.expiry_index, self.log_index = _name(self.plain_table + "_expires"), _name(self.plain_log + "_writes")

    def insert(self, generation: int, rows: int = 1) -> str:
        """Takes rows as they are: the generation stands in the text, so that no tuple is rebuilt per record."""
        values = ", ".join([f"({int(generation)}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
        return f"INSERT OR REPLACE INTO {self.table} ({self.generation}, {self.columns}) VALUES {values}"

    @property
    def insert_log(self) -> str:
        return f"INSERT INTO {self.log} ({LOG_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

    def tables(self) -> dict[str, str]:
        """Name → CREATE statement of every table."""
        records = f"""CREATE TABLE {self.table} (
  {self.generation} INTEGER NOT NULL,
  {self.key} TEXT NOT NULL,
  {self.epoch} INTEGER NOT NULL,
  {self.sequence} INTEGER NOT NULL,
  {self.created} INTEGER NOT NULL,
  {self.updated} INTEGER NOT NULL,
  {self.expires} INTEGER,
  {self.deleted} INTEGER,
  {self.key_id} TEXT NOT NULL,
  {self.payload} BLOB NOT NULL,
  {self.checksum} BLOB NOT NULL,
  PRIMARY KEY ({self.generation}, {self.key})
) WITHOUT ROWID"""
        log = f"""CREATE TABLE {self.log} (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  namespace TEXT NOT NULL,
  operation TEXT NOT NULL,
  key TEXT,
  epoch INTEGER,
  sequence INTEGER,
  digest BLOB,
  lock INTEGER,
  actor TEXT NOT NULL,
  reason TEXT,
  checksum BLOB NOT NULL
)"""
        return {self.plain_table: records, self.plain_log: log, **CONTROL_TABLES}

    def indexes(self) -> dict[str, str]:
        """Name → CREATE statement of every index. The one of the log serves "newest write per key, in key order"."""
        return {
            self.plain_table + "_expires": f"CREATE INDEX {self.expiry_index} ON {self.table} "
            f"({self.generation}, {self.expires}) WHERE {self.expires} IS NOT NULL",
            self.plain_log + "_writes": f"CREATE INDEX {self.log_index} ON {self.log} "
            f"(namespace, key, epoch, sequence) WHERE {WRITES}",
            "memops_aside_incident": "CREATE INDEX memops_aside_incident ON memops_aside (incident, namespace)",
            "memops_namespace_generation": "CREATE UNIQUE INDEX memops_namespace_generation "
            "ON memops_namespace (generation)",
        }

    def triggers(self) -> dict[str, str]:
        """The fence: a row may change only in the active generation of a serving namespace, whoever writes."""
        out = {}
        for verb, sides in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
            name = f"memops_fence_{verb.lower()}"
            refused = " OR ".join(
                "NOT EXISTS (SELECT 1 FROM memops_namespace "
                f"WHERE generation = {side}.{self.generation} AND state = 'serving')"
                for side in sides
            )
            out[name] = (
                f"CREATE TRIGGER {name} BEFORE {verb} ON {self.table} WHEN {refused} "
                f"BEGIN SELECT RAISE(ABORT, '{FENCE_MESSAGE}: this namespace takes no {verb.lower()}'); END"
            )
        return out


CONTROL_TABLES: t.Final[dict[str, str]] = {
    # newest: no time in the store is later. commits: grows with every transaction that changed something.
    # log_id: no log entry ever had a higher id, pruned ones included.
    "memops_store": """CREATE TABLE memops_store (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  format INTEGER NOT NULL,
  store_id TEXT NOT NULL,
  lineage TEXT NOT NULL,
  layout TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  newest INTEGER NOT NULL,
  commits INTEGER NOT NULL,
  token INTEGER NOT NULL,
  log_id INTEGER NOT NULL
)""",
    "memops_namespace": """CREATE TABLE memops_namespace (
  name TEXT NOT NULL PRIMARY KEY,
  state TEXT NOT NULL,
  generation INTEGER NOT NULL,
  ttl REAL,
  serving_ttl REAL,
  incident TEXT,
  prior_ttl REAL,
  prior_state TEXT,
  restored_snapshot TEXT,
  restored_epoch INTEGER,
  restored_sequence INTEGER,
  restored_at INTEGER,
  restored_digest TEXT,
  lock_number INTEGER NOT NULL DEFAULT 0,
  lock_held INTEGER,
  lock_actor TEXT,
  lock_since INTEGER,
  lock_until INTEGER
)""",
    "memops_generation": """CREATE TABLE memops_generation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  namespace TEXT NOT NULL,
  created INTEGER NOT NULL,
  incident TEXT
)""",
    "memops_incident": """CREATE TABLE memops_incident (
  namespace TEXT NOT NULL,
  incident TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt TEXT NOT NULL,
  owner TEXT NOT NULL,
  token INTEGER NOT NULL,
  opened INTEGER NOT NULL,
  claimed INTEGER NOT NULL,
  renewed INTEGER NOT NULL,
  lease INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  facts TEXT NOT NULL,
  PRIMARY KEY (namespace, incident)
)""",
    # Sequences whose log entries this store wrote and did not prune: an absent one is damage.
    "memops_given": """CREATE TABLE memops_given (
  epoch INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (epoch, first)
)""",
    # Sequences that an operator took for tombstones; they count as given only once a log entry has them.
    "memops_reserved": """CREATE TABLE memops_reserved (
  namespace TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (epoch, first)
)""",
    # Every 1,024th key or so, so that a big namespace can be cut into even ranges without counting it.
    "memops_sample": """CREATE TABLE memops_sample (
  generation INTEGER NOT NULL,
  key TEXT NOT NULL,
  PRIMARY KEY (generation, key)
) WITHOUT ROWID""",
    "memops_aside": """CREATE TABLE memops_aside (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  namespace TEXT NOT NULL,
  incident TEXT NOT NULL,
  reason TEXT NOT NULL,
  at INTEGER NOT NULL,
  key,
  epoch,
  sequence,
  created,
  updated,
  expires,
  deleted,
  key_id,
  payload,
  checksum
)""",
}
QUARANTINE_TTL: t.Final = 1.0
ASIDE_COLUMNS: t.Final = "key, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"
SAMPLE_MASK: t.Final = 1023

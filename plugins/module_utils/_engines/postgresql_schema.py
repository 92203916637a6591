# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a PostgreSQL memory store: records, the access log, control tables.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from .._errors import InvalidInput
from .._layouts import Layout
from .postgresql_rows import INLINE_BYTES

FORMAT: t.Final = 1
WRITES: t.Final = "operation IN ('write', 'delete')"  # as the partial index has it, so that the planner recognises it
RECORD_COLUMNS: t.Final = (
    "key", "epoch", "sequence", "created", "updated", "expires", "deleted", "key_id", "payload", "checksum"
)  # fmt: skip
SAMPLE_MASK: t.Final = 1023
#: Columns that an application's writes change; what fences and releases a namespace is not among them.
APPLICATION_UPDATES: t.Final = {
    "memops_store": "sequence, newest, log_id",
    "memops_namespace": "ttl, lock_number, lock_held, lock_actor, lock_since, lock_until",
}


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class RecordsSql:
    """The SQL text that depends on schema and layout. A generation is a number that is unique in the store."""

    def __init__(self, layout: Layout, schema: str) -> None:
        if not schema or "\0" in schema or len(schema.encode()) > 63:
            raise InvalidInput(f"memory_store.schema {schema!r:.80} cannot be the name of a schema.", "correct it")
        self.layout, self.plain_schema = layout.name, schema
        self.plain_table, self.plain_log = "memory_records", "memory_access_log"
        self.schema = quoted(schema)
        self.table, self.log = self.name(self.plain_table), self.name(self.plain_log)
        for plain in CONTROL_TABLES:
            setattr(self, plain.replace("memops_", "", 1), self.name(plain))
        payload = f"CASE WHEN octet_length(r.payload) <= {INLINE_BYTES} THEN r.payload END"
        #: the columns of a record, of alias r, in the order of _model.Record
        self.whole = _columns("r.key || r.key_rest", "r.payload")
        self.short = _columns("r.key", payload)  # where no key of the generation is long
        self.long = _columns("r.key || r.key_rest", payload)
        #: Joins w(key, mark) with the records r of a generation by one look into the primary key for each, whatever the
        #: planner believes of a table that was just filled. r.place serves UPDATE and DELETE.
        self.probe = (
            f"CROSS JOIN LATERAL (SELECT r.*, r.ctid AS place FROM {self.table} r WHERE r.generation = %s "
            "AND r.key = w.key AND r.key_mark = w.mark OFFSET 0) AS r"
        )
        self.stored = (
            "key, key_rest, key_mark, epoch, sequence, created, updated, expires, deleted, key_id, payload, checksum"
        )

    store: str
    namespace: str
    generation: str
    incident: str
    given: str
    reserved: str
    sample: str
    aside: str

    def name(self, plain: str) -> str:
        return f"{self.schema}.{quoted(plain)}"

    def upsert(self) -> str:
        """Takes the arrays of columns_of, a generation before them."""
        sets = ", ".join(f"{c} = excluded.{c}" for c in RECORD_COLUMNS[1:])
        return (
            f"INSERT INTO {self.table} (generation, {self.stored}) SELECT %s, w.* "
            f"FROM unnest({', '.join(['%s'] * 12)}) AS w ON CONFLICT (generation, key, key_mark) DO UPDATE SET {sets}"
        )

    def tables(self) -> dict[str, str]:
        """Name → CREATE statements of every table. Numbers come first: a row is read faster so."""
        # Payloads are encrypted: to try to compress them is in vain.
        records = f"""CREATE TABLE {self.table} (
  generation bigint NOT NULL,
  epoch bigint NOT NULL,
  sequence bigint NOT NULL,
  created bigint NOT NULL,
  updated bigint NOT NULL,
  expires bigint,
  deleted bigint,
  key bytea NOT NULL,
  key_rest bytea NOT NULL DEFAULT '',
  key_mark bytea NOT NULL DEFAULT '',
  key_id bytea NOT NULL,
  payload bytea NOT NULL,
  checksum bytea NOT NULL,
  PRIMARY KEY (generation, key, key_mark)
);
ALTER TABLE {self.table} ALTER COLUMN payload SET STORAGE EXTERNAL"""
        log = f"""CREATE TABLE {self.log} (
  id bigint PRIMARY KEY,
  at bigint NOT NULL,
  epoch bigint,
  sequence bigint,
  lock bigint,
  namespace bytea NOT NULL,
  operation text COLLATE "C" NOT NULL,
  key bytea,
  key_rest bytea,
  digest bytea,
  actor bytea NOT NULL,
  reason bytea,
  checksum bytea NOT NULL
)"""
        control = {plain: text.format(self.name(plain)) for plain, text in CONTROL_TABLES.items()}
        return {self.plain_table: records, self.plain_log: log, **control}

    def indexes(self) -> dict[str, str]:
        """Name → CREATE statement of every index. The one of the log serves "newest write per key, in key order"."""
        table, log = self.plain_table, self.plain_log
        return {
            table + "_expires": f"CREATE INDEX {quoted(table + '_expires')} ON {self.table} "
            "(generation, expires) WHERE expires IS NOT NULL",
            table + "_long": f"CREATE INDEX {quoted(table + '_long')} ON {self.table} (generation) "
            "WHERE key_mark <> ''::bytea",
            log + "_writes": f"CREATE INDEX {quoted(log + '_writes')} ON {self.log} "
            f"(namespace, key, epoch DESC, sequence DESC) WHERE {WRITES}",
            log + "_long": f"CREATE INDEX {quoted(log + '_long')} ON {self.log} (namespace) "
            "WHERE key_rest IS NOT NULL",
            "memops_aside_incident": f"CREATE INDEX memops_aside_incident ON {self.aside} (incident, namespace)",
            "memops_incident_open": f"CREATE UNIQUE INDEX memops_incident_open ON {self.incident} (namespace) "
            "WHERE state = 'open'",
            "memops_namespace_generation": "CREATE UNIQUE INDEX memops_namespace_generation "
            f"ON {self.namespace} (generation)",
        }

    def grants(self, role: str) -> list[str]:
        """What an application's own role may do: nothing of it lifts a fence or rewrites the log."""
        who = f"TO {quoted(role)}"
        updates = [
            f"GRANT UPDATE ({columns}) ON {self.name(table)} {who}" for table, columns in APPLICATION_UPDATES.items()
        ]
        return [
            f"GRANT USAGE ON SCHEMA {self.schema} {who}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {self.table} {who}",
            f"GRANT SELECT, INSERT ON {self.log}, {self.sample} {who}",
            f"GRANT SELECT ON {self.store}, {self.namespace}, {self.generation} {who}",
            f"GRANT SELECT, INSERT, UPDATE ON {self.given} {who}",
            f"GRANT INSERT ON {self.aside} {who}",
            f"GRANT EXECUTE ON FUNCTION {self.schema}.memops_create_namespace {who}",
            *updates,
        ]


def _columns(key: str, payload: str) -> str:
    return (
        f"{key} AS whole_key, r.epoch, r.sequence, r.created, r.updated, r.expires, r.deleted, r.key_id, "
        f"{payload} AS payload, r.checksum"
    )


CONTROL_TABLES: t.Final[dict[str, str]] = {
    # newest: no time in the store is later. log_id: the highest id that a log entry was given. Every transaction that
    # gives out sequences or log ids holds this row until it ends, so that both become visible in their order.
    "memops_store": """CREATE TABLE {} (
  one integer PRIMARY KEY CHECK (one = 1),
  format integer NOT NULL,
  store_id text NOT NULL,
  lineage text NOT NULL,
  layout text NOT NULL,
  epoch bigint NOT NULL,
  sequence bigint NOT NULL,
  newest bigint NOT NULL,
  token bigint NOT NULL,
  log_id bigint NOT NULL
) WITH (fillfactor = 10)""",
    # The row is the write lock: who writes records of its generation holds it, and a fence waits for them.
    "memops_namespace": """CREATE TABLE {} (
  name bytea PRIMARY KEY,
  state text NOT NULL,
  generation bigint NOT NULL,
  ttl double precision,
  serving_ttl double precision,
  incident text,
  prior_ttl double precision,
  prior_state text,
  restored_snapshot text,
  restored_epoch bigint,
  restored_sequence bigint,
  restored_at bigint,
  restored_digest text,
  lock_number bigint NOT NULL DEFAULT 0,
  lock_held bigint,
  lock_actor bytea,
  lock_since bigint,
  lock_until bigint
) WITH (fillfactor = 50)""",
    "memops_generation": """CREATE TABLE {} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace bytea NOT NULL,
  created bigint NOT NULL,
  incident text
)""",
    "memops_incident": """CREATE TABLE {} (
  number bigint GENERATED ALWAYS AS IDENTITY,
  namespace bytea NOT NULL,
  incident text NOT NULL,
  state text NOT NULL,
  attempt text NOT NULL,
  owner text NOT NULL,
  token bigint NOT NULL,
  opened bigint NOT NULL,
  claimed bigint NOT NULL,
  renewed bigint NOT NULL,
  lease bigint NOT NULL,
  lease_until bigint NOT NULL,
  facts text NOT NULL,
  PRIMARY KEY (namespace, incident)
)""",
    # Sequences whose log entries this store wrote and did not prune: an absent one is damage.
    "memops_given": """CREATE TABLE {} (
  epoch bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (epoch, first)
) WITH (fillfactor = 50)""",
    # Sequences that an operator took for tombstones; they count as given only once a log entry has them.
    "memops_reserved": """CREATE TABLE {} (
  namespace bytea NOT NULL,
  epoch bigint NOT NULL,
  first bigint NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (epoch, first)
)""",
    # Every 1,024th key or so, so that a big namespace can be cut into even ranges without counting it.
    "memops_sample": """CREATE TABLE {} (
  generation bigint NOT NULL,
  key bytea NOT NULL,
  PRIMARY KEY (generation, key)
)""",
    "memops_aside": """CREATE TABLE {} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace bytea NOT NULL,
  incident text NOT NULL,
  reason bytea NOT NULL,
  at bigint NOT NULL,
  epoch bigint,
  sequence bigint,
  created bigint,
  updated bigint,
  expires bigint,
  deleted bigint,
  key bytea,
  key_id bytea,
  payload bytea,
  checksum bytea
)""",
}

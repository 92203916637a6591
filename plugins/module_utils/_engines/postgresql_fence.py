# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence of a PostgreSQL store: functions, triggers and row-level security, and what of them is missing.

PRIVATE to the collection.

Writes meet a trigger, whoever writes. It locks the row of the namespace, so that a fence waits for every transaction
that has written and no transaction that began before the fence can write after it. Reads meet row-level security, which
binds neither the owner of the tables nor superusers. By itself it would answer "UPDATE 0" to a write that it hides the
rows from; so its rule for UPDATE and DELETE raises, and is the cheapest one, which PostgreSQL asks first.
"""
from __future__ import annotations

import re
import typing as t

from .postgresql_errors import FENCE_MESSAGE, FENCE_STATE
from .postgresql_schema import RecordsSql, literal, quoted

if t.TYPE_CHECKING:
    from .postgresql_session import Session

#: An operator's transaction sets this; the trigger heeds it from the owner of the tables alone.
OPERATING: t.Final = "memops.operating"
_EVENTS: t.Final = {
    "insert": ("AFTER", "REFERENCING NEW TABLE AS memops_new "),
    "update": ("AFTER", "REFERENCING OLD TABLE AS memops_old NEW TABLE AS memops_new "),
    "delete": ("AFTER", "REFERENCING OLD TABLE AS memops_old "),
    "truncate": ("BEFORE", ""),
}
#: tgtype of these triggers (statement level): the bits of INSERT, DELETE, UPDATE, TRUNCATE and BEFORE
_TYPES: t.Final = {"insert": 4, "delete": 8, "update": 16, "truncate": 32 + 2}


def bodies(s: RecordsSql) -> dict[str, str]:
    """Name → source of each function."""
    return {
        "memops_fence": f"""
DECLARE
  touched bigint[];
  one bigint;
BEGIN
  IF current_setting('{OPERATING}', true) = 'on'
     AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    RAISE EXCEPTION '{FENCE_MESSAGE}: this table takes no truncate' USING ERRCODE = '{FENCE_STATE}';
  ELSIF TG_OP = 'INSERT' THEN
    SELECT array_agg(DISTINCT generation) INTO touched FROM memops_new;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT array_agg(DISTINCT generation) INTO touched FROM memops_old;
  ELSE
    SELECT array_agg(DISTINCT generation) INTO touched
      FROM (SELECT generation FROM memops_old UNION ALL SELECT generation FROM memops_new) AS both_sides;
  END IF;
  FOREACH one IN ARRAY coalesce(touched, '{{}}') LOOP
    PERFORM 1 FROM {s.namespace} n WHERE n.generation = one AND n.state = 'serving' FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no %', lower(TG_OP) USING ERRCODE = '{FENCE_STATE}';
    END IF;
  END LOOP;
  RETURN NULL;
END
""",
        # False for a row of no active generation: nobody sees such a row, so nobody loses a write to it.
        "memops_writable": f"""
DECLARE
  found_state text;
BEGIN
  SELECT n.state INTO found_state FROM {s.namespace} n WHERE n.generation OPERATOR(pg_catalog.=) $1;
  IF found_state OPERATOR(pg_catalog.=) 'serving' THEN
    RETURN true;
  ELSIF found_state IS NULL THEN
    RETURN false;
  END IF;
  RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no update or delete' USING ERRCODE = '{FENCE_STATE}';
END
""",
        # By this an application makes a new namespace, and changes the state of none. A fence around the whole store
        # takes and changes the store's row, too: the two wait for each other.
        "memops_create_namespace": f"""
DECLARE
  number bigint;
BEGIN
  IF $2 NOT IN ('serving', 'standby') OR EXISTS (SELECT 1 FROM {s.namespace} n WHERE n.name = $1) THEN
    RETURN false;
  END IF;
  PERFORM 1 FROM {s.store} FOR NO KEY UPDATE;
  IF $2 = 'serving' AND EXISTS (SELECT 1 FROM {s.incident} i WHERE i.namespace = ''::bytea AND i.state = 'open'
                                AND i.facts LIKE '%"stood_by"%') THEN
    RAISE EXCEPTION '{FENCE_MESSAGE}: the whole store takes no new namespace' USING ERRCODE = '{FENCE_STATE}';
  END IF;
  INSERT INTO {s.generation} (namespace, created) VALUES ($1, $4) RETURNING id INTO number;
  INSERT INTO {s.namespace} (name, state, generation, ttl) VALUES ($1, $2, number, $3);
  RETURN true;
EXCEPTION WHEN unique_violation THEN
  RETURN false;
END
""",
    }


def functions(s: RecordsSql) -> dict[str, str]:
    """Name → CREATE OR REPLACE statement."""
    heads = {
        "memops_fence": "memops_fence() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog",
        "memops_writable": "memops_writable(bigint) RETURNS boolean LANGUAGE plpgsql STABLE COST 2",
        "memops_create_namespace": "memops_create_namespace(bytea, text, double precision, bigint) RETURNS boolean "
        "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog",
    }
    out = {
        name: f"CREATE OR REPLACE FUNCTION {s.schema}.{heads[name]} AS $memops${body}$memops$"
        for name, body in bodies(s).items()
    }
    out["memops_create_namespace"] += (
        f"; REVOKE ALL ON FUNCTION {s.schema}.memops_create_namespace(bytea, text, double precision, bigint) "
        "FROM PUBLIC"
    )
    return out


def triggers(s: RecordsSql) -> dict[str, str]:
    """Name → statements. ALWAYS: a session with session_replication_role = replica meets them too."""
    out = {}
    for verb, (when, tables) in _EVENTS.items():
        name = f"memops_fence_{verb}"
        out[name] = (
            f"DROP TRIGGER IF EXISTS {name} ON {s.table}; "
            f"CREATE TRIGGER {name} {when} {verb.upper()} ON {s.table} {tables}"
            f"FOR EACH STATEMENT EXECUTE FUNCTION {s.schema}.memops_fence(); "
            f"ALTER TABLE {s.table} ENABLE ALWAYS TRIGGER {name}"
        )
    return out


def policies(s: RecordsSql) -> dict[str, tuple[str, str, str]]:
    """Name → (command, USING, WITH CHECK)."""
    readable = f"EXISTS (SELECT 1 FROM {s.namespace} n WHERE n.generation = {quoted(s.plain_table)}.generation "
    readable += "AND n.state <> 'quarantined')"
    writable = f"{s.schema}.memops_writable(generation)"
    return {
        "memops_read": ("SELECT", readable, ""),
        "memops_insert": ("INSERT", "", "true"),  # the trigger refuses, and says why
        "memops_update": ("UPDATE", writable, "true"),
        "memops_delete": ("DELETE", writable, ""),
    }


def policy_statements(s: RecordsSql) -> dict[str, str]:
    out = {}
    for name, (command, using, check) in policies(s).items():
        text = f"DROP POLICY IF EXISTS {name} ON {s.table}; CREATE POLICY {name} ON {s.table} FOR {command}"
        text += f" USING ({using})" if using else ""
        out[name] = text + (f" WITH CHECK ({check})" if check else "")
    return out


def enable(s: RecordsSql) -> str:
    return f"ALTER TABLE {s.table} ENABLE ROW LEVEL SECURITY"


def missing(session: Session, s: RecordsSql) -> list[tuple[str, str, str]]:
    """(kind, name, statement that makes it) of what should be in the schema and is not there as it should be."""
    relations = {
        row[0]: (row[1], row[2], row[3])
        for row in session.rows(
            "SELECT c.relname::text, c.relkind::text, c.relrowsecurity, coalesce(i.indisvalid AND i.indisready, true) "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE n.nspname = %s",
            s.plain_schema,
        )
    }
    lost = [("table", name, text) for name, text in s.tables().items() if name not in relations]
    lost += [("index", name, text) for name, text in s.indexes().items() if name not in relations]
    there = dict(
        session.rows(
            "SELECT p.proname::text, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE n.nspname = %s",
            s.plain_schema,
        )
    )
    lost += [("function", n, functions(s)[n]) for n, body in bodies(s).items() if there.get(n) != body]
    if s.plain_table not in relations:
        return lost + [("trigger", *one) for one in triggers(s).items()] + _all_policies(s)
    table = f"{literal(s.table)}::regclass"
    armed = {
        row[0]: tuple(row[1:])
        for row in session.rows(
            "SELECT t.tgname::text, t.tgtype::bigint, t.tgenabled::text, t.tgqual IS NULL, p.proname::text "
            f"FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = {table} AND NOT t.tgisinternal"
        )
    }
    for verb, kind in _TYPES.items():
        name = f"memops_fence_{verb}"
        if armed.get(name) != (kind, "A", True, "memops_fence"):
            lost.append(("trigger", name, triggers(s)[name]))
    if not relations[s.plain_table][1]:
        lost.append(("row-level security of", s.plain_table, enable(s)))
    rules = {
        row[0]: (row[1], _plain(row[2]), _plain(row[3]), row[4])
        for row in session.rows(
            "SELECT polname::text, polcmd::text, coalesce(pg_get_expr(polqual, polrelid), ''), "
            "coalesce(pg_get_expr(polwithcheck, polrelid), ''), polpermissive AND polroles = '{0}'::oid[] "
            f"FROM pg_policy WHERE polrelid = {table}"
        )
    }
    letters = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}
    for name, (command, using, check) in policies(s).items():
        if rules.pop(name, None) != (letters[command], _plain(using), _plain(check), True):
            lost.append(("policy", name, policy_statements(s)[name]))
    return lost


def _all_policies(s: RecordsSql) -> list[tuple[str, str, str]]:
    made = [("policy", *one) for one in policy_statements(s).items()]
    return [*made, ("row-level security of", s.plain_table, enable(s))]


def _plain(expression: str) -> str:
    """An expression without what PostgreSQL adds or leaves out when it shows it."""
    return re.sub(r'::text|[\s()"]', "", expression)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The rules that carry out the fence around another application's tables, as SQL, and whether they stand.

PRIVATE to the collection. A partition has rules of its own, as it may be read, written and emptied by its own name; the
triggers for rows it gets from its table, by the server.
"""
from __future__ import annotations

import dataclasses
import hashlib
import typing as t

from .._layouts.tables import Namespaces
from .postgresql_errors import FENCE_MESSAGE, FENCE_STATE
from .postgresql_fence import OPERATING
from .postgresql_schema import literal, quoted
from .postgresql_session import Session
from .tables_postgresql_reader import Live
from .tables_postgresql_schema import LiveRoot, Table
from .tables_postgresql_sql import inside

#: Which rows a trigger looks at. It asks before anything of ours is called: that costs others next to nothing.
_EVENTS: t.Final = {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",), "truncate": ()}


def fenced_tables(live: Live) -> list[tuple[Table, Namespaces]]:
    """Every table, and every partition, with the rule by which its own columns tell the namespace. A partition may be
    read, written and emptied by its own name, past the rules of its table."""
    found: dict[int, tuple[Table, Namespaces]] = {}
    for root in live.roots:
        found[root.table.oid] = (root.table, root.root.namespace)
        for companion, table in root.companions:
            own = {parent: column for column, parent in companion.parent}
            columns = tuple(own[column] for column in root.root.namespace.columns)
            found[table.oid] = (table, dataclasses.replace(root.root.namespace, columns=columns))
    return [one for table, rule in found.values() for one in ((table, rule), *((p, rule) for p in partitions(table)))]


def partitions(table: Table) -> list[Table]:
    """The partitions of a table as tables of their own."""
    return [
        dataclasses.replace(table, oid=oid, plain=plain, name=name, parts=(), home=table.oid)
        for oid, plain, name in table.parts
    ]


def carries_namespace(root: LiveRoot) -> bool:
    return all(
        {parent for _own, parent in companion.parent} >= set(root.root.namespace.columns)
        for companion, _table in root.companions
    )


def _operator(owner: str) -> str:
    """Whether it is the operator who asks: the one who logged in, as a cascade acts as the owner of its table."""
    member = f"pg_catalog.pg_has_role(session_user, {literal(owner)}, 'USAGE')"
    return f"pg_catalog.current_setting('{OPERATING}', true) OPERATOR(pg_catalog.=) 'on' AND {member}"


class Rules:
    """What the fence around these namespaces is made of."""

    def __init__(self, live: Live, schema: str, owner: str, names: t.Sequence[str]) -> None:
        self.tables = fenced_tables(live)
        self.schema, self.owner, self.names = schema, owner, names
        self.operator = _operator(owner)

    def condition(self, table: Table, rule: Namespaces, alias: str) -> str:
        return " OR ".join(inside(rule, table, alias, name) for name in self.names) or "false"

    def body(self) -> str:
        """What is called for a row of a fenced namespace."""
        return f"""
BEGIN
  IF {self.operator} THEN
    RETURN NULL;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    RAISE EXCEPTION '{FENCE_MESSAGE}: this table takes no truncate' USING ERRCODE = '{FENCE_STATE}';
  END IF;
  RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no %', lower(TG_OP) USING ERRCODE = '{FENCE_STATE}';
END
"""

    def mark(self, table: Table, rule: Namespaces) -> str:
        """By which rules that are other than these are known."""
        text = f"{self.condition(table, rule, 'x')} {self.owner} {self.schema} by rows"
        return "memops " + hashlib.sha256(text.encode()).hexdigest()[:16]

    def policies(self, table: Table, rule: Namespaces) -> dict[str, str]:
        free = f"({self.condition(table, rule, quoted(table.plain))}) IS NOT TRUE"
        refuse = f"{free} OR {self.schema}.memops_refused()"
        return {
            "memops_read": f"AS RESTRICTIVE FOR SELECT USING ({free} OR {self.schema}.memops_hidden())",
            "memops_update": f"AS RESTRICTIVE FOR UPDATE USING ({refuse}) WITH CHECK (true)",
            "memops_delete": f"AS RESTRICTIVE FOR DELETE USING ({refuse})",
        }

    def statements(self, table: Table, rule: Namespaces, passing: str) -> list[str]:
        """``passing``: who, but for these rules, sees everything."""
        function, name = f"{self.schema}.{_function(table)}", table.name
        said = [
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog "
            f"AS $memops${self.body()}$memops$"
        ]
        mark = self.mark(table, rule)
        for verb, sides in _EVENTS.items():
            if table.home and sides:  # the server gives a partition the triggers that its table has for rows
                continue
            trigger = f"memops_fence_{verb}"
            rows = " OR ".join(f"({self.condition(table, rule, side)})" for side in sides)
            when = f"AFTER {verb.upper()} ON {name} FOR EACH ROW WHEN ({rows})"
            said.append(
                f"DROP TRIGGER IF EXISTS {trigger} ON {name}; CREATE TRIGGER {trigger} "
                + (when if sides else f"BEFORE {verb.upper()} ON {name} FOR EACH STATEMENT")
                + f" EXECUTE FUNCTION {function}(); ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger}"
            )
        said.append(  # the conditions that were made are known again
            f"DO $memops$ DECLARE g record; BEGIN FOR g IN SELECT * FROM pg_trigger WHERE tgrelid = {table.oid} "
            f"AND tgname LIKE 'memops_fence_%' LOOP EXECUTE format('COMMENT ON TRIGGER %I ON {name} IS %L', g.tgname, "
            f"'{mark} ' || coalesce(md5(g.tgqual::text), '')); END LOOP; END $memops$"
        )
        policies = self.policies(table, rule)
        if passing:  # without any such rule everything would be hidden
            policies["memops_pass"] = f"FOR ALL TO {passing} USING (true) WITH CHECK (true)"
        for policy, text in policies.items():
            said.append(
                f"DROP POLICY IF EXISTS {policy} ON {name}; CREATE POLICY {policy} ON {name} {text}; "
                f"COMMENT ON POLICY {policy} ON {name} IS '{mark}'"
            )
        return said

    def removal(self, table: Table) -> list[str]:
        """Partitions before their table."""
        verbs = [verb for verb, sides in _EVENTS.items() if not (table.home and sides)]
        said = [f"DROP TRIGGER IF EXISTS memops_fence_{verb} ON {table.name}" for verb in verbs]
        rules = ("read", "update", "delete", "pass")
        said += [f"DROP POLICY IF EXISTS memops_{what} ON {table.name}" for what in rules]
        return [*said, *([] if table.home else [f"DROP FUNCTION IF EXISTS {self.schema}.{_function(table)}()"])]


def _function(table: Table) -> str:
    return f"memops_fence_{table.home or table.oid}"


def known_as(table: Table) -> str:
    """What it is called among the notes: a partition may get another name meanwhile."""
    return f"partition {table.oid}" if table.home else table.plain


def helpers(schema: str, owner: str) -> list[str]:
    """The functions that every rule asks, and the table that notes what was there before. The one that raises is the
    cheaper, so that PostgreSQL asks it before the rule that hides."""
    operator = _operator(owner)
    return [
        f"CREATE OR REPLACE FUNCTION {schema}.memops_hidden() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE "
        f"COST 10 AS $memops$BEGIN RETURN coalesce({operator}, false); END$memops$",
        f"CREATE OR REPLACE FUNCTION {schema}.memops_refused() RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE "
        f"COST 1 AS $memops$BEGIN IF {operator} THEN RETURN true; END IF; "
        f"RAISE EXCEPTION '{FENCE_MESSAGE}: this namespace takes no update or delete' "
        f"USING ERRCODE = '{FENCE_STATE}'; END$memops$",
        f"CREATE TABLE IF NOT EXISTS {schema}.memops_tables (name text PRIMARY KEY, enabled boolean NOT NULL, "
        "forced boolean NOT NULL)",
    ]


def lost_of(session: Session, rules: Rules) -> list[str]:
    """What of these rules is missing or another."""
    lost = []
    for table, rule in rules.tables:
        mark, function = rules.mark(table, rule), _function(table)
        row = session.row(
            "SELECT c.relrowsecurity, (SELECT p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE n.nspname = %s AND p.proname = %s), "
            "(SELECT count(*) FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid WHERE g.tgrelid = c.oid "
            "AND g.tgname LIKE 'memops_fence_%%' AND g.tgenabled = 'A' AND p.proname = %s AND (g.tgparentid <> 0 OR "
            "obj_description(g.oid, 'pg_trigger') = %s || ' ' || coalesce(md5(g.tgqual::text), ''))), "
            "(SELECT count(*) FROM pg_policy o WHERE o.polrelid = c.oid AND NOT o.polpermissive "
            "AND o.polroles = '{0}'::oid[] AND o.polname IN ('memops_read', 'memops_update', 'memops_delete') "
            "AND obj_description(o.oid, 'pg_policy') = %s) FROM pg_class c WHERE c.oid = %s::bigint::oid",
            rules.schema.strip('"').replace('""', '"'), function, function, mark, mark, table.oid,
        )  # fmt: skip
        if row is None or not row[0]:
            lost.append(f"row-level security of {table.plain} is off")
        if row is None or row[1] != rules.body() or row[2] != len(_EVENTS):
            lost.append(f"the fence's triggers on {table.plain} are missing or changed")
        if row is None or row[3] != 3:
            lost.append(f"the fence's rules on {table.plain} are missing or changed")
    return lost

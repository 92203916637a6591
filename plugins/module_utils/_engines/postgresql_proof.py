# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the fence holds: writes and reads tried as a raw client, as the application's own role, all rolled back.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import MemoryOpsError
from .._model import Row
from .postgresql_connect import Connected
from .postgresql_errors import FENCE_STATE, NO_RIGHT
from .postgresql_fence import OPERATING, missing
from .postgresql_roles import MAY, unbound_role
from .postgresql_rows import columns_of
from .postgresql_schema import quoted
from .postgresql_servers import standbys_behind, subscriptions
from .postgresql_session import WRITING, Session

PROBE_KEY = "\x00memops/probe"


class Proof(Connected):
    """The proof's part of ``Store``."""

    application_user: str | None = None

    def prove(self, namespace: str) -> dict[str, t.Any]:
        s = self.sql
        detail: list[str] = []
        session, _nothing = self._borrow(WRITING)  # a client of its own, with nothing that Memory checks
        try:
            lost = missing(session, s)
            space = self._namespace(session, namespace)
            number = space.generation
            # UPDATE, DELETE and SELECT need a row; this one is rolled back with everything else.
            session.rows(f"SELECT set_config('{OPERATING}', 'on', true)")
            self._put_rows(session, number, [_probe(PROBE_KEY)])
            session.rows(f"SELECT set_config('{OPERATING}', '', true)")
            role = self._become(session, detail)
            one = "WHERE generation = %s AND key = %s"
            key = PROBE_KEY.encode()
            plain = s.upsert().partition(" ON CONFLICT")[0]
            tries: list[tuple[str, str, tuple[t.Any, ...]]] = [
                ("INSERT", plain, (number, *columns_of([_probe(PROBE_KEY + "2")]))),
                ("INSERT ON CONFLICT", s.upsert(), (number, *columns_of([_probe(PROBE_KEY)]))),
                ("UPDATE", f"UPDATE {s.table} SET updated = updated {one}", (number, key)),
                ("DELETE", f"DELETE FROM {s.table} {one}", (number, key)),
            ]
            refused = [_refused(session, verb, role, text, values, detail) for verb, text, values in tries]
            with _attempt(session):
                found = session.rows(f"SELECT 1 FROM {s.table} {one}", number, key)
            detail.append(f"raw SELECT as {role}: " + ("sees records" if found else "sees nothing"))
            unbound = self._unbound(session)
            fed = subscriptions(session, s)
            session.roll_back()
            unbound += standbys_behind(session)
        finally:
            self._take_back(session)
        detail[:0] = [
            f"the subscription {name} of logical replication writes here past the triggers; end that on this server: "
            f"ALTER SUBSCRIPTION {quoted(name)} DISABLE"
            for name in fed
        ]
        fences = [name for kind, name, dummy in lost if kind not in ("table", "index")]
        detail += [f"{name} is missing or changed" for name in fences]
        in_place = "missing" if "memops_fence_truncate" in fences else "in place"
        detail.append(f"raw TRUNCATE: not tried, as it would stop everybody; its trigger is {in_place}")
        detail.append(f"Memory reads nothing of a namespace that is quarantined; this one is {space.state}")
        application = self.application_user or role
        off = s.plain_table in fences  # row-level security itself
        if self._raw_reads_fenced() or off:
            # What row-level security promises of that role must be seen to hold.
            seen = bool(found) if role == application else off or "memops_read" in fences
        else:
            seen = False
            unbound.insert(0, f"raw reads by {application}: row-level security does not bind that role")
        return {
            "writes_refused": all(refused) and not fed and not [n for n in fences if n.startswith("memops_fence")],
            "reads_refused": space.state == "quarantined" and not seen,
            "reads_accepted": space.state != "quarantined" and bool(found),
            "detail": detail,
            "not_fenced": unbound,
        }

    def _become(self, session: Session, detail: list[str]) -> str:
        """Go on as the application's role, if there is one and this one may; the role that the rest is tried as."""
        own = str(session.row("SELECT current_user::text")[0])
        role = self.application_user
        if not role or role == own:
            return own
        if session.row("SELECT 1 FROM pg_roles WHERE rolname = %s", role) is None:
            detail.append(f"there is no role {role}: tried as {own}; correct memory_store.application_user")
            return own
        with _attempt(session, keep=True) as outcome:
            session.say(f"SET LOCAL ROLE {quoted(role)}")
        if outcome:
            allow = f"GRANT {quoted(role)} TO {quoted(own)}"
            detail.append(f"{own} may not act as {role}: tried as {own}. To allow it: {allow}")
            return own
        return role

    def _raw_reads_fenced(self) -> bool:
        """Whether row-level security binds the role that applications use."""
        with self._asking() as session:
            row = session.row(
                "SELECT c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls "
                f"AND NOT {MAY.format(a='r.oid', b='c.relowner')} FROM pg_class c, pg_roles r "
                "WHERE c.oid = to_regclass(%s) AND r.rolname = coalesce(%s, current_user)",
                self.sql.table, self.application_user,
            )  # fmt: skip
            return bool(row and row[0]) and unbound_role(session, self.application_user) is None

    def _unbound(self, session: Session) -> list[str]:
        """Who reads in spite of the quarantine, and what an owner could do."""
        rows = session.rows(
            "SELECT r.rolname::text, CASE WHEN r.rolsuper THEN 'superuser' WHEN r.rolbypassrls THEN 'BYPASSRLS' "
            "WHEN r.oid = c.relowner THEN 'owner' ELSE 'member of the owner' END FROM pg_class c, pg_roles r "
            "WHERE c.oid = to_regclass(%s) AND (r.oid = c.relowner OR r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls "
            "OR pg_has_role(r.oid, c.relowner, 'USAGE'))) ORDER BY 1",
            self.sql.table,
        )
        who = ", ".join(f"{name} ({why})" for name, why in rows)
        return [
            f"raw readers: row-level security does not bind {who}; as them the sealed records can still be read",
            "the owner of the tables and superusers, who can drop the triggers or change the control tables",
            "a transaction that began to read before the fence, or a cursor WITH HOLD from before, goes on seeing that",
            "a raw MERGE changes nothing, but is told so by its count of 0 rows only",
        ]


def _probe(key: str) -> Row:
    return (key, 0, 1, 0, 0, None, None, "", b"", b"")


@contextlib.contextmanager
def _attempt(session: Session, keep: bool = False) -> t.Iterator[list[MemoryOpsError]]:
    """A savepoint, undone at the end; with ``keep`` only after an error, which is then in the list."""
    session.say("SAVEPOINT memops_probe")
    outcome: list[MemoryOpsError] = []
    try:
        yield outcome
        if keep:
            return
    except MemoryOpsError as exc:
        if not keep:
            session.say("ROLLBACK TO SAVEPOINT memops_probe")
            raise
        outcome.append(exc)
    session.say("ROLLBACK TO SAVEPOINT memops_probe")


def _refused(
    session: Session, verb: str, role: str, text: str, values: tuple[t.Any, ...], detail: list[str]
) -> bool:
    session.say("SAVEPOINT memops_probe")
    try:
        session.run(text, *values)
        detail.append(f"raw {verb} as {role}: accepted")
        return False
    except MemoryOpsError as exc:
        if session.state not in (FENCE_STATE, NO_RIGHT):
            raise
        reason = exc.message.partition("(")[2].partition(")")[0]
        detail.append(f"raw {verb} as {role}: refused ({reason})")
        return True
    finally:
        session.say("ROLLBACK TO SAVEPOINT memops_probe")

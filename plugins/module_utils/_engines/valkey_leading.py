# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Namespaces of a Valkey store whose control row is gone or does not lead to their records: found, and led back.

PRIVATE to the collection. Every layout shares it.
"""
from __future__ import annotations

import typing as t

from .._errors import StoreDamaged
from .control_rows import AGAIN, GONE, incident_closed, incident_unread, row_line
from .valkey_connect import packed
from .valkey_control import Transaction, fresh_space, incident_row, of_incident
from .valkey_control_rows import known, loaded, salvaged, wrong
from .valkey_errors import valkey_errors
from .valkey_transactions import Connected, repeated
from .valkey_values import Names

QUARANTINE_TTL = 1.0
MEMBERS = 100  # looked at in one go, however big they are
ENTRIES = 1000  # of the log that may say the newest number of the write lock
Ask = t.Callable[[t.Sequence[bytes]], t.List[t.Any]]


def rows_of(ask: Ask, names: Names) -> tuple[dict[str, bytes], set[str]]:
    """(namespace → its control row as it lies there, the namespaces that had one and have none)."""
    raw, noted = ask([packed("HGETALL", names.namespaces), packed("HKEYS", names.generations)])
    found = {name.decode("utf-8", "replace"): value for name, value in zip(raw[::2], raw[1::2])}
    return found, {name.decode("utf-8", "replace") for name in noted} - set(found)


def astray_rows(ask: Ask, names: Names) -> list[tuple[str, str]]:
    """(namespace, what is wrong with its control row)."""
    rows, lost = rows_of(ask, names)
    seen = [(name, wrong(loaded(raw))) for name, raw in rows.items()]
    return sorted([(name, why) for name, why in seen if why is not None] + [(name, GONE) for name in lost])


def unread_incidents(ask: Ask, names: Names) -> list[tuple[bytes, bytes]]:
    """(field, row) of incidents, but for those of the whole store."""
    raw = ask([packed("HGETALL", names.incidents)])[0]
    found = []
    for field, value in zip(raw[::2], raw[1::2]):
        try:
            incident_row(value)
        except StoreDamaged:
            found += [(field, value)] if of_incident(field)[0] else []
    return found


def told(ask: Ask, names: Names) -> list[str]:
    lines = [row_line(name, why) for name, why in astray_rows(ask, names)]
    return lines + [incident_unread(*of_incident(field)) for field, _row in unread_incidents(ask, names)]


class Leading(Connected):
    """See _store_optional.ControlRows."""

    def lead_back(self) -> list[str]:
        with valkey_errors(self.place):
            done = [self._lead_back(name) for name, _why in astray_rows(self.wire.ask, self.names)]
            unread = unread_incidents(self.wire.ask, self.names)
            for field, row in unread:
                self._forget(field, row)
            return done + [incident_closed(*of_incident(field)) for field, _row in unread]

    @repeated
    def _forget(self, field: bytes, row: bytes) -> None:
        """A row that cannot be read lies aside from now on."""
        name, incident = of_incident(field)
        with self._transaction() as tx:
            self._set_aside(tx, name, "structure", [(row, f"the row of incident {incident:.80} cannot be read")])
            tx.add("HDEL", self.names.incidents, field)
            tx.durable = True

    @repeated
    def _lead_back(self, name: str) -> str:
        """What the row still says in the right form stays; where nobody knows whether the namespace was quarantined, it
        is."""
        with self._transaction() as tx:
            raw, noted = tx.read_all(
                [packed("HGET", self.names.namespaces, name), packed("HGET", self.names.generations, name)]
            )
            former = loaded(raw)
            fresh = fresh_space("quarantined", None, 1)
            fresh.update(serving_ttl=QUARANTINE_TTL, prior_state="serving")
            space, doubted = salvaged(former, fresh)
            active = known(noted) or self._there(tx, name, former)
            said = f"led namespace {name!r:.80} back to its generation {{}}"
            if not active:
                active = [self._make_generation(tx, name)]
                said = f"gave namespace {name!r:.80} the new generation {{}}; its records have to come from a snapshot"
            space.update(
                generation=active[0], generations=sorted(set(active)), expiring=True,
                lock_number=max(space["lock_number"], self._newest_lock(tx, name)),
                largest=max(space["largest"], self._largest(tx, name, set(active))),
            )  # fmt: skip
            tx.keep = None
            tx.save(name, space, moved=True)
            tx.durable = True
        if raw is None:
            return AGAIN.format(name)
        return said.format(active[0]) + ("; it is quarantined, as it may have been" if doubted else "")

    def _there(self, tx: Transaction, name: str, former: t.Any) -> list[int]:
        """Of the generations that a damaged row still names, those that are there: the fullest one, and all."""
        named = former if former.__class__ is dict else {}
        listed = named.get("generations")
        wanted = [named.get("generation"), *(listed if listed.__class__ is list else ())]
        numbers = sorted({one for one in wanted if one.__class__ is int and one > 0})
        sizes = tx.read_all([packed("ZCARD", self.names.records(name, one)) for one in numbers]) if numbers else []
        there = [(size, one) for size, one in zip(sizes, numbers) if size]
        return [max(there)[1], *(one for _size, one in there)] if there else []

    def _newest_lock(self, tx: Transaction, name: str) -> int:
        locks = [0]
        for _place, fields in tx.read("XREVRANGE", self.names.log(name), "+", "-", "COUNT", ENTRIES):
            lock = self.envelopes.entry(name, 0, fields).lock
            locks += [lock] if lock.__class__ is int else []
        return max(locks)

    def _largest(self, tx: Transaction, name: str, generations: t.Iterable[int]) -> int:
        """How big a member of these can be: it bounds what is read in one go."""
        largest = 0
        for number in generations:
            place = 0
            while members := tx.read("ZRANGE", self.names.records(name, number), place, place + MEMBERS - 1):
                largest = max(largest, *map(len, members))
                place += len(members)
        return largest

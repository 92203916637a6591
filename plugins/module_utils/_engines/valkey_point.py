# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A point of a Valkey store that is read while applications write: what was changed since is read from the copies that
writers keep (valkey_keep.py).

PRIVATE to the collection. Whatever goes wrong with the copies, ``moved`` says it: it answers False by them only when
every transaction since the point kept what it changed, and nothing of that was lost.
"""
from __future__ import annotations

import contextlib
import secrets
import time
import typing as t

from .._errors import MemoryOpsError, NamespaceDamaged
from .._model import LogEntry, NamespaceState
from .control_rows import GONE, astray
from .valkey_connect import Wire, packed
from .valkey_control import Transaction, counters_of, space_of, state_of
from .valkey_keep import COPIES_SECONDS, LEASE_SECONDS, NONE, Keep
from .valkey_leading import rows_of
from .valkey_pages import beyond
from .valkey_reader import ValkeyReader, point_of
from .valkey_transactions import Connected, repeated
from .valkey_values import END, Envelopes, Names

EXTEND_SECONDS = 5.0  # between two extensions of the lease


class KeptPoint(Connected):
    """``point`` of ``Store``, and ``CopyOnWrite``."""

    _wanted: str | None = None  # the token under which the next point is kept

    @contextlib.contextmanager
    def keeping(self) -> t.Iterator[None]:
        token = self._wanted = secrets.token_hex(8)
        try:
            yield
        finally:
            self._wanted = None
            with contextlib.suppress(MemoryOpsError):  # then its lease ends it
                self._end_keep(token)

    @contextlib.contextmanager
    def point(self) -> t.Iterator[str]:
        """Nobody else writes while it is open. Its readers tell whether it is kept after that."""
        token, ended = self._wanted, False
        try:
            with self._transaction() as tx:  # pylint: disable=contextmanager-generator-missing-cleanup
                point = point_of(tx.said, tx.numbers)
                yield f"{point}:{token}" if token is not None and self._begin_keep(tx, token) else point
                ended = True
        except MemoryOpsError:
            if not ended:
                raise

    def _begin_keep(self, tx: Transaction, token: str) -> bool:
        """Whether this point is to be kept from the end of the transaction on: one is at a time."""
        names = self.names
        if tx.keep is not None and tx.read("EXISTS", names.keep(tx.keep.token)):
            return False
        tx.keep = Keep(token, tx.numbers["commits"], tx.numbers["generation"])
        tx.add("SET", names.keep(token), "", "PX", int(LEASE_SECONDS * 1000))
        return True

    @repeated
    def _end_keep(self, token: str) -> None:
        names = self.names
        with self._transaction() as tx:
            ours = tx.keep is not None and tx.keep.token == token
            copies = tx.read("SMEMBERS", names.kept(token))
            if ours or copies:
                tx.add("UNLINK", names.keep(token), names.kept(token), *copies)
            if ours:
                tx.keep = None


class PointReader(ValkeyReader):
    """A reader of such a point sees the records, the namespaces and the log of it; of what else is there (``count``,
    ``boundaries``, ``last_writes``, what was set aside) the present state, since no snapshot holds it."""

    def __init__(
        self, wire: Wire, names: Names, envelopes: Envelopes, point: str | None, release: t.Callable[[Wire], None]
    ) -> None:
        self._token: str | None = None
        self._damaged: dict[str, NamespaceDamaged] = {}
        self._extended = time.monotonic()
        point, token = (None, "") if point is None else _divided(point)
        super().__init__(wire, names, envelopes, point, release)
        if token:
            try:
                self._remember()
            except BaseException:
                self.close()
                raise
            self._token = token

    def _remember(self) -> None:
        """All namespaces as they are now, when nobody else writes; who asks for a damaged one is told."""
        found, lost = rows_of(self._all, self._names)
        self._damaged.update((name, astray(name, GONE)) for name in lost)
        for name, raw in found.items():
            try:
                self._space(name, raw)
            except NamespaceDamaged as exc:
                self._damaged[name] = exc

    def namespaces(self) -> list[NamespaceState]:
        if self._token is None:
            return super().namespaces()
        for name in sorted(self._damaged):
            raise self._damaged[name]
        return [state_of(name, self._spaces[name]) for name in sorted(self._spaces)]

    def _space(self, name: str, raw: bytes | None = None) -> dict[str, t.Any]:
        if self._token is not None and name in self._damaged:
            raise self._damaged[name]
        if self._token is not None and name not in self._spaces:
            return space_of(None, name, self._where)
        return super()._space(name, raw)

    def moved_among(self, namespaces: t.Sequence[str]) -> list[str]:
        kept = self._kept(namespaces)
        left = [name for name in namespaces if name not in kept]
        return super().moved_among(left) if left else []

    def _kept(self, namespaces: t.Sequence[str]) -> set[str]:
        """Those of which all that was changed since the point is in their copies."""
        token = self._token
        wanted = [name for name in namespaces if name in self._spaces]
        if token is None or not wanted:
            return set()
        if self._wire.place.nodes.clustered and self._wire.session != self._session:
            return set()  # a node of a Cluster that took over may have lost what was read
        known = self._names.kept(token)
        copies = [self._copies(name, token) for name in wanted]
        commands = [
            packed("HGETALL", self._names.store), packed("EXISTS", self._names.keep(token)), packed("SCARD", known),
            packed("SMISMEMBER", known, *copies), *(packed("EXISTS", one) for one in copies),
        ]  # fmt: skip
        raw, lease, sets, noted, *there = self._all([packed("MULTI"), *commands, packed("EXEC")])[-1]
        said, numbers = counters_of(raw, self._where)
        keep = Keep.of(said, numbers["commits"])
        if keep is None or keep.token != token or not lease or keep.sets != sets:
            return set()
        return {name for name, one, other in zip(wanted, noted, there) if one == other}

    def _copies(self, namespace: str, token: str) -> str:
        return self._names.copies(namespace, int(self._spaces[namespace]["generation"]), token)

    # --- the lease ----------------------------------------------------------------------------------------------
    def _all(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        if self._token is not None and time.monotonic() - self._extended > EXTEND_SECONDS:
            self._extended = time.monotonic()
            with contextlib.suppress(MemoryOpsError):  # ``moved`` tells
                self._extend(self._token)
        return super()._all(commands)

    def _extend(self, token: str) -> None:
        """The copies first: their lease never ends before that of the point."""
        lease, known = self._names.keep(token), self._names.kept(token)
        there, copies = super()._all([packed("EXISTS", lease), packed("SMEMBERS", known)])
        if there:
            names = [known, *copies]
            commands = [packed("PEXPIRE", name, int(COPIES_SECONDS * 1000)) for name in names]
            super()._all([*commands, packed("PEXPIRE", lease, int(LEASE_SECONDS * 1000))])

    # --- records ------------------------------------------------------------------------------------------------
    def _copied(self, namespace: str, number: int) -> str | None:
        """Where the copies of a generation are: that which was the active one at the point."""
        kept = self._token is not None and number == self._space(namespace)["generation"]
        return self._copies(namespace, self._token) if kept and self._token is not None else None

    def _next(
        self, namespace: str, number: int, start: bytes, stop: bytes, batch: int, down: bool
    ) -> tuple[list[bytes], bytes | None]:
        """The records are read before the copies: what was changed in between is the same in both."""
        copies = self._copied(namespace, number)
        if copies is None:
            return super()._next(namespace, number, start, stop, batch, down)
        look = packed("ZRANGE", copies, start, stop, "BYLEX", *(["REV"] if down else []), "LIMIT", 0, 1)
        members, [first] = self._look(namespace, number, start, stop, batch, down, [look])
        following = beyond(members[-1], down) if members else None
        if not first or (following is not None and _behind(first[0], following, down)):
            return members, following
        end = stop if following is None else following
        between = (end, start) if down else (start, end)
        former, count = self._all(
            [self._page(namespace, copies, start, end, batch, down), packed("ZLEXCOUNT", copies, *between)]
        )
        if former and count > len(former):  # more copies than one page brings: go on behind the last of these
            following = beyond(former[-1], down)
            members = [member for member in members if not _behind(member, following, down)]
        known = {member.partition(END)[0] for member in former}
        members = [member for member in members if member.partition(END)[0] not in known]
        members += [member for member in former if member.partition(END)[2] != NONE]
        return sorted(members, reverse=down), following

    def _members(self, namespace: str, number: int, keys: t.Sequence[str]) -> dict[str, bytes]:
        found = super()._members(namespace, number, keys)
        copies = self._copied(namespace, number)
        if copies is None:
            return found
        former = self._live(namespace, copies, keys)
        return {key: member for key, member in {**found, **former}.items() if not member.endswith(END + NONE)}

    # --- log ----------------------------------------------------------------------------------------------------
    def _stream(
        self, namespace: str, after_id: int, batch: int, until_id: int | None = None
    ) -> t.Iterator[list[LogEntry]]:
        if until_id is None and self._token is not None:
            until_id = self._log_end
        return super()._stream(namespace, after_id, batch, until_id)


def _divided(point: str) -> tuple[str, str]:
    """(the point, the token under which it is kept or "")."""
    store_id, commits, *token = point.split(":")
    return f"{store_id}:{commits}", token[0] if token else ""


def _behind(member: bytes, bound: bytes, down: bool) -> bool:
    """Whether the member comes after an exclusive bound on the way up, or ``down``."""
    return member <= bound[1:] if down else member >= bound[1:]

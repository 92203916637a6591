# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading a Valkey store. The server keeps no former state: a reader sees what is there, and tells what was changed.
One that reads a point which writers keep for it is in valkey_point.py.

PRIVATE to the collection.
"""
from __future__ import annotations

import heapq
import typing as t

from .._errors import CannotProceed, NamespaceDamaged, NamespaceUnknown, StoreDamaged, StoreUnavailable
from .._model import LastWrite, LogEntry, NamespaceState, Row
from .._store import Checked
from .control_rows import GONE, astray, records_gone
from .valkey_connect import Wire, packed
from .valkey_control import counters_of, identity_of, refuse_lost, space_of, state_of
from .valkey_errors import valkey_errors
from .valkey_leading import rows_of
from .valkey_log import MOST, aside_of, health, stream_id
from .valkey_pages import BATCH_BYTES, batches, behind, beyond, cut, one_by_one, page_of
from .valkey_server import evicted
from .valkey_structure import structure
from .valkey_transactions import live_members, wall_clock
from .valkey_values import END, SPAN, THERE, Envelopes, Names, is_write, key_bytes, key_text, last_write, write_position


class ValkeyReader:
    """See _store.Reader. ``release`` gets the connection back when it is closed."""

    def __init__(
        self, wire: Wire, names: Names, envelopes: Envelopes, point: str | None, release: t.Callable[[Wire], None]
    ) -> None:
        self._wire, self._names, self._envelopes, self._release = wire, names, envelopes, release
        self._where = wire.place.where
        self._closed = False
        self._spaces: dict[str, dict[str, t.Any]] = {}
        try:
            said, numbers = self._counters()
            self.identity = identity_of(said, numbers)
            self._commits, self._log_end = numbers["commits"], numbers["log_id"]
            self._session = wire.session
            if point is not None and point != point_of(said, numbers):
                raise CannotProceed(
                    f"The point {point} of the store {self._where} has passed.", "start the snapshot again"
                )
        except BaseException:
            self.close()
            raise
        self.at = wall_clock()

    def __enter__(self) -> ValkeyReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._release(self._wire)

    def _all(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        with valkey_errors(self._wire.place):
            return self._wire.ask(commands)

    def _ask(self, *args: t.Any) -> t.Any:
        return self._all([packed(*args)])[0]

    def _counters(self) -> tuple[dict[str, str], dict[str, int]]:
        return counters_of(self._ask("HGETALL", self._names.store), self._where)

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        """Errors: NamespaceDamaged: a list without such a namespace would be taken for all there are."""
        found, lost = rows_of(self._all, self._names)
        for name in sorted(lost):
            raise astray(name, GONE)
        return [state_of(name, self._space(name, found[name])) for name in sorted(found)]

    def namespace(self, name: str) -> NamespaceState:
        return state_of(name, self._space(name))

    def _space(self, name: str, raw: bytes | None = None) -> dict[str, t.Any]:
        """The control row as this reader first saw it."""
        if name not in self._spaces:
            if raw is None:
                raw = self._ask("HGET", self._names.namespaces, name)
            if raw is None:
                refuse_lost(self._ask, self._names, name)
            self._spaces[name] = space_of(raw, name, self._where)
        return self._spaces[name]

    def _generation(self, namespace: str, generation: int | None) -> int:
        space = self._space(namespace)
        if generation is None:
            return int(space["generation"])
        if generation not in space["generations"]:
            raise NamespaceUnknown(
                f"Namespace {namespace!r:.80} has no generation {generation}.", "name one that the info module lists"
            )
        return generation

    def moved(self, namespace: str) -> bool:
        return bool(self.moved_among([namespace]))

    def moved_among(self, namespaces: t.Sequence[str]) -> list[str]:
        """See _store_optional.ManyNamespaces."""
        raw, rows = self._all(
            [packed("HGETALL", self._names.store), packed("HMGET", self._names.namespaces, *namespaces, "")]
        )
        _said, numbers = counters_of(raw, self._where)
        if numbers["commits"] < self._commits:  # the server lost what this reader saw
            return list(namespaces)
        if self._wire.place.nodes.clustered and self._wire.session != self._session:
            return list(namespaces)  # so may another node of a Cluster, whose numbers went on since
        return [name for name, row in zip(namespaces, rows) if row is None or self._changed(name, row)]

    def _changed(self, name: str, row: bytes) -> bool:
        try:
            return int(space_of(row, name, self._where)["changed"]) > self._commits
        except NamespaceDamaged:
            return True

    # --- records ------------------------------------------------------------------------------------------------
    def count(self, namespace: str, generation: int | None = None) -> int:
        records = self._names.records(namespace, self._generation(namespace, generation))
        return int(self._ask("ZLEXCOUNT", records, "(", "+"))

    def scan(
        self,
        namespace: str,
        *,
        after: str | None = None,
        until: str | None = None,
        generation: int | None = None,
        batch: int = 2000,
        descending: bool = False,
    ) -> t.Iterator[list[Row]]:
        number = self._generation(namespace, generation)
        return self._scan(namespace, number, after, until, batch, descending)

    def _scan(
        self, namespace: str, number: int, after: str | None, until: str | None, batch: int, down: bool
    ) -> t.Iterator[list[Row]]:
        low = b"(" if after is None else behind(after)
        high = b"+" if until is None else behind(until)
        start, stop = (high, low) if down else (low, high)
        following: bytes | None = start
        while following is not None:
            members, following = self._next(namespace, number, following, stop, batch, down)
            found = self._envelopes.rows(members)
            if down:
                found = self._first_ones(namespace, number, members, found)
            if sum(map(len, members)) <= BATCH_BYTES and len(found) <= batch:
                if found:
                    yield found
            else:
                yield from cut(found, batch)

    def _next(
        self, namespace: str, number: int, start: bytes, stop: bytes, batch: int, down: bool
    ) -> tuple[list[bytes], bytes | None]:
        """(members from ``start`` on, where to go on: None when there are no more)."""
        members, _more = self._look(namespace, number, start, stop, batch, down, [])
        return members, beyond(members[-1], down) if members else None

    def _look(
        self, namespace: str, number: int, start: bytes, stop: bytes, batch: int, down: bool, more: list[bytes]
    ) -> tuple[list[bytes], list[t.Any]]:
        """(a page of members, the replies to ``more`` commands that go out behind it)."""
        records = self._names.records(namespace, number)
        page = self._page(namespace, records, start, stop, batch, down)
        score, members, *replies = self._all([packed("ZSCORE", records, b""), page, *more])
        if score is None:
            self._still_there(namespace, number)
        return members, replies

    def _page(self, namespace: str, key: str, start: bytes, stop: bytes, batch: int, down: bool) -> bytes:
        space = self._space(namespace)
        script = "EVAL_RO" if space["state"] == "reading" else "EVAL"  # which needs the right to write
        return page_of(key, start, stop, batch, int(space["largest"]), down, script)

    def _first_ones(self, namespace: str, number: int, members: list[bytes], found: list[Row]) -> list[Row]:
        """Backwards, of members with the same key (damage) the last one comes first; a look tells which one counts."""
        if len(found) == len(members):  # no doubles, but perhaps beyond the end of the page
            look = [row[0] for row in found[-1:]]
        else:
            look = [row[0] for row in found]
        first = self._get(namespace, number, look)
        return [first.get(row[0], row) for row in found]

    def _still_there(self, namespace: str, number: int) -> None:
        """Errors: CannotProceed when this generation was dropped under the reader; StoreDamaged when it was not."""
        raw = self._ask("HGET", self._names.namespaces, namespace)
        if raw is not None and number not in space_of(raw, namespace, self._where)["generations"]:
            raise CannotProceed(
                f"Generation {number} of namespace {namespace!r:.80} was dropped while it was read.",
                "run the same command again",
            )
        raise records_gone(namespace, number)

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        try:
            return self._get(namespace, self._generation(namespace, generation), keys)
        except StoreUnavailable:
            raw = self._ask("HGET", self._names.namespaces, namespace)
            if space_of(raw, namespace, self._where)["state"] == "quarantined":
                return {}  # fenced since this reader was opened: nothing is served
            raise

    def _get(self, namespace: str, number: int, keys: t.Sequence[str]) -> dict[str, Row]:
        members = self._members(namespace, number, keys)
        found = ((key, self._envelopes.row(member)) for key, member in members.items())
        return {key: row for key, row in found if row is not None}

    def _members(self, namespace: str, number: int, keys: t.Sequence[str]) -> dict[str, bytes]:
        records = self._names.records(namespace, number)
        found = self._live(namespace, records, keys)
        if keys and not found and self._ask("ZSCORE", records, THERE) is None:
            self._still_there(namespace, number)
        return found

    def _live(self, namespace: str, members: str, keys: t.Sequence[str]) -> dict[str, bytes]:
        return live_members(self._all, members, keys, int(self._space(namespace)["largest"]))

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        records = self._names.records(namespace, self._generation(namespace, None))
        rows = int(self._ask("ZLEXCOUNT", records, "(", "+"))
        found: list[str] = []
        for part in range(1, parts):
            place = rows * part // parts
            if place:
                for member in self._ask("ZRANGE", records, place, place):  # the empty member is number 0
                    end = member.find(END)
                    try:
                        key = key_text(member[:end]) if end > 0 else ""
                    except UnicodeDecodeError:
                        continue
                    if key and (not found or key_bytes(key) > key_bytes(found[-1])):
                        found.append(key)
        return found

    def aside(self, namespace: str, incident: str | None = None) -> t.Iterator[list[tuple[str, str, Row]]]:
        stream, after = self._names.aside(namespace), b"-"
        space = self._ask("HGET", self._names.namespaces, namespace)
        largest = 0 if space is None else int(space_of(space, namespace, self._where)["largest"])
        while True:
            page = self._ask("XRANGE", stream, after, "+", "COUNT", max(1, min(500, BATCH_BYTES // max(largest, 1))))
            if not page:
                return
            after = b"(" + page[-1][0]
            out = []
            for _place, fields in page:
                name, reason, member = aside_of(self._envelopes, fields)
                if incident in (None, name):
                    row = self._envelopes.row(member)
                    out.append((name, reason, row or ("", 0, 0, 0, 0, None, None, "", member, b"")))
            if out:
                yield out

    # --- log ----------------------------------------------------------------------------------------------------
    def log(
        self,
        namespace: str | None = None,
        after_id: int = 0,
        batch: int = 2000,
        operations: t.Sequence[str] | None = None,
    ) -> t.Iterator[list[LogEntry]]:
        wanted = None if operations is None else frozenset(operations)
        if namespace is not None:
            pages = self._stream(namespace, after_id, batch)
        else:
            names = [raw.decode() for raw in self._ask("SMEMBERS", self._names.logs)]
            size = max(10, batch // max(1, len(names)))
            streams = [one_by_one(self._stream(name, after_id, size)) for name in names]
            pages = batches(heapq.merge(*streams, key=lambda entry: entry.id), batch)
        for page in pages:
            if wanted is not None:
                page = [entry for entry in page if entry.operation in wanted]
            if page:
                yield page

    def log_rows(self, after_id: int, until_id: int, batch: int = 1000) -> t.Iterator[list[Row]]:
        """The entries with after_id < id <= until_id: to copy the log, not to look into it."""
        names = [raw.decode() for raw in self._ask("SMEMBERS", self._names.logs)]
        if len(names) == 1:
            yield from t.cast(t.Iterator[t.List[Row]], self._stream(names[0], after_id, batch, until_id))
            return
        size = max(10, batch // max(1, len(names)))
        streams = [one_by_one(self._stream(name, after_id, size, until_id)) for name in names]
        yield from t.cast(
            t.Iterator[t.List[Row]], batches(heapq.merge(*streams, key=lambda entry: entry.id), batch)
        )

    def log_count(self, after_id: int, until_id: int) -> int:
        """How many entries ``log_rows`` would give."""
        streams = [self._names.log(raw.decode()) for raw in self._ask("SMEMBERS", self._names.logs)]
        whole = sum(self._all([packed("XLEN", stream) for stream in streams])) if streams else 0
        before = sum(len(page) for page in self.log_rows(0, after_id)) if after_id else 0
        return whole - before - sum(len(page) for page in self.log_rows(until_id, MOST))

    def log_end(self) -> int:
        """The highest id when this reader was opened; 0 when the log was empty."""
        return self._log_end

    def _stream(
        self, namespace: str, after_id: int, batch: int, until_id: int | None = None
    ) -> t.Iterator[list[LogEntry]]:
        stream, entry = self._names.log(namespace), self._envelopes.entry
        last = "+" if until_id is None else f"{until_id}-0"
        while True:
            page = self._ask("XRANGE", stream, b"(%d-0" % after_id, last, "COUNT", batch)
            if not page:
                return
            found = [entry(namespace, stream_id(place), fields) for place, fields in page]
            after_id = found[-1].id
            yield found

    def last_writes(
        self, namespace: str, after: str | None = None, until: str | None = None, batch: int = 2000
    ) -> t.Iterator[list[LastWrite]]:
        index, stream = self._names.writes(namespace), self._names.log(namespace)
        low, high = b"-" if after is None else behind(after), b"+" if until is None else behind(until)
        newest: tuple[bytes, int, int, int] | None = None
        ready: list[tuple[bytes, int, int, int]] = []
        while True:
            members = self._ask("ZRANGE", index, low, high, "BYLEX", "LIMIT", 0, max(batch, 100))
            for position in map(write_position, members):
                if position is None:
                    continue
                if newest is not None and newest[0] != position[0]:
                    ready.append(newest)
                newest = position
            if members:
                low = b"(" + members[-1]
            elif newest is not None:
                ready.append(newest)
                newest = None
            while len(ready) >= batch or (ready and not members):
                some, ready = ready[:batch], ready[batch:]
                out = self._entries_at(namespace, stream, some)
                if out:
                    yield out
            if not members:
                return

    def _entries_at(
        self, namespace: str, stream: str, positions: t.Sequence[tuple[bytes, int, int, int]]
    ) -> list[LastWrite]:
        found = self._all([packed("XRANGE", stream, b"%d-0" % one[3], b"%d-0" % one[3]) for one in positions])
        out = []
        for (_raw, epoch, sequence, number), page in zip(positions, found):
            if page:  # else it was pruned, or taken away: log_health tells
                entry = self._envelopes.entry(namespace, number, page[0][1])
                if is_write(entry) and (entry.epoch, entry.sequence) == (epoch, sequence):
                    out.append(last_write(entry))
        return out

    def log_health(self, each: Checked | None = None) -> dict[str, t.Any]:
        spans = [SPAN.unpack(raw) for raw in self._ask("ZRANGE", self._names.given, 0, -1)]
        _said, n = self._counters()
        if n["given_last"]:
            spans.append((n["given_epoch"], n["given_first"], n["given_last"]))
        spans.sort()
        pruned = (spans[0][0], spans[0][1] - 1) if spans else (self.identity.epoch, self.identity.sequence)
        return {**health(spans, self.log(), each), "pruned": pruned}

    # --- a server that is full ----------------------------------------------------------------------------------
    def drops(self) -> int:
        """See _store_optional.MayDrop."""
        with valkey_errors(self._wire.place):
            return evicted(self._wire)

    def dropped(self, since: int) -> list[str]:
        """Records that are gone are an error to whoever reads them; a log that is gone looks like a new one."""
        if not self.drops() or self.log_health()["intact"]:
            return []
        return [f"the server {self._where} dropped keys when its memory was full, and the access log has gaps"]

    # --- structure ----------------------------------------------------------------------------------------------
    def structure(self) -> list[str]:
        try:
            with valkey_errors(self._wire.place):
                return structure(self._wire, self._names, self._envelopes)
        except StoreDamaged as exc:  # all else says nothing about the store
            return [exc.message]


def point_of(said: t.Mapping[str, str], numbers: t.Mapping[str, int]) -> str:
    """A word for the state of the store; every transaction that changes something changes it."""
    return f"{said['store_id']}:{numbers['commits']}"

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The access log of a Valkey store: a stream per namespace, ids from one counter of the store.

PRIVATE to the collection.

The store notes which sequences it gave out (``given``), so that a log entry that vanished is noticed. The newest span
of them lies with the counters: nearly every write only makes it longer.
"""
from __future__ import annotations

import typing as t
from bisect import bisect_right
from itertools import compress

from .._codec import log_checksum
from .._model import Claim, LogEntry
from .._store import Checked
from .valkey_bulk import add_members, append_entries, ascending, numbered
from .valkey_connect import packed
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_server import refuse_eviction
from .valkey_transactions import Connected, repeated
from .valkey_values import READS, SPAN, WRITES, Envelopes, is_write, sealed, write_member, write_stems

PAGE = 2000  # entries of one transaction
MOST = (1 << 64) - 1


def stream_id(raw: bytes) -> int:
    return int(raw.partition(b"-")[0])


class LogKeeping(Connected):
    """The log's part of ``Store``."""

    def _append(self, tx: Transaction, entries: t.Iterable[t.Sequence[t.Any]]) -> None:
        """Append entries in LogEntry order; their id and checksum are filled in here."""
        number = tx.numbers["log_id"]
        index: dict[str, list[bytes]] = {}
        streams: dict[str, bytes] = {}
        commands = []
        for entry in entries:
            number += 1
            name = entry[2]
            stream = streams.get(name)
            if stream is None:
                stream = streams[name] = self.names.log(name).encode()
            raw = self.envelopes.entry_bytes(sealed(entry))
            place = b"%d-0" % number
            commands.append(
                b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$1\r\ne\r\n$%d\r\n%b\r\n"
                % (len(stream), stream, len(place), place, len(raw), raw)
            )
            if is_write(entry) and entry[4] is not None and entry[5] is not None and entry[6] is not None:
                index.setdefault(name, []).append(write_member(entry[4], entry[5], entry[6], number))
        tx.add_packed(commands)
        for name, members in index.items():
            for start in range(0, len(members), 1000):
                pairs = [x for member in members[start : start + 1000] for x in (b"0", member)]
                tx.add("ZADD", self.names.writes(name), *pairs)
        if streams:
            tx.add("SADD", self.names.logs, *streams)
        tx.numbers["log_id"] = number

    def _note_given(self, tx: Transaction, epoch: int, sequences: t.Iterable[int]) -> None:
        """These sequences have log entries now; neighbours join into one span."""
        n = tx.numbers
        for first, last in _runs(sequences):
            tail = (n["given_epoch"], n["given_last"])
            if tail == (epoch, first - 1):
                n["given_last"] = last
            elif tail > (epoch, first):  # an operator's, logged later
                tx.add("ZADD", self.names.given, 0, SPAN.pack(epoch, first, last))
            else:
                if n["given_first"] <= n["given_last"] and n["given_last"]:
                    span = SPAN.pack(n["given_epoch"], n["given_first"], n["given_last"])
                    tx.add("ZADD", self.names.given, 0, span)
                n["given_epoch"], n["given_first"], n["given_last"] = epoch, first, last

    def _known(self, tx: Transaction, entries: t.Sequence[t.Sequence[t.Any]]) -> list[bool]:
        """Of each write entry, whether its namespace's log has it."""
        commands = []
        names = {name: self.names.writes(name) for name in {entry[2] for entry in entries}}
        for entry in entries:
            low = write_member(entry[4], entry[5], entry[6], 0)
            commands.append(
                packed(
                    "ZRANGE", names[entry[2]], b"[" + low, b"[" + low[:-8] + b"\xff" * 8, "BYLEX",
                    "LIMIT", "0", "1",
                )
            )  # fmt: skip
        return [bool(found) for found in tx.read_all(commands)] if commands else []

    def _reserved(self, tx: Transaction, places: t.Sequence[tuple[int, int]]) -> list[bool]:
        """Of each (epoch, sequence), whether an operator took it."""
        commands = [
            packed(
                "ZRANGE", self.names.reserved, b"[" + SPAN.pack(epoch, sequence, MOST), b"[" + SPAN.pack(epoch, 0, 0),
                "BYLEX", "REV", "LIMIT", "0", "1",
            )
            for epoch, sequence in places
        ]  # fmt: skip
        found = tx.read_all(commands) if commands else []
        return [
            bool(spans) and SPAN.unpack(spans[0])[2] >= sequence for spans, (_epoch, sequence) in zip(found, places)
        ]

    def _append_operator(self, tx: Transaction, entries: t.Sequence[t.Sequence[t.Any]]) -> None:
        """Append an operator's entries. A write or delete that is logged already is left out, so that a step that is
        resumed may log again; one that carries a reserved sequence counts as given out from now on."""
        writes = [e for e in entries if is_write(e) and e[6] is not None]
        known = {id(e) for e, there in zip(writes, self._known(tx, writes)) if there}
        once: dict[tuple[t.Any, ...], None] = {}
        fresh = []
        for entry in entries:
            if is_write(entry) and entry[6] is not None:
                place = (entry[2], entry[4], entry[5], entry[6])
                if id(entry) in known or place in once:
                    continue
                once[place] = None
            fresh.append(entry)
        places = sorted({(place[2], place[3]) for place in once})
        taken = [place for place, there in zip(places, self._reserved(tx, places)) if there]
        for epoch in sorted({epoch for epoch, _sequence in taken}):
            self._note_given(tx, epoch, [sequence for one, sequence in taken if one == epoch])
        self._append(tx, fresh)
        for name in {place[0] for place in once}:
            if tx.space(name) is not None:
                tx.save(name, moved=True)

    def append_log(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        for start in range(0, len(entries), PAGE):
            self._append_some(entries[start : start + PAGE])

    @repeated
    def _append_some(self, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        with self._transaction() as tx:
            self._append(tx, entries)

    @repeated
    def log_operation(self, claim: Claim, entries: t.Sequence[tuple[t.Any, ...]]) -> None:
        with self._operating(claim) as tx:
            self._append_operator(tx, entries)

    def import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        with valkey_errors(self.place):
            refuse_eviction(self.wire)
        return self._import_log(claim, entries)

    def _import_log(self, claim: Claim, entries: t.Sequence[LogEntry]) -> int:
        wanted = [
            e for e in entries
            if e[3] in WRITES and e[2] == claim.namespace and None not in (e[4], e[5], e[6])
        ]  # fmt: skip
        places = [(e[5] or 0, e[6] or 0) for e in wanted]
        if not ascending(places):
            once: dict[tuple[t.Any, ...], LogEntry] = {}
            for entry in wanted:
                once.setdefault(tuple(entry[4:7]), entry)
            wanted = list(once.values())
            places = [(e[5] or 0, e[6] or 0) for e in wanted]
        # before the store is held
        bodies = self.envelopes.entries_bytes(wanted)
        stems = write_stems([t.cast(str, e[4]) for e in wanted], places)
        return self._append_imported(claim, wanted, places, bodies, stems)

    @repeated
    def _append_imported(
        self,
        claim: Claim,
        wanted: t.Sequence[LogEntry],
        places: t.Sequence[tuple[int, int]],
        bodies: list[bytes],
        stems: list[bytes],
    ) -> int:
        name = claim.namespace
        with self._operating(claim) as tx:
            newest = self._newest_logged(tx, name)
            if newest is None or (places and min(places) <= newest):
                fresh = [not there for there in self._known(tx, wanted)]
                bodies, stems = list(compress(bodies, fresh)), list(compress(stems, fresh))
            if bodies:
                first = tx.numbers["log_id"] + 1
                tx.add_packed(append_entries(self.names.log(name), first, bodies))
                tx.add_packed(add_members(self.names.writes(name), numbered(stems, first)))
                tx.add("SADD", self.names.logs, name)
                tx.numbers["log_id"] += len(bodies)
                if tx.space(name) is not None:
                    tx.save(name, moved=True)
            last = tx.numbers["log_id"]
        self._imported = None if newest is None else (name, last, max([newest, *places]))
        return len(bodies)

    def _newest_logged(self, tx: Transaction, namespace: str) -> tuple[int, int] | None:
        """Where all logged writes of the namespace end, if that is known at once: there are none, or this object
        imported them and nothing was logged since. It saves a look for each entry that fills an empty store."""
        if self._imported is not None and self._imported[:2] == (namespace, tx.numbers["log_id"]):
            return self._imported[2]
        return None if tx.read("ZCARD", self.names.writes(namespace)) else (-1, -1)

    # --- pruning ------------------------------------------------------------------------------------------------
    def prune_log(self, before_id: int, writes_through: tuple[int, int]) -> int:
        last = self._prune_floor(writes_through)
        if writes_through == (0, 0):  # reads alone: none of them is further on
            last = max(0, min(last, before_id - 1))
        for raw in self._ask("HKEYS", self.names.namespaces):
            self._prune_aside(raw.decode(), writes_through)
        return sum(
            self._prune_stream(raw.decode(), last, before_id, writes_through)
            for raw in self._ask("SMEMBERS", self.names.logs)
        )

    @repeated
    def _prune_floor(self, through: tuple[int, int]) -> int:
        """The floor moves first: an entry under it that a killed run left behind is not missed by anybody."""
        epoch, sequence = through
        with self._transaction() as tx:
            n = tx.numbers
            for member in tx.read("ZRANGE", self.names.given, "-", b"[" + SPAN.pack(epoch, sequence, MOST), "BYLEX"):
                one, first, last = SPAN.unpack(member)
                if one == epoch and first > sequence:
                    continue
                tx.add("ZREM", self.names.given, member)
                if (one, last) > through:
                    tx.add("ZADD", self.names.given, 0, SPAN.pack(one, sequence + 1, last))
            if (n["given_epoch"], n["given_last"]) <= through:
                n["given_first"] = n["given_last"] + 1  # its end stays, as where the store stands at least
            elif n["given_epoch"] == epoch and n["given_first"] <= sequence:
                n["given_first"] = sequence + 1
            return n["log_id"]

    def _prune_aside(self, name: str, through: tuple[int, int]) -> None:
        """What applications soft-deleted is kept as long as the log entry of its writing."""
        stream, after = self.names.aside(name), b"-"
        while True:
            page = self._ask("XRANGE", stream, after, "+", "COUNT", "100")
            if not page:
                return
            after = b"(" + page[-1][0]
            gone = []
            for place, fields in page:
                incident, _reason, member = aside_of(self.envelopes, fields)
                row = self.envelopes.row(member)
                if incident == "" and (row is None or (row[1], row[2]) <= through):
                    gone.append(place)
            if gone:
                self._drop(name, [packed("XDEL", stream, *gone)])

    def _prune_stream(self, name: str, last: int, before_id: int, through: tuple[int, int]) -> int:
        stream, after, dropped = self.names.log(name), b"-", 0
        while True:
            page = self._ask("XRANGE", stream, after, f"{last}-0", "COUNT", str(PAGE))
            if not page:
                return dropped
            after = b"(" + page[-1][0]
            gone, index = [], []
            for place, fields in page:
                entry = self.envelopes.entry(name, stream_id(place), fields)
                if entry.operation in READS and entry.id < before_id:
                    gone.append(place)
                elif is_write(entry) and (entry.epoch or 0, entry.sequence or 0) <= through:
                    gone.append(place)
                    if entry.key is not None:
                        index.append(write_member(entry.key, entry.epoch or 0, entry.sequence or 0, entry.id))
            if gone:
                commands = [packed("XDEL", stream, *gone)]
                if index:
                    commands.append(packed("ZREM", self.names.writes(name), *index))
                self._drop(name, commands)
                dropped += len(gone)

    @repeated
    def _drop(self, name: str, commands: t.Sequence[bytes]) -> None:
        with self._transaction() as tx:
            tx.add_packed(commands)
            tx.keep = None  # a reader of a point would miss these
            if tx.space(name) is not None:
                tx.save(name, moved=True)


def aside_of(envelopes: Envelopes, fields: t.Sequence[bytes]) -> tuple[str, str, bytes]:
    """(incident, reason, member) of what was set aside; damaged ones come out as what they are."""
    try:
        incident, reason, _at, member = envelopes.any(fields[1])
        if (incident.__class__, reason.__class__, member.__class__) == (str, str, bytes):
            return incident, reason, member
    except (ValueError, TypeError, IndexError):
        pass
    return "damaged", "what was set aside is damaged", b""


def _runs(sequences: t.Iterable[int]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for sequence in sorted(set(sequences)):
        if out and sequence == out[-1][1] + 1:
            out[-1] = (out[-1][0], sequence)
        else:
            out.append((sequence, sequence))
    return out


def health(
    spans: t.Sequence[tuple[int, int, int]], pages: t.Iterable[list[LogEntry]], each: Checked | None = None
) -> dict[str, t.Any]:
    """See _store.Reader.log_health. ``spans``: (epoch, first, last) of what was given out, ascending; one bit each."""
    seen = [bytearray((last - first) // 8 + 1) for _epoch, first, last in spans]
    finder = _Finder(spans)
    entries = corrupt = 0
    ends: list[tuple[int, int]] = []
    for page in pages:
        entries += len(page)
        sound = [_sound(entry) for entry in page]
        corrupt += sound.count(False)
        if each is not None:
            each(page, sound)
        for entry in page:
            if is_write(entry) and entry.epoch.__class__ is int and entry.sequence.__class__ is int:
                place = (entry.epoch, entry.sequence)
                ends = [min(ends[0], place), max(ends[1], place)] if ends else [place, place]
                number = finder.find(place)
                if number is not None:
                    bit = place[1] - spans[number][1]
                    seen[number][bit >> 3] |= 1 << (bit & 7)
    missing = sum(
        last - first + 1 - bin(int.from_bytes(bits, "big")).count("1")
        for (_epoch, first, last), bits in zip(spans, seen)
    )
    return {
        "entries": entries,
        "corrupt": corrupt,
        "missing": missing,
        "first_sequence": ends[0][1] if ends else 0,
        "last_sequence": ends[1][1] if ends else 0,
        "intact": not corrupt and not missing,
    }


def _sound(entry: LogEntry) -> bool:
    try:
        return log_checksum(entry) == entry.checksum
    except (TypeError, ValueError, AttributeError):
        return False


class _Finder:
    """Which of ascending, disjoint spans a place lies in; places mostly come in order."""

    def __init__(self, spans: t.Sequence[tuple[int, int, int]]) -> None:
        self._spans, self._last = spans, 0

    def find(self, place: tuple[int, int]) -> int | None:
        epoch, sequence = place
        if self._spans:
            one = self._spans[self._last]
            if not (one[0] == epoch and one[1] <= sequence <= one[2]):
                self._last = max(0, bisect_right(self._spans, (epoch, sequence, 1 << 64)) - 1)
                one = self._spans[self._last]
            if one[0] == epoch and one[1] <= sequence <= one[2]:
                return self._last
        return None

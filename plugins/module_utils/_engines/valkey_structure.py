# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What can be told about the health of a Valkey store without any key, and what can be rebuilt from the rest.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._errors import NamespaceDamaged
from .._words import counted
from .valkey_bulk import expires
from .valkey_connect import Wire, packed
from .valkey_control import space_of
from .valkey_errors import valkey_errors
from .valkey_fence import Fence, lowered
from .valkey_leading import Leading, rows_of, told
from .valkey_log import stream_id
from .valkey_server import dropping, said, server
from .valkey_values import (
    AT_ONCE,
    END,
    THERE,
    Envelopes,
    Names,
    is_write,
    key_text,
    one_key,
    write_member,
    write_position,
)

MOST_LINES = 100
PAGE = 1000
NO_KEY = "the member belongs to no key"
TWICE = "the key had more than one member"


def structure(wire: Wire, names: Names, envelopes: Envelopes) -> list[str]:
    """Findings in words, at most MOST_LINES. Errors: redis.exceptions.RedisError, MemoryOpsError."""
    lines = server(wire)
    lines += [
        f"the fence around {lost} is down: the server's user {user} may use those keys again"
        for user, lost in lowered(wire, names).items()
    ]
    lines += told(wire.ask, names)
    for name, space in sorted(spaces(wire, names).items()):
        for number in space["generations"]:
            found = Generation(wire, names, envelopes, name, number, space)
            lines += [f"generation {number} of namespace {name!r:.80}: {line}" for line in found.lines()]
        absent, surplus = index_of(wire, names, envelopes, name)
        if absent or surplus:
            lines.append(
                f"the index of the log of namespace {name!r:.80} lacks {counted(len(absent), 'entry', 'entries')} and "
                f"has {len(surplus):,} that belong to none"
            )
        if len(lines) >= MOST_LINES:
            break
    return lines[:MOST_LINES]


def spaces(wire: Wire, names: Names) -> dict[str, dict[str, t.Any]]:
    """The control rows that can be believed."""
    found: dict[str, dict[str, t.Any]] = {}
    for name, raw in rows_of(wire.ask, names)[0].items():
        with contextlib.suppress(NamespaceDamaged):
            found[name] = space_of(raw, name, wire.place.where)
    return found


class Generation:
    """One pass over a generation's members."""

    def __init__(
        self, wire: Wire, names: Names, envelopes: Envelopes, name: str, number: int, space: t.Mapping[str, t.Any]
    ) -> None:
        self._wire, self._envelopes = wire, envelopes
        self.records, self.expiry = names.records(name, number), names.expiry(name, number)
        self._page = max(1, min(PAGE, AT_ONCE // max(int(space["largest"]), 1)))
        self.there = True
        self.scores: list[bytes] = []  # members whose score is not 0
        self.stray: list[bytes] = []  # members that belong to no key
        self.twice: list[bytes] = []  # further members of a key
        self.ends: list[tuple[int, bytes]] = []  # what the set of ends lacks
        self._look()
        self._look_again()

    def _look_again(self) -> None:
        """What a writer did between two pages is no finding."""
        ask, records = self._wire.ask, self.records

        def first(keys: t.Sequence[bytes]) -> list[list[bytes]]:
            return ask([packed("ZRANGE", records, *one_key(key_text(k)), "BYLEX", "LIMIT", "0", "1") for k in keys])

        def still(members: t.Sequence[bytes]) -> list[bytes]:
            parts = [(part, ask([packed("ZMSCORE", records, *part)])[0]) for part in _parts(members)]
            return [one for part, scores in parts for one, score in zip(part, scores) if score is not None]

        self.stray, twice = still(self.stray), still(self.twice)
        self.twice = []
        for part in _parts(twice):
            pages = first([member[: member.find(END)] for member in part])
            self.twice += [member for member, page in zip(part, pages) if page and page[0] != member]
        lacking, self.ends = self.ends, []
        for some in _parts(lacking):
            scores = ask([packed("ZMSCORE", self.expiry, *(raw for _end, raw in some))])[0]
            for (_end, raw), page, score in zip(some, first([raw for _end, raw in some]), scores):
                row = self._envelopes.row(page[0]) if page else None
                if row is not None and expires(row) and (score is None or float(score) != float(row[5])):
                    self.ends.append((row[5], raw))

    def _look(self) -> None:
        ask = self._wire.ask
        there, below, above = ask(
            [
                packed("ZSCORE", self.records, THERE),
                packed("ZRANGE", self.records, "-inf", "(0", "BYSCORE"),
                packed("ZRANGE", self.records, "(0", "+inf", "BYSCORE"),
            ]
        )
        self.there = there is not None
        self.scores = below + above
        last = former = None
        place = 0
        while True:
            members = ask([packed("ZRANGE", self.records, place, place + self._page - 1)])[0]
            if not members:
                break
            place += len(members)
            known: list[tuple[int, bytes]] = []
            for member in members:
                if member == THERE:
                    continue
                row = self._envelopes.row(member)
                raw = member[: member.find(END)]
                if row is None:
                    self.stray.append(member)
                elif raw == last and member != former:
                    self.twice.append(member)
                elif expires(row):
                    known.append((row[5], raw))
                last, former = raw, member
            if known:
                scores = ask([packed("ZMSCORE", self.expiry, *(raw for _end, raw in known))])[0]
                self.ends += [
                    one for one, score in zip(known, scores) if score is None or float(score) != float(one[0])
                ]

    def lines(self) -> list[str]:
        out = []
        if not self.there:
            out.append("its records are gone: the server dropped them, or another program deleted them")
        for found, one, several, what in (
            (self.scores, "member has", "members have", "a score, so out of order"),
            (self.stray, "member belongs", "members belong", "to no key"),
            (self.twice, "member belongs", "members belong", "to a key that has another one"),
            (self.ends, "record is", "records are", "missing from the set of those that expire"),
        ):
            if found:
                out.append(f"{counted(len(found), one, several)} {what}")
        return out


def index_of(wire: Wire, names: Names, envelopes: Envelopes, name: str) -> tuple[list[bytes], list[bytes]]:
    """(members that the index of logged writes lacks, members that it has of no entry)."""
    index, stream = names.writes(name), names.log(name)
    absent: list[bytes] = []
    entries, after = 0, b"-"
    while True:
        page = wire.ask([packed("XRANGE", stream, after, "+", "COUNT", PAGE)])[0]
        if not page:
            break
        after = b"(" + page[-1][0]
        wanted = []
        for place, fields in page:
            e = envelopes.entry(name, stream_id(place), fields)
            if is_write(e) and isinstance(e.key, str) and e.epoch is not None and e.sequence is not None:
                wanted.append(write_member(e.key, e.epoch, e.sequence, e.id))
        if wanted:
            entries += len(wanted)
            scores = wire.ask([packed("ZMSCORE", index, *wanted)])[0]
            absent += [member for member, score in zip(wanted, scores) if score is None or float(score)]
    absent = [
        member
        for part in _parts(absent)
        for member, page, score in zip(
            part,
            wire.ask([packed("XRANGE", stream, *[_place(member)] * 2) for member in part]),
            wire.ask([packed("ZMSCORE", index, *part)])[0],
        )
        if page and (score is None or float(score))  # else it was pruned meanwhile
    ]
    if wire.ask([packed("ZCARD", index)])[0] == entries - len(absent):
        return absent, []
    surplus: list[bytes] = []
    place = 0
    while True:
        members = wire.ask([packed("ZRANGE", index, place, place + PAGE - 1)])[0]
        if not members:
            scores = (wire.ask([packed("ZMSCORE", index, *part)])[0] for part in _parts(surplus))
            there = [score is not None for part in scores for score in part]
            return absent, [member for member, still in zip(surplus, there) if still]
        place += len(members)
        positions = [write_position(member) for member in members]
        commands = [packed("XRANGE", stream, b"%d-0" % p[3], b"%d-0" % p[3]) for p in positions if p is not None]
        found = iter(wire.ask(commands) if commands else [])
        for member, position in zip(members, positions):
            page = next(found) if position is not None else []
            entry = envelopes.entry(name, position[3], page[0][1]) if page and position is not None else None
            if entry is None or not is_write(entry) or entry.key is None or member != write_member(
                entry.key, entry.epoch or 0, entry.sequence or 0, entry.id
            ):
                surplus.append(member)


def _place(member: bytes) -> bytes:
    """Where in the stream the entry of a member of the index is."""
    position = write_position(member)
    return b"%d-0" % (position[3] if position else 0)


class Structure(Leading, Fence):
    """The structural part of ``Store``."""

    def repair_structure(self) -> list[str]:
        with valkey_errors(self.place):
            return self._repair()

    def _repair(self) -> list[str]:
        done = self.lead_back() + self._raise_again()
        for name, space in sorted(spaces(self.wire, self.names).items()):
            for number in space["generations"]:
                done += self._mend_generation(name, number, space)
            absent, surplus = index_of(self.wire, self.names, self.envelopes, name)
            if absent or surplus:
                commands = [packed("ZREM", self.names.writes(name), *part) for part in _parts(absent + surplus)]
                commands += [
                    packed("ZADD", self.names.writes(name), *(x for member in part for x in (0, member)))
                    for part in _parts(absent)
                ]
                self._mend(name, commands)
                done.append(f"mended the index of the log of namespace {name!r:.80}")
        return done

    def _mend(self, name: str, commands: t.Iterable[bytes]) -> None:
        with self._transaction() as tx:
            tx.add_packed(commands)
            tx.keep = None  # members change that no key leads to
            self._namespace(tx, name)
            tx.save(name, moved=True)

    def _mend_generation(self, name: str, number: int, space: t.Mapping[str, t.Any]) -> list[str]:
        found = Generation(self.wire, self.names, self.envelopes, name, number, space)
        done: list[str] = []
        where = f"generation {number} of namespace {name!r:.80}"
        commands: list[bytes] = []
        if not found.there:
            commands.append(packed("ZADD", found.records, 0, THERE))
            done.append(f"made {where} again; its records have to come from a snapshot")
        if found.scores:
            for part in _parts(found.scores):
                commands.append(packed("ZADD", found.records, *(x for member in part for x in (0, member))))
            done.append(f"put {counted(len(found.scores), 'member')} of {where} in order")
        if found.ends:
            commands += [
                packed("ZADD", found.expiry, *(x for one in part for x in one)) for part in _parts(found.ends)
            ]
            done.append(f"noted {counted(len(found.ends), 'record')} of {where} again as such that expire")
        if commands:
            self._mend(name, commands)
        if found.scores:  # now in order: look again for what belongs together
            found = Generation(self.wire, self.names, self.envelopes, name, number, space)
        odd = [(member, NO_KEY) for member in found.stray] + [(member, TWICE) for member in found.twice]
        if odd:
            with self._transaction() as tx:
                self._namespace(tx, name)
                tx.keep = None
                self._set_aside(tx, name, "structure", odd)
                tx.add_packed(packed("ZREM", found.records, member) for member, _why in odd)
                tx.save(name, moved=True)
            done.append(
                f"set {counted(len(odd), 'member')} of {where} aside that belonged to no key or to one that has another"
            )
        return done

    def warnings(self) -> list[str]:
        """What is no damage, but should be known: how much of what was acknowledged a crash of the server may cost."""
        with valkey_errors(self.place):
            return self._warnings()

    def _warnings(self) -> list[str]:
        known = said(self.wire, ("persistence", "server", "memory", "replication"))
        if not known:
            return ["the server's user may not use INFO, so nothing is known about what is on its disk"]
        if known.get("role") in ("slave", "replica"):
            return ["the server is a replica: it takes no writes"]
        policy = dropping(known)
        return self._disk(known) + (
            [f"maxmemory-policy is {policy}: the server may drop records, so no bulk write of an operator goes there"]
            if policy else []
        ) + self._cluster(known)  # fmt: skip

    def _cluster(self, known: t.Mapping[str, str]) -> list[str]:
        if not self.place.nodes.clustered:
            return []
        if known.get("connected_slaves", "0") == "0":
            return ["no replica follows the store's node of the Cluster: when that is lost, so is the store"]
        return [
            "a Cluster's replicas follow a moment later: when the store's node is lost, so may be the newest writes "
            "that it acknowledged"
        ]

    def _disk(self, known: t.Mapping[str, str]) -> list[str]:
        if known.get("aof_enabled") == "1":
            policy = self.wire.many([packed("CONFIG", "GET", "appendfsync")])[0]
            if isinstance(policy, list) and policy[1] != b"always":
                return [
                    f"appendfsync is {policy[1].decode()}: a crash of the server may lose the last second of "
                    "applications' writes (what operators decide is waited for)"
                ]
            return []
        save = self.wire.many([packed("CONFIG", "GET", "save")])[0]
        if isinstance(save, list) and save[1]:
            return ["the server has no append-only file: a crash loses what was written since its last dump"]
        return ["the server saves nothing to its disk: a crash or a restart loses the whole store"]


def _parts(members: t.Sequence[t.Any]) -> t.Iterator[t.Sequence[t.Any]]:
    for start in range(0, len(members), PAGE):
        yield members[start : start + PAGE]

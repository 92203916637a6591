# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The control rows of a Valkey store (its counters, namespaces, incidents), and a writer's view of them.

PRIVATE to the collection.
"""
from __future__ import annotations

import json
import typing as t
import urllib.parse

from .._errors import NamespaceUnknown, StoreDamaged
from .._model import NamespaceState, StoreIdentity
from .control_rows import GONE, astray
from .valkey_connect import Wire, packed
from .valkey_control_rows import loaded, noted, wrong
from .valkey_errors import IDENTITY, RESTORE, valkey_errors
from .valkey_keep import FIELDS, Keep
from .valkey_values import Names, written

COUNTERS: t.Final = (
    "epoch", "sequence", "newest", "commits", "token", "log_id", "generation", "incident",
    "given_epoch", "given_first", "given_last",
)  # fmt: skip


def state_of(name: str, space: t.Mapping[str, t.Any]) -> NamespaceState:
    return NamespaceState(
        name, space["state"], space["generation"], space["ttl"], space["serving_ttl"], space["incident"],
        space["prior_ttl"], space["prior_state"], space["restored_snapshot"], space["restored_epoch"],
        space["restored_sequence"], space["restored_at"], space["restored_digest"],
    )  # fmt: skip


def fresh_space(state: str, ttl: float | None, number: int) -> dict[str, t.Any]:
    """The control row of a namespace that is new."""
    space: dict[str, t.Any] = dict.fromkeys(
        ("serving_ttl", "incident", "prior_ttl", "prior_state", "restored_snapshot", "restored_epoch",
         "restored_sequence", "restored_at", "restored_digest", "lock_held", "lock_actor", "lock_since",
         "lock_until")
    )  # fmt: skip
    space.update(state=state, ttl=ttl, generation=number, generations=[number])
    space.update(lock_number=0, changed=0, largest=0, expiring=False)
    return space


def space_of(raw: bytes | None, name: str, where: str) -> dict[str, t.Any]:
    """The control row of a namespace. Errors: NamespaceUnknown, NamespaceDamaged."""
    if raw is None:
        raise NamespaceUnknown(
            f"The store {where} has no namespace {name!r:.80}.",
            "name one of those that the playbook memops.agent_memory.info lists",
        )
    space = loaded(raw)
    why = wrong(space)
    if why is not None:
        raise astray(name, why)
    return t.cast(t.Dict[str, t.Any], space)


def refuse_lost(read: t.Callable[..., t.Any], names: Names, name: str) -> None:
    """Errors: NamespaceDamaged where a namespace that has no control row has generations."""
    if read("HGET", names.generations, name) is not None:
        raise astray(name, GONE)


def counters_of(raw: t.Sequence[bytes], where: str) -> tuple[dict[str, str], dict[str, int]]:
    """(texts, numbers) of the store's own hash. Errors: StoreDamaged."""
    try:
        said = {name.decode(): value.decode() for name, value in zip(raw[::2], raw[1::2])}
        numbers = {name: int(said.get(name) or 0) for name in COUNTERS} if said["store_id"] else {}
        if numbers and (min(numbers.values()) < 0 or numbers["epoch"] < 1 or not (said["lineage"] and said["layout"])):
            raise ValueError
        if "last" in said and not numbers["commits"]:  # every transaction counts
            raise ValueError
    except (KeyError, ValueError):
        raise StoreDamaged(f"The store {where} has lost its identity.", IDENTITY) from None
    if numbers:  # a counter that went back: what is given out twice would count as older than a snapshot's
        stands = numbers["epoch"], numbers["sequence"]
        numbers["epoch"], numbers["sequence"] = max(stands, (numbers["given_epoch"], numbers["given_last"]))
    return said, numbers


def identity_of(said: t.Mapping[str, str], numbers: t.Mapping[str, int]) -> StoreIdentity:
    return StoreIdentity(
        said["store_id"], said["lineage"], "valkey", said["layout"], numbers["epoch"], numbers["sequence"]
    )


def incident_field(namespace: str, incident: str) -> str:
    return f"{written(namespace)} {written(incident)}"


def of_incident(field: bytes) -> tuple[str, str]:
    """(namespace, incident) of an ``incident_field``."""
    name, _space, incident = field.decode("ascii", "replace").partition(" ")
    return urllib.parse.unquote(name, errors="surrogateescape"), urllib.parse.unquote(incident)


def incident_row(raw: bytes) -> dict[str, t.Any]:
    try:
        row = json.loads(raw)
        texts = [row[name] for name in ("incident", "namespace", "state", "attempt", "owner")]
        numbers = [
            row[name] for name in ("token", "opened", "claimed", "renewed", "lease", "lease_until", "number")
        ]  # fmt: skip
        if any(one.__class__ is not str for one in texts) or any(one.__class__ is not int for one in numbers):
            raise ValueError
        if row["facts"].__class__ is not dict or row["state"] not in ("open", "closed"):
            raise ValueError
        return t.cast(t.Dict[str, t.Any], row)
    except (ValueError, KeyError, TypeError):
        raise StoreDamaged("The row of an incident is damaged.", RESTORE) from None


class Transaction:
    """What a writer read under its hold, and what it is going to write."""

    def __init__(self, wire: Wire, names: Names, token: str, said: dict[str, str], numbers: dict[str, int]) -> None:
        self.token, self.said, self.numbers = token, said, numbers
        self.session = wire.session
        self.until = 0.0  # by the monotonic clock: before it nobody else can have the hold
        self.durable = False
        self._wire, self._names = wire, names
        self._before = dict(numbers)
        self.keep = Keep.of(said, numbers.get("commits", 0))  # None: nothing is kept for a reader (any more)
        self._spaces: dict[str, dict[str, t.Any]] = {}
        self._saved: dict[str, None] = {}
        self._queue: list[bytes] = []

    def read(self, *args: t.Any) -> t.Any:
        with valkey_errors(self._wire.place):
            return self._wire.call(*args)

    def read_all(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        with valkey_errors(self._wire.place):
            replies = self._wire.many(commands)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    def add(self, *args: t.Any) -> None:
        """Queue a writing command."""
        self._queue.append(packed(*args))

    def add_packed(self, commands: t.Iterable[bytes]) -> None:
        self._queue.extend(commands)

    def space(self, name: str) -> dict[str, t.Any] | None:
        """The control row of a namespace; change it and ``save`` it. Errors: NamespaceDamaged."""
        if name not in self._spaces:
            raw = self.read("HGET", self._names.namespaces, name)
            if raw is None:
                refuse_lost(self.read, self._names, name)
                return None
            self._spaces[name] = space_of(raw, name, self._wire.place.where)
        return self._spaces[name]

    def save(self, name: str, space: dict[str, t.Any] | None = None, *, moved: bool = False) -> None:
        """``moved``: what readers see in the namespace changes."""
        if space is not None:
            self._spaces[name] = space
        if moved:
            self._spaces[name]["changed"] = self._before["commits"] + 1
        self._saved[name] = None

    @property
    def dirty(self) -> bool:
        return bool(self._queue or self._saved) or self.numbers != self._before

    def commands(self) -> list[bytes]:
        names = self._names
        numbers = {**self.numbers, "commits": self._before["commits"] + 1}
        changed: list[t.Any] = ["last", self.token]
        for name, value in numbers.items():
            if value != self._before[name]:
                changed += [name, value]
        ended: list[bytes] = []
        if self.keep is not None:
            changed += self.keep.fields(numbers["commits"])
        elif "keep" in self.said:
            ended = [packed("HDEL", names.store, *FIELDS)]
        out = [packed("MULTI"), *self._queue, packed("HSET", names.store, *changed), *ended]
        if self._saved:
            marks = [x for name in self._saved for x in noted(name, self._spaces[name])]
            if marks:
                out.append(packed("HSET", names.generations, *marks))
            pairs = [x for name in self._saved for x in (name, json.dumps(self._spaces[name]))]
            out.append(packed("HSET", names.namespaces, *pairs))
        return [*out, packed("DEL", names.hold), packed("EXEC")]

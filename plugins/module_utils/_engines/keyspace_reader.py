# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading another application's keys: their names once per reader and in order, their values page by page.

PRIVATE to the collection. SCAN has no order and may give a key twice, so the names (no values) go into a temporary
SQLite database, which spills to disk by itself; memory does not grow with the namespace. The server keeps no former
state and no change mark: only while the fence stands, what is read is of one point in time.
"""
from __future__ import annotations

import contextlib
import typing as t

from .._codec import RecordCodec
from .._errors import CannotProceed
from .._model import NamespaceState, Row
from .control_rows import GONE, astray
from .keyspace_dump import canonical, refuse_module, whole
from .keyspace_pattern import KeyspaceNames
from .listed_keys import ListedKeys, walk
from .valkey_connect import Wire, packed
from .valkey_control import COUNTERS, counters_of, fresh_space, refuse_lost, space_of, state_of
from .valkey_errors import valkey_errors
from .valkey_fence import fences, lowered
from .valkey_leading import rows_of as rows_beside
from .valkey_leading import told
from .valkey_pages import BATCH_BYTES
from .valkey_reader import ValkeyReader
from .valkey_rules import Taken, less, rule_of
from .valkey_server import server
from .valkey_values import Envelopes

SCAN_COUNT = 10_000
#: Values of KEYS[1 …] and when they expire, at most those before ARGV[1] bytes were passed; "" and -2 for none.
FETCH = """
local out, size = {}, 0
for i = 1, #KEYS do
  local value = redis.call('DUMP', KEYS[i])
  out[#out + 1] = value or ''
  out[#out + 1] = value and redis.call('PEXPIRETIME', KEYS[i]) or -2
  size = size + (value and #value or 0)
  if size > tonumber(ARGV[1]) then break end
end
return out
"""
Ask = t.Callable[[t.Sequence[bytes]], t.List[t.Any]]
Fetched = t.Tuple[int, bytes, int, bool]  # number of the key, dump, expiry in ms or -1, whether it is whole


class Server(t.Protocol):
    """What holds the application's keys."""

    def scanned(self, glob: str) -> t.Iterator[list[bytes]]:
        """Keys that match, page by page; some may come twice."""

    def fetched(self, keys: t.Sequence[bytes]) -> t.Iterator[Fetched]:
        """Those keys that there are, in their order, a bounded page at a time."""


class OneServer:
    """See Server."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def scanned(self, glob: str) -> t.Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            cursor, page = self._ask([packed("SCAN", cursor, "MATCH", glob, "COUNT", SCAN_COUNT)])[0]
            if page:
                yield page
            if cursor == b"0":
                return

    def fetched(self, keys: t.Sequence[bytes]) -> t.Iterator[Fetched]:
        start = 0
        while start < len(keys):
            part = keys[start : start + 500]
            reply = self._ask([packed("EVAL", FETCH, len(part), *part, BATCH_BYTES)])[0]
            sound = whole(reply[::2])
            for offset in range(0, len(reply), 2):
                if reply[offset + 1] != -2:
                    yield start + offset // 2, reply[offset], reply[offset + 1], sound[offset // 2]
            start += len(reply) // 2


def row_of(codec: RecordCodec, text: str, dump: bytes, expires: int | None, sound: bool) -> Row:
    """A record. Nobody knows its version or times; its checksum is made here, and does not hold for a dump that is not
    whole. ``expires`` is in ms. Errors: CapabilityMissing for a module's type."""
    refuse_module(dump, text)
    payload = canonical(dump) if sound else None
    end = None if expires is None else expires * 1000
    if payload is None:
        return (text, 0, 0, 0, 0, end, None, "", dump, b"")
    row = (text, 0, 0, 0, 0, end, None, "", payload)
    return (*row, codec.checksum(row))


class Keys(ListedKeys):
    """The names of one namespace's keys, or of all namespaces'."""

    def __init__(self, server: Server, names: KeyspaceNames, namespace: str | None) -> None:
        super().__init__()
        pattern = names.pattern
        for page in server.scanned(pattern.glob(namespace)):
            found = [(pattern.namespace_of(raw), raw) for raw in page]
            self.add(
                (name, pattern.name_of(name, raw).encode())
                for name, raw in found
                if name is not None and namespace in (None, name)
            )


class KeyspaceReader(ValkeyReader):
    """See _store.Reader."""

    _names: KeyspaceNames

    def __init__(
        self, wire: Wire, names: KeyspaceNames, envelopes: Envelopes, release: t.Callable[[Wire], None]
    ) -> None:
        self._listed: dict[str | None, Keys] = {}  # None: of all namespaces
        self._codecs: dict[str, RecordCodec] = {}
        self._stood: dict[str, bool] = {}
        self._server: Server = OneServer(self._all)
        super().__init__(wire, names, envelopes, None, release)

    def close(self) -> None:
        for keys in self._listed.values():
            keys.close()
        self._listed = {}
        super().close()

    def _counters(self) -> tuple[dict[str, str], dict[str, int]]:
        raw = self._ask("HGETALL", self._names.store)
        if not raw:  # nothing was ever changed here: nothing was written either
            return {"store_id": "", "lineage": "", "layout": "keyspace"}, dict.fromkeys(COUNTERS, 0)
        return counters_of(raw, self._where)

    # --- namespaces ---------------------------------------------------------------------------------------------
    def namespaces(self) -> list[NamespaceState]:
        """One walk through the server, also for all that is read of them afterwards."""
        if None not in self._listed:
            self._listed[None] = Keys(self._server, self._names, None)
        rows, lost = rows_beside(self._all, self._names)
        for name in sorted(lost):
            raise astray(name, GONE)
        found = sorted({*rows, *self._listed[None].namespaces()})
        return [state_of(name, self._seen(name, rows.get(name))) for name in found]

    def _space(self, name: str, raw: bytes | None = None) -> dict[str, t.Any]:
        if name not in self._spaces:
            self._names.pattern.check(name)
            raw = self._ask("HGET", self._names.namespaces, name)
            if raw is None:
                refuse_lost(self._ask, self._names, name)
            if raw is None and not any_key(self._server, self._names, name):
                space_of(None, name, self._where)
        return self._seen(name, raw)

    def _seen(self, name: str, raw: bytes | None) -> dict[str, t.Any]:
        """The control row as this reader first saw it; one that nobody made yet says that the namespace serves."""
        if name not in self._spaces:
            self._spaces[name] = fresh_space("serving", None, 1) if raw is None else space_of(raw, name, self._where)
            stands = self._stands(self._spaces[name], name)
            self._stood[name] = stands and not self._spaces[name].get("changing")
        return self._spaces[name]

    def _generation(self, namespace: str, generation: int | None) -> int:
        space = self._space(namespace)
        number = super()._generation(namespace, generation)
        if space.get("moving") and number == space["generation"]:
            raise CannotProceed(
                f"The keys of namespace {namespace!r:.80} are in the middle of being replaced.",
                "run the rebuild, restore or undo again that was interrupted",
            )
        return number

    def _stands(self, space: t.Mapping[str, t.Any], name: str) -> bool:
        return fence_stands(self._wire, self._names, space, name)

    def moved_among(self, namespaces: t.Sequence[str]) -> list[str]:
        return [name for name in namespaces if self.moved(name)]

    def moved(self, namespace: str) -> bool:
        self._space(namespace)
        raw = self._ask("HGET", self._names.namespaces, namespace)
        if raw is None or not self._stood[namespace]:
            return True
        space, (_said, numbers) = space_of(raw, namespace, self._where), self._counters()
        return (
            not self._stands(space, namespace)
            or bool(space.get("changing"))
            or numbers["commits"] < self._commits
            or int(space["changed"]) > self._commits
        )

    # --- records ------------------------------------------------------------------------------------------------
    def _keys(self, namespace: str) -> Keys:
        whole = self._listed.get(None)
        if whole is not None:
            return whole
        if namespace not in self._listed:
            self._listed[namespace] = Keys(self._server, self._names, namespace)
        return self._listed[namespace]

    def count(self, namespace: str, generation: int | None = None) -> int:
        active = self._space(namespace)["generation"]
        if generation in (None, active):
            return self._keys(namespace).count(namespace)
        return int(self._ask("ZCARD", self._names.index(namespace, self._generation(namespace, generation))))

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
        return self._walk(namespace, number, after, until, batch, descending)

    def _walk(
        self, namespace: str, number: int, after: str | None, until: str | None, batch: int, down: bool
    ) -> t.Iterator[list[Row]]:
        return walk(
            lambda first, below: self._names_of(namespace, number, (first, until, below), batch, down),
            lambda names: self._rows(namespace, number, names),
            after, batch, BATCH_BYTES, down,
        )  # fmt: skip

    def _names_of(
        self, namespace: str, number: int, edges: tuple[str | None, str | None, str | None], limit: int, down: bool
    ) -> list[str]:
        """``edges``: after, until, below."""
        if number == self._space(namespace)["generation"]:
            return self._keys(namespace).page(namespace, *edges, limit, down)
        after, until, below = edges
        low = b"-" if after is None else b"(" + after.encode()
        high = b"+" if until is None else b"[" + until.encode()
        if below is not None:
            high = b"(" + below.encode()
        bounds = (high, low, "BYLEX", "REV") if down else (low, high, "BYLEX")
        found = self._ask("ZRANGE", self._names.index(namespace, number), *bounds, "LIMIT", 0, limit)
        return [raw.decode() for raw in found]

    def _rows(self, namespace: str, number: int, names: t.Sequence[str]) -> t.Iterator[Row]:
        """The rows of these names, of those that there are, in their order."""
        codec = self._codecs.setdefault(namespace, RecordCodec(namespace))
        staged = self._staged(namespace, number)
        yield from rows_of(self._all, self._server, self._names, codec, namespace, staged, names)

    def _staged(self, namespace: str, number: int) -> int | None:
        return None if number == self._space(namespace)["generation"] else number

    def get_many(self, namespace: str, keys: t.Sequence[str], generation: int | None = None) -> dict[str, Row]:
        number = self._generation(namespace, generation)
        fit = []
        for key in keys:
            with contextlib.suppress(UnicodeEncodeError, AttributeError):
                key.encode()
                fit.append(key)
        return {row[0]: row for row in self._rows(namespace, number, fit)}

    def boundaries(self, namespace: str, parts: int) -> list[str]:
        return []  # one list of names, and the server is one thread

    def dropped(self, since: int) -> list[str]:
        if self.drops() == since:
            return []
        return [f"the server {self._where} dropped keys while they were read, as its memory was full"]

    def _said(self) -> list[str]:
        return server(self._wire)

    def structure(self) -> list[str]:
        with valkey_errors(self._wire.place):
            lines = [line for line in self._said() if "maxmemory-policy" not in line]
            lines += told(self._wire.ask, self._names)
            return lines + [
                f"the fence around {lost} is down: the server's user {user} may use those keys again"
                for user, lost in lowered(self._wire, self._names).items()
            ]


def rows_of(
    ask: Ask,
    server: Server,
    names: KeyspaceNames,
    codec: RecordCodec,
    namespace: str,
    staged: int | None,
    texts: t.Sequence[str],
) -> t.Iterator[Row]:
    """``ask``: for the collection's own keys. ``staged``: the generation, None for the application's own keys."""
    if not texts:
        return
    if staged is None:
        keys = [names.pattern.key(namespace, text) for text in texts]
        for number, dump, expires, sound in server.fetched(keys):
            yield row_of(codec, texts[number], dump, None if expires < 0 else expires, sound)
        return
    ends = ask([packed("ZMSCORE", names.expiry(namespace, staged), *(text.encode() for text in texts))])[0]
    keys = [names.staged(namespace, staged, text) for text in texts]
    for number, dump, _none, sound in server.fetched(keys):
        end = ends[number]
        yield row_of(codec, texts[number], dump, None if end is None else int(float(end)), sound)


def any_key(server: Server, names: KeyspaceNames, namespace: str) -> bool:
    pattern = names.pattern
    return any(
        pattern.namespace_of(raw) == namespace for page in server.scanned(pattern.glob(namespace)) for raw in page
    )


def fence_stands(
    wire: Wire, names: KeyspaceNames, space: t.Mapping[str, t.Any], name: str, everywhere: Ask | None = None
) -> bool:
    """Whether no application can reach the namespace now. ``everywhere``: asks all servers on which users count."""
    user = wire.place.application_user
    if space["state"] != "quarantined" or user is None:
        return False
    with valkey_errors(wire.place):
        noted = fences(wire, names).get(user)
        if noted is None or name not in noted.fenced:
            return False
        for said in (everywhere or wire.many)([packed("ACL", "GETUSER", user)]):
            if not isinstance(said, list):
                return False
            present = rule_of(said)[0]
            if not less(names, present, Taken(present, frozenset((name,)))).same(present):
                return False
        return True

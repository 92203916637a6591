# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Values that an application encrypted itself, in records of tables: which key opens them, and the same with another.

PRIVATE to the collection. No I/O, and no engine: a record says by its payload which columns it has. Keys are tried in
their order, as neither framework notes which one it used.
"""
from __future__ import annotations

import json
import typing as t

from ._application_ciphers import AES, INLINE, ApplicationKey, Shut, read_keys
from ._errors import RecordCorrupt
from ._keyring_unsealed import Unsealed
from ._layouts.tables import Root, Sealed, TablesLayout
from ._table_moved import in_json
from ._table_records import Cell, TableRows, header, pack, unpack
from ._table_values import sqlite_cell, sqlite_value
from ._words import counted

NOTHING: t.Final = "nothing"  # no value that could be encrypted
PLAIN: t.Final = "plain"
OPEN: t.Final = "open"
SHUT: t.Final = "shut"
EXAMPLES: t.Final = 100


class Value(t.NamedTuple):
    """What a record's value is; ``key``: which of the keys opened it."""

    state: str
    key: int = -1
    plain: bytes = b""


class Seals:
    """Of one layout; ``keys``: the application's, the present one first."""

    def __init__(self, layout: TablesLayout, keys: t.Sequence[ApplicationKey]) -> None:
        self.keys = list(keys)
        self._roots = {engine: {root.name: root for root in layout.tables(engine)} for engine in layout.engines}
        every = [root.sealed for some in self._roots.values() for root in some.values() if root.sealed]
        self.cipher = next((one.cipher for one in every if one.cipher != INLINE), "")
        for key in self.keys:
            if self.cipher:
                key.cipher(self.cipher)  # one that can be none is told before anything is done

    def look(self, payload: bytes) -> Value:
        """What the record's value is. Errors: RecordCorrupt."""
        engine, tables = unpack(payload)
        root, sealed = self._sealed(engine, tables)
        if root is None or sealed is None:
            return Value(NOTHING)
        cells = _cells(engine, tables[0])
        value, session = cells.get(sealed.column), _text(cells.get(root.namespace.columns[0]))
        if sealed.cipher == INLINE:
            return Value(PLAIN if _object(value).get(sealed.kind) else NOTHING)
        if sealed.cipher == AES:
            encrypted = "+" in _text(cells.get(sealed.kind))
        else:
            encrypted = _object(value).get("__enc__") == 1
        if not encrypted:
            return Value(PLAIN if value else NOTHING)
        return self._opened(sealed, session, value)

    def opens(self, sealed: Sealed, session: str, value: t.Any) -> bool:
        """Whether any key opens a value that is encrypted. Errors: InvalidInput, KeyUnavailable."""
        return self._opened(sealed, session, value).state == OPEN

    def _opened(self, sealed: Sealed, session: str, value: t.Any) -> Value:
        token: t.Any = value if isinstance(value, bytes) else b""
        if sealed.cipher != AES:
            token = _object(value).get("payload")
        for number, key in enumerate(self.keys):
            try:
                return Value(OPEN, number, key.cipher(sealed.cipher, session).open(token))
            except Shut:
                continue
        return Value(SHUT)

    def reseal(self, payload: bytes, plain: bytes, key: ApplicationKey) -> bytes:
        """The payload with its value encrypted by another key. Errors: RecordCorrupt."""
        engine, tables = unpack(payload)
        root, sealed = self._sealed(engine, tables)
        if root is None or sealed is None:
            raise AssertionError("look at it first")
        cells = _cells(engine, tables[0])
        former, session = cells[sealed.column], _text(cells[root.namespace.columns[0]])
        cipher = key.cipher(sealed.cipher, session)
        new: t.Any
        if sealed.cipher == AES:
            new = cipher.seal(plain)
        else:  # the rest of the envelope keeps its bytes
            body = _text(former).lstrip("\1")
            mark = _text(former)[: -len(body)]
            text = mark + in_json(body, "payload", lambda token: cipher.seal(plain, token))
            new = text if isinstance(former, str) else text.encode("utf-8", "surrogateescape")
        place = [name for name, _kind in tables[0].columns].index(sealed.column)
        row = list(tables[0].rows[0])
        row[place] = sqlite_cell(new) if engine == "sqlite" else new
        head = header(engine, [(one.name, one.columns) for one in tables])
        return pack(head, [[row], *(one.rows for one in tables[1:])])

    def _sealed(self, engine: str, tables: t.Sequence[TableRows]) -> tuple[Root | None, Sealed | None]:
        root = self._roots.get(engine, {}).get(tables[0].name)
        if root is None or root.sealed is None or not tables[0].rows:
            return None, None
        return root, root.sealed


class Opening(Unsealed):
    """In place of a keyring, for a scan: says of every value that the application encrypted whether a key opens it."""

    #: (kind, evidence) of what does not open
    finding = ("application-key", "no key of the application that is given opens it: another key, or it is damaged")

    def __init__(self, seals: Seals) -> None:
        self._seals = seals

    def decrypt(self, nonce: bytes, data: bytes, _head: bytes) -> bytes:
        """Errors: ValueError when none opens it."""
        try:
            found = self._seals.look(nonce + data)
        except RecordCorrupt as exc:
            raise ValueError(exc.message) from None
        if found.state == SHUT:
            raise Shut("it does not open")
        return data


class Tried:
    """Tries the keys on rows of a snapshot and remembers what none of them opens."""

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        self._shut: dict[str, tuple[int, list[str]]] = {}

    def __call__(self, namespace: str, rows: t.Iterable[t.Any]) -> None:
        for row in rows:
            try:
                shut = self._seals.look(row[8]).state == SHUT
            except (RecordCorrupt, TypeError, AttributeError):
                continue  # it is damaged, and told of as that
            if shut:
                count, keys = self._shut.get(namespace, (0, []))
                self._shut[namespace] = count + 1, keys if count >= EXAMPLES else [*keys, row[0]]

    def problems(self) -> list[dict[str, t.Any]]:
        return [
            {
                "reason": f"{counted(count, 'value')} of {namespace!r:.80} {'opens' if count == 1 else 'open'} with no "
                "key of the application that is given.",
                "namespace": namespace, "records": keys,
            }
            for namespace, (count, keys) in self._shut.items()
        ]  # fmt: skip


def keys_of(params: t.Mapping[str, t.Any]) -> list[ApplicationKey]:
    """Those that memory_store names. Errors: KeyUnavailable, InvalidInput."""
    return read_keys(
        params.get("application_key"), params.get("application_key_file"), "memory_store.application_key_file"
    )


def seals_of(params: t.Mapping[str, t.Any]) -> Seals | None:
    """None for a store whose application encrypts nothing, and for a rehearsal's that was given no key of it.
    Errors: KeyUnavailable, InvalidInput."""
    from ._layouts import layout

    if params.get("scratch") and not (params.get("application_key") or params.get("application_key_file")):
        return None
    chosen = layout(params.get("layout") or "native", params.get("tables"))
    if not isinstance(chosen, TablesLayout):
        return None
    roots = (*chosen.roots, *(root for some in chosen.variants.values() for root in some))
    if not any(root.sealed for root in roots):
        return None
    return Seals(chosen, keys_of(params))


def over(ring: t.Any, params: t.Mapping[str, t.Any]) -> t.Any:
    """What opens the payloads of a scan: ``ring``, or the application's own keys where ``params`` (memory_store, or
    nothing) name some."""
    if not params or not isinstance(ring, Unsealed):
        return ring
    seals = seals_of(params)
    return Opening(seals) if seals is not None and seals.keys else ring


def _cells(engine: str, table: TableRows) -> dict[str, t.Any]:
    """Values of the root's row: as SQLite has them, or as bytes."""
    plain: t.Callable[[Cell], t.Any] = sqlite_value if engine == "sqlite" else bytes_of
    return {name: plain(cell) for (name, _kind), cell in zip(table.columns, table.rows[0])}


def bytes_of(cell: Cell) -> t.Any:
    return cell


def _text(value: t.Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value or "")


def _object(value: t.Any) -> dict[str, t.Any]:
    try:
        found = json.loads(_text(value).lstrip("\1"))  # jsonb is sent with its version in front
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records between Python's texts and PostgreSQL's bytes, and batches that stay within bounds.

PRIVATE to the collection.

Texts of any kind may contain NUL, which a PostgreSQL text cannot: they are bytea, and the order of bytes is the order
of keys. An index entry holds some 2,700 bytes at most: of a longer key the first HEAD_BYTES are in ``key``, others
in ``key_rest``, and ``key_mark`` (their SHA-256) makes the index entry unique.
"""
from __future__ import annotations

import hashlib
import typing as t
from operator import itemgetter

from .._codec import encodable
from .._model import Row
from .postgresql_arrays import Blobs, Ints

if t.TYPE_CHECKING:
    from .postgresql_schema import RecordsSql
    from .postgresql_session import Session

HEAD_BYTES: t.Final = 1024
BATCH_BYTES: t.Final = 8 << 20
INLINE_BYTES: t.Final = 16 << 10  # a bigger payload is fetched by itself: a page of rows stays small
Key = t.Tuple[bytes, bytes, bytes]  # key, key_rest, key_mark
_payload = itemgetter(8)


def split(key: str | bytes) -> Key:
    """Errors: UnicodeEncodeError."""
    raw = key.encode() if isinstance(key, str) else key
    if len(raw) <= HEAD_BYTES:
        return raw, b"", b""
    rest = raw[HEAD_BYTES:]
    return raw[:HEAD_BYTES], rest, hashlib.sha256(rest).digest()


def split_all(keys: t.Iterable[str | bytes]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    raw = [key.encode() if isinstance(key, str) else key for key in keys]
    if not raw or max(map(len, raw)) <= HEAD_BYTES:
        none = [b""] * len(raw)
        return raw, none, none
    parts = list(map(split, raw))
    return [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]


def names_of(keys: t.Iterable[str | bytes]) -> tuple[Blobs, Blobs]:
    """Arrays of key and key_mark, which name a record."""
    heads, _rests, marks = split_all(keys)
    return Blobs(heads), Blobs(marks)


def columns_of(rows: t.Sequence[Row]) -> tuple[t.Any, ...]:
    """The arrays of a batch in the order of RecordsSql.stored. Errors: TypeError, ValueError, struct.error."""
    keys, epoch, sequence, created, updated, expires, deleted, key_ids, payloads, checksums = zip(*rows)
    heads, rests, marks = split_all(keys)
    return (
        Blobs(heads), Blobs(rests), Blobs(marks), Ints(epoch), Ints(sequence), Ints(created), Ints(updated),
        Ints(expires), Ints(deleted), Blobs([escaped(k) for k in key_ids]), Blobs(payloads), Blobs(checksums),
    )  # fmt: skip


def escaped(text: t.Any) -> t.Any:
    """The bytes of a text, those that a damaged one had before too; None stays."""
    return text.encode("utf-8", "surrogateescape") if text is not None else None


def lenient(raw: bytes | None) -> t.Any:
    """Text that somebody damaged: what is no UTF-8 becomes surrogates, which no checksum takes."""
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def decoded(rows: t.Sequence[t.Any]) -> list[Row]:
    """Raw rows with key and key id as text. Rows whose key is no text are left out: ``structure`` reports them."""
    try:
        return [(r[0].decode(), r[1], r[2], r[3], r[4], r[5], r[6], r[7].decode(), r[8], r[9]) for r in rows]
    except UnicodeDecodeError:
        out = [(lenient(r[0]), *r[1:7], lenient(r[7]), *r[8:10]) for r in rows]
        return [row for row in out if encodable(row[0])]


def bounded(
    rows: list[t.Any], fetch: t.Callable[[str, t.Sequence[t.Any]], t.Mapping[t.Any, t.Any]], at: int = 8
) -> t.Iterator[list[t.Any]]:
    """The rows of one page in batches of some BATCH_BYTES, with the payloads that were too big to come along.

    ``fetch("octet_length", rows)`` and ``fetch("", rows)`` give sizes and payloads by a row's first field.
    """
    try:
        if sum(map(len, map(itemgetter(at), rows))) <= BATCH_BYTES:
            yield rows
            return
    except TypeError:  # None: a big one
        pass
    sizes = fetch("octet_length", [row for row in rows if row[at] is None])
    part: list[t.Any] = []
    size = 0
    for number, row in enumerate(rows, 1):
        part.append(row)
        size += len(row[at]) if row[at] is not None else sizes.get(row[0], 0)
        if size > BATCH_BYTES or number == len(rows):
            big = [one for one in part if one[at] is None]
            payloads = fetch("", big) if big else {}
            yield [
                one if one[at] is not None else (*one[:at], payloads[one[0]], *one[at + 1 :])
                for one in part
                if one[at] is not None or one[0] in payloads
            ]
            part, size = [], 0


def payload_fetcher(
    session: Session, s: RecordsSql, generation: int
) -> t.Callable[[str, t.Sequence[t.Any]], t.Mapping[t.Any, t.Any]]:
    """For ``bounded``, where a row's first field is its key in bytes."""

    def fetch(function: str, rows: t.Sequence[t.Any]) -> t.Mapping[t.Any, t.Any]:
        found = session.rows(
            f"SELECT r.key || r.key_rest, {function}(r.payload) FROM unnest(%s, %s) AS w(key, mark) {s.probe}",
            *names_of([row[0] for row in rows]),
            generation,
        )
        return dict(found)

    return fetch


def rows_of(session: Session, s: RecordsSql, generation: int, keys: t.Sequence[str]) -> dict[str, Row]:
    """The rows of these keys. Text that no key can be (surrogates from a damaged log) has no row."""
    found: dict[str, Row] = {}
    wanted = [key for key in keys if encodable(key)]
    for start in range(0, len(wanted), 1000):
        part = wanted[start : start + 1000]
        rows = session.rows(
            f"SELECT {s.whole} FROM unnest(%s, %s) AS w(key, mark) {s.probe}", *names_of(part), generation
        )
        found.update((row[0], row) for row in decoded(rows))
    return found

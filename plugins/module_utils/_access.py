# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How ``Memory`` puts records into a store and gets them out: sealed, verified, logged, page by page.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t

from ._benchmark import open_body, open_value, serves
from ._codec import RecordCodec
from ._errors import KeyUnavailable, NamespaceUnknown, RecordCorrupt
from ._model import CHECKSUM, CREATED, DELETED, EXPIRES, KEY, LogEntry, Row
from ._session import Session
from ._store import Store

PAGE = 500  # records that a listing or a search reads at once
NOTHING: t.Final = object()


def put(
    session: Session,
    namespace: str,
    items: t.Sequence[tuple[str, bytes]],
    reason: str | None,
    ttl: float | None,
    *,
    operation: str = "write",
    aside: str | None = None,
) -> int:
    """Write (or ``delete``) the encoded items in one transaction, one sequence and one log entry each; the first one.

    Errors: NamespaceQuarantined, NamespaceLocked, KeyUnavailable.
    """
    codec, keyring = RecordCodec(namespace), session.keyring
    key_id = keyring.active_id
    keyring.cipher(key_id)  # nothing is held in the store while a key service answers

    def work(store: Store) -> int:
        with store.writing(namespace, len(items)) as write:
            former = write.current([key for key, _body in items])
            at = write.at
            life = write.ttl if ttl is None else ttl
            expires = None if life is None or operation == "delete" else at + int(life * 1e6)
            deleted = at if operation == "delete" else None
            rows, entries = [], []
            for sequence, (key, body) in enumerate(items, write.first_sequence):
                created = _created(former.get(key), at, operation)
                fields = (key, write.epoch, sequence, created, at, expires, deleted, key_id)
                payload = keyring.seal(body, codec.head(fields), key_id)
                checksum = codec.checksum((*fields, payload))
                rows.append((*fields, payload, checksum))
                entries.append(
                    (0, at, namespace, operation, key, write.epoch, sequence, checksum)
                    + (write.lock, session.actor, reason, b"")
                )
            write.put(rows, entries, aside)
            return write.first_sequence

    return session.writing(namespace, work)


def _created(former: Row | None, at: int, operation: str) -> int:
    """An overwritten record keeps its birth; one that comes after a tombstone or a lapse is new."""
    if former is not None and isinstance(former[CREATED], int) and 0 <= former[CREATED] <= at:
        lapsed = isinstance(former[EXPIRES], int) and former[EXPIRES] <= at
        if operation == "delete" or (former[DELETED] is None and not lapsed):
            return t.cast(int, former[CREATED])
    return at


def serve(
    session: Session,
    codec: RecordCodec,
    namespace: str,
    row: Row,
    now: int,
    serving_ttl: float | None,
    log_hit: bool = True,
) -> t.Any:
    """Verify, open and log one row; its value, or NOTHING when it is not to be served.

    Errors: RecordCorrupt, KeyUnavailable.
    """
    try:
        value = NOTHING
        if row[DELETED] is None:
            value = open_value(codec, session.keyring, row)
        elif open_body(codec, session.keyring, row):  # a tombstone seals nothing, and is not believed unopened
            raise RecordCorrupt("This tombstone was forged over a record.", "rebuild the namespace")
    except (RecordCorrupt, KeyUnavailable) as exc:
        session.log_damage(namespace, row[KEY], exc)
        raise type(exc)(
            f"The memory {row[KEY]!r:.80} of namespace {namespace!r:.80} cannot be read: {exc.message}", exc.next_step
        ) from None
    found = serves(row, now, serving_ttl)
    if found != "hit":
        session.log_read(now, namespace, found, row[KEY])
        return NOTHING
    if log_hit:
        session.log_read(now, namespace, "hit", row[KEY], row[CHECKSUM])
    return value


def outcome(row: Row, now: int, serving_ttl: float | None) -> str:
    """As ``serves``; a row whose fields are damaged counts as there, so that reading it says so."""
    try:
        return serves(row, now, serving_ttl)
    except TypeError:
        return "hit"


def pages(session: Session, namespace: str, prefix: str | None) -> t.Iterator[tuple[list[Row], int, float | None]]:
    """(rows, now, serving ttl) in key order; nothing in quarantine.

    A reader per page: a slow caller holds nothing back in the store, and a failover is followed in between.
    """
    after: str | None = None

    def page(store: Store) -> tuple[list[Row], float | None]:
        with store.reader() as reader:
            try:
                state = reader.namespace(namespace)
            except NamespaceUnknown:
                return [], None
            if state.state == "quarantined":
                session.log_read(session.clock(), namespace, "refused", None)
                return [], None
            if prefix is not None and after is None:  # the prefix may be a key of its own; a scan begins behind it
                own = list(reader.get_many(namespace, [prefix]).values())
                if own:
                    return own, state.serving_ttl
            rows = _first(reader.scan(namespace, after=prefix if after is None else after, batch=PAGE))
            return rows, state.serving_ttl

    while True:
        rows, serving_ttl = session.reading(namespace, page)
        kept = rows if prefix is None else [row for row in rows if row[KEY].startswith(prefix)]
        yield kept, session.clock(), serving_ttl
        if not rows or len(kept) < len(rows):
            session.flush_if_due()
            return
        after = rows[-1][KEY]


def log_pages(session: Session, namespace: str) -> t.Iterator[list[LogEntry]]:
    """The namespace's access log, oldest first, a reader per page."""
    last_id = 0

    def page(store: Store) -> list[LogEntry]:
        with store.reader() as reader:
            return _first(reader.log(namespace, after_id=last_id, batch=PAGE))

    while True:
        rows = session.reading(namespace, page)
        if not rows:
            return
        yield rows
        last_id = rows[-1][0]


T = t.TypeVar("T")


def _first(batches: t.Iterator[list[T]]) -> list[T]:
    """The first batch with something in it (of unreadable rows the engine leaves an empty one); no more is read."""
    try:
        return next((batch for batch in batches if batch), [])
    finally:
        getattr(batches, "close", lambda: None)()

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Records and writes for the engine's tests: as Memory makes them, without encryption."""
from __future__ import annotations

import os
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store

ACTOR = "host:1:test"
# Keys that are awkward for SQL, for C strings or for terminals. The order of code points is that of UTF-8.
KEYS = sorted(
    ["\x00a", "a", "a\x00", "a\x00b", "a/b", "a\nb", "é", "\ud7ff", "\ue000", "\uffff", "\U0001f600", "z" * 5000]
)


def row(namespace, key, epoch, sequence, at, payload=b"sealed", *, deleted=None, expires=None, key_id="k1"):
    fields = (key, epoch, sequence, at, at, expires, deleted, key_id, payload, b"")
    return fields[:9] + (RecordCodec(namespace).checksum(fields),)


def write(store, namespace, items: t.Mapping[str, bytes | None], *, actor=ACTOR, wait=30.0, expires=None, aside=None):
    """Write (or, for None, soft-delete) as one transaction; the rows."""
    with store.writing(namespace, len(items), wait) as w:
        rows = [
            row(
                namespace, key, w.epoch, w.first_sequence + n, w.at, payload or b"",
                deleted=w.at if payload is None else None, expires=expires,
            )
            for n, (key, payload) in enumerate(items.items())
        ]  # fmt: skip
        w.put(rows, entries(namespace, rows, w.lock, actor), aside)
    return rows


def entries(namespace, rows, lock=1, actor=ACTOR):
    return [
        (0, r[4], namespace, "delete" if r[6] else "write", r[0], r[1], r[2], r[9], lock, actor, None, b"")
        for r in rows
    ]


def all_rows(store, namespace, **kwargs):
    with store.reader() as reader:
        return [r for batch in reader.scan(namespace, **kwargs) for r in batch]


def keys_of(store, namespace, **kwargs):
    return [r[0] for r in all_rows(store, namespace, **kwargs)]


def health(store):
    with store.reader() as reader:
        return reader.log_health()


def structure(store):
    with store.reader() as reader:
        return reader.structure()


def new(directory, name="m.db", **params):
    return open_store({"path": os.path.join(str(directory), name), **params}, create=True)

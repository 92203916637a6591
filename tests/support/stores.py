# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Real stores, keyrings and records for tests, made without ``Memory``."""
from __future__ import annotations

import os
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._codec import RecordCodec, encode_value
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._model import LogEntry, Record, Row
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store


def keyring_params(directory: t.Any, name: str = "keyring") -> dict[str, t.Any]:
    """A new master key file and the path of a keyring file."""
    master = os.path.join(str(directory), f"{name}.master")
    if not os.path.exists(master):
        handle = os.open(master, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(handle, "w", encoding="ascii") as file:
            file.write(os.urandom(32).hex())
    return {"source": "file", "master_key_file": master, "path": os.path.join(str(directory), f"{name}.json")}


def new_keyring(directory: t.Any, name: str = "keyring") -> Keyring:
    return Keyring.open(keyring_params(directory, name), create=True)


def new_store(directory: t.Any, name: str = "store.db") -> dict[str, t.Any]:
    params = {"engine": "sqlite", "layout": "native", "path": os.path.join(str(directory), name)}
    open_store(params, create=True).close()
    return params


def fill(
    params: t.Mapping[str, t.Any],
    keyring: Keyring,
    namespace: str,
    items: t.Mapping[str, t.Any],
    *,
    expires: int | None = None,
) -> None:
    """Write values as an application does; a value None writes a tombstone."""
    codec = RecordCodec(namespace)
    store = open_store(params)
    try:
        keys = list(items)
        for start in range(0, len(keys), 2000):
            part = keys[start : start + 2000]
            with store.writing(namespace, len(part)) as write:
                former = write.current(part)
                rows: list[Row] = []
                entries: list[tuple[t.Any, ...]] = []
                for number, key in enumerate(part):
                    value = items[key]
                    created = former[key][3] if key in former else write.at
                    deleted = write.at if value is None else None
                    row = Record(
                        key, write.epoch, write.first_sequence + number, created, write.at, expires, deleted,
                        keyring.active_id, b"", b"",
                    )  # fmt: skip
                    plain = b"" if value is None else encode_value(value)
                    row = row._replace(payload=keyring.seal(plain, codec.head(row), row.key_id))
                    row = row._replace(checksum=codec.checksum(row))
                    rows.append(tuple(row))
                    operation = "delete" if value is None else "write"
                    entries.append(
                        tuple(
                            LogEntry(
                                0, write.at, namespace, operation, key, row.epoch, row.sequence, row.checksum,
                                write.lock, "test", None, b"",
                            )
                        )
                    )  # fmt: skip
                write.put(rows, entries)
    finally:
        store.close()


def rows_of(params: t.Mapping[str, t.Any], namespace: str) -> list[Row]:
    store = open_store(params)
    try:
        with store.reader() as reader:
            return [tuple(row) for rows in reader.scan(namespace) for row in rows]
    finally:
        store.close()


def log_of(params: t.Mapping[str, t.Any], namespace: str) -> list[tuple[t.Any, ...]]:
    store = open_store(params)
    try:
        with store.reader() as reader:
            return [tuple(entry) for entries in reader.log(namespace) for entry in entries]
    finally:
        store.close()

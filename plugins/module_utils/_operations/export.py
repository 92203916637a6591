# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Write a snapshot as JSON Lines: nobody needs this collection to read their data.

PRIVATE to the collection. The files hold plain text; they are made with mode 0600.
"""
from __future__ import annotations

import base64
import contextlib
import json
import os
import typing as t

from .. import _progress
from .._codec import RecordCodec, decode_value
from .._errors import KeyUnavailable, RecordCorrupt, StoreUnavailable
from .._layouts import seals
from .._line_records import ORDER
from .._model import LogEntry, Record, Row
from .._python_values import MAGIC as VALUES
from .._python_values import unpack
from .._repository import Repository
from .._table_records import MAGIC as TABLES
from .._table_values import readable
from .coverage import newest_whole


def export(
    *,
    repository: Repository | t.Mapping[str, t.Any],
    keyring: t.Any,
    name: str,
    directory: str,
    snapshot_id: str | None = None,
    namespaces: t.Sequence[str] | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Write ``records.jsonl`` and ``log.jsonl`` into ``directory`` (made when missing); default: the newest good
    snapshot that holds everything.

    A record: {namespace, key, epoch, sequence, created, updated, expires, deleted, key_id, checksum, status} and, by
    its status intact: ``data`` (JSON) or ``data_base64`` (bytes), or nothing (tombstone), of the layout keyspace
    ``dump_base64`` (what RESTORE takes), of layouts of tables ``tables`` ({table: [{column: value}]}), and of a file of
    JSON Lines ``lines`` ([what each says]); by
    unopenable or damaged: ``payload_base64``. Times are microseconds since 1970 UTC. Nothing is left under these names
    by a failed export. Files that say the same already are left as they are. ``check``: nothing is written.

    Returns {changed, snapshot, records, unopenable, damaged, log_entries, files}.
    Errors: SnapshotUnusable, KeyUnavailable, RepositoryUnavailable, StoreUnavailable (the directory).
    """
    place = repository if isinstance(repository, Repository) else Repository.open(repository)
    if snapshot_id is None:
        snapshot = newest_whole(place, name, keyring, namespaces)
    else:
        snapshot = place.snapshot(name, snapshot_id, keyring)
    if not check:  # it goes into the file of the keyring
        keyring.adopt(snapshot.wrapped_keys())
    chosen = snapshot.namespaces() if namespaces is None else list(namespaces)
    for namespace in chosen:
        snapshot.chunks(namespace)
    ring = keyring if seals(snapshot.manifest["store"]["layout"]) else None
    counts = {"records": 0, "unopenable": 0, "damaged": 0, "log_entries": 0}
    files = {kind: os.path.join(directory, f"{kind}.jsonl") for kind in ("records", "log")}
    parts = {kind: f"{path}.part" for kind, path in files.items()}
    same = []
    try:
        if not check:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        _progress.begin("exporting records", sum(snapshot.manifest["namespaces"][n]["records"] for n in chosen))
        with _lines(files["records"], None if check else parts["records"]) as file:
            for namespace in chosen:
                codec = RecordCodec(namespace)
                for rows in snapshot.scan(namespace):
                    for row in rows:
                        file.write(_record(namespace, codec, ring, row, counts))
                    counts["records"] += len(rows)
                    _progress.add(len(rows))
            same.append(file.same())
        with _lines(files["log"], None if check else parts["log"]) as file:
            for namespace in chosen:
                for entries in snapshot.log(namespace):
                    counts["log_entries"] += len(entries)
                    for entry in entries:
                        fields = LogEntry._make(entry)._asdict()
                        file.write(_line({key: _plain(value) for key, value in fields.items()}))
            same.append(file.same())
        if not check and not all(same):
            for kind, path in files.items():
                os.replace(parts[kind], path)
    except OSError as exc:
        raise StoreUnavailable(
            f"The export cannot be written to {directory}: {exc.strerror}.", "free space or name another directory"
        ) from None
    finally:
        for part in parts.values():
            if os.path.exists(part):
                os.unlink(part)
    return {"changed": not all(same), "snapshot": snapshot.id, **counts, "files": list(files.values())}


@contextlib.contextmanager
def _lines(path: str, part: str | None) -> t.Iterator[_Lines]:
    """For the file ``part`` (None: nothing is written), compared with those of ``path``."""
    with contextlib.ExitStack() as stack:
        former = file = None
        with contextlib.suppress(FileNotFoundError):
            former = stack.enter_context(open(path, encoding="ascii", errors="replace", newline=""))
        if part is not None:
            if os.path.exists(part):
                os.unlink(part)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            file = stack.enter_context(open(handle, "w", encoding="ascii"))
        yield _Lines(former, file)


class _Lines:
    def __init__(self, former: t.IO[str] | None, file: t.IO[str] | None) -> None:
        self._former, self._file, self._same = former, file, former is not None

    def write(self, line: str) -> None:
        if self._same and self._former is not None:
            self._same = self._former.read(len(line)) == line
        if self._file is not None:
            self._file.write(line)

    def same(self) -> bool:
        """Whether the file has these lines, and no more."""
        return self._same and self._former is not None and not self._former.read(1)


def _line(body: t.Mapping[str, t.Any]) -> str:
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")) + "\n"


def _plain(value: t.Any) -> t.Any:
    return value.hex() if isinstance(value, bytes) else value


def _record(namespace: str, codec: RecordCodec, keyring: t.Any, row: Row, counts: dict[str, int]) -> str:
    record = Record._make(row)
    body: dict[str, t.Any] = {"namespace": namespace}
    body.update((key, _plain(value)) for key, value in record._asdict().items() if key != "payload")
    if not codec.intact(row):
        counts["damaged"] += 1
        body["status"] = "damaged"
    elif keyring is None:
        body.update(status="intact", **_unsealed(record))
        return _line(body)
    else:
        try:
            plain = keyring.open_payload(record.payload, codec.head(row), record.key_id)
            body["status"] = "intact"
            if record.deleted is None:
                value = decode_value(plain)
                body.update(_value(value) if isinstance(value, bytes) else {"data": value})
            return _line(body)
        except (RecordCorrupt, KeyUnavailable, ValueError):
            counts["unopenable"] += 1
            body["status"] = "unopenable"
    payload = record.payload if isinstance(record.payload, bytes) else repr(record.payload).encode()
    body["payload_base64"] = base64.b64encode(payload).decode()
    return _line(body)


def _unsealed(record: Record) -> dict[str, t.Any]:
    payload = record.payload
    if record.key == ORDER:
        return {"payload_base64": base64.b64encode(payload).decode()}
    if payload.startswith(b"{"):  # lines of a file; no dump and no table begins like that
        return {"lines": [json.loads(line) for line in payload.split(b"\n")]}
    if payload.startswith(TABLES):
        try:
            return {"tables": readable(payload)}
        except RecordCorrupt:
            return {"payload_base64": base64.b64encode(payload).decode()}
    if payload.startswith(VALUES):
        value = unpack(payload)
        return _value(value) if isinstance(value, bytes) else {"data": value}
    return {"dump_base64": base64.b64encode(payload).decode()}


def _value(value: bytes) -> dict[str, t.Any]:
    return {"data_base64": base64.b64encode(value).decode()}

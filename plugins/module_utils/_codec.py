# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The canonical bytes of a native record: what its checksum covers and what its encryption binds.

PRIVATE to the collection. docs/snapshot_format.md states the same in words; tests/decoder/ proves it.
"""
from __future__ import annotations

import hashlib
import json
import struct
import typing as t

from ._errors import InvalidInput
from ._model import Row

MAGIC = b"memops record 1\0"
#: lengths of namespace, key and key id in bytes; epoch, sequence, created, updated, expires, deleted (-1: none)
HEAD = struct.Struct(">IIIQQqqqq")
_quoted: t.Callable[[str], str] = json.encoder.encode_basestring_ascii
_compact = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
#: The checksum of a record whose value its application could not read; the payload says why. No SHA-256 is that short.
UNREADABLE: t.Final = b"unreadable"
MAX_KEY_BYTES = 4 << 20
MAX_NAME_BYTES = 512
MAX_VALUE_BYTES = 256 << 20


def encodable(text: t.Any) -> bool:
    """Whether it is text that UTF-8 can hold, as every key is: damage may have left surrogates, or no text at all."""
    if text.__class__ is not str:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def namespace_prefix(namespace: str) -> bytes:
    """The part of a record's head that is the same for a whole namespace; compute it once per scan."""
    return MAGIC + namespace.encode()


def head(prefix: bytes, namespace_length: int, row: Row) -> bytes:
    """The associated data of ``row`` (only its first eight fields are read). Errors: UnicodeEncodeError, struct.error.

    A stored -1 would look like no time at all, so that a flipped field could delete a record unnoticed: it is refused.
    """
    key, key_id = row[0].encode(), row[7].encode()
    expires, deleted = row[5], row[6]
    return b"".join(
        (
            HEAD.pack(
                namespace_length,
                len(key),
                len(key_id),
                row[1],
                row[2],
                row[3],
                row[4],
                -1 if expires is None else expires if expires != -1 else None,
                -1 if deleted is None else deleted if deleted != -1 else None,
            ),
            prefix,
            key,
            key_id,
        )
    )


class RecordCodec:
    """Heads and checksums of one namespace's records.

    ``checksum(row)`` is SHA-256 over head and stored payload: anyone can recompute it, no key is needed.
    """

    def __init__(self, namespace: str) -> None:
        self._prefix = namespace_prefix(namespace)
        self._length = len(namespace.encode())

    def head(self, row: Row) -> bytes:
        return head(self._prefix, self._length, row)

    def checksum(self, row: Row) -> bytes:
        return hashlib.sha256(head(self._prefix, self._length, row) + row[8]).digest()

    def intact(self, row: Row) -> bool:
        """Whether the stored checksum holds. A row with fields of a wrong type is not intact; it never raises."""
        try:
            return bool(self.checksum(row) == row[9])
        except (TypeError, ValueError, AttributeError, struct.error):
            return False


def why_unreadable(row: Row) -> str | None:
    """Why nobody could read the record; None for any other."""
    if row[9] != UNREADABLE:
        return None
    return bytes(row[8]).decode("utf-8", "replace")


def log_checksum(entry: t.Sequence[t.Any]) -> bytes:
    """16 bytes over a log entry's fields but id and checksum (order of LogEntry), written as a JSON array."""
    at, namespace, operation, key, epoch, sequence, digest, lock, actor, reason = entry[1:11]
    if (
        key.__class__ is namespace.__class__ is operation.__class__ is actor.__class__ is str
        and at.__class__ is epoch.__class__ is sequence.__class__ is int
        and digest.__class__ is bytes
        and (lock is None or lock.__class__ is int)
        and (reason is None or reason.__class__ is str)
    ):  # nearly every entry: the same text as below, three times as fast
        body = (
            f"[{at},{_quoted(namespace)},{_quoted(operation)},{_quoted(key)},{epoch},{sequence},"
            f'"{digest.hex()}",{"null" if lock is None else lock},{_quoted(actor)},'
            f"{'null' if reason is None else _quoted(reason)}]"
        )
    else:
        body = _compact([x.hex() if isinstance(x, (bytes, bytearray, memoryview)) else x for x in entry[1:11]])
    return hashlib.sha256(b"memops log 1\0" + body.encode()).digest()[:16]


def encode_value(data: t.Any) -> bytes:
    """``bytes`` as they are, everything else as JSON; one leading byte tells which. Errors: InvalidInput."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        body = b"b" + bytes(data)
    else:
        try:
            body = b"j" + json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError) as exc:
            raise InvalidInput(
                f"This value cannot be stored: {exc}.", "pass bytes or something that JSON can express"
            ) from None
    if len(body) > MAX_VALUE_BYTES:
        raise InvalidInput(f"A value of {len(body)} bytes is over the limit of {MAX_VALUE_BYTES}.", "split the memory")
    return body


def decode_value(body: bytes) -> t.Any:
    """The inverse of encode_value. Errors: ValueError for bytes that encode_value cannot have made."""
    if body[:1] == b"b":
        return body[1:]
    if body[:1] == b"j":
        return json.loads(body[1:])
    raise ValueError("unknown value encoding")


def check_key(key: t.Any) -> str:
    """A key is any non-empty Unicode text up to MAX_KEY_BYTES in UTF-8. Errors: InvalidInput."""
    return _check_text("key", key, MAX_KEY_BYTES)


def check_namespace(name: t.Any) -> str:
    """A namespace is any non-empty Unicode text up to MAX_NAME_BYTES in UTF-8. Errors: InvalidInput."""
    return _check_text("namespace", name, MAX_NAME_BYTES)


def _check_text(what: str, text: t.Any, limit: int) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"A {what} must be a non-empty text, not {text!r:.60}.", f"name one {what}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"The {what} {text!r:.60} is not valid Unicode.", f"correct the {what}") from None
    if size > limit:
        raise InvalidInput(f"A {what} of {size} bytes is over the limit of {limit}.", f"shorten the {what}")
    return text

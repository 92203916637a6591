# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages that an application encrypted by EncryptedSession of the OpenAI Agents SDK, and whether its key opens them.

PRIVATE to the collection. The SDK derives a key for each session from the application's (HKDF, SHA-256), and seals each
message by Fernet; what does not open it leaves out without a word.
"""
from __future__ import annotations

import base64
import json
import sqlite3
import typing as t

from .._errors import InvalidInput, KeyUnavailable
from .tables_sqlite_sql import Schema

INFO: t.Final = b"agents.session-store.hkdf.v1"
SHOWN: t.Final = 5


def read_key(path: str | None) -> bytes | None:
    """The application's key; None where no file is named. Errors: KeyUnavailable, InvalidInput."""
    if not path:
        return None
    try:
        with open(path, "rb") as stream:
            raw = stream.read().strip()
    except OSError as exc:
        raise KeyUnavailable(
            f"The application's key {path} cannot be read: {exc.strerror}.",
            "correct memory_store.application_key_file, or leave it out",
        ) from None
    if not raw:
        raise InvalidInput(f"The application's key {path} is empty.", "correct memory_store.application_key_file")
    try:  # as the SDK takes it: a Fernet key, or any text
        decoded = base64.b64decode(raw, altchars=b"-_", validate=True)
    except ValueError:
        return raw
    return decoded if len(decoded) == 32 else raw


def envelopes(con: sqlite3.Connection, schema: Schema, key: bytes | None) -> list[str]:
    """What is to be said of them, in words. Errors: sqlite3.Error, KeyUnavailable."""
    sealed = (
        f"FROM {schema.tables[1].plain} WHERE "
        "CASE WHEN json_valid(message_data) THEN json_extract(message_data, '$.__enc__') END = 1"
    )
    count, sessions = con.execute(f"SELECT count(*), count(DISTINCT session_id) {sealed}").fetchone()
    if not count:
        return []
    said = f"{count} messages of {sessions} sessions are encrypted by the application: "
    if key is None:
        return [
            said + "whether its key opens them could not be verified (memory_store.application_key_file), only that "
            "they are whole envelopes; with a wrong key they look like an empty memory"
        ]
    shut = 0
    where: dict[str, None] = {}
    for session, text in con.execute(f"SELECT session_id, message_data {sealed}"):
        if not _opens(key, session, json.loads(text)):
            shut += 1
            where.setdefault(session)
    if not shut:
        return []
    if shut == count:
        return [said + "none of them opens with memory_store.application_key_file: another key, or all are damaged"]
    shown = ", ".join(repr(one)[:80] for one in list(where)[:SHOWN])
    return [said + f"{shut} do not open with its key, in {len(where)} sessions: {shown}"]


def _opens(key: bytes, session: str, item: t.Mapping[str, t.Any]) -> bool:
    try:
        from cryptography.fernet import Fernet, InvalidToken
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise KeyUnavailable(
            "The library cryptography is missing, without which no message can be opened.",
            "install it for the Python on the memory host, or leave memory_store.application_key_file out",
        ) from None
    derived = HKDF(hashes.SHA256(), 32, session.encode(), INFO).derive(key)
    try:
        Fernet(base64.urlsafe_b64encode(derived)).decrypt(item["payload"])
    except (InvalidToken, KeyError, TypeError, ValueError):
        return False
    return True

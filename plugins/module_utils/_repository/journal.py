# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The journals of incidents: encrypted entries, each with the hash of the one before.

PRIVATE to the collection. An entry is never rewritten, since the next one holds its hash; what another master key
needs to open it lies beside the entries, in ``keys/<master key id>.json``.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import typing as t

from .._errors import RepositoryRefused, SnapshotUnusable
from .manifest import FORMAT, keys_name, open_line, seal_line
from .objects import ObjectMissing, ObjectStore, check_name

Wrapped = t.Dict[str, t.Any]


def folder(incident: str) -> str:
    return f"incidents/{check_name('incident', incident)}/"


def entry_name(number: int) -> str:
    return f"{number:06d}"


def key_name(incident: str, number: int) -> str:
    """What the key of an entry is bound to."""
    return f"journal {incident} {number}"


def put(objects: ObjectStore, incident: str, number: int, data: bytes, keyring: t.Any) -> bool:
    where = folder(incident)
    try:
        there = objects.get(where + entry_name(number))
    except ObjectMissing:
        pass
    else:
        if _open(there, incident, number, keyring, lambda: read_keys(objects, incident, keyring.master_id))[1] == data:
            return False
        raise RepositoryRefused(
            f"The journal of {incident} already has another entry {number}.", "another attempt writes; look who"
        )
    previous = ""
    if number:
        try:
            previous = hashlib.sha256(objects.get(where + entry_name(number - 1))).hexdigest()
        except ObjectMissing:
            raise RepositoryRefused(
                f"The journal of {incident} has no entry {number - 1}.", "append the entries in order"
            ) from None
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    secret = secrets.token_bytes(32)
    head = json.dumps(
        {
            "format": FORMAT,
            "incident": incident,
            "number": number,
            "previous": previous,
            "key": keyring.wrap(secret, key_name(incident, number)),
        },
        sort_keys=True,
    ).encode()
    body = head + b"\n" + AESGCM(secret).encrypt(bytes(12), data, head)
    objects.put(where + entry_name(number), body, if_absent=True)
    return True


def read(objects: ObjectStore, incident: str, keyring: t.Any) -> list[bytes]:
    keys: dict[str, Wrapped] | None = None

    def rewrapped() -> dict[str, Wrapped]:
        nonlocal keys
        if keys is None:
            keys = read_keys(objects, incident, keyring.master_id)
        return keys

    entries: list[bytes] = []
    previous = ""
    for number, child in enumerate(numbers(objects, incident)):
        if child != entry_name(number):
            raise SnapshotUnusable(f"The journal of {incident} has no entry {number}.", "read the host's mirror")
        data = objects.get(folder(incident) + child)
        before, body = _open(data, incident, number, keyring, rewrapped)
        if before != previous:
            raise SnapshotUnusable(
                f"Entry {number} of the journal of {incident} does not continue the one before.",
                "read the host's mirror",
            )
        entries.append(body)
        previous = hashlib.sha256(data).hexdigest()
    return entries


def last(objects: ObjectStore, incident: str, keyring: t.Any) -> tuple[int, bytes] | None:
    """The newest entry and its number; None: there is none. Errors: SnapshotUnusable (changed), KeyUnavailable."""
    return next(backwards(objects, incident, keyring), None)


def backwards(objects: ObjectStore, incident: str, keyring: t.Any) -> t.Iterator[tuple[int, bytes]]:
    """Every entry and its number, the newest first. Errors: as ``last``."""
    for name in reversed(numbers(objects, incident)):
        number = int(name)
        data = objects.get(folder(incident) + name)
        yield number, _open(
            data, incident, number, keyring, lambda: read_keys(objects, incident, keyring.master_id)
        )[1]


def numbers(objects: ObjectStore, incident: str) -> list[str]:
    return [child for child in objects.children(folder(incident)) if re.match(r"\A[0-9]{6,}\Z", child)]


def wrapped_key(data: bytes, incident: str, number: int) -> Wrapped:
    """The wrapped key in an entry. Errors: SnapshotUnusable."""
    try:
        fields = json.loads(data.partition(b"\n")[0])
        if fields["incident"] == incident and fields["number"] == number and isinstance(fields["key"], dict):
            return dict(fields["key"])
    except (ValueError, KeyError, TypeError):
        pass
    raise _changed(incident, number)


def _open(
    data: bytes, incident: str, number: int, keyring: t.Any, rewrapped: t.Callable[[], t.Mapping[str, Wrapped]]
) -> tuple[str, bytes]:
    """(hash of the entry before, what the entry says)."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    wrapped = wrapped_key(data, incident, number)
    if wrapped.get("master") != keyring.master_id:
        wrapped = rewrapped().get(entry_name(number), wrapped)
    secret = keyring.unwrap(wrapped, key_name(incident, number))
    head, _newline, body = data.partition(b"\n")
    try:
        return json.loads(head)["previous"], AESGCM(secret).decrypt(bytes(12), body, head)
    except (KeyError, InvalidTag):
        raise _changed(incident, number) from None


def _changed(incident: str, number: int) -> SnapshotUnusable:
    return SnapshotUnusable(f"Entry {number} of the journal of {incident} was changed.", "read the host's mirror")


# --- keys of other master keys ---------------------------------------------------------------------------------------
def read_keys(objects: ObjectStore, incident: str, master: str) -> dict[str, Wrapped]:
    """Entry → its key, wrapped by that master key; empty where there is no such object. Errors: SnapshotUnusable."""
    name = keys_name(master)
    try:
        body = open_line(objects.get(folder(incident) + name), None, f"{name} of the journal of {incident}")
    except ObjectMissing:
        return {}
    entries = body.get("entries")
    if body.get("incident") != incident or not isinstance(entries, dict):
        raise SnapshotUnusable(f"{name} of the journal of {incident} is not its own.", "wrap its keys again")
    return entries


def pack_keys(incident: str, master: str, entries: t.Mapping[str, Wrapped]) -> bytes:
    return seal_line(
        {"format": FORMAT, "code": "sha256", "incident": incident, "master": master, "entries": dict(entries)}, None
    )

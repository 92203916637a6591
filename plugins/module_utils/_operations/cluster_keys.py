# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The record keys of a cluster's keyrings, brought together before they are needed: each host has a file of its own.

PRIVATE to the collection. They go through an encrypted journal of the repository, one entry for the keys that nobody
told before; each is wrapped by the master key, which all hosts share. A new key is told before its first use, so that
a host that is lost right after a rotation does not take the only copy with it.
"""

from __future__ import annotations

import contextlib
import json
import typing as t

from .._errors import CannotProceed, KeyUnavailable, MemoryOpsError, RepositoryMissing, RepositoryRefused
from .._repository import Repository, journal
from .._store import Store
from .commands import run as command

TRIES = 5


def journal_name(name: str) -> str:
    """The journal of a memory cluster's record keys; no incident is called that."""
    return f"keys.{name}"


def share(repository: Repository, keyring: t.Any, name: str, check: bool = False) -> list[str]:
    """Adopt what other hosts told, and tell what they were not told yet; the ids that came. In check mode they come for
    this keyring object alone. Errors: RepositoryUnavailable, RepositoryRefused, SnapshotUnusable, KeyUnavailable."""
    where = journal_name(name)
    for turn in range(TRIES):
        told: dict[str, dict[str, t.Any]] = {}
        number = 0
        for at, data in journal.backwards(repository.objects, where, keyring):
            number = max(number, at + 1)
            for key_id, wrapped in json.loads(data)["record_keys"].items():
                with contextlib.suppress(KeyUnavailable):  # of a master key that was given up: told again under this
                    keyring.unwrap(wrapped, key_id)
                    told.setdefault(key_id, wrapped)
        came: list[str] = keyring.borrow(told) if check else keyring.adopt(told)
        new = {key_id: one for key_id, one in keyring.export_wrapped().items() if key_id not in told}
        if check or not new:
            return came
        try:
            body = json.dumps({"record_keys": new}, sort_keys=True, separators=(",", ":")).encode()
            repository.put_journal(where, number, body, keyring)
            return came
        except RepositoryRefused:
            if turn == TRIES - 1:
                raise
    return []


def tell(open_repository: t.Callable[[], Repository], keyring: t.Any, name: str) -> None:
    """``share`` for a rotation, which waits for it; where there is no repository yet, nothing is told.

    Errors: CannotProceed.
    """
    try:
        share(open_repository(), keyring, name)
    except RepositoryMissing:
        pass
    except MemoryOpsError as exc:
        raise CannotProceed(
            f"The new record key is in this host's keyring alone, and the repository does not take it: {exc.message} "
            "So no record was encrypted with it.",
            "mend the repository, then run the same command again: it goes on with that key",
        ) from None


def opened(
    open_keyring: t.Callable[[], t.Any], open_repository: t.Callable[[], Repository], name: str, check: bool
) -> t.Any:
    """The keyring with what the repository knows of others', as far as that can be reached now."""
    keyring = open_keyring()
    with contextlib.suppress(MemoryOpsError):
        share(open_repository(), keyring, name, check)
    return keyring


def has_rotated(store: Store, keyring: t.Any, host: str) -> None:
    """Errors: CannotProceed when the records of a namespace were encrypted anew with a key that this keyring lacks."""
    newest: dict[str, t.Any] = {}
    for one in store.incidents():  # newest first
        if (one.facts.get("rotation") or {}).get("to"):
            newest.setdefault(one.namespace, one.facts["rotation"]["to"])
    for namespace, key_id in newest.items():
        try:
            keyring.cipher(key_id)
        except KeyUnavailable:
            raise CannotProceed(
                f"The keyring of {host} lacks the record key {key_id}, with which {namespace} was encrypted anew: its "
                "records could not be read there, so nothing was changed.",
                "bring the key there by a backup, or copy the keyring file from the primary, then run the same command "
                f"again: {command('backup')}",
            ) from None

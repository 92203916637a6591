# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The evidence of drills: an encrypted, hash-chained journal in the repository, one entry a drill, never rewritten.

PRIVATE to the collection. It is a journal as incidents have them, so a new master key and the format's description
cover it. Without the entries before it an entry does not authenticate as the chain's: nobody takes a failure out.
"""

from __future__ import annotations

import itertools
import json
import typing as t

from .._errors import RepositoryRefused, SnapshotUnusable
from .._repository import journal

TRIES = 5
LOOKED_AT = 30  # drills, newest first, among which one that left nothing out is looked for


def journal_name(name: str) -> str:
    """The journal of a memory cluster's drills; no incident is called that."""
    return f"drills.{name}"


def keep(repository: t.Any, keyring: t.Any, name: str, body: t.Mapping[str, t.Any]) -> str:
    """Append what a drill found; the key of the entry. Errors: RepositoryUnavailable, RepositoryRefused."""
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    where = journal_name(name)
    number = len(journal.numbers(repository.objects, where))
    for turn in range(TRIES):
        try:
            repository.put_journal(where, number, data, keyring)
            break
        except RepositoryRefused:
            if turn == TRIES - 1:
                raise
            number += 1  # another drill ended at the same time
    return journal.folder(where) + journal.entry_name(number)


def newest(repository: t.Any, keyring: t.Any, name: str) -> dict[str, t.Any] | None:
    """What the last drill found; None: there was none. Errors: SnapshotUnusable (changed), KeyUnavailable."""
    return next(_backwards(repository, keyring, name), None)


def newest_whole(repository: t.Any, keyring: t.Any, name: str) -> dict[str, t.Any] | None:
    """What the last of these drills found that left no namespace out; as ``newest``."""
    latest = itertools.islice(_backwards(repository, keyring, name), LOOKED_AT)
    return next((one for one in latest if not one.get("left_out")), None)


def _backwards(repository: t.Any, keyring: t.Any, name: str) -> t.Iterator[dict[str, t.Any]]:
    for number, data in journal.backwards(repository.objects, journal_name(name), keyring):
        try:
            yield {**json.loads(data), "number": number}
        except (ValueError, TypeError):
            raise SnapshotUnusable("A record of a drill cannot be read.", "run a drill") from None

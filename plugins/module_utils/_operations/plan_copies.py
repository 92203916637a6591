# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the very same row in a snapshot proves a record that the access log does not explain.

PRIVATE to the collection. It does where the log's entry may have been pruned, or where the log is damaged. But a log
that is whole has an entry for each write from its first one on. A record that was written past it and got into a
backup is no more proven by that backup, unless the log in there had the entry.
"""

from __future__ import annotations

import typing as t

from .._codec import log_checksum
from .._model import LastWrite
from .._store import Reader
from .plan_file import Entry, PlanFile

Version = t.Tuple[int, int]
UNLOGGED: t.Final = "no log entry proves who wrote it"
REWRITTEN: t.Final = "other than the log says that it was written"


def logged_from(reader: Reader, namespace: str, pruned: Version) -> Version | None:
    """The version behind which a log that is whole has an entry for each write of the namespace; None: it is empty.

    What a restore brought came with the entries that its snapshot had. ``pruned``: up to it entries may be gone in good
    order, though a run that was cut short left older ones."""
    for batch in reader.log(namespace, operations=("write", "delete")):
        for entry in batch:
            if isinstance(entry[5], int) and isinstance(entry[6], int):
                state = reader.namespace(namespace)
                return max((entry[5], entry[6]), (state.restored_epoch or 0, state.restored_sequence or 0), pruned)
    return None


def unexplained(version: Version, write: LastWrite | None, since: Version | None) -> bool:
    """Whether a log that is complete behind ``since`` lacks this version; ``write`` is the key's newest entry."""
    return since is not None and version > since and (write is None or (write.epoch, write.sequence) < version)


def acquit(draft: PlanFile, log: t.Iterable[t.Sequence[t.Any]]) -> int:
    """Drop what the log in the snapshot proves: written under the lock, with this very digest. How many."""
    dropped = 0
    for batch in log:
        known: dict[str, list[t.Sequence[t.Any]]] = {}
        for e in batch:
            if e[3] in ("write", "delete") and isinstance(e[4], str):
                known.setdefault(e[4], []).append(e)
        found = draft.get(list(known))
        proven = [entry.key for entry in found if any(_proves(e, entry) for e in known[entry.key])]
        dropped += draft.drop(proven) if proven else 0
    return dropped


def _proves(e: t.Sequence[t.Any], entry: Entry) -> bool:
    mine = entry.action == "suspect" and entry.reason == UNLOGGED and (e[5], e[6]) == (entry.epoch, entry.sequence)
    return mine and e[8] is not None and e[7] == entry.expected and log_checksum(e) == e[11]

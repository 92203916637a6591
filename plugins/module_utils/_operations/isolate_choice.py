# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which records of a namespace an operator means: by key, by a pattern over keys, by the time of their last write.

PRIVATE to the collection.
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

from .._codec import check_key
from .._errors import InvalidInput
from .._inputs import moment, rfc3339
from .._model import DELETED, KEY, UPDATED, Row, is_isolated
from .commands import counted

RESERVED = "\x00memops/"


class Choice:
    """``keys``, and beside them what ``pattern`` and the time range choose together. Build it with ``choose``."""

    def __init__(self, keys: frozenset[str], pattern: str | None, since: int | None, until: int | None) -> None:
        self.keys = keys
        self.wide = pattern is not None or since is not None  # whether the whole namespace has to be looked through
        self.timed = since is not None
        self._pattern, self._since, self._until = pattern, since, until
        self._matches = re.compile(fnmatch.translate(pattern)).match if pattern is not None else None

    def takes(self, row: Row) -> bool:
        """Whether the row is a record that is chosen, in service or isolated; a deleted one never is."""
        key = row[KEY]
        if key.__class__ is not str or key.startswith(RESERVED) or (row[DELETED] is not None and not is_isolated(row)):
            return False
        if key in self.keys:
            return True
        if not self.wide or (self._matches is not None and not self._matches(key)):
            return False
        if self._since is None:
            return True
        at = row[UPDATED]
        return at.__class__ is int and self._since <= at and (self._until is None or at <= self._until)

    def told(self) -> str:
        """For the journal and the log; keys only by their number."""
        parts = [counted(len(self.keys), "key")] if self.keys else []
        if self._pattern is not None:
            parts.append(f"pattern {self._pattern!r:.200}")
        if self._since is not None:
            until = "now" if self._until is None else rfc3339(self._until)
            parts.append(f"written from {rfc3339(self._since)} to {until}")
        return ", ".join(parts)

    def nothing(self, namespace: str, unknown: t.Sequence[str], what: str) -> InvalidInput:
        """The error for a choice that names what is not there."""
        if unknown:
            names = ", ".join(f"{key!r:.80}" for key in unknown[:20])
            more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
            return InvalidInput(
                f"{namespace} has no {what} under {names}{more}; nothing was changed.", "correct memory_keys"
            )
        return InvalidInput(
            f"No {what} of {namespace} matches {self.told()}; nothing was changed.",
            "correct memory_pattern, memory_since or memory_until",
        )


def choose(
    keys: t.Sequence[str] | None = None,
    pattern: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Choice | None:
    """None when nothing is set: the whole namespace is meant. Errors: InvalidInput."""
    if keys is None and pattern is None and since is None and until is None:
        return None
    if keys is not None and not keys and pattern is None and since is None:
        raise InvalidInput("The list of keys is empty.", "name at least one key in memory_keys")
    for key in keys or ():
        check_key(key)
        if key.startswith(RESERVED):
            raise InvalidInput(f"The key {key!r:.60} is reserved.", "leave it out of memory_keys")
    if pattern == "":
        raise InvalidInput("The pattern is empty.", "set memory_pattern to something like 'user-*'")
    if until is not None and since is None:
        raise InvalidInput("A time range needs its beginning.", "set memory_since too")
    first, last = _moment("since", since), _moment("until", until)
    if first is not None and last is not None and last < first:
        raise InvalidInput(
            f"The time range ends at {until!r:.60}, before it begins at {since!r:.60}.",
            "correct memory_since and memory_until",
        )
    return Choice(frozenset(keys or ()), pattern, first, last)


def _moment(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return moment(text)
    except InvalidInput:
        raise InvalidInput(
            f"{name} must be a time with a time zone, not {text!r:.60}.",
            f"write memory_{name} like 2026-01-31T12:00:00Z",
        ) from None

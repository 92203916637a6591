# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches of records that may need each other: one refers to another's, or both swapped what only one may have.

PRIVATE to the collection.
"""

from __future__ import annotations

import itertools
import typing as t

from .._errors import OutOfOrder

T = t.TypeVar("T")


def in_any_order(batches: t.Iterable[list[T]], work: t.Callable[[list[T]], None]) -> None:
    """``work`` on each batch, which changes all of it or raises OutOfOrder. What has to wait for others is done after
    them, and at last all that is left at once. Errors: OutOfOrder when that cannot be done either."""
    left = _left(batches, work)
    while left:
        again = _left(reversed(left), work)
        if len(again) == len(left):
            work(list(itertools.chain.from_iterable(left)))
            return
        left = again


def _left(batches: t.Iterable[list[T]], work: t.Callable[[list[T]], None]) -> list[list[T]]:
    found = []
    for batch in batches:
        try:
            work(batch)
        except OutOfOrder:
            found.append(batch)
    return found

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server dropped by itself, for want of memory, while a step worked with it.

PRIVATE to the collection.
"""

from __future__ import annotations

from .._store import Reader, Store
from .._store_optional import MayDrop


def begin(reader: Reader) -> int:
    """What ``dropped`` has to be told afterwards."""
    return reader.drops() if isinstance(reader, MayDrop) else 0


def dropped(reader: Reader, since: int) -> list[str]:
    """Why something may be missing, in words."""
    return reader.dropped(since) if isinstance(reader, MayDrop) else []


def begin_writing(store: Store) -> int:
    with store.reader() as reader:
        return begin(reader)


def dropped_since(store: Store, since: int) -> list[str]:
    """Sentences."""
    with store.reader() as reader:
        return [f"{line[0].upper()}{line[1:]}." for line in dropped(reader, since)]

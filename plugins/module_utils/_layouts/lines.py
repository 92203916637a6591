# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Memories that lie in a JSON Lines file of another application: what a descriptor of such a file says. Data only.

PRIVATE to the collection. Each line is a JSON object. Lines of one *kind* and name are one record; an application may
write several of the same name. The order of the lines is kept in a record of its own (``_line_records.ORDER``).
"""
from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import Layout

PLACEHOLDER: t.Final = "{namespace}"
#: What keys of lines that cannot be read as any record begin with; the number of the line follows, and after another
#: slash the key of the record that it was, when that record is in the file all the same.
NAMELESS: t.Final = "line/"


@dataclass(frozen=True)
class Kind:
    """One kind of line: ``field`` has the value ``name``, ``texts`` are texts, ``lists`` are lists of texts. ``key``:
    the fields that name the record, in the order of its key; ``written``: in that of the line, behind ``field``."""

    name: str
    key: tuple[str, ...]
    written: tuple[str, ...]
    texts: tuple[str, ...]
    lists: tuple[str, ...] = ()
    field: str = "type"
    refers: str = ""  # the kind whose name the fields ``ends`` hold
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinesLayout(Layout):
    kinds: tuple[Kind, ...] = ()
    #: the most bytes that the application can read at once; 0: nobody knows
    largest: int = 0
    #: regular expression of what the application adds to the file's name while it writes
    drafts: str = ""


def described(name: str, *kinds: Kind, largest: int = 0, drafts: str = "") -> LinesLayout:
    return LinesLayout(
        name,
        frozenset(("fence-reads", "fence-raw-reads", "fence-writes", "generations")),
        ("jsonl",),
        kinds,
        largest,
        drafts,
    )

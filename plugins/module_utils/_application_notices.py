# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator should know of the values that an application encrypted itself, in words. No I/O.

PRIVATE to the collection. Engines count and give a sample; a scrub looks at every value.
"""
from __future__ import annotations

import typing as t

from ._application_ciphers import FERNET
from ._application_seals import Seals, seals_of
from ._errors import InvalidInput, KeyUnavailable
from ._layouts.tables import Sealed
from ._words import counted

SAMPLE: t.Final = 200  # values of a table that are tried
LARGEST: t.Final = 65536  # bytes of one of them
SHOWN: t.Final = 5
#: what LangGraph itself writes into a checkpoint's metadata
KNOWN_METADATA: t.Final = ("source", "step", "parents", "run_id", "writes")
OPTION: t.Final = "memory_store.application_key_file"


class Part(t.NamedTuple):
    """Of one table: how many values are encrypted, in how many namespaces, how many there lie in plain, and a sample
    of (namespace's column, value)."""

    table: str
    sealed: Sealed
    values: int
    spaces: int
    plain: int
    sample: t.Sequence[tuple[str, t.Any]]


def told(params: t.Mapping[str, t.Any], look: t.Callable[[Seals], list[str]]) -> list[str]:
    """What ``look`` says of a store whose application may encrypt. A key that is no key stops nobody here."""
    try:
        seals = seals_of(params)
        return [] if seals is None else look(seals)
    except (KeyUnavailable, InvalidInput) as exc:
        return [exc.message]


def notices(seals: Seals, parts: t.Iterable[Part]) -> list[str]:
    """Errors: InvalidInput, KeyUnavailable."""
    lines: list[str] = []
    for part in parts:
        if not part.values:
            continue
        said = (
            f"{counted(part.values, 'value')} of {part.table} in {counted(part.spaces, 'namespace')} "
            f"{'is' if part.values == 1 else 'are'} encrypted by the application: "
        )
        empty = "; with a wrong key they look like an empty memory" if part.sealed.cipher == FERNET else ""
        if not seals.keys:
            lines.append(f"{said}whether its keys open them could not be verified ({OPTION}){empty}")
        else:
            lines += _tried(said, empty, seals, part)
        if part.plain:
            how = "does not show them" if part.sealed.cipher == FERNET else "reads them all the same"
            lines.append(
                f"{counted(part.plain, 'value')} of {part.table} {'lies' if part.plain == 1 else 'lie'} in plain "
                f"beside encrypted ones; the framework {how}"
            )
    return lines


def _tried(said: str, empty: str, seals: Seals, part: Part) -> list[str]:
    shut = [space for space, value in part.sample if not seals.opens(part.sealed, space, value)]
    tried = len(part.sample)
    if not shut:
        return []
    if len(shut) == tried:
        return [f"{said}none of {tried} that were tried opens with {OPTION}: another key, or all are damaged{empty}"]
    where = list(dict.fromkeys(shut))
    shown = ", ".join(repr(one)[:80] for one in where[:SHOWN])
    return [f"{said}{len(shut)} of {tried} that were tried open with none of its keys, in {len(where)}: {shown}"]


def leaks(inline: int, fields: t.Sequence[str]) -> list[str]:
    """What LangGraph keeps in plain beside encrypted values: ``inline`` checkpoints with texts and numbers,
    ``fields`` of their metadata that are not its own."""
    lines = []
    if inline:
        lines.append(
            f"{counted(inline, 'checkpoint holds', 'checkpoints hold')} texts and numbers in plain, though values are "
            "encrypted: the framework keeps such channels in the checkpoint itself"
        )
    if fields:
        shown = ", ".join(sorted(fields)[:10])
        lines.append(
            f"the metadata of checkpoints lie in plain, though values are encrypted, with these fields of the "
            f"application: {shown:.200}"
        )
    return lines

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers, names and commands in the sentences of operations.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._extra_vars import run
from .._words import counted

__all__ = ("NAMED", "accept", "ago", "back_by", "counted", "named", "namespaces", "of_each", "run")

NAMED = 10


def ago(seconds: float) -> str:
    """An age for people."""
    for length, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} s"


def named(keys: t.Sequence[str]) -> str:
    """The first keys, for a sentence."""
    return ", ".join(repr(key)[:80] for key in keys[:NAMED]) + (" …" if len(keys) > NAMED else "")


def namespaces(names: t.Sequence[str]) -> str:
    """Whom a finding is about: the one, or how many and the first of them."""
    if len(names) == 1:
        return names[0]
    first = ", ".join(name[:80] for name in names[:NAMED])
    return f"{counted(len(names), 'namespace')} ({first}{' …' if len(names) > NAMED else ''})"


def of_each(playbook: str, names: t.Sequence[str]) -> str:
    """The command that runs a playbook on these namespaces; of many on the first of them."""
    return run(playbook, memory_namespace=names[0] if len(names) == 1 else names[:NAMED])


def back_by(namespace: str, snapshot: str | None, keys: t.Sequence[str], count: int) -> str:
    """The command that brings back, from this snapshot, the keys that a plan left away: these, or all that is gone."""
    where: dict[str, str] = {"memory_namespace": namespace, "memory_snapshot": snapshot or "<snapshot>"}
    if count == len(keys) <= NAMED:
        return run("restore", **where, memory_keys=list(keys))
    return run("restore", **where, memory_pattern="*")


def put_back(namespace: str, snapshot: str | None, keys: t.Sequence[str], count: int) -> str:
    """The command that puts what this snapshot has in the place of what a plan kept."""
    listed = list(keys) if count == len(keys) <= NAMED else ["<keys>"]
    return run("restore", memory_namespace=namespace, memory_snapshot=snapshot or "<snapshot>", memory_keys=listed)


def accept(snapshot: str) -> str:
    """The command that accepts a suspect snapshot; the reason is for whoever looked at it to fill in."""
    return run("accept", memory_snapshot=snapshot, memory_accept_reason="<why it is right>")

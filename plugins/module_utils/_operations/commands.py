# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers, names and commands in the sentences of operations.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._extra_vars import run

__all__ = ("NAMED", "accept", "back_by", "counted", "named", "run")

NAMED = 10


def counted(number: int, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def named(keys: t.Sequence[str]) -> str:
    """The first keys, for a sentence."""
    return ", ".join(repr(key)[:80] for key in keys[:NAMED]) + (" …" if len(keys) > NAMED else "")


def back_by(namespace: str, snapshot: str | None, keys: t.Sequence[str], count: int) -> str:
    """The command that brings back, from this snapshot, the keys that a plan left away."""
    listed = list(keys) if count == len(keys) <= NAMED else ["<keys: absent_keys of the plan>"]
    return run("restore", memory_namespace=namespace, memory_snapshot=snapshot or "<snapshot>", memory_keys=listed)


def accept(snapshot: str) -> str:
    """The command that accepts a suspect snapshot; the reason is for whoever looked at it to fill in."""
    return run("accept", memory_snapshot=snapshot, memory_accept_reason="<why it is right>")

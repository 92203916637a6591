# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands that sentences name. The controller puts its inventories in (plugin_utils/_commands.py).

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._extra_vars import extra_vars

NAMED = 10


def counted(number: int, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def named(keys: t.Sequence[str]) -> str:
    """The first keys, for a sentence."""
    return ", ".join(repr(key)[:80] for key in keys[:NAMED]) + (" …" if len(keys) > NAMED else "")


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


def run(playbook: str, **variables: str | t.Sequence[str]) -> str:
    """The command that runs a playbook, as a shell takes it; a list stays one."""
    words = f"ansible-playbook memops.agent_memory.{playbook}"
    return " ".join([words, *(f"-e {extra_vars({name: value})}" for name, value in variables.items())])


def accept(snapshot: str) -> str:
    """The command that accepts a suspect snapshot; the reason is for whoever looked at it to fill in."""
    return run("accept", memory_snapshot=snapshot, memory_accept_reason="<why it is right>")

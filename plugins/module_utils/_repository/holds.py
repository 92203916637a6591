# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Holds: who said, and why, that a snapshot must not be removed.

PRIVATE to the collection. Placing and lifting are check results as others are (``checks/<time>-held.json``,
``…-lifted.json``): authenticated with the snapshot's key, appended, never rewritten.
"""
from __future__ import annotations

import re
import typing as t

from .._errors import InvalidInput, MemoryOpsError, RepositoryUnavailable
from .catalogue import append_check
from .manifest import folder, manifest_key, open_line, read_keys
from .objects import ObjectStore

ENDINGS = ("-held.json", "-lifted.json")


def check_hold(name: t.Any) -> str:
    """Errors: InvalidInput."""
    if not isinstance(name, str) or not re.match(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z", name):
        raise InvalidInput(
            f"A hold cannot be called {name!r:.80}.", "use up to 100 letters, digits, '.', '_' and '-', such as case-17"
        )
    return name


def standing(objects: ObjectStore, name: str, snapshot_id: str, keyring: t.Any) -> list[dict[str, t.Any]]:
    """The holds of a snapshot as {hold, by, reason, at}, oldest first; at is µs since 1970.

    On doubt there is one: what says "held" and does not authenticate is a hold with the name of its object, what says
    "lifted" and does not authenticate lifts nothing. Errors: RepositoryUnavailable.
    """
    where = folder(name, snapshot_id) + "checks/"
    children = [child for child in objects.children(where) if child.endswith(ENDINGS)]
    if not children:
        return []
    key = None
    try:
        key = manifest_key(read_keys(objects, name, snapshot_id, keyring)[0])
    except RepositoryUnavailable:
        raise
    except MemoryOpsError:
        pass  # its key is not at hand: nothing authenticates
    found: dict[str, dict[str, t.Any]] = {}
    for child in children:  # in the order of their times
        body: dict[str, t.Any] = {}
        try:
            body = open_line(objects.get(where + child), key, child) if key is not None else {}
        except RepositoryUnavailable:
            raise
        except MemoryOpsError:
            pass
        true = body.get("code") == "hmac" and body.get("snapshot") == snapshot_id
        if child.endswith("-held.json"):
            label = str(body.get("hold")) if true else child[: -len(".json")]
            told = body if true else {"by": "", "reason": "this hold cannot be read", "at": 0}
            found[label] = {"hold": label, "by": told["by"], "reason": told["reason"], "at": told["at"]}
        elif true:
            found.pop(str(body.get("hold")), None)
    return list(found.values())


def place(objects: ObjectStore, name: str, snapshot_id: str, secret: bytes, hold: str, by: str, reason: str) -> None:
    append_check(objects, name, snapshot_id, secret, "held", {"hold": hold, "by": by, "reason": reason})


def lift(objects: ObjectStore, name: str, snapshot_id: str, secret: bytes, hold: str, by: str, reason: str) -> None:
    append_check(objects, name, snapshot_id, secret, "lifted", {"hold": hold, "by": by, "reason": reason})

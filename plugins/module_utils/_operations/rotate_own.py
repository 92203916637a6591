# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rotation of keys that are an application's own: it does it, and we look whether its memories are the same afterwards.

PRIVATE to the collection. Every record is read before and after; of each a digest is kept in a temporary file.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import typing as t

from .. import _progress
from .._codec import UNREADABLE, why_unreadable
from .._errors import CannotProceed, MemoryOpsError
from .._model import CHECKSUM, KEY, Claim
from .._store import Store
from .._store_own import RotatesOwnKeys
from .commands import counted
from .commands import run as command
from .incident import now_us, temporary_files
from .integrity_rows import shown
from .rotation import LEASE, PREFIX, Attempt, claim_for, let_go

FACT = "own_rotation"
RENEW_SECONDS = 15.0
LISTED = 100
KEY_NAME = "of the application"  # nobody else knows it


def rotate_own(
    store: Store, names: t.Sequence[str], who: Attempt, min_age: float, force: bool, check: bool
) -> dict[str, t.Any]:
    """Call the application's rotation once, for all that it has, and compare every record of these namespaces.

    Not again within ``min_age`` seconds unless ``force``. Returns what rotate() does. Errors: CapabilityMissing (it has
    no rotation), LeaseHeld, CannotProceed (it raised, or records cannot be read any more that could be before).
    """
    started = time.monotonic()
    if not isinstance(store, RotatesOwnKeys):
        raise AssertionError("store")
    store.check_rotation()
    noted = (one.facts.get(FACT) or {} for name in names for one in store.incidents(name))
    last = max((note.get("done", 0) for note in noted), default=0)
    young = not force and now_us() - last < min_age * 1e6
    if young or check:
        return _report(names, {}, [], not young, started)
    claims: list[Claim] = []
    try:
        for name in names:
            claims.append(claim_for(store, name, who))
        with contextlib.closing(_Digests()) as digests:
            keep = _Keeper(store, claims)
            _progress.begin("reading what there is")
            for name in names:
                digests.fill(store, name, keep)
            for claim in claims:
                store.note(claim, **{FACT: {"began": now_us()}})
            failed: MemoryOpsError | None = None
            try:
                store.rotate_own_keys()
            except MemoryOpsError as exc:
                failed = exc  # nobody knows how far it came: look
            _progress.begin("reading it again")
            found = {name: digests.compare(store, name, keep) for name in names}
        many = sum(counts.pop("lost") for counts in found.values())
        lost = [one for counts in found.values() for one in counts.pop("examples")]
        reasons = [
            f"{counted(counts['changed'], 'record')} of {name} changed meanwhile: an application wrote, or the "
            "rotation did it"
            for name, counts in found.items() if counts["changed"]
        ]  # fmt: skip
        if failed is not None or many:
            first = failed.message if failed else "The application's rotation of keys did harm."
            raise CannotProceed(
                f"{first} {counted(many, 'record')} that could be read before cannot be read now"
                + (f", such as {lost[0]['key']!r} of {lost[0]['namespace']}." if lost else "."),
                command("rebuild", memory_namespace=lost[0]["namespace"]) if lost
                else "look at the application, then run the same command again",
            )  # fmt: skip
        for claim in claims:
            store.note(claim, **{FACT: {"done": now_us()}})
            if claim.incident.startswith(PREFIX):
                store.close_incident(claim)
    except BaseException:
        for claim in claims:
            let_go(store, claim)
        raise
    return _report(names, found, reasons, True, started)


class _Keeper:
    """Keeps the leases while records are read."""

    def __init__(self, store: Store, claims: t.Sequence[Claim]) -> None:
        self._store, self._claims, self._last = store, claims, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > RENEW_SECONDS:
            self._last = time.monotonic()
            for claim in self._claims:
                self._store.renew(claim, LEASE)


class _Digests:
    """Of every record its checksum, in a file without a name."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(
            "CREATE TABLE digests (namespace TEXT, key TEXT, checksum BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def close(self) -> None:
        self._db.close()

    def fill(self, store: Store, name: str, keep: t.Callable[[], None]) -> None:
        with temporary_files(), store.reader() as reader:
            for rows in reader.scan(name):
                self._db.executemany(
                    "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", [(name, row[KEY], row[CHECKSUM]) for row in rows]
                )
                _progress.add(len(rows))
                keep()

    def compare(self, store: Store, name: str, keep: t.Callable[[], None]) -> dict[str, t.Any]:
        """{rotated, unopenable, changed, lost (can be read no more), examples}. Of what nobody keeps applications from
        a record that is gone may have been deleted: it counts as changed."""
        same = unreadable = changed = lost = 0
        examples: list[tuple[str, str]] = []
        with temporary_files(), store.reader() as reader:
            quiet = reader.namespace(name).state == "quarantined"
            for rows in reader.scan(name):
                for row in rows:
                    before = self._db.execute(
                        "SELECT checksum FROM digests WHERE namespace = ? AND key = ?", (name, row[KEY])
                    ).fetchone()
                    why = why_unreadable(row)
                    if why is not None:
                        unreadable += 1
                        if before is not None and before[0] != UNREADABLE:
                            lost += 1
                            examples += [(row[KEY], why)] if lost <= LISTED else []
                    elif before is not None and before[0] == row[CHECKSUM]:
                        same += 1
                    else:
                        changed += 1
                    self._db.execute("DELETE FROM digests WHERE namespace = ? AND key = ?", (name, row[KEY]))
                _progress.add(len(rows))
                keep()
        left = "FROM digests WHERE namespace = ?"
        gone = self._db.execute(f"SELECT count(*) {left}", (name,)).fetchone()[0]
        if quiet:
            lost += gone
            found = self._db.execute(f"SELECT key {left} LIMIT ?", (name, LISTED))
            examples += [(key, "it is gone") for (key,) in found]
        else:
            changed += gone
        told = [{"namespace": name, "key": shown(key), "key_id": "", "evidence": why} for key, why in examples]
        return {"rotated": same, "unopenable": unreadable, "changed": changed, "lost": lost, "examples": told}


def _report(
    names: t.Sequence[str], found: t.Mapping[str, dict[str, t.Any]], reasons: list[str], changed: bool, started: float
) -> dict[str, t.Any]:  # fmt: skip
    totals = {
        word: sum(counts.get(word, 0) for counts in found.values())
        for word in ("rotated", "already", "unopenable", "remaining")
    }
    if totals["unopenable"]:
        unread = counted(totals["unopenable"], "record")
        reasons = [*reasons, f"{unread} could not be read before, and cannot be read now"]
    return {
        "changed": changed, "complete": True, "key": KEY_NAME, "key_created": changed, "resumed": False, "from": [],
        "records": totals, "namespaces": {name: found.get(name, {}) for name in names}, "unopenable": [],
        "kept_keys": [], "retired_keys": [], "reasons": reasons, "seconds": round(time.monotonic() - started, 3),
    }  # fmt: skip

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Scrub: check live namespaces and snapshots one after the other, the least recently checked first, for a bounded time.

PRIVATE to the collection. When a namespace was checked is noted beside the store, of a snapshot in its checks/.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t

from .._errors import KeyUnavailable, MemoryOpsError, RepositoryUnavailable, StoreUnavailable
from .._repository.catalogue import read_checks
from .._store import Store
from . import incident as incidents
from . import integrity, verify
from .incident import now_us, rfc3339

NOTE_SECONDS = 5.0  # between two notes of what was checked: with many namespaces each is as long as all
FILE = "scrub.json"
DEEP = ("hashed", "opened", "restored")  # a listing alone checks nothing that lies in a snapshot


class Target(t.NamedTuple):
    last: int  # when it was last checked, µs; 0: never
    kind: str  # namespace | snapshot
    name: str


def scrub(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any,
    repository: t.Any | None,
    name: str,
    namespaces: t.Sequence[str] | None = None,
    seconds: float = 600.0,
    depth: str = "opened",
    work_dir: str | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Check as much as begins within ``seconds``; what began is finished, and one thing is always checked.

    A namespace: every checksum, every payload, the engine's own structure. A snapshot: at ``depth``. Whatever fails,
    the others are still checked. Returns {verdict, checked [{kind, name, verdict, records, findings, reasons, seconds,
    last}], left [{kind, name, last}], findings {namespace: number}, reasons, namespaces, snapshots, oldest, seconds};
    times RFC 3339, None: never. In check mode nothing is checked or noted: ``left`` is the order.
    Errors: StoreUnavailable (the note cannot be written), those of the store and the repository's listing.
    """
    started = time.monotonic()
    folder = work_dir or incidents.base(store_params)
    noted = read_notes(folder)
    targets = sorted(_targets(store, keyring, repository, name, namespaces, noted))
    checked: list[dict[str, t.Any]] = []
    store.close()  # each scan opens it for itself, and none may be open while one forks
    looked, written = False, started
    while targets and not check and (not checked or time.monotonic() - started < seconds):
        target = targets.pop(0)
        begun = time.monotonic()
        if target.kind == "namespace":
            # what the engine checks itself is the store's: once is enough, and it may take longer than all the rest
            found = _scan(store_params, keyring, target.name, structure=not looked)
            looked = looked or found.pop("looked")
            only_keys = found.pop("only_keys")
            noted[target.name] = {
                "at": now_us(), "verdict": found["verdict"], "findings": found["findings"], "only_keys": only_keys,
            }  # fmt: skip
            if time.monotonic() - written > NOTE_SECONDS:
                _write_notes(folder, noted)
                written = time.monotonic()
        else:
            found = _verify(repository, keyring, name, target.name, depth)
        about = {"kind": target.kind, "name": target.name, "last": rfc3339(target.last or None)}
        checked.append({**about, **found, "seconds": round(time.monotonic() - begun, 3)})
    if any(one["kind"] == "namespace" for one in checked):
        _write_notes(folder, noted)
    verdicts = {one["verdict"] for one in checked}
    return {
        "verdict": "fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "could-not-verify",
        "checked": checked,
        "left": [{"kind": one.kind, "name": one.name, "last": rfc3339(one.last or None)} for one in targets],
        "findings": {one["name"]: one["findings"] for one in checked if one["kind"] == "namespace"},
        "reasons": [f"{one['kind']} {one['name']}: {why}" for one in checked for why in one["reasons"]]
        or ([] if checked else ["there is nothing to check"]),
        "namespaces": sum(one["kind"] == "namespace" for one in checked),
        "snapshots": sum(one["kind"] == "snapshot" for one in checked),
        "oldest": rfc3339(targets[0].last or None) if targets else None,
        "seconds": round(time.monotonic() - started, 3),
    }


def _targets(
    store: Store,
    keyring: t.Any,
    repository: t.Any | None,
    name: str,
    namespaces: t.Sequence[str] | None,
    noted: t.Mapping[str, t.Any],
) -> list[Target]:
    with store.reader() as reader:
        there = [state.name for state in reader.namespaces()]
        for one in namespaces or ():
            reader.namespace(one)  # a name that is not there is a mistake, not a thing that passed
    found = [Target(noted.get(one, {}).get("at", 0), "namespace", one) for one in namespaces or there]
    if repository is None:
        return found
    for info in repository.snapshots(name):
        last = 0
        if not info.problem:
            with contextlib.suppress(KeyUnavailable):
                last = last_checked(repository, keyring, name, info.id)
        found.append(Target(last, "snapshot", info.id))
    return found


def last_checked(repository: t.Any, keyring: t.Any, name: str, snapshot_id: str) -> int:
    """When the bytes of a snapshot were last looked at, µs; 0: never."""
    secret = None
    if keyring is not None:
        try:
            secret = repository.snapshot(name, snapshot_id, keyring).secret
        except (KeyUnavailable, RepositoryUnavailable):
            raise
        except MemoryOpsError:
            return 0
    checks = read_checks(repository.objects, name, snapshot_id, secret)
    return max([int(one["at"]) for one in checks if one.get("depth") in DEEP], default=0)


def _scan(
    store_params: t.Mapping[str, t.Any], keyring: t.Any, namespace: str, structure: bool
) -> dict[str, t.Any]:
    """``looked``: whether the engine checked itself."""
    try:
        scan = integrity.scan(
            store_params=store_params, keyring=keyring, namespace=namespace, limit=20, structure=structure,
            application=True,
        )  # fmt: skip
    except MemoryOpsError as exc:
        away = isinstance(exc, (StoreUnavailable, KeyUnavailable))
        return {
            "verdict": "could-not-verify" if away else "fail",
            "records": 0, "findings": 0 if away else 1, "reasons": [exc.message], "only_keys": False,
            "looked": False,
        }  # fmt: skip
    return {
        "verdict": scan["verdict"],
        "records": scan["rows"],
        "findings": sum(scan["findings"].values()),
        "reasons": scan["reasons"],
        "looked": scan["structure"] is not None,
        "only_keys": {kind for kind, count in scan["findings"].items() if count} == integrity.TOLD,
    }


def _verify(repository: t.Any, keyring: t.Any, name: str, snapshot_id: str, depth: str) -> dict[str, t.Any]:
    try:
        found = verify.verify(
            repository=repository, keyring=keyring, name=name, snapshot_id=snapshot_id, depth=depth
        )
    except MemoryOpsError as exc:  # retention took it away meanwhile, or nobody can tell
        return {"verdict": "could-not-verify", "records": 0, "findings": 0, "reasons": [exc.message]}
    return {
        "verdict": found["verdict"],
        "records": found["records"],
        "findings": len(found["problems"]) if found["verdict"] == "fail" else 0,
        "reasons": [str(problem.get("reason")) for problem in found["problems"]][:20],
    }


# --- when namespaces were checked ------------------------------------------------------------------------------------
def read_notes(folder: str) -> dict[str, dict[str, t.Any]]:
    """Namespace → {at, verdict, findings, only_keys (no rebuild mends these)}. A note that is lost or damaged means
    only that it is checked soon."""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            notes = json.load(file)["namespaces"]
        return {
            str(one): dict(note) for one, note in notes.items() if isinstance(note.get("at"), int)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_notes(folder: str, notes: t.Mapping[str, t.Any]) -> None:
    path = os.path.join(folder, FILE)
    with incidents.own_files(folder):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    incidents.write_note(path, {"format": 1, "namespaces": notes})

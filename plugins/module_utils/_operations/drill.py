# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rehearse: restore the newest snapshot of everything into a scratch store, prove it there, keep what was found.

PRIVATE to the collection. The live store is not opened at all; a drill that cannot run is could-not-verify.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import typing as t

from .._errors import InvalidInput, KeyUnavailable, MemoryOpsError, RepositoryUnavailable
from .._layouts import counted_once, seals
from .._store import open_store, scratch_params
from . import coverage, drill_application, evidence, integrity, restore, rotate
from .commands import counted, run
from .incident import now_us, rfc3339
from .master_key import rewrap_keyring
from .scratch import folder as scratch_folder

NAMED = 10  # namespaces that a sentence names


def drill(
    *,
    repository: t.Any,
    keyring_params: t.Mapping[str, t.Any],
    name: str,
    snapshot_id: str | None = None,
    namespaces: t.Sequence[str] | None = None,
    benchmark: str | None = None,
    accuracy: float = 0.80,
    rotation: bool = True,
    rto: float | None = None,
    scratch: str | None = None,
    owner: str = "",
    expiry: str = "keep",
    tables: t.Any = None,
    application: t.Mapping[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    """Restore, scan every record, run the benchmark, rotate the keys of the scratch store, scan again, measure.

    It passes when all of that does and the restore took no longer than ``rto`` seconds. What it found is kept in the
    repository (evidence.py), a failure too. ``expiry`` and ``tables``: see restore.restore and memory_store.tables.
    ``application``: where memory_store has the application's own keys; they open what it encrypted, and are replaced
    in the scratch store, too.

    Returns {verdict, reasons, snapshot, records, namespaces {name: {records, verdict, accuracy}}, rotated, opened
    (values of the application that its keys open), not_rehearsed [what could not be tried],
    left_out [namespaces of the repository that were not restored],
    age_seconds, rto_seconds, rto_limit, phases {restore, scan, benchmark, rotate: seconds}, at, evidence (key, or None
    where nothing could be kept), warnings, seconds}. The scratch store is removed in every case; that
    of a drill that was killed goes with the next one.
    Errors: InvalidInput (a snapshot that there is not: nothing is kept of a slip of the pen).
    """
    started = time.monotonic()
    if snapshot_id is not None:
        with contextlib.suppress(RepositoryUnavailable):  # what is away is told of below
            if all(info.id != snapshot_id for info in repository.snapshots(name)):
                raise InvalidInput(
                    f"There is no snapshot {snapshot_id!r:.80} of {name} in {repository.location}; nothing was "
                    "rehearsed.",
                    f"name one of those that there are: {run('info')}",
                )
    result: dict[str, t.Any] = {
        "verdict": "could-not-verify", "reasons": [], "snapshot": snapshot_id, "namespaces": {}, "phases": {},
        "not_rehearsed": [], "left_out": [], "rto_limit": rto, "at": rfc3339(now_us()), "evidence": None,
        "warnings": [],
    }  # fmt: skip
    try:
        with scratch_folder(scratch) as folder:
            rehearsal = _Rehearsal(result, folder, repository, keyring_params, name)
            rehearsal.restore(snapshot_id, namespaces, expiry, tables, application or {})
            rehearsal.prove(benchmark, accuracy)
            if rotation:
                rehearsal.rotate()
            rehearsal.judge()
    except (RepositoryUnavailable, KeyUnavailable) as exc:
        result["verdict"] = "could-not-verify"
        result["reasons"].append(exc.message)
    except MemoryOpsError as exc:
        result["verdict"] = "fail"
        result["reasons"].append(exc.message)
    except OSError as exc:  # no room for the scratch store is not the snapshot's fault
        result["verdict"] = "could-not-verify"
        place = scratch or tempfile.gettempdir()
        result["reasons"].append(f"The scratch store in {place} cannot be written: {exc.strerror or exc}")
    result["seconds"] = round(time.monotonic() - started, 3)
    _keep(result, repository, keyring_params, name, owner)
    return result


def _keep(
    result: dict[str, t.Any], repository: t.Any, keyring_params: t.Mapping[str, t.Any], name: str, owner: str
) -> None:
    from .._keyring import Keyring

    kept = {key: value for key, value in result.items() if key not in ("evidence", "warnings")}
    try:
        ring = Keyring.open({**keyring_params, "path": None})
        body = {**kept, "owner": owner, "host": socket.gethostname()}
        result["evidence"] = evidence.keep(repository, ring, name, body)
    except MemoryOpsError as exc:
        result["warnings"].append(f"The evidence of this drill could not be kept: {exc.message}")


class _Rehearsal:
    """A scratch store in ``folder`` with a keyring of its own, and what is found there."""

    def __init__(
        self,
        result: dict[str, t.Any],
        folder: str,
        repository: t.Any,
        keyring_params: t.Mapping[str, t.Any],
        name: str,
    ) -> None:
        self.result, self.folder, self.repository, self.name = result, folder, repository, name
        self.started = time.monotonic()
        self.ring = _copy_ring(keyring_params, {**keyring_params, "path": os.path.join(folder, "keyring.json")})
        self.params: dict[str, t.Any] = {}
        self.layout = ""
        self.tables: t.Any = None
        self.verdicts: list[str] = []
        self.values: dict[str, drill_application.Values] = {}

    def restore(
        self,
        snapshot_id: str | None,
        namespaces: t.Sequence[str] | None,
        expiry: str,
        tables: t.Any,
        application: t.Mapping[str, t.Any],
    ) -> None:
        place, result = self.repository, self.result
        if snapshot_id is None:
            chosen = coverage.newest_whole(place, self.name, self.ring, namespaces)
        else:
            chosen = place.snapshot(self.name, snapshot_id, self.ring)
        result["snapshot"] = chosen.id
        result["age_seconds"] = round(time.time() - chosen.manifest["at"] / 1e6, 1)
        self.layout, self.tables = chosen.manifest["store"]["layout"], tables
        self.params = {**scratch_params(self.folder, self.name, self.layout), "tables": tables, **application}
        restored = restore.restore_whole(
            namespaces=namespaces,
            snapshot_id=chosen.id,
            store_params=self.params,
            repository=place,
            keyring=self.ring,
            name=self.name,
            create=True,
            expiry=expiry,
        )
        result["namespaces"] = {name: {"verdict": "could-not-verify"} for name in restored["namespaces"]}
        known = coverage.namespaces_of(coverage.good_of(place, self.name))
        result["left_out"] = left_out = sorted(known - set(restored["namespaces"]))
        if left_out:
            more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
            result["not_rehearsed"].append(f"what this drill left out: {', '.join(left_out[:NAMED])}{more}")
        self._phase("restore", self.started)
        result["rto_seconds"] = result["phases"]["restore"]

    def prove(self, benchmark: str | None, accuracy: float) -> None:
        started = time.monotonic()
        for number, (namespace, part) in enumerate(self.result["namespaces"].items()):
            scan = self._scan(namespace, number)
            part.update(records=scan["rows"], verdict=scan["verdict"], accuracy=None)
            if scan["verdict"] != "pass":
                self.fault(namespace, f"{scan['verdict']}, findings {scan['findings']}", scan["verdict"])
        once = counted_once({"layout": self.layout, "tables": self.tables}, self.result["namespaces"])
        self.result["records"] = sum(self.result["namespaces"][one]["records"] for one in once)
        if not seals(self.layout):
            self._open_values()
        self._phase("scan", started)
        if benchmark and not seals(self.layout):
            self.result["not_rehearsed"].append("the benchmark: only the application's own search could answer it")
        elif benchmark:
            started = time.monotonic()
            for namespace, part in self.result["namespaces"].items():
                part["accuracy"] = found = _accuracy(self.params, self.ring, namespace, benchmark)
                if found is not None and found < accuracy:
                    self.fault(namespace, f"accuracy {found:.2f} is below {accuracy:.2f}")
            if all(part["accuracy"] is None for part in self.result["namespaces"].values()):
                self.fault("", "the benchmark has no case for what was restored", "could-not-verify")
            self._phase("benchmark", started)

    def _scan(self, namespace: str, number: int) -> dict[str, t.Any]:
        """What the engine checks itself is the store's: with the first namespace it is done."""
        return integrity.scan(
            store_params=self.params, keyring=self.ring, namespace=namespace, structure=number == 0
        )

    def _open_values(self) -> None:
        """What the application encrypted itself, with its own keys."""
        self.result["not_rehearsed"] += [
            f"the values are of the layout {self.layout}: each is whole and the one that was saved, but its own "
            "engine was not asked to open it"
        ]
        found = drill_application.open_values(self.params, self.result["namespaces"])
        self.values = {name: one for name, one in found.values.items() if one.encrypted}
        for namespace, why in found.faults:
            self.fault(namespace, why)
        self.result["not_rehearsed"] += found.skipped
        self.result["opened"] = sum(one.encrypted - one.shut for one in found.values.values())

    def rotate(self) -> None:
        started = time.monotonic()
        if not seals(self.layout):
            if self.values:
                self.result["rotated"], faults = drill_application.rotate_values(self.params, self.values)
                for namespace, why in faults:
                    self.fault(namespace, why)
                self._phase("rotate", started)
            else:
                self.result["not_rehearsed"].append("no key seals these values that could be replaced: no rotation")
            return
        turned = rotate.rotate(store_params=self.params, keyring=self.ring, force=True)
        self.result["rotated"] = turned["records"]["rotated"]
        if not turned["complete"]:
            self.fault("", f"the rotation left {counted(turned['records']['remaining'], 'record')} behind")
        for number, (namespace, part) in enumerate(self.result["namespaces"].items()):
            scan = self._scan(namespace, number)
            if part["verdict"] == "pass" and (scan["verdict"], scan["rows"]) != ("pass", part["records"]):
                self.fault(namespace, f"after the rotation {scan['verdict']}, findings {scan['findings']}")
        self._phase("rotate", started)

    def fault(self, namespace: str, why: str, verdict: str = "fail") -> None:
        self.verdicts.append(verdict)
        if namespace:
            self.result["namespaces"][namespace]["verdict"] = verdict
        self.result["reasons"].append(f"{namespace}: {why}" if namespace else why)

    def judge(self) -> None:
        result = self.result
        limit = result["rto_limit"]
        if not result["namespaces"]:
            self.fault("", "the snapshot holds no namespace", "could-not-verify")
        if limit is not None and result["rto_seconds"] > limit:
            self.fault("", f"the restore took {result['rto_seconds']} s, longer than the RTO of {limit:g} s")
        result["verdict"] = (
            "fail" if "fail" in self.verdicts else "could-not-verify" if self.verdicts else "pass"
        )

    def _phase(self, name: str, started: float) -> None:
        self.result["phases"][name] = round(time.monotonic() - started, 3)


def _copy_ring(source: t.Mapping[str, t.Any], target: t.Mapping[str, t.Any]) -> t.Any:
    """A keyring of the drill's own, under this master key alone, so that the rotation touches no live key."""
    from .._keyring import Keyring

    if not source.get("path") or not os.path.exists(str(source["path"])):
        return Keyring.open({**target, "path": None})  # nothing of the application is sealed: the master key is enough
    shutil.copyfile(str(source["path"]), str(target["path"]))
    os.chmod(str(target["path"]), 0o600)
    rewrap_keyring(target, None, retire=True, force=True)
    return Keyring.open(target)


def _accuracy(params: t.Mapping[str, t.Any], ring: t.Any, namespace: str, benchmark: str) -> float | None:
    from .._benchmark import evaluate, parse

    store = open_store(params)
    try:
        with store.reader() as reader:
            found: float | None = evaluate(reader, ring, namespace, parse(benchmark))["accuracy"]
    finally:
        store.close()
    return found

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rehearse: restore the newest snapshot into a scratch store and prove it there.

PRIVATE to the collection. The live store is not opened at all; a drill that cannot run is could-not-verify.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import typing as t

from .._errors import KeyUnavailable, MemoryOpsError, RepositoryUnavailable
from .._layouts import seals
from .._store import open_store, scratch_params
from . import integrity, restore, rotate
from .master_key import rewrap_keyring


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
    scratch: str | None = None,
) -> dict[str, t.Any]:
    """Restore, scan every record, run the benchmark, rotate the keys of the scratch store, measure.

    Returns {verdict, reasons, snapshot, records, namespaces {name: {records, verdict, accuracy}}, rotated,
    age_seconds, rto_seconds, seconds}. The scratch store is removed in every case.
    """
    folder = tempfile.mkdtemp(prefix="memops-drill-", dir=scratch)
    started = time.monotonic()
    result: dict[str, t.Any] = {"verdict": "could-not-verify", "reasons": [], "snapshot": snapshot_id, "namespaces": {}}
    try:
        _rehearse(
            result,
            folder,
            repository,
            keyring_params,
            name,
            snapshot_id,
            namespaces,
            benchmark,
            accuracy,
            rotation,
            started,
        )
    except (RepositoryUnavailable, KeyUnavailable) as exc:
        result["reasons"].append(exc.message)
    except MemoryOpsError as exc:
        result["verdict"] = "fail"
        result["reasons"].append(exc.message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["seconds"] = round(time.monotonic() - started, 3)
    return result


def _rehearse(
    result: dict[str, t.Any],
    folder: str,
    repository: t.Any,
    keyring_params: t.Mapping[str, t.Any],
    name: str,
    snapshot_id: str | None,
    namespaces: t.Sequence[str] | None,
    benchmark: str | None,
    accuracy: float,
    rotation: bool,
    started: float,
) -> None:
    ring_params = {**keyring_params, "path": os.path.join(folder, "keyring.json")}
    ring = _copy_ring(keyring_params, ring_params)
    chosen = repository.newest_good(name, ring) if snapshot_id is None else repository.snapshot(name, snapshot_id, ring)
    layout = chosen.manifest["store"]["layout"]
    params = scratch_params(folder, name, layout)
    restored = restore.restore_whole(
        namespaces=namespaces,
        snapshot_id=chosen.id,
        store_params=params,
        repository=repository,
        keyring=ring,
        name=name,
        create=True,
    )
    result["snapshot"] = restored["snapshot"]
    result["rto_seconds"] = round(time.monotonic() - started, 3)
    snapshot = repository.snapshot(name, restored["snapshot"], ring)
    result["age_seconds"] = round(time.time() - snapshot.manifest["at"] / 1e6, 1)
    verdicts = []
    for namespace in restored["namespaces"]:
        scan = integrity.scan(store_params=params, keyring=ring, namespace=namespace)
        part: dict[str, t.Any] = {"records": scan["rows"], "verdict": scan["verdict"], "accuracy": None}
        if scan["verdict"] != "pass":
            result["reasons"].append(f"{namespace}: {scan['verdict']}, findings {scan['findings']}")
        if benchmark:
            part["accuracy"] = _accuracy(params, ring, namespace, benchmark)
            if part["accuracy"] is not None and part["accuracy"] < accuracy:
                part["verdict"] = "fail"
                result["reasons"].append(f"{namespace}: accuracy {part['accuracy']:.2f} is below {accuracy:.2f}")
        verdicts.append(part["verdict"])
        result["namespaces"][namespace] = part
    result["records"] = sum(part["records"] for part in result["namespaces"].values())
    if not seals(layout):
        result["not_rehearsed"] = [
            f"the values are of the layout {layout}: each is whole and the one that was saved, but its own engine was "
            "not asked to open it",
            "nothing of ours seals them: no rotation",
        ]
    if rotation and seals(layout):
        turned = rotate.rotate(store_params=params, keyring=ring, force=True)
        result["rotated"] = turned["records"]["rotated"]
        if not turned["complete"]:
            verdicts.append("fail")
            result["reasons"].append(f"the rotation left {turned['records']['remaining']} records behind")
    if not verdicts:
        result["reasons"].append("the snapshot holds no namespace")
    elif "fail" in verdicts:
        result["verdict"] = "fail"
    elif all(verdict == "pass" for verdict in verdicts):
        result["verdict"] = "pass"


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

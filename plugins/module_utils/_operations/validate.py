# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Judge a namespace by what was fixed before it was rebuilt: probes from reads before the onset, and a benchmark.

PRIVATE to the collection. Works on a quarantined namespace, too. Verdicts: one failed part makes the whole fail; else
one asked-for part that cannot be verified makes it could-not-verify; a part that nobody asked for ("not-asked") does
not count.
"""

from __future__ import annotations

import typing as t

from .._codec import RecordCodec, log_checksum
from .._errors import KeyUnavailable, RecordCorrupt, StoreDamaged
from .._keyring_unsealed import opener
from .._model import CHECKSUM, DELETED, EPOCH, KEY_ID, PAYLOAD, SEQUENCE, LastWrite, Row, is_isolated
from .._search import Search, need_search
from .._store import Reader, open_store
from . import application_benchmark, integrity
from . import benchmark as benchmarks
from .application_benchmark import ACCURACY_GAIN
from .hit_rate import Measured, judged
from .integrity import as_keyring
from .integrity_rows import shown
from .probes import CANARY, last_write

HIT_RATE = 0.80
MAX_FAILED = 200
OPERATOR = "memops"  # actor of log entries that a rebuild writes


# --- the verdict ------------------------------------------------------------------------------------------------
def validate(
    *,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any,
    namespace: str,
    probes: t.Sequence[t.Mapping[str, t.Any]] | None = None,
    benchmark: t.Any = None,
    baseline: float | None = None,
    thresholds: t.Mapping[str, float] | None = None,
    measured_rate: Measured | None = None,
    search: Search | None = None,
) -> dict[str, t.Any]:
    """Validate the active generation.

    ``probes`` come from fix_probes (None: nobody fixed any; an empty list: there was no read to draw from, which a
    benchmark makes up for); ``benchmark`` is the path of a JSON Lines file or its cases, ``baseline`` its accuracy
    before the rebuild; ``thresholds`` {hit_rate: 0.80, accuracy_gain: 0.30}. The canary must open when it is or was
    there. Deletions with a sequence above that of the open incident's fence are the rebuild's own and no excuse for a
    missing probe. ``measured_rate``: that of an application that is served, where one was asked for. ``search``: who
    answers the benchmark where the values are not ours; then it tells the hit rate too.

    Returns {verdict, integrity {verdict, rows, live, findings, examples, …}, probes {checked, passed, failed [{key,
    why}], verdict}, hit_rate {value, source, threshold, verdict, why}, benchmark {cases, passed, accuracy,
    baseline, threshold, failed, verdict}, own_benchmark {hit_rate, accuracy, threshold, verdict, why} (of an
    application's object that has one), canary {verdict, why}, reasons []}.
    Errors: NamespaceUnknown, StoreUnavailable, InvalidInput.
    """
    wanted = dict(thresholds or {})
    slo = float(wanted.get("hit_rate", HIT_RATE))
    gain = float(wanted.get("accuracy_gain", ACCURACY_GAIN))
    ring = as_keyring(keyring)
    scanned = integrity.scan(store_params=store_params, keyring=ring, namespace=namespace, limit=100)
    store = open_store(store_params)
    try:
        open_ones = [one.facts for one in store.incidents(namespace) if one.state == "open"]
        fenced_sequence = open_ones[0].get("fenced_sequence") if open_ones else None
        ring = opener(store, ring)
        need_search(store, benchmark, search, namespace)
        with store.reader() as reader:
            probed = _probe(reader, namespace, ring, probes or (), fenced_sequence)
            measured = benchmarks.told(store, reader, namespace, ring, benchmark, baseline, gain, search)
            bird = _canary(reader, namespace, ring)
        own = application_benchmark.rating(store, namespace)
    finally:
        store.close()
    rate = probed["passed"] / probed["checked"] if probed["checked"] else None
    if rate is not None:
        probed["verdict"] = "pass" if rate >= slo else "fail"
    else:
        probed["verdict"] = "not-asked" if probes is None or measured["verdict"] != "not-asked" else "could-not-verify"
    by_probes = Measured("probes", rate, reads=probed["checked"]) if rate is not None else None
    theirs = application_benchmark.judged(own, slo, baseline, gain)
    by_them = Measured("evaluate_benchmark", theirs["hit_rate"]) if theirs["hit_rate"] is not None else None
    asked = measured_rate or benchmarks.rate_of(measured)
    told = judged(asked or by_them or by_probes, slo)
    verdicts = {
        "integrity": scanned["verdict"],
        "probes": probed["verdict"],
        "benchmark": measured["verdict"],
        "own_benchmark": theirs["verdict"],
        "canary": bird["verdict"],
        **({"hit_rate": told["verdict"]} if asked is not None else {}),
    }
    why = {
        "hit_rate": told["why"],
        "integrity": "; ".join(scanned["reasons"]),
        "probes": f"{probed['passed']} of {probed['checked']} probes are served, {slo:.0%} are needed"
        if rate is not None
        else "no read from before the onset is in the access log to compare with",
        "benchmark": measured.get("why") or "",
        "own_benchmark": theirs["why"],
        "canary": bird["why"],
    }
    verdict = (
        "fail"
        if "fail" in verdicts.values()
        else "could-not-verify"
        if "could-not-verify" in verdicts.values()
        else "pass"
    )
    return {
        "verdict": verdict,
        "namespace": namespace,
        "integrity": {
            name: scanned.get(name)
            for name in (
                "verdict",
                "intact",
                "opened",
                "generation",
                "rows",
                "live",
                "tombstones",
                "expired",
                "findings",
            )
        }
        | {"examples": list(scanned.get("examples", ()))[:20]},
        "probes": probed,
        "hit_rate": told,
        "benchmark": measured,
        "own_benchmark": theirs,
        "canary": bird,
        "reasons": [f"{part}: {why[part]}" for part, word in verdicts.items() if word in ("fail", "could-not-verify")],
    }


# --- its parts --------------------------------------------------------------------------------------------------
def _probe(
    reader: Reader,
    namespace: str,
    ring: t.Any,
    probes: t.Sequence[t.Mapping[str, t.Any]],
    fenced_sequence: int | None,
) -> dict[str, t.Any]:
    failed: list[dict[str, str]] = []
    codec = RecordCodec(namespace)
    rotated = _Rotated(reader, namespace)
    for first in range(0, len(probes), 100):
        part = probes[first : first + 100]
        rows: dict[str, Row] = {}
        broken = ""
        try:
            rows = reader.get_many(namespace, sorted({probe["key"] for probe in part}))
        except StoreDamaged as exc:
            broken = exc.message
        for probe in part:
            why = broken or _why_not(
                reader, namespace, codec, ring, rotated, probe, rows.get(probe["key"]), fenced_sequence
            )
            if why:
                failed.append({"key": shown(probe["key"]), "why": why})
    return {"checked": len(probes), "passed": len(probes) - len(failed), "failed": failed[:MAX_FAILED]}


class _Rotated:
    """The key ids to which logged rotations went; the log is read when the first probe asks."""

    def __init__(self, reader: Reader, namespace: str) -> None:
        self._reader, self._namespace = reader, namespace
        self._found: set[str] | None = None

    def __contains__(self, key_id: object) -> bool:
        if self._found is None:
            self._found = set()
            for batch in self._reader.log(self._namespace, operations=("rotate",)):
                for entry in batch:
                    if entry[3] == "rotate" and log_checksum(entry) == entry[11]:
                        self._found.add((entry[10] or "").rpartition(" to ")[2])
        return key_id in self._found


def _why_not(
    reader: Reader,
    namespace: str,
    codec: RecordCodec,
    ring: t.Any,
    rotated: _Rotated,
    probe: t.Mapping[str, t.Any],
    row: Row | None,
    fenced_sequence: int | None,
) -> str | None:
    """Why a probe fails; None when its memory is served, newer, or gone for a good reason."""
    expires = probe.get("expires")
    if row is None:
        if expires is not None and expires <= reader.at:
            return None
        write = last_write(reader, namespace, probe["key"])
        return None if _deleted(write, probe, fenced_sequence) else "absent"
    unsound = _unsound(codec, ring, row)
    if unsound:
        return unsound
    if is_isolated(row) and (row[EPOCH], row[SEQUENCE]) >= (probe.get("epoch") or 0, probe.get("sequence") or 0):
        return None  # an operator took it out of service
    if row[DELETED] is not None:
        write = last_write(reader, namespace, probe["key"])
        same = write is not None and (write.epoch, write.sequence) == (row[EPOCH], row[SEQUENCE])
        return (
            None
            if same and _deleted(write, probe, fenced_sequence)
            else "deleted by the rebuild, not by an application"
        )
    if row[CHECKSUM].hex() == probe["digest"]:
        return None  # also when it has expired since: it is what was read
    version = (row[EPOCH], row[SEQUENCE])
    known = (probe["epoch"], probe["sequence"]) if probe.get("sequence") is not None else None
    if known == version:
        return None if row[KEY_ID] in rotated else "the same version with other bytes, and no rotation is logged"
    if known is not None and version < known:
        return "an older version than the one that was read"
    write = last_write(reader, namespace, probe["key"])
    if write is None or write.operation != "write" or (write.epoch, write.sequence) != version:
        return "another version, and no logged write explains it"
    if write.digest != row[CHECKSUM] and row[KEY_ID] not in rotated:
        return "another version than the one that was logged"
    if write.at < probe.get("at", 0) and known is None and write.digest is not None and row[KEY_ID] not in rotated:
        return "an older version than the one that was read"
    return None


def _unsound(codec: RecordCodec, ring: t.Any, row: Row) -> str | None:
    if not codec.intact(row):
        return "corrupt: its checksum does not hold"
    if ring is None:
        return None
    try:
        ring.open_payload(row[PAYLOAD], codec.head(row), row[KEY_ID])
    except RecordCorrupt:
        return "corrupt: its payload does not open"
    except KeyUnavailable:
        return "its record key is missing"
    return None


def _deleted(write: LastWrite | None, probe: t.Mapping[str, t.Any], fenced_sequence: int | None) -> bool:
    """Whether an application deleted the key after it was read (under its lock, before the fence)."""
    return (
        write is not None
        and write.operation == "delete"
        and bool(write.lock)
        and write.actor != OPERATOR
        and (fenced_sequence is None or write.sequence <= fenced_sequence)
        and write.at >= (probe.get("at") or 0)
    )


def _canary(reader: Reader, namespace: str, ring: t.Any) -> dict[str, str]:
    """The record that every backup writes beside the memories: it must come back."""
    try:
        row = reader.get_many(namespace, [CANARY]).get(CANARY)
    except StoreDamaged as exc:
        return {"verdict": "fail", "why": exc.message}
    if row is None or row[DELETED] is not None:
        written = last_write(reader, namespace, CANARY)
        if written is not None and written.operation == "write":
            return {"verdict": "fail", "why": "the canary record of the backups is gone"}
        return {"verdict": "not-asked", "why": "no backup has written a canary record"}
    unsound = _unsound(RecordCodec(namespace), ring, row)
    if unsound:
        return {"verdict": "fail", "why": f"the canary record is {unsound}"}
    if ring is None:
        return {"verdict": "could-not-verify", "why": "no key is at hand to open the canary record"}
    return {"verdict": "pass", "why": "the canary record came back and opens"}

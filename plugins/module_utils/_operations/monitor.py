# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Watch a released namespace until an absolute deadline; a breach puts the fence back at once.

PRIVATE to the collection. What was seen is kept in the incident's facts after every sample, so that a monitor that was
killed goes on to the same deadline; the time in which nobody watched is recorded as a gap.
"""

from __future__ import annotations

import math
import time
import typing as t

from .._codec import RecordCodec, log_checksum
from .._errors import KeyUnavailable, MemoryOpsError, RecordCorrupt, StaleAttempt, StoreDamaged, StoreUnavailable
from .._keyring_unsealed import opener
from .._model import DELETED, KEY_ID, PAYLOAD, Claim
from .._store import Reader, Store, open_store
from . import application_spans, error_lines, integrity
from .commands import counted
from .hit_rate import HitRate
from .incident import microseconds, now_us, rfc3339
from .integrity import as_keyring
from .integrity_rows import shown
from .monitor_result import MAX_KEPT, thinned, told

MIN_SAMPLES = 100  # reads; fewer say nothing about a hit rate
LEASE = 60.0
MAX_KEYS = 5000  # changed records that one sample looks at
FACT = "monitor"


def monitor(
    *,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any,
    claim: Claim,
    namespace: str,
    deadline: int,
    interval: float = 10.0,
    pace: float | None = None,
    slo: float = 0.80,
    logs: t.Sequence[t.Any] = (),
    released_at: int | None = None,
    clock: t.Callable[[], int] = now_us,
    sleep: t.Callable[[float], None] = time.sleep,
    on_sample: t.Callable[[dict[str, t.Any]], None] | None = None,
    scans: bool = True,
    rate: HitRate | None = None,
) -> dict[str, t.Any]:
    """Sample every ``interval`` seconds until ``deadline`` (µs since 1970), of which a resumed monitor keeps its first.
    ``pace``: the interval of a longer watch, where this one is shorter than that; by it a watch that is long enough is
    told.

    Counts what applications read since ``released_at`` (µs, default: the incident's release, else the start), hits /
    (hits + misses + corrupt); checks every record written since; looks for error lines that come into ``logs`` from
    the start on; scans the whole namespace without keys at start and end (``scans``). ``rate``: who else tells the hit
    rate; then it is not counted here.
    Breaches: a hit rate below ``slo`` once there are 100 reads, any finding, any error line. Verdict: fail after a
    breach (fenced), could-not-verify without 100 reads or without a log that was named, else pass. A monitor that has
    ended returns what it had found.

    Returns {verdict, changed, fenced, breaches, reasons, deadline, started, ended, resumed, hit_rate {value, reads,
    hits, misses, corrupt}, findings {kind: n}, errors {kind: n}, error_samples, first_write_at, samples [{at, hits,
    misses, corrupt, findings, errors}], gaps [{from, to}], watch_seconds (that are enough where this watch was too
    short for the probes, else None)}; times RFC 3339. Errors: StaleAttempt.
    """
    store = open_store(store_params)
    try:
        facts = store.incident(claim).facts
        known = facts.get(FACT)
        if released_at is None:
            released_at = microseconds(facts.get("released_at"))
        if known is not None and known.get("verdict") and released_at not in (None, known["since"]):
            known = None  # released once more since: another watch
        watch = _Watch(
            store,
            dict(store_params),
            as_keyring(opener(store, keyring)),
            claim,
            namespace,
            interval,
            slo,
            logs,
            clock,
            scans,
            rate,
            interval if pace is None else pace,
        )
        resumed = known is not None
        if known is None:
            watch.begin(deadline, released_at)
        elif known.get("verdict"):
            return watch.result(known, changed=False, resumed=False)
        else:
            watch.resume(known)
        return watch.run(sleep, on_sample, resumed)
    finally:
        store.close()


class _Watch:
    """One monitor. ``note`` is what is kept in the facts: small JSON."""

    def __init__(
        self,
        store: Store,
        store_params: dict[str, t.Any],
        ring: t.Any,
        claim: Claim,
        namespace: str,
        interval: float,
        slo: float,
        logs: t.Sequence[t.Any],
        clock: t.Callable[[], int],
        scans: bool,
        rate: HitRate | None,
        pace: float,
    ) -> None:
        self.store, self.store_params, self.ring = store, store_params, ring
        self.claim, self.namespace = claim, namespace
        self.interval = max(0.01, interval)
        self.pace = pace  # of a watch that is long enough
        self.slo = slo
        self.logs = application_spans.split(logs)[0]  # spans are a diagnosis' evidence
        self.clock, self.scans = clock, scans
        self.note: dict[str, t.Any] = {}
        self.codec = RecordCodec(namespace)
        logged = "log" in store.capabilities()
        self.probes = [] if logged else list(store.incident(claim).facts.get("probes") or [])
        self.rate = rate
        self.source = rate.source if rate is not None else "access log" if logged else "probes" if self.probes else None

    def begin(self, deadline: int, released_at: int | None) -> None:
        now = self.clock()
        self.note = {
            "started": now,
            "since": now if released_at is None else released_at,
            "deadline": deadline,
            "seen": now,
            "log_id": 0,
            "sequence": None,
            "reads": [0, 0, 0],
            "findings": {},
            "examples": [],
            "errors": {},
            "error_samples": [],
            "no_data": [],
            "first_write": None,
            "samples": [],
            "gaps": [],
            "missed": [],
            "offsets": error_lines.positions(self.logs),
            "verdict": None,
            "breaches": [],
        }
        self.save()

    def resume(self, known: t.Mapping[str, t.Any]) -> None:
        self.note = dict(known)
        now = self.clock()
        if now - self.note["seen"] > 2e6 * self.interval:
            self.note["gaps"] = [*self.note["gaps"], [self.note["seen"], now]][-MAX_KEPT:]
        self.save()

    def save(self) -> None:
        self.store.note(self.claim, **{FACT: self.note})

    # --- the loop -------------------------------------------------------------------------------------------------
    def run(
        self, sleep: t.Callable[[float], None], on_sample: t.Callable[[dict[str, t.Any]], None] | None, resumed: bool
    ) -> dict[str, t.Any]:
        self.store.renew(self.claim, self._lease())
        if not resumed:
            self._scan("start")
        while True:
            last = self.clock() >= self.note["deadline"]
            sample = self._sample()
            if last and not self.note["breaches"]:
                self._scan("end")
            if on_sample:
                on_sample(sample)
            if self.note["breaches"] or last:
                return self._finish(resumed)
            self.save()
            left = (self.note["deadline"] - self.clock()) / 1e6
            if left > 0:
                sleep(min(self.interval, left))
            self.store.renew(self.claim, self._lease())

    def _lease(self) -> float:
        longest = 0.0 if self.rate is None else self.rate.seconds
        return max(LEASE, 3 * self.interval, self.interval + 2 * longest)

    def _scan(self, when: str) -> None:
        """The whole namespace, without keys: what nobody reads is looked at too."""
        if not self.scans:
            return
        try:
            found = integrity.scan(
                store_params=self.store_params, namespace=self.namespace, buckets=1, limit=10, workers=2
            )
        except StoreDamaged as exc:
            self._found("structure", None, exc.message)
        except StoreUnavailable as exc:
            self._missed(f"scan at the {when}: {exc.message}")
        else:
            for kind, number in found["findings"].items():
                self.note["findings"][kind] = self.note["findings"].get(kind, 0) + number
            for one in found["examples"][:5]:
                self.note["examples"] = [*self.note["examples"], one][-20:]
        self._judge()

    def _sample(self) -> dict[str, t.Any]:
        now = self.clock()
        before = sum(self.note["findings"].values())
        reads = [0, 0, 0]
        errors = 0
        try:
            with self.store.reader() as reader:
                reads = self._read_log(reader)
                if self.probes:
                    reads = self._ask_probes(reader)
        except StoreDamaged as exc:
            self._found("structure", None, exc.message)
        except StaleAttempt:
            raise
        except MemoryOpsError as exc:
            self._missed(exc.message)
        if self.logs:
            errors = self._scan_logs()
        if self.rate is not None:
            self._measure(self.rate, now)
        self.note["reads"] = [a + b for a, b in zip(self.note["reads"], reads)]
        self.note["seen"] = now
        sample = {
            "at": rfc3339(now),
            "hits": reads[0],
            "misses": reads[1],
            "corrupt": reads[2],
            "findings": sum(self.note["findings"].values()) - before,
            "errors": errors,
            **({"rate": self.note["measured"]["value"]} if self.rate is not None else {}),
        }
        self.note["samples"] = thinned([*self.note["samples"], sample])
        self._judge()
        return sample

    def _read_log(self, reader: Reader) -> list[int]:
        """Reads since the release, and the records whose writes are logged since the last sample."""
        reads = {"hit": 0, "miss": 0, "corrupt": 0}
        since = self.note["since"]
        written: dict[str, None] = {}
        for batch in reader.log(self.namespace, after_id=self.note["log_id"]):
            for entry in batch:
                at, operation, key = entry[1], entry[3], entry[4]
                if at < since:
                    continue
                if log_checksum(entry) != entry[11]:
                    self._found("log", None, f"entry {entry[0]} of the access log is damaged")
                    continue
                if operation in reads:
                    reads[operation] += 1
                    if operation == "corrupt":
                        self._found("corrupt-read", key, entry[10] or "an application met a corrupt record")
                elif operation == "write" and key is not None:
                    if self.note["first_write"] is None and entry[8]:
                        self.note["first_write"] = at
                    if len(written) < MAX_KEYS:
                        written[key] = None
            self.note["log_id"] = batch[-1][0]
        self._check(reader, list(written))
        return [reads["hit"], reads["miss"], reads["corrupt"]]

    def _measure(self, rate: HitRate, now: int) -> None:
        """What the application's own measurement says; soon after the release it may still cover the quarantine."""
        found = rate.measure(self.note["since"], now)
        value, why = found.value, found.why
        if value is not None and (now if found.at is None else found.at) < self.note["since"] + int(rate.settle * 1e6):
            value, why = None, f"nothing was sampled later than {rate.settle:g} s after the release"
        self.note["measured"] = {"value": value, "why": why[:300], "reads": found.reads}

    def _ask_probes(self, reader: Reader) -> list[int]:
        """Where no access log says what was read: the probes, each a read. A newer value is a hit as well."""
        hits = misses = 0
        for first in range(0, len(self.probes), 500):
            part = self.probes[first : first + 500]
            rows = reader.get_many(self.namespace, sorted(probe["key"] for probe in part))
            for probe in part:
                if probe["key"] in rows:
                    hits += 1
                elif probe["expires"] is None or probe["expires"] > self.clock():
                    misses += 1
        return [hits, misses, 0]

    def _check(self, reader: Reader, keys: list[str]) -> None:
        for first in range(0, len(keys), 500):
            for key, row in reader.get_many(self.namespace, sorted(keys[first : first + 500])).items():
                if not self.codec.intact(row):
                    self._found("checksum", key, "the stored bytes do not have the stored checksum")
                elif self.ring is not None and row[DELETED] is None:
                    try:
                        self.ring.open_payload(row[PAYLOAD], self.codec.head(row), row[KEY_ID])
                    except RecordCorrupt as exc:
                        self._found("unopenable", key, exc.message)
                    except KeyUnavailable as exc:
                        self._found("key-missing", key, exc.message)

    def _scan_logs(self) -> int:
        found = error_lines.scan_logs(self.logs, state=self.note["offsets"])
        self.note["offsets"] = found["state"]
        self.note["no_data"] = [one["reason"] for one in found["sources"] if one["status"] != "read"][:20]
        for kind, number in found["counts"].items():
            self.note["errors"][kind] = self.note["errors"].get(kind, 0) + number
        self.note["error_samples"] = [*self.note["error_samples"], *found["samples"]][:20]
        return int(found["total"])

    def _found(self, kind: str, key: t.Any, evidence: str) -> None:
        self.note["findings"][kind] = self.note["findings"].get(kind, 0) + 1
        if len(self.note["examples"]) < 20:
            one = {"kind": kind, "key": None if key is None else shown(key), "evidence": evidence[:300]}
            self.note["examples"] = [*self.note["examples"], one]

    def _missed(self, why: str) -> None:
        self.note["missed"] = [*self.note["missed"], [self.clock(), why[:300]]][-20:]

    # --- judging --------------------------------------------------------------------------------------------------
    def _judge(self) -> None:
        """The breaches so far; the fence goes up at the first one, before anything else is done."""
        if self.note["breaches"]:
            return
        breaches = [f"{number} × {kind} finding" for kind, number in self.note["findings"].items() if number]
        errors = sum(self.note["errors"].values())
        if errors:
            kinds = ", ".join(f"{number} × {kind}" for kind, number in self.note["errors"].items())
            breaches.append(f"{counted(errors, 'error line')} in the application's log ({kinds})")
        rate, total = self._rate(self.note)
        if rate is not None and rate < self.slo:
            of = f"of {counted(total, 'read')}" if total is not None else f"by {self.source}"
            breaches.append(f"hit rate {rate:.1%} {of} is below {self.slo:.0%}")
        if not breaches:
            return
        self.note["breaches"] = breaches
        try:
            self.store.fence(self.claim)
            self.note["fenced"] = "fence-writes" in self.store.capabilities()
            if not self.note["fenced"]:
                self.note["breaches"] = [*breaches, "nothing in the store keeps the application away: stop it"]
        except StaleAttempt:
            raise
        except MemoryOpsError as exc:
            self.note["fenced"] = False
            self.note["breaches"] = [*breaches, f"the fence could not be put back: {exc.message}"]

    def _rate(self, note: t.Mapping[str, t.Any]) -> tuple[float | None, int | None]:
        """(hit rate, reads)"""
        if self.rate is not None:
            measured = note.get("measured") or {}
            return measured.get("value"), measured.get("reads")
        total = sum(note["reads"])
        return (note["reads"][0] / total if total >= MIN_SAMPLES else None), total

    def _finish(self, resumed: bool) -> dict[str, t.Any]:
        doubts = []
        rate, total = self._rate(self.note)
        if rate is None and self.rate is not None:
            why = (self.note.get("measured") or {}).get("why") or "it was not asked yet"
            doubts.append(f"no data from {self.source}: {why}")
        elif rate is None and self.source is None:
            doubts.append("no data: no source tells a hit rate: no probes, and no memory_hit_rate_source")
        elif rate is None and self.source == "probes":  # nobody has to read: they are asked with each sample
            self.note["enough"] = math.ceil(math.ceil(MIN_SAMPLES / len(self.probes)) * self.pace)
            doubts.append(
                f"no data: the watch was too short: {counted(total or 0, 'answer')} of "
                f"{counted(len(self.probes), 'probe')}, {MIN_SAMPLES} are "
                f"needed to tell a hit rate, and {self.note['enough']} s give them"
            )
        elif rate is None:
            read = counted(total or 0, "read")
            doubts.append(f"no data: {read} since the release, {MIN_SAMPLES} are needed to tell a hit rate")
        doubts += [f"no data: {reason}" for reason in self.note["no_data"]]
        doubts += [f"no data at {rfc3339(at)}: {why}" for at, why in self.note["missed"][-1:]]
        breaches = self.note["breaches"]
        self.note["verdict"] = "fail" if breaches else "could-not-verify" if doubts else "pass"
        self.note["doubts"] = doubts
        self.note["ended"] = self.clock()
        try:
            self.save()
        except (StoreDamaged, StoreUnavailable) as exc:  # the verdict must still be told; the next run watches again
            if self.note["verdict"] == "pass":
                self.note["verdict"] = "could-not-verify"
            doubts.append(f"no data: the verdict could not be noted: {exc.message}")
        return self.result(self.note, changed=bool(self.note.get("fenced")), resumed=resumed)

    def result(self, note: t.Mapping[str, t.Any], *, changed: bool, resumed: bool) -> dict[str, t.Any]:
        value, total = self._rate(note)
        rate = {"value": value, "reads": total, "threshold": self.slo, "source": self.source}
        return {"changed": changed, "resumed": resumed, **told(note, rate)}

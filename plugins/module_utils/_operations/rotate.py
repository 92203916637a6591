# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Key rotation: a new record key, made durable before its first use, and every record re-encrypted with it.

PRIVATE to the collection. Records keep key, sequence and times; payload, key id and checksum change, by
compare-and-set, so that a live writer is never overwritten. Forked processes do the work, this one keeps the lease.
A rotation that was killed is known from its incident's facts and goes on with the same key.
"""

from __future__ import annotations

import multiprocessing
import time
import typing as t

from .. import _progress
from .._errors import CapabilityMissing, KeyUnavailable
from .._model import KEY_ID, Claim
from .._store import Store, open_store
from .._store_own import RotatesOwnKeys
from .commands import counted
from .integrity import as_keyring
from .reencrypt import resealing
from .rotate_decision import Decision, decide
from .rotation import LEASE, PREFIX, Attempt, attempt_of, claim_for, let_go, namespaces_of
from .workers import Worker, collect

MIN_AGE = 3600.0  # seconds; a younger active key is new enough
ROUNDS = 8  # looks at what live writers wrote meanwhile, before it is left to the next run
SETTLE_BYTES = 24 << 20  # of new payloads, after which the engine puts them away


def rotate(
    *,
    store_params: t.Mapping[str, t.Any],
    keyring: t.Any,
    namespace: str | t.Sequence[str] | None = None,
    attempt: str | None = None,
    owner: str | None = None,
    incident: str | None = None,
    takeover: str | None = None,
    workers: int = 2,
    batch: int = 8000,
    check: bool = False,
    progress: t.Callable[[dict[str, t.Any]], None] | None = None,
    new_key: bool = True,
    min_age: float = MIN_AGE,
    force: bool = False,
    retire: bool = False,
    limit: int = 1000,
    tell: t.Callable[[t.Any], None] | None = None,
) -> dict[str, t.Any]:
    """Re-encrypt every record of the active generations (tombstones too) with one record key.

    Which key: that of a rotation under way; else a new one when ``new_key`` and the active key is older than
    ``min_age`` seconds (``force``: whatever its age); else the active one, for records that still carry another.
    So a second run finds nothing to do. ``namespace`` None means all. A rotation inside an open incident belongs to
    it; otherwise it opens one of its own and closes it. Old keys stay in the keyring; ``retire`` marks those as
    retired that no generation names any more (snapshots may: they still open). ``check`` writes nothing at all.

    ``attempt`` and ``owner`` default to this process. ``tell`` puts the keys of a keyring where other hosts find them,
    before the new one is used.

    Returns {changed, complete, key, key_created, resumed, from [key ids], records {rotated, already, unopenable,
    remaining}, namespaces {name: the same, from and incident}, unopenable [{namespace, key, key_id, evidence}],
    kept_keys, retired_keys, reasons, seconds}. ``complete`` is False when records are left with another key; those
    that no key opens are left alone, listed, and a matter for a rebuild.
    Errors: NamespaceUnknown, LeaseHeld, StaleAttempt, KeyUnavailable, StoreUnavailable, CannotProceed (two masters).
    """
    started = time.monotonic()
    ring = as_keyring(keyring)
    if ring is None:
        raise KeyUnavailable("A rotation needs the keyring.", "set memory_keyring")
    who = attempt_of(attempt, owner, incident, takeover)
    store = open_store(store_params)
    try:
        if "encryption" not in store.capabilities():
            if isinstance(store, RotatesOwnKeys):
                from .rotate_own import rotate_own

                return rotate_own(store, namespaces_of(store, namespace), who, min_age, force, check)
            raise CapabilityMissing(
                "Nothing can be rotated here: the layout has no encryption, its values are the application's own.",
                "give the application's new key (memory_new_application_key_file) where its layout knows one",
            )
        names = namespaces_of(store, namespace)
        decision = decide(store, ring, names, incident, attempt, new_key, min_age, force)
        if decision.target is None:
            ring.refuse_new_key()  # before an incident is opened, and in check mode too
        run = _Run(
            store,
            ring,
            dict(store_params),
            who,
            max(1, workers),
            batch,
            progress,
            limit,
            tell,
        )
        if check:
            results = {name: run.look(name, decision.target) for name in names}
        else:
            results = run.all(names, decision)
        retired = _retire(store, ring) if retire and not check else []
        return _report(results, decision, run, retired, check, time.monotonic() - started)
    finally:
        store.close()


class _Run:
    def __init__(
        self,
        store: Store,
        ring: t.Any,
        store_params: dict[str, t.Any],
        who: Attempt,
        workers: int,
        batch: int,
        progress: t.Callable[[dict[str, t.Any]], None] | None,
        limit: int,
        tell: t.Callable[[t.Any], None] | None = None,
    ) -> None:
        self.store, self.ring, self.store_params = store, ring, store_params
        self.who = who
        self.workers, self.batch, self.progress, self.limit = workers, batch, progress, limit
        self.tell = tell
        self.unopenable: list[dict[str, t.Any]] = []
        self._announced: set[str] = set()
        self._renewed = 0.0

    # --- the steps ------------------------------------------------------------------------------------------------
    def all(self, names: t.Sequence[str], decision: Decision) -> dict[str, dict[str, t.Any]]:
        results: dict[str, dict[str, t.Any]] = {}
        former = dict.fromkeys(names, decision.former)
        if decision.target is not None and not decision.resumed:
            # no key to make: only namespaces where a record carries another one are touched
            for name in names:
                found = self.look(name, decision.target, first=True)
                if found["remaining"]:
                    former[name] = found["from"][0]
                elif not self._left_open(name):
                    results[name] = found
        busy = [name for name in names if name not in results]
        claims: dict[str, Claim] = {}
        try:
            for name in busy:
                claims[name] = claim_for(self.store, name, self.who)
            if decision.target is None and busy:
                decision.target = self._make_key(claims, decision.former)
                decision.created = True
            if busy and self.tell is not None:
                self.tell(self.ring)
            for name in busy:
                note = {"from": former[name], "to": decision.target, "attempt": self.who.attempt, "done": False}
                self.store.note(claims[name], rotation=note)
                self.ring.activate(decision.target)
                results[name] = self._namespace(claims[name], t.cast(str, decision.target), former[name])
                self._end(claims[name], note, results[name])
        except BaseException:
            for claim in claims.values():
                let_go(self.store, claim)
            raise
        return results

    def _left_open(self, name: str) -> bool:
        """Whether a rotation that was killed right after its start left its own incident, to be closed now."""
        return any(one.state == "open" and one.incident.startswith(PREFIX) for one in self.store.incidents(name))

    def _make_key(self, claims: t.Mapping[str, Claim], former: str) -> str:
        """The intent is noted first, so that a key made just before a kill is found again and not made twice."""
        known = self.ring.ids()
        for claim in claims.values():
            self.store.note(claim, rotation={"from": former, "known": known, "done": False})
        return t.cast(str, self.ring.create_key())

    def _end(self, claim: Claim, note: dict[str, t.Any], result: dict[str, t.Any]) -> None:
        if result["remaining"]:
            return  # still under way: the next run goes on
        if claim.namespace in self._announced:
            self._log(claim, f"end: from {note['from']} to {note['to']}")
        self.store.note(claim, rotation={**note, "done": True})
        if claim.incident.startswith(PREFIX) and set(self.store.incident(claim).facts) <= {"rotation"}:
            self.store.close_incident(claim)  # nobody else's step belongs to it

    def _log(self, claim: Claim, reason: str) -> None:
        at = time.time_ns() // 1000
        self.store.log_operation(
            claim, [(0, at, claim.namespace, "rotate", None, None, None, None, None, self.who.owner, reason, b"")]
        )

    def _namespace(self, claim: Claim, target: str, former: str) -> dict[str, t.Any]:
        """Rounds over the namespace until no record that opens carries another key."""
        result = {"rotated": 0, "already": 0, "unopenable": 0, "remaining": 0, "from": [], "incident": claim.incident}
        _progress.begin("encrypting anew")
        for number in range(ROUNDS):
            before = self.store.identity().sequence
            seen = self._pass(claim, target, former, result)
            result["unopenable"] = seen["unopenable"]
            if number == 0:
                result["already"] = seen["already"]
            if not seen["refused"] and (not seen["rotated"] or self.store.identity().sequence == before):
                return result  # nobody wrote meanwhile, or a whole look found none
        result["remaining"] = max(0, self.look(claim.namespace, target)["remaining"] - result["unopenable"])
        return result

    def _pass(self, claim: Claim, target: str, former: str, result: dict[str, t.Any]) -> dict[str, int]:
        """One look at every record: workers encrypt and write ranges of keys, this process settles what they wrote."""
        seen = {"rotated": 0, "already": 0, "unopenable": 0, "refused": 0}
        with self.store.reader() as reader:
            cuts = reader.boundaries(claim.namespace, self.workers)
        edges = [None, *cuts, None]
        jobs = [(edges[i], edges[i + 1]) for i in range(len(edges) - 2, -1, -1)]
        self.unopenable = [one for one in self.unopenable if one["namespace"] != claim.namespace]
        gate = multiprocessing.get_context("fork").Lock()
        args = (gate, self.store_params, self.ring, claim, target, self.batch, self.limit)
        crew = [Worker(resealing, *args) for _turn in range(min(self.workers, len(jobs)))]
        unsettled = 0
        try:
            for worker in crew:
                worker.send(jobs.pop())
            for worker, kind, value in collect(crew):
                if kind == "begin":
                    if claim.namespace not in self._announced:
                        # before the first new payload: from here on the log says why a digest changed
                        self._log(claim, f"start: from {former} to {target}")
                        self._announced.add(claim.namespace)
                    worker.send(True)
                elif kind == "written":
                    written, refused, size = value
                    seen["refused"] += refused
                    seen["rotated"] += written - refused
                    unsettled += size
                    if unsettled >= SETTLE_BYTES:
                        self.store.settle()
                        unsettled = 0
                    self._tell(claim, result["rotated"] + seen["rotated"])
                elif kind == "range":
                    already, unopenable, examples, old = value
                    seen["already"] += already
                    seen["unopenable"] += unopenable
                    result["from"] = sorted({*result["from"], *old})
                    self.unopenable += examples[: self.limit - len(self.unopenable)]
                    worker.send(jobs.pop() if jobs else None)
        finally:
            for worker in crew:
                worker.stop()
        if seen["rotated"]:
            self.store.settle()
            self.store.renew(claim, LEASE)  # its commit makes all that was written before it durable
        result["rotated"] += seen["rotated"]
        return seen

    def _tell(self, claim: Claim, done: int) -> None:
        now = time.monotonic()
        if now - self._renewed > LEASE / 6:
            self.store.renew(claim, LEASE)
            self._renewed = now
        _progress.tell(done)
        if self.progress:
            self.progress({"phase": "rotate", "namespace": claim.namespace, "done": done})

    def look(self, name: str, target: str | None, first: bool = False) -> dict[str, t.Any]:
        """Count what is to do, writing nothing; with ``first`` stop at the first record that is."""
        remaining = already = 0
        old: set[str] = set()
        with self.store.reader() as reader:
            for rows in reader.scan(name):
                todo = [row[KEY_ID] for row in rows if row[KEY_ID] != target]
                old.update(map(str, todo))
                remaining += len(todo)
                already += len(rows) - len(todo)
                if todo and first:
                    break
        counts = {"rotated": 0, "already": already, "unopenable": 0, "remaining": remaining}
        return {**counts, "from": sorted(old), "incident": None}


# --- the end ----------------------------------------------------------------------------------------------------
def _retire(store: Store, ring: t.Any) -> list[str]:
    """Retire the keys that no row of any generation of any namespace names, nor a row that was set aside."""
    used = {ring.active_id}
    with store.reader() as reader:
        for state in reader.namespaces():
            for generation in store.generations(state.name):
                for rows in reader.scan(state.name, generation=generation):
                    used.update(row[KEY_ID] for row in rows)
            for kept in reader.aside(state.name):
                used.update(row[KEY_ID] for _incident, _reason, row in kept)
    return [key_id for key_id in ring.ids() if key_id not in used and ring.retire(key_id)]


def _report(
    results: dict[str, dict[str, t.Any]],
    decision: Decision,
    run: _Run,
    retired: list[str],
    check: bool,
    seconds: float,
) -> dict[str, t.Any]:
    total = {
        name: sum(one[name] for one in results.values()) for name in ("rotated", "already", "unopenable", "remaining")
    }
    old = sorted({key_id for one in results.values() for key_id in one["from"]})
    reasons = []
    if total["unopenable"]:
        closed = counted(total["unopenable"], "record does", "records do")
        reasons.append(f"{closed} not open with any key at hand: a rebuild is needed")
    if check:
        new = "a new record key" if decision.target is None else f"the record key {decision.target}"
        if decision.target is None or total["remaining"]:
            reasons.append(f"would encrypt {counted(total['remaining'], 'record')} with {new}")
    elif total["remaining"]:
        reasons.append(
            counted(total["remaining"], "record keeps", "records keep")
            + " coming back with an old key: a writer does not follow the keyring"
        )
    if retired:
        reasons.append("a retired key still opens: snapshots may name it, so it stays in the keyring")
    return {
        "changed": bool(total["remaining"] or decision.target is None)
        if check
        else bool(total["rotated"] or decision.created or retired),
        "complete": not (total["remaining"] or total["unopenable"]),
        "key": decision.target,
        "key_created": decision.created,
        "resumed": decision.resumed,
        "from": old,
        "records": total,
        "namespaces": results,
        "unopenable": run.unopenable,
        "kept_keys": [key_id for key_id in run.ring.ids() if key_id != decision.target],
        "retired_keys": retired,
        "reasons": reasons,
        "seconds": round(seconds, 3),
    }

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Rotation of the key by which an application itself encrypts its memories: no framework can do that.

PRIVATE to the collection. Neither framework notes which key a value has, so each is tried with the new key first: what
opens is done already, and a rotation that was killed goes on where it was. A namespace is fenced while its values are
changed, since an application with either key would find half of them shut; what is written about the incident is the
new key's fingerprint and whether the fence is this rotation's. Values change by compare-and-set; those that no key
opens are set aside, unless they are so many that the key is more likely wrong than they are damaged.
"""
from __future__ import annotations

import time
import typing as t

from .. import _progress
from .._application_ciphers import ApplicationKey
from .._application_seals import NOTHING, OPEN, PLAIN, SHUT, Seals, seals_of
from .._codec import RecordCodec
from .._errors import CannotProceed, CapabilityMissing, KeyUnavailable, RecordCorrupt
from .._model import CHECKSUM, KEY, PAYLOAD, Change, Claim, IncidentState, Row
from .._store import Store, open_store
from .commands import counted
from .commands import run as command
from .integrity_rows import shown
from .rotation import LEASE, PREFIX, Attempt, attempt_of, claim_for, let_go, namespaces_of

NOTE = "application_rotation"  # the fact of an incident
ASIDE = "no key of the application opens it"
READ = 20_000  # rows that one reader reads: a long read keeps the engine from cleaning up
BATCH = 1000
BATCH_BYTES = 8 << 20
LISTED = 1000  # values that no key opens
SHARE = 10  # one in so many may be set aside unasked

Found = t.Dict[str, t.Any]


def rotate_application(
    *,
    store_params: t.Mapping[str, t.Any],
    new_key: ApplicationKey,
    namespace: str | t.Sequence[str] | None = None,
    attempt: str | None = None,
    owner: str | None = None,
    incident: str | None = None,
    takeover: str | None = None,
    force: bool = False,
    check: bool = False,
) -> dict[str, t.Any]:
    """Encrypt with ``new_key`` every value that one of the application's keys (memory_store) opens.

    ``namespace`` None means all. One that is quarantined already stays so, and its incident is gone on with; any other
    is fenced as long as its values are changed. A second run finds nothing to do. ``force``: set aside what no key
    opens, however much it is. ``check`` writes nothing at all.

    Returns {changed, complete, key (the new one's fingerprint), resumed, records {rotated, already, unopenable, aside,
    remaining, plain, unsound}, namespaces {name: the same and incident}, unopenable [{namespace, key, evidence}], said,
    reasons, seconds, and what rotate() has and this has not}. ``complete`` is False while values are left that the new
    key does not open; ``plain`` lie in plain beside encrypted ones.
    Errors: CapabilityMissing, KeyUnavailable, InvalidInput, NamespaceUnknown, LeaseHeld, CannotProceed.
    """
    started = time.monotonic()
    seals = seals_of(store_params)
    if seals is None:
        raise CapabilityMissing(
            f"Nothing can be rotated here: the layout {store_params.get('layout')} has no encryption by applications.",
            "leave the new key of the application out",
        )
    if not seals.keys:
        raise KeyUnavailable(
            "A rotation needs the key that the application's values have now.",
            "set memory_store.application_key_file (or application_key)",
        )
    new_key.cipher(seals.cipher)
    former = [key for key in seals.keys if key.fingerprint != new_key.fingerprint]
    seals.keys[:] = [new_key, *former]
    store = open_store(store_params)
    try:
        run = _Run(store, seals, attempt_of(attempt, owner, incident, takeover), force)
        names = namespaces_of(store, namespace)
        for name in names:
            run.guard(name)
        results = {name: run.look(name) for name in names}
        if not check:
            for name in names:
                if run.todo(results[name]) or run.left_open(name):
                    results[name] = run.rotate(name, results[name])
        return _report(results, run, check, time.monotonic() - started)
    finally:
        store.close()


class _Run:
    def __init__(
        self,
        store: Store,
        seals: Seals,
        who: Attempt,
        force: bool,
    ) -> None:
        self.store, self.seals = store, seals
        self.who = who
        self.force = force
        self.resumed = False
        self.unopenable: list[dict[str, t.Any]] = []  # the first ones
        self._renewed = time.monotonic()

    @property
    def new_key(self) -> ApplicationKey:
        return self.seals.keys[0]

    # --- what is there --------------------------------------------------------------------------------------------
    def guard(self, name: str) -> None:
        """Errors: CannotProceed when something else has to be finished first."""
        state = self._open(name)
        if state is None:
            return
        plan, applied = state.facts.get("plan"), state.facts.get("applied")
        if plan and not (applied and applied.get("complete")):
            raise CannotProceed(
                f"A rebuild of {name!r:.80} is planned and not finished; its plan names the values as they are now.",
                f"finish that first: {command('rebuild', memory_namespace=name)}",
            )
        note = state.facts.get(NOTE)
        if note and not note["done"]:
            if note["to"] not in [key.fingerprint for key in self.seals.keys]:
                raise CannotProceed(
                    f"A rotation of {name!r:.80} to the key {note['to']} is not finished, and that key is not given.",
                    "give it as the new key, or add it to memory_store.application_key_file",
                )
            self.resumed = True

    def _open(self, name: str) -> IncidentState | None:
        return next((one for one in self.store.incidents(name) if one.state == "open"), None)

    def left_open(self, name: str) -> bool:
        """Whether a rotation was killed between its last change and its end."""
        state = self._open(name)
        return state is not None and NOTE in state.facts and self._still_ours(state)

    def _still_ours(self, state: IncidentState) -> bool:
        note = state.facts[NOTE]
        return not note["done"] or note["fenced"] or state.incident.startswith(PREFIX)

    def look(self, name: str, claim: Claim | None = None) -> Found:
        """Try every value, writing nothing. With ``claim`` it is a second look, which lists nothing again."""
        found: Found = dict.fromkeys(("rotated", "already", "unopenable", "aside", "remaining", "plain", "unsound"), 0)
        found["incident"] = None
        _progress.begin("trying the keys")
        with self.store.reader() as reader:
            for rows in reader.scan(name):
                for row in rows:
                    self._count(name, row, found, claim is None)
                _progress.add(len(rows))
                if claim is not None:
                    self._keep(claim)
        if not (found["already"] or found["remaining"] or found["unopenable"]):
            found["plain"] = 0  # an application that encrypts nothing there
        return found

    def _count(self, name: str, row: Row, found: Found, listing: bool) -> None:
        try:
            state, key, _plain = self.seals.look(row[PAYLOAD])
        except RecordCorrupt:
            state, key = NOTHING, -1
        why = ASIDE
        if state == PLAIN:
            found["plain"] += 1
        elif state == OPEN and key == 0:
            found["already"] += 1
        elif state == OPEN and row[CHECKSUM]:
            found["remaining"] += 1
        elif state in (OPEN, SHUT):
            if state == OPEN:  # the framework could not read it either
                found["unsound"] += 1
                why = "the record is not whole"
            else:
                found["unopenable"] += 1
            if listing and len(self.unopenable) < LISTED:
                self.unopenable.append({"namespace": name, "key": shown(row[KEY]), "evidence": why})

    def may_set_aside(self, found: Found) -> bool:
        shut, opened = found["unopenable"], found["already"] + found["remaining"] + found["rotated"]
        return bool(shut) and (self.force or (opened > 0 and shut <= max(1, (shut + opened) // SHARE)))

    def todo(self, found: Found) -> bool:
        return bool(found["remaining"]) or self.may_set_aside(found)

    # --- changing it ----------------------------------------------------------------------------------------------
    def rotate(self, name: str, found: Found) -> Found:
        claim = claim_for(self.store, name, self.who)
        try:
            return self._rotate(claim, found)
        except BaseException:
            let_go(self.store, claim)
            raise

    def _rotate(self, claim: Claim, found: Found) -> Found:
        name = claim.namespace
        note = self._fence(claim)
        rotated, aside = self._pass(claim, self.may_set_aside(found))
        after = self.look(name, claim)  # under the fence: what it says is what the application finds
        after.update(rotated=rotated, aside=aside, incident=claim.incident)
        after["unopenable"] += aside
        after["already"] = found["already"]
        if after["remaining"]:
            raise CannotProceed(
                f"{after['remaining']} values of {name!r:.80} still have a former key; it stays quarantined.",
                "run the same command again",
            )
        self.store.note(claim, **{NOTE: {**note, "done": True}})
        if note["fenced"]:
            self.store.unfence(claim)
            self.store.note(claim, **{NOTE: {**note, "done": True, "fenced": False}})
        if claim.incident.startswith(PREFIX):
            self.store.close_incident(claim)
        return after

    def _fence(self, claim: Claim) -> dict[str, t.Any]:
        """The intent is noted first: a run that is killed leaves a quarantine that this rotation lifts."""
        name = claim.namespace
        with self.store.reader() as reader:
            quarantined = reader.namespace(name).state == "quarantined"
        former = self.store.incident(claim).facts.get(NOTE) or {}
        ours = not quarantined or bool(former.get("fenced"))
        note = {"to": self.new_key.fingerprint, "fenced": ours, "done": False}
        self.store.note(claim, **{NOTE: note})
        self.store.fence(claim)
        proof = self.store.prove(name)
        if not (proof["writes_refused"] and proof["reads_refused"]):
            raise CannotProceed(
                f"The fence around {name} is up but its proof failed: {'; '.join(map(str, proof['detail']))[:300]}.",
                "end what that names, or stop the applications that use the store, then run the same command again",
            )
        return note

    def _pass(self, claim: Claim, aside: bool) -> tuple[int, int]:
        """Encrypt anew whatever a former key opens; (how many, how many were set aside)."""
        codec = RecordCodec(claim.namespace)
        done = [0, 0]
        after: str | None = None
        more = True
        _progress.begin("encrypting anew")
        while more:
            more = False
            read = size = 0
            changes: list[Change] = []
            with self.store.reader() as reader:
                for rows in reader.scan(claim.namespace, after=after):
                    for row in rows:
                        change = self._change(codec, row, aside)
                        if change is None:
                            continue
                        changes.append(change)
                        size += len(row[PAYLOAD])
                        if len(changes) >= BATCH or size >= BATCH_BYTES:
                            self._apply(claim, changes, done)
                            changes, size = [], 0
                    self._keep(claim)
                    after = rows[-1][KEY]
                    read += len(rows)
                    if read >= READ:
                        more = True
                        break
            self._apply(claim, changes, done)
        return done[0], done[1]

    def _change(self, codec: RecordCodec, row: Row, aside: bool) -> Change | None:
        try:
            state, key, plain = self.seals.look(row[PAYLOAD])
        except RecordCorrupt:
            return None
        if state == SHUT and aside:
            return Change(row[KEY], row[CHECKSUM], None, ASIDE)
        if state != OPEN or key == 0 or not row[CHECKSUM]:
            return None
        new = (*row[:PAYLOAD], self.seals.reseal(row[PAYLOAD], plain, self.new_key))
        return Change(row[KEY], row[CHECKSUM], (*new, codec.checksum(new)))

    def _apply(self, claim: Claim, changes: t.Sequence[Change], done: list[int]) -> None:
        if not changes:
            return
        refused = set(self.store.change(claim, changes))
        for change in changes:
            if change.key not in refused:
                done[change.row is None] += 1
        _progress.tell(sum(done))

    def _keep(self, claim: Claim) -> None:
        """Nobody takes the incident over from a run that is alive."""
        if time.monotonic() - self._renewed > LEASE / 6:
            self.store.renew(claim, LEASE)
            self._renewed = time.monotonic()


# --- the end --------------------------------------------------------------------------------------------------------
def _report(results: t.Mapping[str, Found], run: _Run, check: bool, seconds: float) -> dict[str, t.Any]:
    words = ("rotated", "already", "unopenable", "aside", "remaining", "plain", "unsound")
    total = {word: sum(one[word] for one in results.values()) for word in words}
    key = run.new_key.fingerprint
    reasons = []
    would = sum(one["unopenable"] for one in results.values() if run.may_set_aside(one)) if check else 0
    if check:
        said = f"Would encrypt {counted(total['remaining'], 'value')} with the application's new key {key}"
    else:
        said = f"{counted(total['rotated'], 'value has', 'values have')} the application's new key {key} now"
    said += f"; {total['already']} had it already"
    if check:
        reasons += [said] + ([f"would set aside {counted(would, 'value')} that no key opens"] if would else [])
    if total["rotated"]:
        reasons.append(
            "give the application the new key, and run a backup: a rebuild from a snapshot from before would bring the "
            "former key back"
        )
    if total["aside"]:
        were = "was" if total["aside"] == 1 else "were"
        reasons.append(f"{counted(total['aside'], 'value')} that no key of the application opens {were} set aside")
    left = total["unopenable"] - total["aside"] - would
    if left:
        reasons.append(
            f"{counted(left, 'value')} that no key of the application opens {'is' if left == 1 else 'are'} left in "
            "place: another key, or too many of a namespace to be set aside without memory_force=true"
        )
    if total["unsound"]:
        unsound = counted(total["unsound"], "record is not whole and keeps its", "records are not whole and keep their")
        reasons.append(f"{unsound} key: a rebuild mends that")
    if total["plain"]:
        reasons.append(f"{counted(total['plain'], 'value lies', 'values lie')} in plain, which no rotation changes")
    changed = bool(total["remaining"] or would) if check else bool(total["rotated"] or total["aside"])
    return {
        "changed": changed,
        "complete": not (total["remaining"] or left or total["unsound"]),
        "key": key,
        "key_created": False,
        "resumed": run.resumed,
        "from": [one.fingerprint for one in run.seals.keys[1:]],
        "records": total,
        "namespaces": dict(results),
        "unopenable": run.unopenable,
        "kept_keys": [],
        "retired_keys": [],
        "said": said,
        "reasons": reasons,
        "seconds": round(seconds, 3),
    }

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: in place (soft) or into a new generation that is checked before one switch (hard).

PRIVATE to the collection. Every change is a compare-and-set against what the plan saw; running it again finds what is
already done and does the rest. Nothing that is replaced is thrown away: soft keeps the former row aside, hard keeps
the former generation until `drop_former`.
"""

from __future__ import annotations

import os
import typing as t

from .. import _progress
from .._codec import RecordCodec, log_checksum
from .._errors import CannotProceed, SnapshotUnusable
from .._model import CHECKSUM, DELETED, EPOCH, PAYLOAD, SEQUENCE, UPDATED, Change, Claim, Row
from .._repository import Snapshot
from .._store import Store
from . import incident as incidents
from .apply_order import in_any_order
from .commands import run as command
from .incident import Run, now_us
from .incident_retention import DROPPED, dropped
from .incoming import Incoming
from .plan_file import Entry, PlanFile
from .undo_soft import applied_soft, undo_soft
from .workers import Parent, Worker

BATCH = 1000
COPY_BATCH = 8000  # rows; their pages shall fit the engine's cache


class Sealer(t.Protocol):
    @property
    def active_id(self) -> str: ...

    def seal(self, plaintext: bytes, head: bytes, key_id: str) -> bytes: ...


class Applier:
    """One plan, one claim; ``sources`` are the snapshots by id that the plan names."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        plan: PlanFile,
        sources: t.Mapping[str, Snapshot],
        keyring: Sealer,
        absent: str = "auto",
        incoming: Incoming | None = None,
    ) -> None:
        """``absent``: keep | restore, what is done about keys that may have been deleted; auto: as planned.
        ``incoming``: how copies go in, where that is not as they are."""
        self.store = store
        self.claim = claim
        self.plan = plan
        self.sources = sources
        self.keyring = keyring
        self.absent = absent
        self.incoming = incoming
        self.tombstones = "tombstones" in store.capabilities()
        self.codec = RecordCodec(claim.namespace)
        self.refused: list[str] = []

    def soft(self) -> dict[str, t.Any]:
        """In place. Returns {method, applied, already, refused}."""
        done = {"applied": 0, "already": 0}

        def repair(entries: list[Entry]) -> None:
            with self.store.reader() as reader:
                live = reader.get_many(self.claim.namespace, [entry.key for entry in entries])
            todo, wanted = self._todo(entries, live)
            changes = [Change(e.key, e.expected, wanted.get(e.key), f"{e.action}: {e.reason}") for e in todo]
            refused = self.store.change(self.claim, changes) if todo else []
            self.refused += refused
            done["already"] += len(entries) - len(todo)
            done["applied"] += len(todo) - len(refused)
            _progress.add(len(todo))

        _progress.begin("repairing records", sum(self.plan.counts().values()))
        in_any_order(self._entries(), repair)
        return {"method": "soft", **done, "refused": len(self.refused)}

    def _entries(self) -> t.Iterator[list[Entry]]:
        """What is to be done."""
        for entries in self.plan.entries(batch=BATCH):
            chosen = [entry for entry in entries if self._chosen(entry)]
            if chosen:
                yield chosen

    def _chosen(self, entry: Entry) -> bool:
        if entry.action == "absent":
            return self.absent == "restore"
        return not (self.absent == "keep" and entry.action == "repair" and entry.expected is None)

    def hard(self, check: t.Callable[[int, int], None]) -> dict[str, t.Any]:
        """Into a new generation. ``check(generation, rows expected)`` raises when the copy is not what was planned."""
        self.store.finish_switch(self.claim)
        known = self.store.incident(self.claim).facts
        with self.store.reader() as reader:
            active = reader.namespace(self.claim.namespace).generation
        done = {"method": "hard", "applied": 0, "already": 0, "refused": 0}
        if known.get("switched_to") == active:
            self._log_tombstones(active)
            generation = {"from": known["switched_from"], "to": active}
            return {**done, "already": known["rebuilt_rows"], "generation": generation}
        target = known.get("building")
        if target is None or target not in self.store.generations(self.claim.namespace):
            target = self.store.begin_generation(self.claim)
            self.store.note(self.claim, building=target)
        kept = self._copy_kept(active, target)
        applied = self._load_repairs(target)
        check(target, kept + applied)
        self.store.note(self.claim, switched_from=active, switched_to=target, rebuilt_rows=kept + applied)
        self.store.switch(self.claim, target, active)
        self._log_tombstones(target)
        self.store.note(self.claim, building=None)
        return {**done, "applied": applied, "kept": kept, "generation": {"from": active, "to": target}}

    def _copy_kept(self, active: int, target: int) -> int:
        """Everything that the plan does not name, by the engine's own bulk copy; resumes after the last key copied."""
        after: str | None = None
        _progress.begin("copying what is sound")
        while True:
            after_next = self.store.copy_generation(
                self.claim, active, target, after=after, limit=COPY_BATCH, excluding=self.plan.path
            )
            if after_next is None:
                break
            after = after_next
            _progress.add(COPY_BATCH)
            self.store.settle()
            self.store.renew(self.claim)
        with self.store.reader() as reader:
            total = reader.count(self.claim.namespace, target)
            planned = sum(
                len(reader.get_many(self.claim.namespace, [e.key for e in entries], target))
                for entries in self.plan.entries(batch=BATCH)
            )
        return total - planned

    def _load_repairs(self, target: int) -> int:
        loaded = 0
        worker = None
        _progress.begin("loading repairs", sum(self.plan.counts().values()))
        if sum(self.plan.counts().values()) > BATCH:
            # Elsewhere: what a long download leaves in a process, those that check the result would inherit.
            for source in self.sources.values():
                source.unlock(source.chunks(self.claim.namespace))
            worker = Worker(_find_copies, self.plan.path, self.sources, self.claim.namespace)
        try:
            for entries in self.plan.entries(batch=BATCH):
                copies = None if worker is None else worker.receive()[1]
                loaded += self._load_part(target, [entry for entry in entries if self._chosen(entry)], copies)
                _progress.add(len(entries))
        finally:
            if worker is not None:
                worker.stop()
        return loaded

    def _load_part(self, target: int, entries: list[Entry], copies: dict[str, Row] | None) -> int:
        with self.store.reader() as reader:
            there = reader.get_many(self.claim.namespace, [e.key for e in entries], target)
        _todo, rows = self._todo(entries, there, fresh=True, copies=copies)
        if rows:
            self.store.load(self.claim, target, list(rows.values()))
        with self.store.reader() as reader:
            return len(reader.get_many(self.claim.namespace, [e.key for e in entries], target))

    def _todo(
        self,
        entries: t.Sequence[Entry],
        live: t.Mapping[str, Row],
        fresh: bool = False,
        copies: dict[str, Row] | None = None,
    ) -> tuple[list[Entry], dict[str, Row]]:
        """What is left to do, and the rows to put for it."""
        if self.incoming is None or self.incoming.fixed:
            todo = [entry for entry in entries if not self._done(entry, live.get(entry.key), fresh)]
            return todo, self._wanted(todo, copies) if todo else {}
        rows = self._wanted(entries, copies)  # only then is it known which checksum a copy will have
        todo = [entry for entry in entries if not self._done(entry, live.get(entry.key), fresh, rows.get(entry.key))]
        return todo, {entry.key: rows[entry.key] for entry in todo if entry.key in rows}

    def _done(self, entry: Entry, live: Row | None, fresh: bool = False, row: Row | None = None) -> bool:
        """Whether the key already is as the plan wants it (an earlier attempt did it)."""
        if entry.digest is not None:
            digest = entry.digest if row is None else row[CHECKSUM]
            return live is not None and live[CHECKSUM] == digest and self.codec.intact(live)
        if entry.action == "expired" or not self.tombstones:
            return live is None
        if live is None or (not fresh and live[CHECKSUM] == entry.expected):
            return False
        return live[DELETED] is not None and self.codec.intact(live)

    def _wanted(self, entries: t.Sequence[Entry], copies: dict[str, Row] | None = None) -> dict[str, Row]:
        """The rows to put: copies from the sources (``copies``: those that were fetched already), tombstones for what
        nobody has; none for what expired."""
        rows: dict[str, Row] = {}
        if copies is None:
            copies = _copies(self.sources, self.claim.namespace, entries)
        if self.incoming is not None:
            copies = self._as_today(self.incoming, entries, copies)
        for entry in entries:
            if entry.source:
                row = copies.get(entry.key)
                if row is None or row[CHECKSUM] != entry.digest or not self.codec.intact(row):
                    raise SnapshotUnusable(
                        f"Snapshot {entry.source} no longer holds the copy of {entry.key!r:.80} that the plan relies "
                        "on.",
                        "make the plan anew without it: "
                        + command("diagnose", memory_namespace=self.claim.namespace, memory_again="true"),
                    )
                rows[entry.key] = row
                if self.incoming is not None:
                    rows[entry.key] = self.incoming.later(self.sources[entry.source], [row])[0]
        rows.update(self._tombstones([entry for entry in entries if entry.buried]))
        return rows

    def _as_today(
        self, incoming: Incoming, entries: t.Sequence[Entry], copies: t.Mapping[str, Row]
    ) -> dict[str, Row]:
        out: dict[str, Row] = {}
        for source in {entry.source for entry in entries if entry.source}:
            rows = (copies[entry.key] for entry in entries if entry.source == source and entry.key in copies)
            out.update((row[0], row) for row in incoming.today(self.sources[source], rows))
        return out

    def _tombstones(self, entries: t.Sequence[Entry]) -> dict[str, Row]:
        """A deletion with a reason for each key of which no good copy exists: absent is never left unexplained."""
        if not entries or not self.tombstones:
            return {}
        epoch, first = self.store.reserve(self.claim, len(entries))
        now = now_us()
        rows: dict[str, Row] = {}
        for offset, entry in enumerate(entries):
            bare: Row = (entry.key, epoch, first + offset, now, now, None, now, self.keyring.active_id, b"", b"")
            sealed = bare[:PAYLOAD] + (self.keyring.seal(b"", self.codec.head(bare), self.keyring.active_id), b"")
            rows[entry.key] = sealed[:CHECKSUM] + (self.codec.checksum(sealed),)
        return rows

    def _log_tombstones(self, generation: int) -> None:
        """In place the store logs a tombstone with its change. Those of a new generation are logged once it is the
        active one: until then, and after an undo that came before, the log must not say that a key was deleted."""
        for entries in self.plan.entries(batch=BATCH) if self.tombstones else ():
            buried = {entry.key: entry for entry in entries if entry.buried}
            if not buried:
                continue
            with self.store.reader() as reader:
                rows = reader.get_many(self.claim.namespace, list(buried), generation)
            log = [
                (0, row[UPDATED], self.claim.namespace, "delete", key, row[EPOCH], row[SEQUENCE], row[CHECKSUM], 0)
                + (self.claim.attempt, f"{buried[key].action}: {buried[key].reason}", b"")
                for key, row in rows.items()
                if row[DELETED] is not None
            ]
            if log:
                self.store.log_operation(self.claim, log)


def _copies(sources: t.Mapping[str, Snapshot], namespace: str, entries: t.Sequence[Entry]) -> dict[str, Row]:
    """What the sources hold of these keys, each key from the source that the plan names."""
    found: dict[str, Row] = {}
    for source in {entry.source for entry in entries if entry.source}:
        found.update(sources[source].get_many(namespace, [e.key for e in entries if e.source == source]))
    return found


def _find_copies(parent: Parent, plan_path: str, sources: t.Mapping[str, Snapshot], namespace: str) -> None:
    with PlanFile.open(plan_path, namespace) as planned:
        for entries in planned.entries(batch=BATCH):
            parent.check()
            parent.send("copies", _copies(sources, namespace, entries))


def undo(
    *,
    store: Store,
    namespace: str,
    run: Run,
    store_params: t.Mapping[str, t.Any] | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Go back to the generation that a hard rebuild replaced, or to the records that a soft one did (``store_params``
    says where its plan lies). Errors: CannotProceed when there is nothing to go back to, or applications wrote since.
    """
    incident, known = incidents.facts(store, namespace, run.incident)
    if incident is None or known.get(DROPPED):
        _refuse_dropped(store, namespace, incident)
    former, current = known.get("switched_from"), known.get("switched_to")
    soft = former is None and incident is not None and applied_soft(known) is not None
    instead = "rebuild it again, or bring single records back: " + command(
        "restore", memory_namespace=namespace, memory_keys=["<keys>"]
    )
    if former is None and not soft and known.get("undone"):
        went = {} if known["undone"] == "soft" else {"generation": {"from": None, "to": known["undone"]}}
        return {"changed": False, "incident": incident, **went}
    if not soft and (former is None or former not in store.generations(namespace)):
        _refuse_dropped(store, namespace, None)
        raise CannotProceed(
            f"There is no rebuild of {namespace} to take back: no former generation, and no soft repair.",
            f"restore a snapshot instead; those that there are: {command('info')}",
        )
    since = _happened_since(store, namespace, known)
    if since is not None:
        raise CannotProceed(since, instead)
    with store.reader() as reader:
        if reader.namespace(namespace).state != "quarantined":
            raise CannotProceed(
                f"{namespace} is not quarantined: undo would serve the damaged {'records' if soft else 'generation'}.",
                f"isolate it first: {command('isolate', memory_namespace=namespace)}",
            )
    claim = None if check else incidents.claim(store, namespace, run)
    if soft:
        return undo_soft(store, store_params or {}, claim, str(incident), namespace, run)
    if claim is not None:
        store.switch(claim, t.cast(int, former), t.cast(int, current))
        store.note(
            claim,
            undone=former,
            applied=None,
            validated=None,
            switched_from=None,
            switched_to=None,
            building=current,
        )
    return {"changed": True, "incident": incident, "generation": {"from": current, "to": former}}


def _refuse_dropped(store: Store, namespace: str, incident: str | None) -> None:
    """Errors: CannotProceed when the rebuild's former records are gone for good."""
    gone = dropped(store, namespace, incident)
    if gone is not None:
        raise CannotProceed(
            f"What {namespace} was before the rebuild of incident {gone.incident} is gone since {gone.facts[DROPPED]}, "
            "when memory_keep_incidents was over.",
            f"restore a snapshot instead; those that there are: {command('info')}",
        )


def _happened_since(store: Store, namespace: str, known: t.Mapping[str, t.Any]) -> str | None:
    """Why going back would take away what came after the rebuild, or may."""
    if (known.get("released_at") or known.get("releasing")) and "log" not in store.capabilities():
        return f"{namespace} was released since, and it has no access log: nobody can tell what was written to it."
    if known.get("released_sequence") is not None and _written_since(store, namespace, known["released_sequence"]):
        return f"{namespace} was written to after its release; going back would take these writes away."
    if known.get("merged_since"):
        return f"What was written to {namespace} on its secondary came home since; going back would take that away."
    return None


def _written_since(store: Store, namespace: str, sequence: int) -> bool:
    """By a record or by the log: either may have been damaged since."""
    codec = RecordCodec(namespace)
    with store.reader() as reader:
        if any(
            isinstance(row[SEQUENCE], int) and row[SEQUENCE] > sequence and codec.intact(row)
            for rows in reader.scan(namespace)
            for row in rows
        ):
            return True
        return any(
            entry[3] in ("write", "delete")
            and isinstance(entry[6], int)
            and entry[6] > sequence
            and log_checksum(entry) == entry[11]
            for entries in reader.log(namespace)
            for entry in entries
        )


def drop_former(store: Store, claim: Claim, plan_path: str) -> int:
    """After the incident passed: give the former generation's space back, but set aside what the plan replaced in it.

    Rows dropped.
    """
    former = store.incident(claim).facts.get("switched_from")
    if former is None:
        return 0
    kept = store.generations(claim.namespace)
    if former in kept and os.path.exists(plan_path):
        with PlanFile.open(plan_path, claim.namespace) as planned:
            for entries in planned.entries(batch=BATCH):
                replaced = [Change(e.key, e.expected, None, f"{e.action}: {e.reason}") for e in entries if e.expected]
                store.change(claim, replaced, former)
    with store.reader() as reader:
        active = reader.namespace(claim.namespace).generation
    return sum(store.drop_generation(claim, generation) for generation in kept if generation != active)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Serve a namespace from its secondary, and bring it home again.

PRIVATE to the collection. These functions work on one store each; moving the route between them is the play's task.
"""

from __future__ import annotations

import typing as t

from .._codec import RecordCodec, log_checksum
from .._errors import CannotProceed, KeyUnavailable, NamespaceLocked, NamespaceQuarantined, RecordCorrupt
from .._model import CHECKSUM, EPOCH, KEY, KEY_ID, PAYLOAD, SEQUENCE, Change, Claim, LogEntry, Row
from .._store import Store
from .commands import ago, counted
from .incident import rfc3339
from .probes import last_write

BATCH = 1000
BEATEN: t.Final = "conflict: a newer deletion or write at home won"


class _Rollback(Exception):
    """Ends a trial write without a trace."""


def fit(store: Store, namespace: str, *, needed_at: int, rpo: float, scan: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Whether this copy may take over: filled from a snapshot, verified, within the RPO.

    ``scan`` is the verdict of integrity.scan on this copy. Returns {fit, lag_seconds, reason, snapshot, …}.
    """
    with store.reader() as reader:
        state = reader.namespace(namespace)
    lag = (needed_at - state.restored_at) / 1e6 if state.restored_at is not None else None
    reason = None
    if "sequence" not in store.capabilities():
        reason = "its records have no sequences, so what would be written there could not be merged home"
    elif state.restored_snapshot is None:
        reason = "it was never filled from a snapshot"
    elif scan["verdict"] != "pass":
        found = ", ".join(f"{number:,} × {kind}" for kind, number in scan["findings"].items())
        reason = f"its own copy does not verify: {scan['verdict']}" + (f", {found}" if found else "")
    elif lag is None or lag > rpo:
        reason = f"it is {ago(lag)} behind, the RPO is {ago(rpo)}" if lag is not None else "its age is not known"
    return {
        "fit": reason is None,
        "reason": reason,
        "lag_seconds": lag,
        "snapshot": state.restored_snapshot,
        "restored_at": rfc3339(state.restored_at),
        "restored_sequence": state.restored_sequence,
    }


def promote(store: Store, claim: Claim, *, above_epoch: int) -> dict[str, t.Any]:
    """Make this copy the namespace's home: a higher epoch, then application writes. Proven by a trial write."""
    with store.reader() as reader:
        state = reader.namespace(claim.namespace)
    changed = False
    if state.state != "serving":
        epoch = store.raise_epoch(claim, above_epoch)
        store.note(claim, promoted_epoch=epoch)  # before the first write, which nobody may take away from then on
        changed = store.set_state(claim, "serving")
    epoch = store.incident(claim).facts.get("promoted_epoch") or store.identity().epoch
    return {"changed": changed, "epoch": epoch, "accepts_writes": accepts_writes(store, claim.namespace)}


def serve_reads(store: Store, claim: Claim) -> dict[str, t.Any]:
    """Let applications read this copy and write nothing, both proven; a copy that fails the proof stands by again.

    No epoch is raised, since nothing is written here. Errors: CannotProceed.
    """
    changed = store.set_state(claim, "reading")
    proof = store.prove(claim.namespace)
    if not (proof["reads_accepted"] and proof["writes_refused"]):
        store.set_state(claim, "standby")
        raise CannotProceed(
            f"{claim.namespace} cannot be served read-only here, the proof failed: "
            f"{'; '.join(map(str, proof['detail']))[:300]}.",
            "give the applications a user of their own (memory_store.application_user), or leave "
            "memory_secondary_writes out where this copy may take writes",
        )
    return {"changed": changed, "proof": proof, "accepts_reads": True, "accepts_writes": False}


def demote(store: Store, claim: Claim) -> dict[str, t.Any]:
    """Fence this copy again: standby, no application writes, wherever it served."""
    return {"changed": store.set_state(claim, "standby")}


def accepts_writes(store: Store, namespace: str) -> bool:
    """Try an application's write and roll it back. Errors other than a refusal pass through."""
    try:
        with store.writing(namespace, 1, wait=5.0):
            raise _Rollback
    except _Rollback:
        return True
    except (NamespaceQuarantined, NamespaceLocked):
        return False


class Delta(t.Protocol):
    """The secondary's namespace as a snapshot."""

    def scan(self, namespace: str, after: str | None = None, until: str | None = None) -> t.Iterator[list[Row]]: ...

    def log(self, namespace: str) -> t.Iterator[list[LogEntry]]: ...


def merge(store: Store, claim: Claim, delta: Delta, keyring: t.Any, *, since_epoch: int) -> dict[str, t.Any]:
    """Bring home what was written on the secondary since it was promoted (epoch ≥ ``since_epoch``).

    The higher (epoch, sequence) wins; what loses is kept aside and listed as a conflict: a row that was written here
    after the secondary's snapshot, or the secondary's, where what was lost here was marked as deleted in a higher
    epoch (another namespace came home meanwhile). What the secondary acknowledged and its copy does not give any more
    is ``lost``. Returns {merged, already, conflicts, conflict_keys, damaged, lost [keys], log_entries, first_write_at
    (when the secondary took its first write)}.
    """
    codec = RecordCodec(claim.namespace)
    merged = already = kept = 0
    conflicts: list[str] = []
    damaged: dict[str, tuple[t.Any, t.Any]] = {}  # key → the version that its row names
    base = _seen_before(delta, claim.namespace, since_epoch)
    _all_keys(delta, claim.namespace, keyring, codec, since_epoch)
    for batch in delta.scan(claim.namespace):
        rows = []
        for row in batch:
            if _before(row[EPOCH], since_epoch):
                continue
            if _opens(codec, keyring, row):
                rows.append(row)
            else:
                damaged[row[KEY]] = (row[EPOCH], row[SEQUENCE])
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            with store.reader() as reader:
                here = reader.get_many(claim.namespace, [row[KEY] for row in part])
            changes: list[Change] = []
            beaten: list[Change] = []
            for row in part:
                live = here.get(row[KEY])
                aside = None
                if live is not None and not codec.intact(live):
                    aside = "damaged: replaced by the secondary's record"
                elif live is not None:
                    ahead = (live[EPOCH], live[SEQUENCE]) > (row[EPOCH], row[SEQUENCE])
                    if ahead and not _lies_aside(store, claim, row):
                        conflicts.append(row[KEY])
                        kept += 1  # there for a moment, so that it can be set aside
                        beaten += [Change(row[KEY], live[CHECKSUM], row), Change(row[KEY], row[CHECKSUM], live, BEATEN)]
                        continue
                    if (live[EPOCH], live[SEQUENCE]) >= (row[EPOCH], row[SEQUENCE]):
                        already += 1
                        continue
                    if (live[EPOCH], live[SEQUENCE]) > base:
                        conflicts.append(row[KEY])
                        aside = "conflict: a newer write on the secondary won"
                changes.append(Change(row[KEY], live[CHECKSUM] if live else None, row, aside))
            refused = store.change(claim, changes + beaten)
            if refused:
                raise CannotProceed(
                    f"{counted(len(refused), 'record')} of {claim.namespace} changed during the merge.",
                    "check that the namespace is quarantined here, then run failback again",
                )
            merged += len(changes)
    entries = 0
    lost: set[str] = set()
    first_write: int | None = None
    for log_batch in delta.log(claim.namespace):
        newer = [e for e in log_batch if isinstance(e[5], int) and e[5] >= since_epoch]
        if newer:
            written = [e[1] for e in newer if e[3] == "write" and e[8]]
            first_write = min([*written, *([] if first_write is None else [first_write])], default=None)
            entries += store.import_log(claim, newer)
            lost |= _unmatched(store, claim.namespace, _acknowledged(newer))
    lost |= _unmatched(store, claim.namespace, damaged)
    return {
        "merged": merged,
        "already": already,
        "conflicts": len(conflicts),
        "conflict_keys": conflicts[:1000],
        "damaged": list(damaged)[:1000],
        "lost": sorted(lost),
        "log_entries": entries,
        "first_write_at": rfc3339(first_write),
        "changed": bool(merged or kept or entries),
    }


def _acknowledged(entries: t.Iterable[LogEntry]) -> dict[str, tuple[t.Any, t.Any]]:
    """Key → the newest of these writes of it."""
    found: dict[str, tuple[t.Any, t.Any]] = {}
    for e in entries:
        if e[3] == "write" and isinstance(e[4], str) and isinstance(e[6], int) and log_checksum(e) == e[11]:
            found[e[4]] = max(found.get(e[4], (-1, -1)), (e[5], e[6]))
    return found


def _unmatched(store: Store, namespace: str, versions: t.Mapping[str, tuple[t.Any, t.Any]]) -> set[str]:
    """The keys of which the home has neither this version, nor a later one, nor a later deletion in its log."""
    out: set[str] = set()
    keys = list(versions)
    for start in range(0, len(keys), BATCH):
        part = keys[start : start + BATCH]
        with store.reader() as reader:
            here = reader.get_many(namespace, part)
            for key in part:
                row = here.get(key)
                if row is not None and (row[EPOCH], row[SEQUENCE]) >= versions[key]:
                    continue
                write = last_write(reader, namespace, key)
                deleted = row is None and write is not None and write.operation == "delete"
                if write is None or not deleted or (write.epoch, write.sequence) < versions[key]:
                    out.add(key)
    return out


def _lies_aside(store: Store, claim: Claim, row: Row) -> bool:
    """Whether a merge that was cut short set this row of the secondary aside."""
    with store.reader() as reader:
        return any(
            reason == BEATEN and tuple(other) == tuple(row)
            for batch in reader.aside(claim.namespace, claim.incident)
            for _incident, reason, other in batch
            if other[KEY] == row[KEY]
        )


def _seen_before(delta: Delta, namespace: str, since_epoch: int) -> tuple[int, int]:
    """The newest version of the home that the secondary had: what the home wrote later, it never saw."""
    newest = (-1, -1)
    for rows in delta.scan(namespace):
        newest = max([newest, *((row[EPOCH], row[SEQUENCE]) for row in rows if _before(row[EPOCH], since_epoch))])
    for entries in delta.log(namespace):
        seen: list[t.Any] = [(e[5], e[6]) for e in entries if _before(e[5], since_epoch) and isinstance(e[6], int)]
        newest = max([newest, *seen])
    return newest


def _all_keys(delta: Delta, namespace: str, keyring: t.Any, codec: RecordCodec, since_epoch: int) -> None:
    """Errors: CannotProceed when nobody has the record key of what was written there: it would be left behind."""
    lacking: dict[str, int] = {}
    for rows in delta.scan(namespace):
        for row in rows:
            if not _before(row[EPOCH], since_epoch) and codec.intact(row):
                try:
                    keyring.cipher(row[KEY_ID])
                except KeyUnavailable:
                    lacking[row[KEY_ID]] = lacking.get(row[KEY_ID], 0) + 1
    for key_id, count in lacking.items():
        raise CannotProceed(
            f"{counted(count, 'record')} of {namespace}, written on the secondary, {'is' if count == 1 else 'are'} "
            f"under the record key {key_id}, which neither its keyring nor the home's has: nothing was merged.",
            "set memory_keyring.path of the secondary to the keyring file that the application used there, then run "
            "failback again",
        )


def _before(epoch: t.Any, since_epoch: int) -> bool:
    return isinstance(epoch, int) and epoch < since_epoch


def _opens(codec: RecordCodec, keyring: t.Any, row: Row) -> bool:
    if not codec.intact(row):
        return False
    try:
        keyring.open_payload(row[PAYLOAD], codec.head(row), row[KEY_ID])
    except (RecordCorrupt, KeyUnavailable):
        return False
    return True

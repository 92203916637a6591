# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Another master key for what lies in a repository: a further keys object beside each snapshot and each journal.

PRIVATE to the collection. Nothing that is there is changed. What was wrapped counts as *proven* when it was read back,
opened with the new master key, and the manifest authenticates with the snapshot key that came out.
"""

from __future__ import annotations

import typing as t
from contextlib import suppress

from .._errors import KeyDoesNotOpen, RepositoryRefused, SnapshotUnusable
from . import journal
from .catalogue import read_info
from .manifest import folder, keys_name, open_line, pack_keys
from .objects import ObjectMissing, ObjectStore

Wrapped = t.Dict[str, t.Any]


class Proof(t.NamedTuple):
    """Of one snapshot or journal. ``problem``: why the new master key is not proven to open all of it; None: it is."""

    changed: bool
    problem: str | None


class Rewrap:
    """``old`` (or None) and ``new`` are keyrings without a file; ``check``: nothing is written. Safe for threads."""

    def __init__(self, objects: ObjectStore, old: t.Any | None, new: t.Any, check: bool = False) -> None:
        self.objects = objects
        self.check = check
        self.new = new
        self._old = old
        self._rings = {ring.master_id: ring for ring in (old, new) if ring is not None}
        # Snapshots hold the same wrapped record keys: a key service is asked once for each.
        self._opened: dict[tuple[str, str], bytes] = {}
        self._wrapped: dict[tuple[str, bytes], Wrapped] = {}

    # --- snapshots --------------------------------------------------------------------------------------------------
    def concerns(self, name: str, snapshot_id: str) -> bool:
        """Whether a snapshot has a keys object of one of the two master keys."""
        children = self.objects.children(folder(name, snapshot_id) + "keys/")
        return any(keys_name(master) == f"keys/{child}" for master in self._rings for child in children)

    def snapshot(self, name: str, snapshot_id: str) -> Proof:
        """Errors: RepositoryUnavailable, RepositoryRefused (what was written does not come back), KeyUnavailable."""
        problem = self._prove(name, snapshot_id)
        if problem is None:
            return Proof(False, None)
        if self._old is None or self._old.master_id == self.new.master_id:
            return Proof(False, problem)
        try:
            body = self._read(name, snapshot_id, self._old)
            secret = self._open(body["snapshot"], f"snapshot {snapshot_id}")
            if read_info(self.objects, name, snapshot_id, secret) is None:
                return Proof(False, None)  # retention removed it meanwhile
        except (SnapshotUnusable, KeyDoesNotOpen, RepositoryRefused) as exc:
            return Proof(False, exc.message)
        records, unopened = {}, []
        for key_id, wrapped in body["records"].items():
            try:
                records[key_id] = self._wrap(self._open(wrapped, key_id), key_id)
            except KeyDoesNotOpen:
                records[key_id] = wrapped  # as it is: nothing is lost by it
                unopened.append(key_id)
        missing = f"Its record keys {', '.join(unopened[:3])} open with neither master key." if unopened else None
        if missing and self._same(name, snapshot_id, records):
            return Proof(False, missing)
        if self.check:
            return Proof(True, missing)
        data = pack_keys(snapshot_id, secret, self.new, records)
        self.objects.put(folder(name, snapshot_id) + keys_name(self.new.master_id), data)
        problem = self._prove(name, snapshot_id)
        if problem and not missing:
            raise RepositoryRefused(
                f"The new keys object of snapshot {snapshot_id} did not come back as it was written: {problem}",
                "do not give up the old master key; verify the repository",
            )
        return Proof(True, missing)

    def retire_snapshot(self, name: str, snapshot_id: str) -> bool:
        """Delete the keys objects of every other master key; the caller has the proof. Whether there were any."""
        return self._delete_others(folder(name, snapshot_id))

    def _prove(self, name: str, snapshot_id: str) -> str | None:
        """Why the new master key does not open the snapshot; None: it does, with every record key."""
        try:
            body = self._read(name, snapshot_id, self.new)
            secret = self._open(body["snapshot"], f"snapshot {snapshot_id}", self.new)
            read_info(self.objects, name, snapshot_id, secret)
            for key_id, wrapped in body["records"].items():
                self._open(wrapped, key_id, self.new)
        except (SnapshotUnusable, KeyDoesNotOpen, RepositoryRefused) as exc:
            return exc.message
        return None

    def _same(self, name: str, snapshot_id: str, records: t.Mapping[str, Wrapped]) -> bool:
        """Whether the new keys object already has these record keys, but for those that do not open."""
        try:
            there = self._read(name, snapshot_id, self.new)["records"]
        except SnapshotUnusable:
            return False
        return set(there) == set(records) and all(
            records[key_id] == there[key_id] or wrapped.get("master") == self.new.master_id
            for key_id, wrapped in there.items()
        )

    def _read(self, name: str, snapshot_id: str, ring: t.Any) -> dict[str, t.Any]:
        """The keys object of one master key. Errors: SnapshotUnusable (none, changed, another snapshot's)."""
        where, key = folder(name, snapshot_id), keys_name(ring.master_id)
        try:
            body = open_line(self.objects.get(where + key), None, f"{key} of snapshot {snapshot_id}")
        except ObjectMissing:
            others = [child[: -len(".json")] for child in self.objects.children(where + "keys/")]
            raise SnapshotUnusable(
                f"It has keys for the master key {', '.join(others) or '(none)'}, not for {ring.master_id}.", ""
            ) from None
        if body.get("id") != snapshot_id:
            raise SnapshotUnusable(f"{key} of snapshot {snapshot_id} belongs to {body.get('id')}.", "")
        records = body.get("records")
        wrapped = [body.get("snapshot"), *(records.values() if isinstance(records, dict) else [None])]
        if not isinstance(records, dict) or not all(isinstance(one, dict) for one in wrapped):
            raise SnapshotUnusable(f"{key} of snapshot {snapshot_id} is damaged.", "")
        return body

    # --- journals ---------------------------------------------------------------------------------------------------
    def journal(self, incident: str) -> Proof | None:
        """As ``snapshot``; None: no entry of it is of these master keys."""
        entries: dict[str, Wrapped] = {}
        kept = self._journal_keys(incident, self.new)
        former = self._journal_keys(incident, self._old) if self._old else {}
        strange: list[str] = []
        found = 0
        for child in journal.numbers(self.objects, incident):
            bound = journal.key_name(incident, int(child))
            if child in kept:
                with suppress(KeyDoesNotOpen):
                    self._open(kept[child], bound, self.new)
                    entries[child] = kept[child]
                    continue
            try:
                data = self.objects.get(journal.folder(incident) + child)
                wrapped = journal.wrapped_key(data, incident, int(child))
                if wrapped.get("master") not in self._rings:
                    wrapped = former.get(child, wrapped)
                secret = self._open(wrapped, bound)
                found += 1
                if wrapped["master"] != self.new.master_id:
                    entries[child] = self._wrap(secret, bound)
            except (SnapshotUnusable, KeyDoesNotOpen):
                strange.append(child)
        if not entries and not found:
            return None
        problem = f"Its entries {', '.join(strange[:5])} open with neither master key." if strange else None
        changed = entries != kept
        if changed and not self.check:
            name = journal.folder(incident) + keys_name(self.new.master_id)
            self.objects.put(name, journal.pack_keys(incident, self.new.master_id, entries))
            there = journal.read_keys(self.objects, incident, self.new.master_id)
            for child in entries:
                self._open(there.get(child, {}), journal.key_name(incident, int(child)), self.new)
        return Proof(changed, problem)

    def retire_journal(self, incident: str) -> bool:
        return self._delete_others(journal.folder(incident))

    def _journal_keys(self, incident: str, ring: t.Any) -> dict[str, Wrapped]:
        try:
            return journal.read_keys(self.objects, incident, ring.master_id)
        except SnapshotUnusable:
            return {}  # it is written anew

    # --- keys -------------------------------------------------------------------------------------------------------
    def _open(self, wrapped: Wrapped, name: str, ring: t.Any | None = None) -> bytes:
        """With ``ring``, or whichever wrapped it. Errors: KeyDoesNotOpen, KeyUnavailable (the key service is away)."""
        ring = ring or self._rings.get(str(wrapped.get("master")), self.new)
        key = (f"{ring.master_id} {name}", str(wrapped))
        if key not in self._opened:
            self._opened[key] = ring.unwrap(wrapped, name)
        return self._opened[key]

    def _wrap(self, secret: bytes, name: str) -> Wrapped:
        if (name, secret) not in self._wrapped:
            self._wrapped[name, secret] = self.new.wrap(secret, name)
        return self._wrapped[name, secret]

    def _delete_others(self, where: str) -> bool:
        own = keys_name(self.new.master_id)
        others = [f"keys/{child}" for child in self.objects.children(where + "keys/") if f"keys/{child}" != own]
        if others and not self.check:
            self.objects.delete([where + other for other in others])
        return bool(others)

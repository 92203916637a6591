# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Verify a snapshot at one of four depths: listed, hashed, opened, restored.

PRIVATE to the collection. A problem names the object and, as far as the depth can tell, namespace, chunk and records.
"""
from __future__ import annotations

import hashlib
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .. import _progress
from .._application_seals import Tried
from .._codec import RecordCodec
from .._errors import InvalidInput, KeyUnavailable, MemoryOpsError, RepositoryUnavailable, SnapshotUnusable
from .._layouts import seals
from .._repository import Repository, Snapshot
from .._repository.catalogue import append_check, read_info
from .._repository.chunks import ChunkRef, NamespaceDigest
from .._repository.manifest import SnapshotInfo, folder, manifest_key, open_line
from .._repository.packs import pack_name
from .._store import scratch_params
from .commands import counted
from .scratch import folder as scratch_folder
from .snapshot_check import Checker, Tally

DEPTHS = ("listed", "hashed", "opened", "restored")
LISTED = 100


def verify(
    *,
    repository: Repository | t.Mapping[str, t.Any],
    keyring: t.Any | None,
    name: str,
    snapshot_id: str | None = None,
    depth: str = "hashed",
    record: bool = True,
    application: Tried | None = None,
) -> dict[str, t.Any]:
    """Check a snapshot (default: the newest one that is not forensic) and append the result under its checks/.

    listed: every object is there with its size. hashed: and has its hash; without a keyring that is "intact, not
    authenticated". opened: and every chunk decrypts, every record has its checksum and opens. restored: and it comes
    back in a scratch store in the system's temporary directory. ``record`` False writes nothing. ``application``, at
    these last two: tries its keys on what it encrypted. What none opens is no fault of the snapshot and is not noted as
    one, but makes the verdict could-not-verify.

    Returns {verdict, depth, snapshot, authenticated, problems [{object, namespace, chunk, records, reason}], objects,
    bytes, records, damaged, unopenable, namespaces {name: {records, digest}}, check (key of the result), seconds}.
    verdict could-not-verify: a key is missing or the repository does not answer. Damaged records that the manifest
    declares make no failure of the snapshot; they are counted.
    Errors: InvalidInput, SnapshotUnusable (no such snapshot).
    """
    started = time.monotonic()
    if depth not in DEPTHS:
        raise InvalidInput(f"There is no depth {depth!r:.40}.", f"use one of: {', '.join(DEPTHS)}")
    place = repository if isinstance(repository, Repository) else Repository.open(repository)
    chosen = snapshot_id or _newest(place, name)
    examination = _Examination(place, keyring, name, chosen)
    examination.application = application
    try:
        examination.run(DEPTHS.index(depth))
        verdict = "fail" if examination.problems else "pass"
    except (KeyUnavailable, RepositoryUnavailable) as exc:
        examination.problem(exc.message)
        verdict = "could-not-verify"
    body: dict[str, t.Any] = {
        "verdict": verdict,
        "problems": examination.problems[:LISTED],
        "authenticated": examination.snapshot is not None,
        **examination.counts,
    }
    key = None
    if record:
        secret = None if examination.snapshot is None else examination.snapshot.secret
        try:
            key = append_check(place.objects, name, chosen, secret, depth, body)
        except RepositoryUnavailable as exc:
            body["problems"] = [*body["problems"], {"reason": f"The result could not be appended: {exc.message}"}]
    if application is not None and application.problems():
        body["verdict"] = "could-not-verify" if verdict == "pass" else verdict
        body["problems"] = [*body["problems"], *application.problems()][:LISTED]
    return {
        **body,
        "depth": depth,
        "snapshot": chosen,
        "namespaces": examination.namespaces,
        "check": key,
        "changed": key is not None,
        "seconds": round(time.monotonic() - started, 3),
    }


def _newest(place: Repository, name: str) -> str:
    for info in place.snapshots(name):
        if info.purpose != "forensic":
            return info.id
    raise SnapshotUnusable(f"There is no snapshot of {name} in {place.location}.", "run a backup")


class _Examination:
    application: Tried | None = None

    def __init__(self, place: Repository, keyring: t.Any, name: str, snapshot_id: str) -> None:
        self.place, self.objects, self.keyring = place, place.objects, keyring
        self.name, self.id = name, snapshot_id
        self.where = folder(name, snapshot_id)
        self.problems: list[dict[str, t.Any]] = []
        self.namespaces: dict[str, dict[str, t.Any]] = {}
        self.counts = {"objects": 0, "bytes": 0, "records": 0, "damaged": 0, "unopenable": 0}
        self.snapshot: Snapshot | None = None

    def problem(self, reason: str, **where: t.Any) -> None:
        self.problems.append({**where, "reason": reason})

    def run(self, depth: int) -> None:
        info = self._manifest()
        if info is None:
            return
        expected = self._expected(info)
        self._listed(expected)
        if depth >= 1:
            self._hashed(expected)
        if depth >= 2:
            if self.snapshot is None:
                raise KeyUnavailable("Opening a snapshot needs its master key, and none was given.", "give the keyring")
            self._opened(self.snapshot)
        if depth >= 3 and not self.problems and self.snapshot is not None:
            self._restored(self.snapshot)

    def _manifest(self) -> SnapshotInfo | None:
        """Errors: SnapshotUnusable when there is no such snapshot at all, KeyUnavailable."""
        key = self.where + "manifest.json"
        if self.keyring is not None:
            try:
                self.snapshot = self.place.snapshot(self.name, self.id, self.keyring)
                return self.snapshot.info
            except KeyUnavailable as exc:
                if self._keys_intact():
                    raise
                self.problem(exc.message, object=self.where + "keys/")
                return None
            except RepositoryUnavailable:
                raise
            except MemoryOpsError as exc:
                self.objects.get(key, 0, 1)  # no such snapshot: that is an answer of its own
                bad = self.where + "keys/" if not self._keys_intact() else key
                self.problem(exc.message, object=bad)
                return None
        try:
            info = read_info(self.objects, self.name, self.id, None)
        except RepositoryUnavailable:
            raise
        except MemoryOpsError as exc:
            self.problem(exc.message, object=key)
            return None
        if info is None:
            raise SnapshotUnusable(
                f"There is no snapshot {self.id} of {self.name}.",
                "the playbook memops.agent_memory.info lists those that there are",
            )
        return info

    def _keys_intact(self) -> bool:
        """Whether the keys objects are what was written, as far as their own hash tells."""
        children = self.objects.children(self.where + "keys/")
        try:
            for child in children:
                body = open_line(self.objects.get(self.where + "keys/" + child), None, child)
                if body.get("id") != self.id:
                    return False
        except SnapshotUnusable:
            return False
        return bool(children)

    def _expected(self, info: SnapshotInfo) -> dict[str, tuple[int, str]]:
        """Object → (size, SHA-256) of everything that this snapshot needs."""
        index = info.manifest["index"]
        expected = {self.where + "index": (index["size"], index["sha256"])}
        for snapshot_id, packs in {self.id: info.manifest["packs"], **info.manifest["references"]}.items():
            for number, size, digest, _frames in packs:
                expected[f"{folder(self.name, snapshot_id)}packs/{pack_name(number)}.pack"] = (size, digest)
        return expected

    def _listed(self, expected: dict[str, tuple[int, str]]) -> None:
        places = {self.where} | {key.split("packs/")[0] for key in expected if "packs/" in key}
        sizes = {info.key: info.size for place in places for info in self.objects.list(place)}
        self.counts["objects"] = len(expected)
        for key, (size, _digest) in sorted(expected.items()):
            if key not in sizes:
                self.problem("It is missing.", object=key)
            elif sizes[key] != size:
                self.problem(f"It has {sizes[key]} bytes instead of {size}.", object=key)
        if not any(key.startswith(self.where + "keys/") for key in sizes):
            self.problem("There is no keys object.", object=self.where + "keys/")

    def _hashed(self, expected: dict[str, tuple[int, str]]) -> None:
        known_bad = {problem.get("object") for problem in self.problems}

        def one(item: tuple[str, tuple[int, str]]) -> tuple[str, int, bool]:
            key, (_size, digest) = item
            data = self.objects.get(key)
            return key, len(data), hashlib.sha256(data).hexdigest() == digest

        todo = [item for item in sorted(expected.items()) if item[0] not in known_bad]
        _progress.begin("checking hashes", sum(size for _key, (size, _digest) in todo), "bytes")
        with ThreadPoolExecutor(3) as pool:
            for key, size, same in pool.map(one, todo):
                self.counts["bytes"] += size
                _progress.add(size)
                if not same:
                    self.problem("Its SHA-256 is not the one of the manifest.", object=key)
        secret = None if self.snapshot is None else manifest_key(self.snapshot.secret)
        for kind in ("keys", "checks"):
            for child in self.objects.children(f"{self.where}{kind}/"):
                key = f"{self.where}{kind}/{child}"
                try:
                    open_line(self.objects.get(key), secret, child)
                except SnapshotUnusable as exc:
                    self.problem(exc.message, object=key)

    def _opened(self, snapshot: Snapshot) -> None:
        try:
            index = snapshot.index()
        except SnapshotUnusable as exc:
            self.problem(exc.message, object=self.where + "index")
            return
        ciphers = _Ciphers(self.keyring, snapshot)
        entries = snapshot.manifest["namespaces"].values()
        _progress.begin("opening records", sum(entry["records"] for entry in entries))
        for key in snapshot.manifest["keys"]:
            reason = ciphers.problem(key)
            if reason:
                self.problem(reason, object=self.where + "keys/", key_id=key)
        for namespace in snapshot.namespaces():
            if namespace not in index:
                self.problem("The index lacks it.", object=self.where + "index", namespace=namespace)
                continue
            self._open_namespace(snapshot, namespace, index[namespace]["records"], ciphers)
            entries = self._chunks(snapshot, namespace, "log", index[namespace]["log"], lambda rows: None)
            wanted = snapshot.manifest["namespaces"][namespace]["log_entries"]
            if entries not in (wanted, -1):
                has = counted(entries, "entry", "entries")
                self.problem(f"The log has {has} instead of {wanted:,}.", namespace=namespace)

    def _open_namespace(
        self, snapshot: Snapshot, namespace: str, chunks: list[ChunkRef], ciphers: _Ciphers
    ) -> None:
        entry = snapshot.manifest["namespaces"][namespace]
        tally = Tally()
        checker = Checker(namespace, tally)
        codec = RecordCodec(namespace)
        unopenable: list[str] = []

        def look(rows: t.Sequence[t.Any]) -> None:
            checker(rows)
            if self.application is not None:
                self.application(namespace, rows)
            bad = set(checker.bad)
            for position, row in enumerate(rows):
                if position not in bad and not ciphers.opens(row, codec):
                    self.counts["unopenable"] += 1
                    if len(unopenable) < LISTED:
                        unopenable.append(row[0])

        read = self._chunks(snapshot, namespace, "records", chunks, look)
        self.counts["records"] += tally.rows
        self.counts["damaged"] += tally.damaged
        digest = NamespaceDigest(tally.rows, tally.total).hexdigest()
        self.namespaces[namespace] = {"records": tally.rows, "digest": digest, "damaged": tally.damaged}
        if unopenable and snapshot.purpose != "forensic":
            self.problem("Records do not open with their keys.", namespace=namespace, records=unopenable)
        if read == -1:
            return
        if tally.damaged != entry["damaged"]:
            self.problem(
                counted(tally.damaged, "record is", "records are")
                + f" damaged; the manifest says {entry['damaged']:,}.",
                namespace=namespace,
                records=tally.examples,
            )
        if tally.rows != entry["records"] or digest != entry["digest"]:
            self.problem(
                f"{counted(tally.rows, 'record')} with digest {digest[:16]}; the manifest says {entry['records']:,}.",
                namespace=namespace,
            )

    def _chunks(
        self,
        snapshot: Snapshot,
        namespace: str,
        kind: str,
        chunks: list[ChunkRef],
        look: t.Callable[[t.Sequence[t.Any]], None],
    ) -> int:
        """Open every chunk; the number of rows, -1 when one did not open. A bad chunk does not hide the next."""
        rows = 0
        failed = False
        position = 0
        while position < len(chunks):
            try:
                for chunk, found in snapshot.read(chunks[position:]):
                    look(found)
                    rows += len(found)
                    _progress.add(len(found) if kind == "records" else 0)
                    position += 1
                    if chunk.rows != len(found):
                        raise SnapshotUnusable("It holds another number of rows.", "")
            except (SnapshotUnusable, KeyUnavailable) as exc:
                failed = True
                bad = chunks[position]
                self.problem(
                    exc.message,
                    object=f"{folder(self.name, bad.snapshot)}packs/{pack_name(bad.pack)}.pack",
                    namespace=namespace,
                    kind=kind,
                    chunk=position,
                    records=[_text(bad.first_key), _text(bad.last_key)],
                )
                position += 1
        return -1 if failed else rows

    def _restored(self, snapshot: Snapshot) -> None:
        """A drill: every namespace comes back in an empty store, with the same count and digest."""
        from .restore import restore

        with scratch_folder(None) as directory:
            for namespace in snapshot.namespaces():
                entry = snapshot.manifest["namespaces"][namespace]
                try:
                    result = restore(
                        store_params=scratch_params(directory, layout=snapshot.manifest["store"]["layout"]),
                        repository=self.place,
                        keyring=self.keyring,
                        name=self.name,
                        snapshot_id=self.id,
                        namespace=namespace,
                        create=True,
                        owner="verify",
                    )
                except RepositoryUnavailable:
                    raise
                except MemoryOpsError as exc:
                    self.problem(f"It does not come back: {exc.message}", namespace=namespace)
                    continue
                back = result["restored"] + result.get("damaged", 0)
                if (not entry["damaged"] and result["digest"] != entry["digest"]) or back != entry["records"]:
                    self.problem("It does not come back as it was.", namespace=namespace)


class _Ciphers:
    """The record keys of a snapshot, unwrapped by the master key alone: nothing is added to the keyring."""

    def __init__(self, keyring: t.Any, snapshot: Snapshot) -> None:
        self._keyring, self._sealed = keyring, seals(snapshot.manifest["store"]["layout"])
        self._wrapped = snapshot.wrapped_keys()
        self._known: dict[t.Any, t.Any] = {}

    def get(self, key_id: t.Any) -> t.Any:
        if key_id not in self._known:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            try:
                self._known[key_id] = AESGCM(self._keyring.unwrap(self._wrapped[key_id], key_id))
            except (KeyError, KeyUnavailable, ValueError):
                self._known[key_id] = None
        return self._known[key_id]

    def problem(self, key_id: str) -> str | None:
        if self.get(key_id) is not None:
            return None
        if key_id not in self._wrapped:
            return f"It lacks the record key {key_id}."
        return f"The record key {key_id} does not unwrap."

    def opens(self, row: t.Any, codec: RecordCodec) -> bool:
        if not self._sealed:
            return bool(row[7] == "")  # the application's own value, as its checksum says
        cipher = self.get(row[7])
        if cipher is None:
            return False
        from cryptography.exceptions import InvalidTag

        try:
            cipher.decrypt(row[8][:12], row[8][12:], codec.head(row))
        except (InvalidTag, ValueError, TypeError):
            return False
        return True


def _text(key: t.Any) -> t.Any:
    return key if isinstance(key, (str, int)) or key is None else repr(key)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyring: record keys that seal payloads (AES-256-GCM), each wrapped by a master key, in one small file.

PRIVATE to the collection. The file holds wrapped keys alone and is useless without the master key, which is elsewhere
(_keyring_masters.py). Format 1::

    {"format": 1, "master": "<master id>", "active": "<key id>",
     "keys": {"<key id>": {"wrapped": {…}, "created": <µs>, "retired": <µs> | null}}}
"""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
import typing as t

from ._errors import InvalidInput, KeyUnavailable, RecordCorrupt
from ._keyring_masters import Master, aes, open_master

FORMAT = 1
NONCE = 12
OVERHEAD = NONCE + 16  # bytes that sealing adds


class _State(t.NamedTuple):
    active: str
    keys: dict[str, dict[str, t.Any]]
    signature: tuple[int, ...]


class Keyring:
    """Record keys of one store. Safe for threads and after a fork; other processes' changes are seen.

    ``params``: source (file | env | aws_kms | vault) and its options say where the MASTER key is; ``path`` is the
    keyring file. Without ``path`` there is only the master key: wrap and unwrap work, and record keys come from
    ``adopt`` and live in this process (reading a snapshot on a bare machine).
    """

    def __init__(self, path: str | None, master: Master) -> None:
        self._path = path
        self._master = master
        self._state = _State("", {}, ())
        self._ciphers: dict[str, t.Any] = {}
        self.master_id: str = master.id

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any], *, create: bool = False) -> Keyring:
        """Open the keyring; with ``create`` a missing file is made, with a first, active record key.

        Errors: InvalidInput, KeyUnavailable (no master key, wrong master key, missing or damaged keyring file).
        """
        path = params.get("path")
        if path is not None and (not isinstance(path, str) or not path):
            raise InvalidInput("memory_keyring.path is not a path.", "set it to the keyring file")
        ring = cls(os.path.abspath(path) if path else None, open_master(params))
        if ring._path is None:
            return ring
        if create and not os.path.exists(ring._path):
            ring._create()
        ring._load()
        return ring

    def __repr__(self) -> str:
        return f"<Keyring {self._path!r} master {self.master_id}>"

    def __reduce__(self) -> t.NoReturn:
        raise TypeError("a keyring is not pickled: open it again from its parameters")

    # --- record keys ----------------------------------------------------------------------------------------------
    @property
    def active_id(self) -> str:
        """The id of the key that seals new records. Errors: KeyUnavailable."""
        self._refresh()
        if not self._state.active:
            raise KeyUnavailable("This keyring has no active record key.", "set memory_keyring.path to a keyring file")
        return self._state.active

    def ids(self) -> list[str]:
        """All key ids, oldest first, retired ones too."""
        self._refresh()
        return list(self._state.keys)

    def retired(self) -> list[str]:
        self._refresh()
        return [name for name, entry in self._state.keys.items() if entry.get("retired")]

    def created(self, key_id: str) -> int | None:
        """When a record key came into this keyring (µs since 1970); None: it is not in it, or nobody noted the time."""
        self._refresh()
        found = self._state.keys.get(key_id, {}).get("created")
        return found if isinstance(found, int) else None

    def cipher(self, key_id: str) -> t.Any:
        """The AESGCM object of a record key (bulk work asks once and keeps it). Errors: KeyUnavailable."""
        found = self._ciphers.get(key_id)
        if found is not None:
            return found
        entry = self._state.keys.get(key_id)
        if entry is None:
            self._refresh()
            entry = self._state.keys.get(key_id)
        if entry is None:
            raise KeyUnavailable(
                f"The record key {key_id!r:.60} is not in the keyring {self._path or '(in memory)'}.",
                "adopt the wrapped keys of a snapshot that names it (restore the keyring), or rebuild these records",
            )
        cipher = aes()(self.unwrap(entry["wrapped"], key_id))
        self._ciphers[key_id] = cipher
        return cipher

    def seal(self, plaintext: bytes, head: bytes, key_id: str) -> bytes:
        """nonce | ciphertext | tag, bound to ``head``. Errors: KeyUnavailable."""
        nonce = os.urandom(NONCE)
        return nonce + t.cast(bytes, self.cipher(key_id).encrypt(nonce, plaintext, head))

    def open_payload(self, payload: bytes, head: bytes, key_id: str) -> bytes:
        """The plaintext. Errors: RecordCorrupt (changed, cut, or sealed for another record), KeyUnavailable."""
        from cryptography.exceptions import InvalidTag

        cipher = self.cipher(key_id)
        try:
            if len(payload) >= OVERHEAD:
                return t.cast(bytes, cipher.decrypt(payload[:NONCE], payload[NONCE:], head))
        except (InvalidTag, ValueError, TypeError):
            pass
        raise RecordCorrupt(
            f"A payload does not open with the record key {key_id}: it was changed or belongs to another record.",
            "rebuild the namespace",
        )

    # --- changes of the keyring file --------------------------------------------------------------------------------
    def create_key(self) -> str:
        """A new record key, not yet active. It is on disk and was read back and unwrapped before this returns."""
        with self._locked():
            keys = dict(self._state.keys)
            name, secret = self._fresh(keys)
            self._write(self._state.active or name, keys)
            entry = self._state.keys.get(name)  # as read back from the file
            if entry is None or self.unwrap(entry["wrapped"], name) != secret:
                raise KeyUnavailable(
                    f"The new record key {name} did not come back from {self._path}.", "check the disk; nothing uses it"
                )
        return name

    def activate(self, key_id: str) -> bool:
        """Seal new records with ``key_id``; whether that changed anything. Errors: KeyUnavailable."""
        self.cipher(key_id)  # never switch to a key that does not open
        with self._locked():
            entry = self._state.keys.get(key_id)
            if entry is None:
                raise KeyUnavailable(f"The keyring {self._path} holds no key {key_id!r:.60}.", "create a key first")
            if self._state.active == key_id and not entry.get("retired"):
                return False
            self._write(key_id, {**self._state.keys, key_id: {**entry, "retired": None}})
        return True

    def retire(self, key_id: str) -> bool:
        """Mark a key as no longer in use; it stays and still opens. Errors: InvalidInput for the active key."""
        with self._locked():
            entry = self._state.keys.get(key_id)
            if entry is None:
                raise KeyUnavailable(f"The keyring {self._path} holds no key {key_id!r:.60}.", "look at its ids")
            if key_id == self._state.active:
                raise InvalidInput(f"The record key {key_id} is the active one.", "activate another key first")
            if entry.get("retired"):
                return False
            self._write(self._state.active, {**self._state.keys, key_id: {**entry, "retired": _now()}})
        return True

    def export_wrapped(self) -> dict[str, dict[str, t.Any]]:
        """Key id → wrapped key, for a snapshot; worthless without the master key."""
        self._refresh()
        return {name: dict(entry["wrapped"]) for name, entry in self._state.keys.items()}

    def adopt(self, wrapped: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
        """Add the keys that are missing here; their ids. Each is opened first. Errors: KeyUnavailable."""
        self._refresh()
        missing = {name: wrapped[name] for name in wrapped if name not in self._state.keys}
        for name, one in missing.items():
            self.unwrap(one, name)
        if not missing:
            return []
        with self._locked():
            missing = {name: one for name, one in missing.items() if name not in self._state.keys}
            new = {name: {"wrapped": dict(one), "created": _now(), "retired": None} for name, one in missing.items()}
            if new:
                self._write(self._state.active, {**self._state.keys, **new})
        return list(new)

    def borrow(self, wrapped: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
        """As ``adopt``, but for this object alone: the file stays as it is (check mode)."""
        self._refresh()
        missing = [name for name in wrapped if name not in self._state.keys and name not in self._ciphers]
        for name in missing:
            self._ciphers[name] = aes()(self.unwrap(wrapped[name], name))
        return missing

    # --- the master key -----------------------------------------------------------------------------------------
    def wrap(self, secret: bytes, name: str = "") -> dict[str, t.Any]:
        """``secret`` encrypted by the master key and bound to ``name``; a small dict for JSON."""
        return {"master": self.master_id, "name": name, "data": self._master.encrypt(secret, name)}

    def unwrap(self, wrapped: t.Mapping[str, t.Any], name: str | None = None) -> bytes:
        """The secret of ``wrap``; with ``name`` it must be the one it was bound to. Errors: KeyUnavailable."""
        master, bound, data = (wrapped.get(field) for field in ("master", "name", "data"))
        if not isinstance(master, str) or not isinstance(bound, str) or not isinstance(data, str):
            raise KeyUnavailable("This is not a wrapped key.", "take the wrapped keys of another snapshot")
        if name is not None and bound != name:
            raise KeyUnavailable(
                f"The wrapped key {name!r:.60} is really that of {bound!r:.60}: the keyring was changed.",
                "take the wrapped keys back from the newest snapshot: restore the keyring",
            )
        if master != self.master_id:
            raise self._wrong_master(master, f"The key {bound!r:.60}")
        return self._master.decrypt(data, bound)

    def _wrong_master(self, wanted: str, what: str) -> KeyUnavailable:
        return KeyUnavailable(
            f"{what} is wrapped by the master key {wanted!r:.80}, but the master key {self.master_id!r:.80} was given.",
            f"point memory_keyring at the master key {wanted:.80}",
        )

    # --- the file -----------------------------------------------------------------------------------------------
    def _create(self) -> None:
        if self._path is None:
            raise AssertionError("self._path")
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        except OSError as exc:
            raise self._unwritable(exc) from None
        with self._locked(reload=False):
            if os.path.exists(self._path):
                return  # another process was first
            keys: dict[str, dict[str, t.Any]] = {}
            name, _secret = self._fresh(keys)
            self._write(name, keys)
            self.cipher(name)

    def _fresh(self, keys: dict[str, dict[str, t.Any]]) -> tuple[str, bytes]:
        """Put a new key into ``keys``: its id and its secret."""
        name = "k" + os.urandom(8).hex()
        secret = os.urandom(32)
        keys[name] = {"wrapped": self.wrap(secret, name), "created": _now(), "retired": None}
        return name, secret

    @contextlib.contextmanager
    def _locked(self, reload: bool = True) -> t.Iterator[None]:
        """One process at a time changes the file; the lock lies on a side file because the file itself is replaced."""
        if self._path is None:
            yield
            return
        try:
            lock = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self._unwritable(exc) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if reload:
                self._load()
            yield
        finally:
            os.close(lock)

    def _refresh(self) -> None:
        if self._path is not None and _signature(self._path) != self._state.signature:
            self._load()

    def _load(self) -> None:
        if self._path is None:
            raise AssertionError("self._path")
        try:
            with open(self._path, "rb") as file:
                info = os.fstat(file.fileno())
                raw = file.read(64 << 20)
        except FileNotFoundError:
            raise KeyUnavailable(
                f"There is no keyring file {self._path}.",
                "restore it from a copy or from the newest snapshot; only a new store starts with a new keyring",
            ) from None
        except OSError as exc:
            raise KeyUnavailable(
                f"The keyring file {self._path} cannot be read: {exc.strerror}.", f"let this user read {self._path}"
            ) from None
        try:
            body = json.loads(raw)
            if body["format"] != FORMAT:
                raise KeyUnavailable(
                    f"The keyring file {self._path} has format {body['format']!r:.20}, not {FORMAT}.",
                    "update the collection",
                )
            master, active, keys = body["master"], body["active"], body["keys"]
            if not (isinstance(master, str) and isinstance(active, str) and active in keys):
                raise ValueError
            for name, entry in keys.items():
                if not isinstance(name, str) or not isinstance(entry["wrapped"], dict):
                    raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise KeyUnavailable(
                f"The keyring file {self._path} is damaged: it is not JSON of the keyring format.",
                "put back a copy, or restore the keyring from the newest snapshot; do not delete it",
            ) from None
        if master != self.master_id:
            raise self._wrong_master(master, f"The keyring file {self._path}")
        self._state = _State(active, keys, _of(info))

    def _write(self, active: str, keys: dict[str, dict[str, t.Any]]) -> None:
        """Replace the file: never half written, durable before it returns. The caller holds the lock."""
        if self._path is None:
            self._state = _State(active, keys, ())
            return
        body = {"format": FORMAT, "master": self.master_id, "active": active, "keys": keys}
        try:
            replace_file(self._path, json.dumps(body, indent=1).encode() + b"\n", mode=0o600)
        except OSError as exc:
            raise self._unwritable(exc) from None
        self._load()

    def _unwritable(self, exc: OSError) -> KeyUnavailable:
        return KeyUnavailable(
            f"The keyring file {self._path} cannot be written: {exc.strerror}; it is as it was before.",
            f"make the directory of {self._path} writable and free some space",
        )


def replace_file(path: str, data: bytes, *, mode: int | None = None) -> None:
    """Atomically replace ``path``: temporary file, fsync, rename, fsync of the directory.

    ``mode`` None keeps the mode (and as root the owner) of the former file, 0644 for a new one. Errors: OSError.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            try:
                former = os.stat(path)
                if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), former.st_uid, former.st_gid)
                wanted = stat.S_IMODE(former.st_mode)
            except FileNotFoundError:
                wanted = 0o644
            os.fchmod(file.fileno(), wanted if mode is None else mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _of(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        return _of(os.stat(path))
    except OSError:
        return None


def _now() -> int:
    return time.time_ns() // 1000

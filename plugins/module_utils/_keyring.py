# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyring: record keys that seal payloads (AES-256-GCM), each wrapped by a master key, in one small file.

PRIVATE to the collection. The file (_keyring_file.py) holds wrapped keys alone and is useless without the master key,
which is elsewhere (_keyring_masters.py). _keyring_rewrap.py moves it to another master key.
"""
from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ._errors import CannotProceed, InvalidInput, KeyDoesNotOpen, KeyUnavailable, RecordCorrupt
from ._keyring_file import KeyringFile, State, masters_of, wrapped_by
from ._keyring_masters import Master, aes, open_master

NONCE = 12
OVERHEAD = NONCE + 16  # bytes that sealing adds


class Keyring:
    """Record keys of one store. Safe for threads and after a fork; other processes' changes are seen.

    ``params``: source (file | env | value | aws_kms | vault) and its options say where the MASTER key is; ``path`` is
    the keyring file. Without ``path`` there is only the master key: wrap and unwrap work, and record keys come from
    ``adopt`` and live in this process (reading a snapshot on a bare machine).
    """

    def __init__(self, path: str | None, master: Master) -> None:
        self._path = path
        self._file = KeyringFile(path) if path else None
        self._master = master
        self._state = State("", "", {})
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
        cipher = aes()(self.unwrap(self._wrapped(entry), key_id))
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
            self.refuse_new_key()
            keys = dict(self._state.keys)
            name, secret = self._fresh(keys)
            self._write(self._state.active or name, keys)
            entry = self._state.keys.get(name)  # as read back from the file
            if entry is None or self.unwrap(self._wrapped(entry), name) != secret:
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
        return {name: dict(self._wrapped(entry)) for name, entry in self._state.keys.items()}

    def adopt(self, wrapped: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
        """Add the keys that this master key does not open here; their ids. Each is opened first.

        Errors: KeyUnavailable.
        """
        self._refresh()
        missing = self._missing(wrapped)
        for name in missing:
            self.unwrap(wrapped[name], name)
        if not missing:
            return []
        with self._locked():
            new: dict[str, dict[str, t.Any]] = {}
            for name in self._missing(wrapped):
                entry = self._state.keys.get(name)
                if entry is None:
                    new[name] = {"wrapped": dict(wrapped[name]), "created": _now(), "retired": None}
                else:
                    new[name] = {**entry, "also": {**entry.get("also", {}), self.master_id: dict(wrapped[name])}}
            if new:
                self._write(self._state.active, {**self._state.keys, **new})
        return list(new)

    def _missing(self, wrapped: t.Iterable[str]) -> list[str]:
        keys = self._state.keys
        return [name for name in wrapped if name not in keys or wrapped_by(keys[name], self.master_id) is None]

    def _wrapped(self, entry: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        return wrapped_by(entry, self.master_id) or t.cast("dict[str, t.Any]", entry["wrapped"])

    def refuse_new_key(self) -> None:
        """A key that is made while applications have one of two master keys would open for some of them alone.

        Errors: CannotProceed.
        """
        others = [one for one in (masters_of(self._state) if self._state.active else []) if one != self.master_id]
        if others:
            raise CannotProceed(
                f"The keyring {self._path} is opened by the master keys {', '.join(others)} and {self.master_id}: no "
                "record key is made before one of them is given up.",
                "run memops.agent_memory.rotate_master_key with memory_retire=true, then the same command again",
            )

    def borrow(self, wrapped: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
        """As ``adopt``, but for this object alone: the file stays as it is (check mode)."""
        self._refresh()
        missing = [name for name in self._missing(wrapped) if name not in self._ciphers]
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
            raise KeyDoesNotOpen("This is not a wrapped key.", "take the wrapped keys of another snapshot")
        if name is not None and bound != name:
            raise KeyDoesNotOpen(
                f"The wrapped key {name!r:.60} is really that of {bound!r:.60}: the keyring was changed.",
                "take the wrapped keys back from the newest snapshot: restore the keyring",
            )
        if master != self.master_id:
            raise self._wrong_master(master, f"The key {bound!r:.60}")
        return self._master.decrypt(data, bound)

    def _wrong_master(self, wanted: str, what: str) -> KeyDoesNotOpen:
        return KeyDoesNotOpen(
            f"{what} is wrapped by the master key {wanted!r:.80}, but the master key {self.master_id!r:.80} was given.",
            f"point memory_keyring at the master key {wanted:.80}",
        )

    # --- the file -----------------------------------------------------------------------------------------------
    def _create(self) -> None:
        if self._file is None:
            raise AssertionError("self._file")
        try:
            os.makedirs(os.path.dirname(self._file.path), mode=0o700, exist_ok=True)
        except OSError as exc:
            raise self._file.unwritable(exc) from None
        with self._file.locked():
            if os.path.exists(self._file.path):
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
    def _locked(self) -> t.Iterator[None]:
        if self._file is None:
            yield
            return
        with self._file.locked():
            self._load()
            yield

    def _refresh(self) -> None:
        if self._file is not None and self._file.moved(self._state):
            self._load()

    def _load(self) -> None:
        if self._file is None:
            raise AssertionError("self._file")
        state = self._file.read()
        if self.master_id not in masters_of(state):
            raise self._wrong_master(state.master, f"The keyring file {self._path}")
        self._state = state

    def _write(self, active: str, keys: dict[str, dict[str, t.Any]]) -> None:
        """The caller holds the lock."""
        master = self._state.master or self.master_id
        self._state = State(master, active, keys) if self._file is None else self._file.write(master, active, keys)


def _now() -> int:
    return time.time_ns() // 1000

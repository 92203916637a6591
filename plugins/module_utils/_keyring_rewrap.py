# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A keyring file moves to another master key: first both open it, then the new one alone.

PRIVATE to the collection. Each change is one replacement of the file, made after every key was wrapped and opened with
the new master key; a kill leaves the file as it was before or after it.
"""

from __future__ import annotations

import contextlib
import typing as t

from ._errors import CannotProceed, KeyDoesNotOpen, KeyUnavailable
from ._keyring import Keyring
from ._keyring_file import Entry, KeyringFile, State, masters_of, wrapped_by


class Rewrapped(t.NamedTuple):
    """What came of it: ids of the master keys that opened the file before and after; keys that neither opens."""

    changed: bool
    before: list[str]
    after: list[str]
    keys: int
    unopened: list[str]


def rewrap(path: str, old: Keyring | None, new: Keyring, *, check: bool = False) -> Rewrapped:
    """Wrap every record key with ``new`` too. ``old`` and ``new`` are keyrings without a file: master keys.

    With ``old`` None the keys that ``new`` does not open stay as they are. Errors: KeyUnavailable.
    """
    file = KeyringFile(path)
    with contextlib.nullcontext() if check else file.locked():
        state = _read(file, old, new)
        secrets, unopened = _open_all(state, old, new)
        back = old if old and old.master_id in masters_of(state) else None  # one that was given up stays so
        keys = {
            name: _add(_add(entry, name, secrets.get(name), new), name, secrets.get(name), back)
            for name, entry in state.keys.items()
        }
        return _replace(file, state, state.master, keys, secrets, unopened, new, check)


def retire(path: str, old: Keyring | None, new: Keyring, *, force: bool = False, check: bool = False) -> Rewrapped:
    """Let ``new`` alone open the file. Keys that only ``old`` has wrapped are wrapped first.

    Errors: CannotProceed (a key does not open; with ``force`` it stays as it is), KeyUnavailable.
    """
    file = KeyringFile(path)
    with contextlib.nullcontext() if check else file.locked():
        state = _read(file, old, new)
        secrets, unopened = _open_all(state, old, new)
        if unopened and not force:
            raise CannotProceed(
                f"The keyring {file.path} has record keys that {_names(old, new)} does not open: "
                f"{', '.join(unopened[:5])}; no master key is given up.",
                "give the master key that opens them, or set memory_force=true to give up the others all the same",
            )
        keys: dict[str, Entry] = {}
        for name, entry in state.keys.items():
            own = wrapped_by(_add(entry, name, secrets.get(name), new), new.master_id)
            bare = {field: value for field, value in entry.items() if field != "also"}
            keys[name] = entry if own is None or name in unopened else {**bare, "wrapped": own}
        return _replace(file, state, new.master_id, keys, secrets, unopened, new, check)


def _read(file: KeyringFile, old: Keyring | None, new: Keyring) -> State:
    state = file.read()
    known = masters_of(state)
    if new.master_id not in known and (old is None or old.master_id not in known):
        raise KeyDoesNotOpen(
            f"The keyring file {file.path} is wrapped by the master key {' or '.join(known)}, not by "
            f"{_names(old, new)}.",
            f"point memory_keyring at the master key {known[0]}",
        )
    return state


def _names(old: Keyring | None, new: Keyring) -> str:
    return " or ".join(dict.fromkeys([*([old.master_id] if old else []), new.master_id]))


def _open_all(state: State, old: Keyring | None, new: Keyring) -> tuple[dict[str, bytes], list[str]]:
    secrets: dict[str, bytes] = {}
    for name, entry in state.keys.items():
        for ring in (new, old):
            wrapped = wrapped_by(entry, ring.master_id) if ring else None
            if ring and wrapped and name not in secrets:
                with contextlib.suppress(KeyDoesNotOpen):
                    secrets[name] = ring.unwrap(wrapped, name)
    if state.active not in secrets:
        raise KeyUnavailable(
            f"The active record key {state.active} does not open with the master key {_names(old, new)}.",
            "restore the keyring from the newest snapshot, or give the master key that opens it",
        )
    return secrets, [name for name in state.keys if name not in secrets]


def _add(entry: Entry, name: str, secret: bytes | None, ring: Keyring | None) -> Entry:
    """The entry, wrapped by ``ring`` too; one that ``ring`` wrapped and that does not open is replaced."""
    if ring is None or secret is None:
        return entry
    wrapped = wrapped_by(entry, ring.master_id)
    if wrapped:
        with contextlib.suppress(KeyDoesNotOpen):
            if ring.unwrap(wrapped, name) == secret:
                return entry
    wrapped = ring.wrap(secret, name)
    if ring.unwrap(wrapped, name) != secret:
        raise KeyUnavailable(
            f"The master key {ring.master_id} does not open what it wrapped a moment ago.",
            "look into the key service; nothing was changed",
        )
    if entry["wrapped"].get("master") == ring.master_id:
        return {**entry, "wrapped": wrapped}
    return {**entry, "also": {**entry.get("also", {}), ring.master_id: wrapped}}


def _replace(
    file: KeyringFile,
    state: State,
    master: str,
    keys: dict[str, Entry],
    secrets: dict[str, bytes],
    unopened: list[str],
    new: Keyring,
    check: bool,
) -> Rewrapped:
    changed = (master, keys) != (state.master, state.keys)
    after = State(master, state.active, keys)
    if changed and not check:
        after = file.write(master, state.active, keys)
        for name, secret in secrets.items():
            if new.unwrap(wrapped_by(after.keys[name], new.master_id) or {}, name) != secret:
                raise KeyUnavailable(
                    f"The record key {name} did not come back from {file.path}.", "check the disk, and put a copy back"
                )
    return Rewrapped(changed, masters_of(state), masters_of(after), len(keys), unopened)

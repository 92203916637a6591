# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyring file: read, locked, replaced as a whole. It knows no secrets.

PRIVATE to the collection. Format 1::

    {"format": 1, "master": "<master id>", "active": "<key id>",
     "keys": {"<key id>": {"wrapped": {…}, "created": <µs>, "retired": <µs> | null, "also": {"<master id>": {…}}}}}

``also`` is there while the keyring moves to another master key: the same key, wrapped by that one as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import typing as t

from ._errors import KeyUnavailable
from ._files import replace_file

FORMAT = 1
Entry = t.Dict[str, t.Any]


class State(t.NamedTuple):
    """What the file said when it was last read; ``signature`` tells whether it is still that file."""

    master: str
    active: str
    keys: dict[str, Entry]
    signature: tuple[int, ...] = ()


class KeyringFile:
    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def moved(self, state: State) -> bool:
        """Whether the file is another one than that which ``state`` was read from."""
        try:
            return _signature(os.stat(self.path)) != state.signature
        except OSError:
            return True

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """One process at a time changes the file; the lock lies on a side file because the file itself is replaced."""
        try:
            lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise self.unwritable(exc) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> State:
        """Errors: KeyUnavailable (missing, not to be read, damaged, of a newer format)."""
        try:
            with open(self.path, "rb") as file:
                info = os.fstat(file.fileno())
                raw = file.read(64 << 20)
        except FileNotFoundError:
            raise KeyUnavailable(
                f"There is no keyring file {self.path}.",
                "restore it from a copy or from the newest snapshot; only a new store starts with a new keyring",
            ) from None
        except OSError as exc:
            raise KeyUnavailable(
                f"The keyring file {self.path} cannot be read: {exc.strerror}.", f"let this user read {self.path}"
            ) from None
        try:
            body = json.loads(raw)
            if body["format"] != FORMAT:
                raise KeyUnavailable(
                    f"The keyring file {self.path} has format {body['format']!r:.20}, not {FORMAT}.",
                    "update the collection",
                )
            master, active, keys = body["master"], body["active"], body["keys"]
            if not (isinstance(master, str) and isinstance(active, str) and active in keys):
                raise ValueError
            for name, entry in keys.items():
                also = entry.get("also", {})
                if not isinstance(name, str) or not isinstance(entry["wrapped"], dict) or not isinstance(also, dict):
                    raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise KeyUnavailable(
                f"The keyring file {self.path} is damaged: it is not JSON of the keyring format.",
                "put back a copy, or restore the keyring from the newest snapshot; do not delete it",
            ) from None
        return State(master, active, keys, _signature(info))

    def write(self, master: str, active: str, keys: dict[str, Entry]) -> State:
        """Replace the file, never half written and durable, and read it back. The caller holds the lock."""
        body = {"format": FORMAT, "master": master, "active": active, "keys": keys}
        try:
            replace_file(self.path, json.dumps(body, indent=1).encode() + b"\n", mode=0o600)
        except OSError as exc:
            raise self.unwritable(exc) from None
        return self.read()

    def unwritable(self, exc: OSError) -> KeyUnavailable:
        return KeyUnavailable(
            f"The keyring file {self.path} cannot be written: {exc.strerror}; it is as it was before.",
            f"make the directory of {self.path} writable and free some space",
        )


def wrapped_by(entry: t.Mapping[str, t.Any], master: str) -> dict[str, t.Any] | None:
    """A key as that master key wrapped it; None: it did not."""
    wrapped: dict[str, t.Any] = entry["wrapped"]
    return wrapped if wrapped.get("master") == master else entry.get("also", {}).get(master)


def masters_of(state: State) -> list[str]:
    """The ids of the master keys that wrapped the active key: each of them opens this keyring."""
    entry = state.keys[state.active]
    return sorted({state.master, *entry.get("also", {})})


def _signature(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)

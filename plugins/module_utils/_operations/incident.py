# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An incident on the memory host: who works on it, where its files lie, and its journal.

PRIVATE to the collection.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import sqlite3
import time
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .. import _inputs
from .._errors import InvalidInput, MemoryOpsError, StoreUnavailable
from .._layouts.lines import PLACEHOLDER
from .._model import Claim
from .._store import Store
from .._store_address import FOLDER, location

LEASE_SECONDS = 60.0
LOCK_SECONDS = 15.0  # how long a step waits for a journal that another process keeps


@dataclass(frozen=True)
class Run:
    """Who asks: one attempt of one person or job.

    ``attempt`` is "controller:pid:start", ``owner`` what a person reads in a refusal; ``takeover`` names an attempt
    that the controller knows to be dead, so that its lease need not be waited for.
    """

    attempt: str
    owner: str
    incident: str | None = None
    takeover: str | None = None
    work_dir: str | None = None


def now_us() -> int:
    return time.time_ns() // 1000


def rfc3339(us: int | None) -> str | None:
    """Microseconds since 1970 as RFC 3339 UTC with milliseconds."""
    return None if us is None else _inputs.rfc3339(us, "milliseconds")


def microseconds(text: str | None) -> int | None:
    """The inverse of rfc3339. Errors: InvalidInput."""
    if not text:
        return None
    from datetime import datetime

    try:
        at = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        raise InvalidInput(f"{text!r:.60} is not a time.", "write it like 2026-01-05T10:15:00Z") from None
    return int(at.timestamp() * 1_000_000)


def new_incident_id() -> str:
    """Sorts by time and never meets another: inc-YYYYMMDDTHHMMSSZ-xxxxxx."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_us() / 1e6))
    return f"inc-{stamp}-{secrets.token_hex(3)}"


def claim(store: Store, namespace: str, run: Run) -> Claim:
    """The right to change ``namespace`` in this run. Errors: LeaseHeld, CannotProceed, NamespaceUnknown."""
    return store.claim(
        namespace,
        run.attempt,
        run.owner,
        incident=run.incident,
        new_incident=run.incident or new_incident_id(),
        takeover=run.takeover,
        lease=LEASE_SECONDS,
    )


def facts(store: Store, namespace: str, incident: str | None = None) -> tuple[str | None, dict[str, t.Any]]:
    """(incident, its facts) of the open incident, or of the named one; (None, {}) when there is none."""
    for state in store.incidents(namespace):
        if state.incident == incident or (incident is None and state.state == "open"):
            return state.incident, dict(state.facts)
    return None, {}


def is_open(store: Store, namespace: str, incident: str | None = None) -> bool:
    """Whether that incident is, or any."""
    return any(one.state == "open" and incident in (None, one.incident) for one in store.incidents(namespace))


def since_release(known: t.Mapping[str, t.Any], name: str) -> t.Any:
    """A fact that was noted with ``released``: None where the namespace was released after that, as what came since it
    does not tell of."""
    fact = known.get(name)
    return fact if fact and fact.get("released") == known.get("released_at") else None


def promoted_epoch(store: Store, namespace: str) -> int | None:
    """The epoch in which this copy last served the namespace, if it ever did."""
    found = (state.facts.get("promoted_epoch") for state in store.incidents(namespace))
    return next((epoch for epoch in found if epoch is not None), None)


def served_read_only(store: Store, namespace: str) -> bool:
    """Whether this copy was read-only when it last served the namespace: nothing was written here then."""
    for state in store.incidents(namespace):
        if state.facts.get("promoted_epoch") is not None:
            return False
        if state.facts.get("reading"):
            return True
    return False


def settled(store: Store, namespace: str) -> int:
    """The sequence up to which a closed incident has judged this namespace's writes; 0 when none has."""
    done = [s.facts for s in store.incidents(namespace) if s.state == "closed" and s.facts.get("applied")]
    return max((int(known.get("fenced_sequence") or 0) for known in done), default=0)


def settled_version(store: Store, namespace: str) -> tuple[int, int] | None:
    """As ``settled``, with the epoch: (epoch, sequence)."""
    done = [s.facts for s in store.incidents(namespace) if s.state == "closed" and s.facts.get("applied")]
    known = [(int(f["fenced_epoch"]), int(f["fenced_sequence"])) for f in done if f.get("fenced_epoch") is not None]
    return max(known, default=None)


def folder(store_params: t.Mapping[str, t.Any], incident: str, work_dir: str | None = None) -> str:
    """Where this incident's plan and journal lie on the memory host; made with mode 0700.

    Default: beside the store's file; for a store that is reached over the network in /var/lib/memops (root) or
    ~/.local/state/memops. Errors: StoreUnavailable when it cannot be made.
    """
    if not incident.replace("-", "").replace("_", "").replace(".", "").isalnum() or incident.startswith("."):
        raise InvalidInput(
            f"The incident id {incident!r:.60} has characters other than letters, digits, '-', '_' and '.'.",
            "leave memory_incident out to let one be made",
        )
    path = os.path.join(work_dir or base(store_params), incident)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise StoreUnavailable(
            f"The folder {path} for the incident's plan and journal cannot be made: {exc.strerror}.",
            "free space or set memory_work_dir to a folder that can be written",
        ) from None
    return path


def state_home() -> str:
    """Where programs of this user keep their state."""
    return "/var/lib" if os.geteuid() == 0 else os.path.expanduser("~/.local/state")


def base(store_params: t.Mapping[str, t.Any]) -> str:
    """The folder for what belongs to a store on this host; not made here."""
    if store_params.get("path"):
        return f"{str(store_params['path']).replace(PLACEHOLDER, '')}{FOLDER}"
    which = hashlib.sha256("\n".join(location(store_params)).encode()).hexdigest()[:16]
    return os.path.join(state_home(), "memops", which)


@contextmanager
def own_files(path: str) -> t.Iterator[None]:
    """Failures of the files beside the store (plan, journal, diagnosis) in words. Errors: StoreUnavailable."""
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(
            f"The incident's files in {path} cannot be read or written: {getattr(exc, 'strerror', None) or exc}.",
            "free space on that disk, or set memory_work_dir to another folder, then run the same command again",
        ) from exc


@contextmanager
def temporary_files() -> t.Iterator[None]:
    """Failures of what SQLite keeps in a file without a name, in words. Errors: StoreUnavailable."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailable(
            f"A temporary file of this step cannot be written or read: {exc}.",
            "free space where SQLite keeps such files (SQLITE_TMPDIR or TMPDIR, else /var/tmp), then run the same "
            "command again",
        ) from exc


def write_note(path: str, note: t.Mapping[str, t.Any]) -> None:
    """Replace one of those files, as JSON that their owner alone reads. Errors: StoreUnavailable."""
    from .._files import replace_file

    with own_files(os.path.dirname(path)):
        replace_file(path, json.dumps(note).encode(), mode=0o600)


class Journal:
    """The incident's journal: JSON lines, fsynced, each with the SHA-256 of the line before it.

    Lines hold step names, counts and ids; no key of a record and no payload is ever written to it.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.join(path, "journal.jsonl")

    def lines(self) -> list[bytes]:
        """Whole lines; a torn last one (killed while writing) is left out."""
        try:
            with own_files(os.path.dirname(self.path)), open(self.path, "rb") as stream:
                return _whole_lines(stream)
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                return []
            raise

    def append(self, step: str, phase: str, run: Run, **data: t.Any) -> None:
        with own_files(os.path.dirname(self.path)):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            with open(descriptor, "r+b", buffering=0) as file:
                self._lock(file)  # an attempt that was taken over may still note that it failed
                with open(self.path, "rb") as stream:
                    lines = _whole_lines(stream)
                body = {
                    "n": len(lines),
                    "at": rfc3339(now_us()),
                    "step": step,
                    "phase": phase,
                    "attempt": run.attempt,
                    "previous": hashlib.sha256(lines[-1]).hexdigest() if lines else None,
                    "data": data,
                }
                # a torn line of a killed attempt is overwritten
                file.seek(sum(len(line) + 1 for line in lines))
                file.truncate()
                left = memoryview(json.dumps(body, separators=(",", ":")).encode() + b"\n")
                while left:
                    left = left[file.write(left) or 0 :]
                os.fsync(file.fileno())

    def _lock(self, file: t.Any) -> None:
        """Alone with the journal. Who hangs with it must not hang those after it. Errors: StoreUnavailable."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"Another process on the memory host keeps {self.path} and does not go on.",
                        f"end it (fuser -v {self.path} shows which), then run the same command again",
                    ) from None
            time.sleep(0.05)

    @contextmanager
    def step(self, name: str, run: Run, **intent: t.Any) -> t.Iterator[dict[str, t.Any]]:
        """Note the intent, then what came of it: fill the yielded mapping."""
        self.append(name, "intent", run, **intent)
        outcome: dict[str, t.Any] = {}
        try:
            yield outcome
        except BaseException as exc:
            with suppress(StoreUnavailable):  # what went wrong matters more than the note of it
                self.append(name, "failed", run, error=type(exc).__name__, message=str(exc)[:500])
            raise
        self.append(name, "result", run, **outcome)


def mirror(store: Store, claim: Claim, journal: Journal, repository: t.Any, keyring: t.Any) -> list[str]:
    """Copy what is new in the journal to the repository, encrypted; warnings: an incident goes on without it."""
    lines = journal.lines()
    done = int(store.incident(claim).facts.get("mirrored") or 0)
    try:
        for number in range(done, len(lines)):
            repository.put_journal(claim.incident, number, lines[number], keyring)
    except MemoryOpsError as exc:
        return [f"The journal of {claim.incident} is not mirrored yet: {exc.message}"]
    if len(lines) > done:
        store.note(claim, mirrored=len(lines))
    return []


def _whole_lines(stream: t.Iterable[bytes]) -> list[bytes]:
    return [line[:-1] for line in stream if line.endswith(b"\n")]

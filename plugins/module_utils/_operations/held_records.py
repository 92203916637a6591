# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What isolating single records and bringing them back share: which rows are chosen, the incident, what lies aside.

PRIVATE to the collection. The row is set aside as it lies, and in its place stands a tombstone with the row's own
version and times (`_model.is_isolated`), so no sequence is taken and no write is logged: when the row comes back by the
reverse compare-and-set, row and log agree as before. What belongs together is a group: one run, named in the reason
under which its rows lie aside and, before the first row goes, in the facts of the incident.
"""

from __future__ import annotations

import contextlib
import secrets
import time
import typing as t

from .._codec import why_unreadable
from .._errors import CannotProceed, MemoryOpsError
from .._model import (
    CHECKSUM,
    CREATED,
    EPOCH,
    EXPIRES,
    KEY,
    KEY_ID,
    PAYLOAD,
    SEQUENCE,
    UPDATED,
    Claim,
    IncidentState,
    Row,
)
from .._store import Store
from .incident import LEASE_SECONDS, Run, now_us
from .isolate_choice import Choice

BATCH = 1000
LISTED = 100
ROUNDS = 5  # how often a record is looked at again that an application changes under our hands
REASON = "isolated "  # what an application calls its own soft deletes has no incident
PREFIX = "held-"  # of incidents that are opened for records alone, and closed with the run
DAY_US = 86_400_000_000


def outstanding(store: Store, namespace: str) -> frozenset[str]:
    """The groups of isolated records of which not all came back."""
    return outstanding_of(store.incidents(namespace))


def outstanding_of(states: t.Iterable[IncidentState]) -> frozenset[str]:
    """``outstanding`` of the namespaces of these incidents, which have to be all of theirs."""
    out: set[str] = set()
    back: set[str] = set()
    for state in states:
        out.update(state.facts.get("held") or {})
        back.update(state.facts.get("held_back") or [])
    return frozenset(out - back)


def aside_of(reader: t.Any, namespace: str, groups: frozenset[str]) -> t.Iterator[list[Row]]:
    """The rows that lie aside in these groups, oldest first."""
    if not groups:
        return
    for batch in reader.aside(namespace):
        rows = [row for incident, reason, row in batch if incident and _group(reason) in groups]
        if rows:
            yield rows


def _group(reason: str) -> str | None:
    return reason[len(REASON) :] if reason.startswith(REASON) else None


def chosen_rows(store: Store, namespace: str, choice: Choice) -> t.Iterator[tuple[list[Row], list[str]]]:
    """The chosen records, those that are isolated already too, as ``fit`` gives them; a reader per batch."""
    if not choice.wide:
        keys = sorted(choice.keys)
        for start in range(0, len(keys), BATCH):
            with store.reader() as reader:
                found = reader.get_many(namespace, keys[start : start + BATCH])
            yield fit(store, choice, found.values())
        return
    if "sequence" not in store.capabilities():  # each reader would list all names anew
        with store.reader() as reader:
            for rows in reader.scan(namespace, batch=BATCH):
                yield fit(store, choice, rows)
        return
    after: str | None = None
    while True:
        with store.reader() as reader:
            batches = reader.scan(namespace, after=after, batch=BATCH)
            try:
                rows = next((rows for rows in batches if rows), [])
            finally:
                getattr(batches, "close", lambda: None)()
        if not rows:
            return
        after = rows[-1][KEY]
        yield fit(store, choice, rows)


def fit(store: Store, choice: Choice, rows: t.Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(the chosen rows that can be set aside and be put back, the keys of those that cannot)."""
    chosen = [row for row in rows if choice.takes(row)]
    if not chosen:
        return [], []
    identity = store.identity()  # after the rows were read: none of them can be newer
    newest = (identity.epoch, identity.sequence)
    fit = [row for row in chosen if plausible(row, newest)]
    kept = {row[KEY] for row in fit}
    return fit, [row[KEY] for row in chosen if row[KEY] not in kept]


def plausible(row: Row, newest: tuple[int, int]) -> bool:
    """Whether a row, damaged or not, has fields of their types, and a version and times that do not move the store's
    counters when it is put back."""
    numbers = [row[EPOCH], row[SEQUENCE], row[CREATED], row[UPDATED]]
    if not all(number.__class__ is int and number >= 0 for number in numbers):
        return False
    if (row[EPOCH], row[SEQUENCE]) > newest or row[UPDATED] > now_us() + DAY_US:
        return False
    if not (row[CHECKSUM].__class__ is row[PAYLOAD].__class__ is bytes and row[KEY_ID].__class__ is str):
        return False
    if why_unreadable(row) is not None:
        return False
    try:
        (row[KEY] + row[KEY_ID]).encode()
    except UnicodeEncodeError:
        return False
    return row[EXPIRES] is None or row[EXPIRES].__class__ is int


def home(store: Store, namespace: str) -> t.Any:
    with store.reader() as reader:
        state = reader.namespace(namespace)
    if {"standby", "reading"} & {state.state, state.prior_state}:
        raise CannotProceed(
            f"{namespace} is a standby copy here; its records are isolated and released where it serves.",
            "run the same command against the memory host that serves it",
        )
    return state


def claimed(store: Store, namespace: str, run: Run) -> Claim:
    """In the open incident, if there is one; else in an incident of its own. Errors: LeaseHeld, CannotProceed."""
    closed = {state.incident for state in store.incidents(namespace) if state.state == "closed"}
    wanted = None if run.incident in closed else run.incident
    made = PREFIX + time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(3)
    return store.claim(
        namespace, run.attempt, run.owner, incident=wanted, new_incident=wanted or made, takeover=run.takeover,
        lease=LEASE_SECONDS,
    )  # fmt: skip


@contextlib.contextmanager
def closing(store: Store, claim: Claim) -> t.Iterator[None]:
    """An incident that nobody else's step belongs to ends with the run; after an error the next run need not wait."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(MemoryOpsError):
            if _ours(store, claim):
                store.end_lease(claim)
        raise
    if _ours(store, claim):
        store.close_incident(claim)


def end_left_open(store: Store, namespace: str, run: Run) -> None:
    """A run that was killed at its very end left its own incident. Errors: LeaseHeld when it is not dead yet."""
    if any(one.state == "open" and one.incident.startswith(PREFIX) for one in store.incidents(namespace)):
        with closing(store, claimed(store, namespace, run)):
            pass


def _ours(store: Store, claim: Claim) -> bool:
    return set(store.incident(claim).facts) <= {"held", "held_back"}


def log(store: Store, claim: Claim, run: Run, operation: str, reason: str) -> None:
    """One entry for the whole run, without a key: the records' own entries stay the newest of their keys."""
    store.log_operation(
        claim,
        [(0, now_us(), claim.namespace, operation, None, None, None, None, None, run.owner, reason, b"")],
    )


def renew(store: Store, claim: Claim, last: float) -> float:
    now = time.monotonic()
    if now - last < LEASE_SECONDS / 6:
        return last
    store.renew(claim, LEASE_SECONDS)
    return now


def told(count: int, verb: str, where: str, state: str) -> str:
    records = "1 record" if count == 1 else f"{count} records"
    more = "; the namespace itself stays quarantined" if state == "quarantined" else ""
    return f"{records} {verb} {where}{more}"


def some(keys: t.Sequence[str], most: int = 10) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(f"{key!r:.80}" for key in keys[:most]) + more

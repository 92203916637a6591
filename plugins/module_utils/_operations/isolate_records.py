# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Take single records out of service and bring them back, while their namespace goes on serving.

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

from .._codec import RecordCodec
from .._errors import CannotProceed, InvalidInput, MemoryOpsError
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
    Change,
    Claim,
    Row,
    is_isolated,
)  # fmt: skip
from .._store import Store
from . import incident as incidents
from .incident import LEASE_SECONDS, Journal, Run, now_us
from .isolate_choice import Choice

BATCH = 1000
LISTED = 100
ROUNDS = 5  # how often a record is looked at again that an application changes under our hands
REASON = "isolated "  # what an application calls its own soft deletes has no incident
PREFIX = "held-"  # of incidents that are opened for records alone, and closed with the run
DAY_US = 86_400_000_000

Sealer = t.Any  # _keyring.Keyring


def isolate_records(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    choice: Choice,
    open_keyring: t.Callable[[], Sealer],
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Take the chosen records of ``namespace`` out of service; the namespace keeps its state.

    Returns {incident, changed, isolated, already, record_keys (the first 100), refused_keys, unknown_keys, warnings,
    detail, before, after}. Errors: InvalidInput (nothing is chosen by it, unknown keys, too damaged), NamespaceUnknown,
    CannotProceed (a standby copy), LeaseHeld, KeyUnavailable (a tombstone has to be sealed).
    """
    state = _home(store, namespace)
    found = _Found()
    for rows, odd in _chosen(store, namespace, choice):
        found.add(rows, odd, choice.keys)
    unknown = sorted(choice.keys - found.named)
    if (unknown and not choice.wide) or not (found.count or found.already or found.odd):
        raise choice.nothing(namespace, unknown, "record")
    warnings = [f"{namespace} has no record {_some(unknown)}; nothing was done about that."] if unknown else []
    if found.odd:
        text = f"{len(found.odd)} records of {namespace} are too damaged to come back as they are ({_some(found.odd)})"
        if set(found.odd) & choice.keys:
            raise InvalidInput(f"{text}.", f"run the rebuild playbook with memory_namespace={namespace}")
        warnings.append(f"{text} and stay where they are; a rebuild takes care of them.")
    result: dict[str, t.Any] = {
        "incident": None, "changed": bool(found.count), "isolated": found.count, "already": found.already,
        "record_keys": found.keys, "refused_keys": [], "unknown_keys": unknown[:LISTED], "warnings": warnings,
        "before": {"isolated": []}, "after": {"isolated": found.keys},
    }  # fmt: skip
    result["detail"] = _told(result["isolated"], "would go" if check else "went", "out of service", state.state)
    if check:
        return result
    if not found.count:
        _end_left_open(store, namespace, run)
        return result
    ring = open_keyring()
    ring.cipher(ring.active_id)
    claim = _claim(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with _closing(store, claim), journal.step("isolate", run, records=found.count) as outcome:
        group = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(4)
        held = dict(store.incident(claim).facts.get("held") or {})
        store.note(claim, held={**held, group: choice.told()})
        _log(store, claim, run, "isolate", f"{group}: {choice.told()}")
        taker = _Taker(store, claim, choice, group, ring)
        for rows, _odd in _chosen(store, namespace, choice):
            taker.take(rows)
        result.update(incident=claim.incident, changed=bool(taker.count), isolated=taker.count)
        result.update(record_keys=taker.keys, refused_keys=taker.refused[:LISTED], after={"isolated": taker.keys})
        result["detail"] = _told(taker.count, "went", "out of service", state.state)
        outcome.update(isolated=taker.count, refused=len(taker.refused))
        if taker.refused:
            raise CannotProceed(
                f"{len(taker.refused)} of the records of {namespace} are written so often that they could not be taken "
                f"out of service ({_some(taker.refused)}); {taker.count} others were.",
                "stop the program that writes them, or isolate the whole namespace, then run the same command again",
            )
    return result


def release_records(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    choice: Choice | None,
    run: Run,
    check: bool = False,
) -> dict[str, t.Any]:
    """Bring isolated records back as they were; ``choice`` None: all of them.

    A record that an application wrote anew meanwhile is not touched: its key is a conflict, and the isolated row stays
    aside. Returns {incident, changed, released, conflicts, conflict_keys, record_keys (the first 100), detail, before,
    after}.
    Errors: InvalidInput (nothing is chosen by it), CannotProceed (a standby copy), NamespaceUnknown, LeaseHeld.
    """
    try:
        state = _home(store, namespace)
    except CannotProceed:
        if choice is not None:
            raise
        return _Back(store, namespace, None, frozenset()).result(None, "standby", check)
    stays = state.state if choice else "serving"  # without a choice the caller lifts a quarantine
    groups = outstanding(store, namespace)
    back = _Back(store, namespace, choice, groups)
    back.run()
    if choice is not None:
        _refuse_unknown(store, namespace, choice, back)
    if check or not (back.count or (choice is None and groups)):
        if not check:
            _end_left_open(store, namespace, run)
        return back.result(None, stays, check)
    claim = _claim(store, namespace, run)
    journal = Journal(incidents.folder(store_params, claim.incident, run.work_dir))
    with _closing(store, claim), journal.step("reinstate", run, records=back.count) as outcome:
        if back.count:
            _log(store, claim, run, "reinstate", choice.told() if choice else "all isolated records")
        back = _Back(store, namespace, choice, groups, claim)
        back.run()
        if choice is None:  # what is not back now never will be: it has a newer record in its place
            done = list(store.incident(claim).facts.get("held_back") or [])
            store.note(claim, held_back=[*done, *sorted(groups)])
        outcome.update(released=back.count, conflicts=len(back.conflicts))
    return back.result(claim.incident, stays, check)


def outstanding(store: Store, namespace: str) -> frozenset[str]:
    """The groups of isolated records of which not all came back."""
    out: set[str] = set()
    back: set[str] = set()
    for state in store.incidents(namespace):
        out.update(state.facts.get("held") or {})
        back.update(state.facts.get("held_back") or [])
    return frozenset(out - back)


def isolated(store: Store, namespace: str) -> int:
    """How many records are out of service now."""
    back = _Back(store, namespace, None, outstanding(store, namespace))
    back.run()
    return back.count


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


# --- out of service -------------------------------------------------------------------------------------------------
class _Found:
    """What a choice comes to, counted without holding it."""

    def __init__(self) -> None:
        self.count = self.already = 0
        self.keys: list[str] = []
        self.odd: list[str] = []
        self.named: set[str] = set()

    def add(self, rows: t.Sequence[Row], odd: t.Sequence[str], named: t.AbstractSet[str]) -> None:
        fresh = [row[KEY] for row in rows if not is_isolated(row)]
        self.count += len(fresh)
        self.already += len(rows) - len(fresh)
        self.keys += fresh[: LISTED - len(self.keys)]
        self.odd += odd[: 10 * LISTED - len(self.odd)]
        self.named |= named & {*(row[KEY] for row in rows), *odd}


class _Taker:
    """Sets chosen rows aside under one group, a tombstone in the place of each, by compare-and-set."""

    def __init__(self, store: Store, claim: Claim, choice: Choice, group: str, ring: Sealer) -> None:
        self._store, self._claim, self._choice, self._ring = store, claim, choice, ring
        self._reason, self._codec = REASON + group, RecordCodec(claim.namespace)
        self._renewed = time.monotonic()
        self.count = 0
        self.keys: list[str] = []
        self.refused: list[str] = []

    def take(self, rows: t.Sequence[Row]) -> None:
        for number in range(ROUNDS):
            rows = [row for row in rows if not is_isolated(row)]
            if not rows:
                return
            changes = [Change(row[KEY], row[CHECKSUM], self._tombstone(row), self._reason) for row in rows]
            refused = set(self._store.change(self._claim, changes))
            self.count += len(rows) - len(refused)
            done = [row[KEY] for row in rows if row[KEY] not in refused]
            self.keys += done[: LISTED - len(self.keys)]
            self._renewed = _renew(self._store, self._claim, self._renewed)
            if not refused:
                return
            if number == ROUNDS - 1:
                self.refused += sorted(refused)[: max(0, 10 * LISTED - len(self.refused))]
                return
            with self._store.reader() as reader:  # somebody wrote them: they may be chosen still
                live = reader.get_many(self._claim.namespace, sorted(refused))
            rows = _fit(self._store, self._choice, live.values())[0]

    def _tombstone(self, row: Row) -> Row:
        key_id = self._ring.active_id
        bare: Row = (
            *row[: UPDATED + 1], None, max(now_us(), row[UPDATED] + 1), key_id, b"", b"",
        )  # fmt: skip
        sealed = (*bare[:PAYLOAD], self._ring.seal(b"", self._codec.head(bare), key_id), b"")
        return (*sealed[:CHECKSUM], self._codec.checksum(sealed))


def _chosen(store: Store, namespace: str, choice: Choice) -> t.Iterator[tuple[list[Row], list[str]]]:
    """The chosen records, those that are isolated already too, as ``_fit`` gives them; a reader per batch."""
    if not choice.wide:
        keys = sorted(choice.keys)
        for start in range(0, len(keys), BATCH):
            with store.reader() as reader:
                found = reader.get_many(namespace, keys[start : start + BATCH])
            yield _fit(store, choice, found.values())
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
        yield _fit(store, choice, rows)


def _fit(store: Store, choice: Choice, rows: t.Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(the chosen rows that can be set aside and be put back, the keys of those that cannot)."""
    chosen = [row for row in rows if choice.takes(row)]
    if not chosen:
        return [], []
    identity = store.identity()  # after the rows were read: none of them can be newer
    newest = (identity.epoch, identity.sequence)
    fit = [row for row in chosen if _plausible(row, newest)]
    kept = {row[KEY] for row in fit}
    return fit, [row[KEY] for row in chosen if row[KEY] not in kept]


def _plausible(row: Row, newest: tuple[int, int]) -> bool:
    """Whether a row, damaged or not, has fields of their types, and a version and times that do not move the store's
    counters when it is put back."""
    numbers = [row[EPOCH], row[SEQUENCE], row[CREATED], row[UPDATED]]
    if not all(number.__class__ is int and number >= 0 for number in numbers):
        return False
    if (row[EPOCH], row[SEQUENCE]) > newest or row[UPDATED] > now_us() + DAY_US:
        return False
    if not (row[CHECKSUM].__class__ is row[PAYLOAD].__class__ is bytes and row[KEY_ID].__class__ is str):
        return False
    try:
        (row[KEY] + row[KEY_ID]).encode()
    except UnicodeEncodeError:
        return False
    return row[EXPIRES] is None or row[EXPIRES].__class__ is int


# --- back -----------------------------------------------------------------------------------------------------------
class _Back:
    """Goes through the rows that lie aside; with ``claim`` it puts back what can be, else it counts."""

    def __init__(
        self, store: Store, namespace: str, choice: Choice | None, groups: frozenset[str], claim: Claim | None = None
    ) -> None:
        self._store, self._namespace, self._choice, self._groups = store, namespace, choice, groups
        self._claim, self._renewed = claim, time.monotonic()
        self.count = self.seen = 0
        self.named: set[str] = set()  # of the keys of the choice, those that were isolated
        self.keys: list[str] = []
        self.conflicts: list[str] = []
        self._conflicts = 0

    def run(self) -> None:
        with self._store.reader() as reader:
            for rows in aside_of(reader, self._namespace, self._groups):
                if self._choice is not None:
                    rows = [row for row in rows if self._choice.takes(row)]
                    self.named |= self._choice.keys & {row[KEY] for row in rows}
                for start in range(0, len(rows), BATCH):
                    self._part(rows[start : start + BATCH])

    def _part(self, rows: t.Sequence[Row]) -> None:
        self.seen += len(rows)
        for _round in range(ROUNDS):
            with self._store.reader() as reader:
                live = reader.get_many(self._namespace, [row[KEY] for row in rows])
            todo: dict[str, tuple[Row, Row | None]] = {}
            for row in rows:
                there = live.get(row[KEY])
                if _stands_for(there, row):
                    todo[row[KEY]] = (row, there)  # of two copies of one version the later one was the live one
                elif there is not None and there[: UPDATED + 1] != row[: UPDATED + 1]:
                    self._conflict(row[KEY])
            refused: set[str] = set()
            if self._claim is not None and todo:
                changes = [
                    Change(key, None if there is None else there[CHECKSUM], row) for key, (row, there) in todo.items()
                ]
                refused = set(self._store.change(self._claim, changes))
                self._renewed = _renew(self._store, self._claim, self._renewed)
            self.count += len(todo) - len(refused)
            done = [key for key in todo if key not in refused]
            self.keys += done[: LISTED - len(self.keys)]
            rows = [row for row in rows if row[KEY] in refused]
            if not rows:
                return
        for row in rows:
            self._conflict(row[KEY])

    def _conflict(self, key: str) -> None:
        self._conflicts += 1
        if len(self.conflicts) < 10 * LISTED:
            self.conflicts.append(key)

    def result(self, incident: str | None, state: str, check: bool) -> dict[str, t.Any]:
        detail = _told(self.count, "would come" if check else "came", "back", state)
        warnings = []
        if self._conflicts:
            warnings.append(
                f"{self._conflicts} isolated records of {self._namespace} stay aside, since newer ones were written "
                f"under their keys ({_some(self.conflicts)})."
            )
        return {
            "incident": incident, "changed": bool(self.count), "released": self.count, "conflicts": self._conflicts,
            "conflict_keys": self.conflicts, "record_keys": self.keys, "detail": detail, "warnings": warnings,
            "before": {"isolated": self.keys}, "after": {"isolated": []},
        }  # fmt: skip


def _stands_for(there: Row | None, row: Row) -> bool:
    """Whether ``there`` is what the isolation of ``row`` left: its tombstone, or nothing where a rebuild took that."""
    if there is None:
        return not _over(row)
    return is_isolated(there) and there[: UPDATED + 1] == row[: UPDATED + 1]


def _over(row: Row) -> bool:
    return row[EXPIRES] is not None and row[EXPIRES] <= now_us()


def _refuse_unknown(store: Store, namespace: str, choice: Choice, back: _Back) -> None:
    """Errors: InvalidInput when the choice names what is neither isolated nor in service."""
    named = set(back.named)
    found = bool(back.seen)
    missing = Choice(choice.keys - named, None, None, None)
    for rows, odd in _chosen(store, namespace, missing if found or not choice.wide else choice):
        found = found or bool(rows)
        named |= choice.keys & {*(row[KEY] for row in rows), *odd}
        if found and choice.wide:
            return
    unknown = sorted(choice.keys - named)
    if not found or (unknown and not choice.wide):
        raise choice.nothing(namespace, unknown, "record")


# --- both -----------------------------------------------------------------------------------------------------------
def _home(store: Store, namespace: str) -> t.Any:
    with store.reader() as reader:
        state = reader.namespace(namespace)
    if "standby" in (state.state, state.prior_state):
        raise CannotProceed(
            f"{namespace} is a standby copy here; its records are isolated and released where it serves.",
            "run the same command against the memory host that serves it",
        )
    return state


def _claim(store: Store, namespace: str, run: Run) -> Claim:
    """In the open incident, if there is one; else in an incident of its own. Errors: LeaseHeld, CannotProceed."""
    closed = {state.incident for state in store.incidents(namespace) if state.state == "closed"}
    wanted = None if run.incident in closed else run.incident
    made = PREFIX + time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime()) + secrets.token_hex(3)
    return store.claim(
        namespace, run.attempt, run.owner, incident=wanted, new_incident=wanted or made, takeover=run.takeover,
        lease=LEASE_SECONDS,
    )  # fmt: skip


@contextlib.contextmanager
def _closing(store: Store, claim: Claim) -> t.Iterator[None]:
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


def _end_left_open(store: Store, namespace: str, run: Run) -> None:
    """A run that was killed at its very end left its own incident. Errors: LeaseHeld when it is not dead yet."""
    if any(one.state == "open" and one.incident.startswith(PREFIX) for one in store.incidents(namespace)):
        with _closing(store, _claim(store, namespace, run)):
            pass


def _ours(store: Store, claim: Claim) -> bool:
    return set(store.incident(claim).facts) <= {"held", "held_back"}


def _log(store: Store, claim: Claim, run: Run, operation: str, reason: str) -> None:
    """One entry for the whole run, without a key: the records' own entries stay the newest of their keys."""
    store.log_operation(
        claim,
        [(0, now_us(), claim.namespace, operation, None, None, None, None, None, run.owner, reason, b"")],
    )


def _renew(store: Store, claim: Claim, last: float) -> float:
    now = time.monotonic()
    if now - last < LEASE_SECONDS / 6:
        return last
    store.renew(claim, LEASE_SECONDS)
    return now


def _told(count: int, verb: str, where: str, state: str) -> str:
    records = "1 record" if count == 1 else f"{count} records"
    more = "; the namespace itself stays quarantined" if state == "quarantined" else ""
    return f"{records} {verb} {where}{more}"


def _some(keys: t.Sequence[str], most: int = 10) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(f"{key!r:.80}" for key in keys[:most]) + more

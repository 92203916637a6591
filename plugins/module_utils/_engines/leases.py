# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Who may hold a namespace or an incident, and for how long: the rules and sentences of every engine. No I/O.

PRIVATE to the collection. Times are microseconds since 1970 UTC.
"""
from __future__ import annotations

import typing as t

from .._errors import (
    CannotProceed,
    InvalidInput,
    LeaseHeld,
    NamespaceLocked,
    NamespaceQuarantined,
    NamespaceReadOnly,
    StaleAttempt,
)
from .._extra_vars import run
from .._inputs import rfc3339
from .._model import Claim

BUSY_TIMEOUT: t.Final = 10.0  # seconds
POLL_SECONDS: t.Final = 0.02
SWEEPER: t.Final = "memops:sweep"
LONGEST_LEASES: t.Final = 10  # a lease that ends later than this many of its lengths from now was made by a wrong clock


def busy_timeout(params: t.Mapping[str, t.Any]) -> float:
    """Seconds. Errors: InvalidInput."""
    value = params.get("busy_timeout")
    try:
        seconds = BUSY_TIMEOUT if value is None else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise InvalidInput(
            f"memory_store.busy_timeout is {value!r:.80}, not a number of seconds up to 3600.",
            "set it to a number such as 10, or leave it out",
        )
    return seconds


def believed_end(until: int, now: int, length: int) -> int:
    """When a lease ends: a clock that jumped back must not lock for years."""
    return min(until, now + LONGEST_LEASES * length)


# --- incidents ------------------------------------------------------------------------------------------------------
def same_incident(namespace: str, wanted: str | None, open_one: str) -> None:
    """Errors: CannotProceed when another incident than the wanted one is open."""
    if wanted is not None and wanted != open_one:
        raise CannotProceed(
            f"Namespace {namespace!r:.80} has the open incident {open_one}, not {wanted}.",
            f"continue that one: -e memory_incident={open_one}",
        )


def incident_closed(namespace: str, incident: str) -> CannotProceed:
    return CannotProceed(
        f"The incident {incident} of {of_what(namespace)} is closed.",
        "leave memory_incident out to begin a new one",
    )


def still_open(namespace: str, incident: str) -> CannotProceed:
    return CannotProceed(
        f"The incident {incident} of {of_what(namespace)} is open; what it set aside may be needed yet.",
        "finish that incident first",
    )


def of_what(namespace: str) -> str:
    return f"namespace {namespace!r:.80}" if namespace else "the whole store"


def left_fenced(incident: str, owner: str) -> CannotProceed:
    return CannotProceed(
        f"A failover of the whole store by {owner} (incident {incident}) began and did not end: all of it is fenced.",
        f"what began finishes it: the failback, or {run('failover', memory_failover_scope='store')}",
    )


def held_by(namespace: str, incident: str, attempt: str, owner: str, claimed: int, until: int) -> LeaseHeld:
    since, ends = rfc3339(claimed, "seconds"), rfc3339(until, "seconds")
    return LeaseHeld(
        f"The incident {incident} of {of_what(namespace)} is being worked on by {owner} "
        f"(attempt {attempt}) since {since}; its lease ends {ends}.",
        "wait for its end, or for that time when it is dead, and run the same command again",
        {"incident": incident, "attempt": attempt, "owner": owner, "since": since, "until": ends},
    )


def check_claim(claim: Claim, known: tuple[str, int, str] | None) -> None:
    """``known``: attempt, token and state of the claim's incident, if there is one. Errors: StaleAttempt."""
    if known == (claim.attempt, claim.token, "open"):
        return
    if known is None:
        now = "is gone"
    else:
        now = "is closed" if known[2] != "open" else f"belongs to {known[0] or 'nobody'}"
    raise StaleAttempt(
        f"The attempt {claim.attempt} no longer holds the incident {claim.incident} of {of_what(claim.namespace)}: "
        f"the incident {now}.",
        "leave it to the newer attempt, or run the same command again",
    )


# --- applications ---------------------------------------------------------------------------------------------------
def settable(state: str) -> str:
    """Errors: InvalidInput for a state that is none to be set without a quarantine."""
    if state not in ("serving", "reading", "standby"):
        raise InvalidInput(f"A namespace cannot be made {state!r}.", "use serving, reading or standby")
    return state


def quarantined(namespace: str, incident: str | None, state: str) -> NamespaceQuarantined:
    if state == "reading":
        return NamespaceReadOnly(
            f"Namespace {namespace!r:.80} takes no writes: it is served read-only from this copy.",
            "write again when it is home: run the failback playbook",
        )
    return NamespaceQuarantined(
        f"Namespace {namespace!r:.80} takes no writes: it is {state}"
        + (f" (incident {incident})." if incident else "."),
        "write to its primary store" if state == "standby" else "wait for the release, or run the release playbook",
    )


def lock_lost(namespace: str, mine: int, holder: str | None) -> NamespaceLocked:
    """``holder``: who has the lock now, if anybody."""
    return NamespaceLocked(
        f"The write lock {mine} of namespace {namespace!r:.80} ran out and others have written since"
        + (f" ({holder} holds it now)." if holder is not None else "."),
        "take the lock again with a longer lease and read again before writing",
    )


def locked(namespace: str, actor: str | None, since: int, until: int) -> NamespaceLocked:
    return NamespaceLocked(
        f"Namespace {namespace!r:.80} is locked by {actor} since {rfc3339(since, 'seconds')}, until "
        f"{rfc3339(until, 'seconds')}.",
        "try again later, or stop that process and wait for the end of its lease",
    )


def check_sequences(used: t.Sequence[int], first: int, count: int) -> None:
    """Errors: InvalidInput when a write uses a sequence that it did not reserve."""
    last = first + count - 1
    if used and not (first <= min(used) and max(used) <= last):
        raise InvalidInput(f"A write used a sequence outside of its {first} … {last}.", "reserve as many as needed")

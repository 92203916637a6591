# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Look before anything is touched: what blocks a run, what only warns, and whether there is anything to do.

PRIVATE to the collection. Changes nothing, in any mode.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._benchmark import concerning, parse
from .._errors import InvalidInput, LeaseHeld, MemoryOpsError, NamespaceDamaged, NamespaceUnknown
from .._model import STRATEGIES, IncidentState, NamespaceState
from .._search import Search, need_search
from .._store import Store
from .._store_optional import need_primary
from . import benchmark as benchmarks
from . import commands, diagnose_step, sources
from .incident import Run, now_us, rfc3339
from .other_copies import OtherCopies
from .plan_unlogged import Window, told, told_otherwise
from .still_sound import damaged_again, passed_lately, still_sound

WITH_LOG = (
    "memory_since, memory_until, memory_keys and memory_pattern choose nothing in a rebuild here: the access log tells "
    "what was damaged. To distrust every write from a moment on, set memory_onset."
)


def preflight(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    run: Run,
    open_keyring: t.Callable[[], t.Any],
    open_repository: t.Callable[[], t.Any],
    name: str,
    strategy: str = "auto",
    benchmark: str | None = None,
    search: Search | None = None,
    recent: float = 3600.0,
    force: bool = False,
    onset: str | None = None,
    window: Window | None = None,
    absent: str = "auto",
) -> dict[str, t.Any]:
    """Returns {incident, state, can_resolve, nothing_to_do, watching, watch_ended, warnings, store}.

    There is nothing to do for a namespace that passed within ``recent`` seconds and is still sound, unless this run
    names another strategy, window of the damage (``onset``, ``window``) or ``absent`` than the one that passed.

    Errors (they block the run): InvalidInput, NamespaceUnknown, LeaseHeld, StoreUnavailable, StoreDamaged. A missing
    key, bucket or snapshot only warns: isolating needs none of them, and the rebuild stops before it resolves.
    """
    if strategy not in STRATEGIES:
        raise InvalidInput(
            f"There is no strategy {strategy!r:.40}.", f"set memory_strategy to one of: {', '.join(STRATEGIES)}"
        )
    if benchmark:
        parse(benchmark)
        need_search(store, benchmark, search, namespace)
    need_primary(store)
    warnings: list[str] = []
    with store.reader() as reader:
        identity = reader.identity
        try:
            state = reader.namespace(namespace)
            count = reader.count(namespace)
            held = store.incidents(namespace)
        except NamespaceUnknown as exc:
            raise _lost(exc, open_repository, open_keyring, name, namespace) from None
        except NamespaceDamaged as exc:
            state, count, held = NamespaceState(namespace, "damaged", 0, None, None, None), 0, []
            warnings.append(f"{exc.message} Isolating the namespace leads it back to its records first.")
    refuse_held(held, namespace, run)
    warnings += store.warnings()
    warnings += _unasked(store, namespace, benchmark, search) if state.state != "damaged" else []
    keyring = _try(open_keyring, "Nothing can be rebuilt without the keyring", warnings)
    if strategy == "rotate" and keyring is not None:
        _try(keyring.refuse_new_key, "The records can be repaired and not rotated", warnings)
    repository = _try(open_repository, "Nothing can be rebuilt without the repository", warnings)
    newest, chosen = None, None
    if keyring is not None and repository is not None:
        try:
            others = OtherCopies(store, namespace) if state.state != "damaged" else None
            chosen = sources.choose(repository, name, keyring, namespace, others=others, limit=1)
            newest = chosen.snapshots[0].id if chosen.snapshots else None
            warnings += [f"Snapshot {reason}" for reason in chosen.passed_over]
            if newest is None:
                warnings.append(
                    f"There is no good snapshot of {namespace}; the rebuild will stop before it resolves anything."
                )
        except MemoryOpsError as exc:
            warnings.append(f"Snapshots cannot be looked at: {exc.message}")
    logged = "log" in store.capabilities()
    if window is not None and logged and (window.keys or window.pattern or (window.onset is not None and not onset)):
        warnings.append(WITH_LOG)
    wish = Wish(strategy, absent, told(onset, diagnose_step.window_of(onset, window, logged)))
    incident, known = next(((one.incident, dict(one.facts)) for one in held if one.state == "open"), (None, {}))
    watching = state.state == "serving" and bool(known.get("released_at") and known.get("applied")) and not force
    healthy, ended = False, None
    if incident is None and state.state == "serving" and not force:
        passed = passed_lately(store, namespace, recent)
        if passed is not None and not wish.other(passed):
            healthy, unknown = still_sound(store, store_params, namespace, keyring, chosen)
            warnings += unknown if healthy else []
    if watching:
        if wish.other(known):
            ended = "this run names another strategy or window of the damage"
        elif damaged_again(store, store_params, namespace, keyring, chosen, known):
            ended = "there is new damage"  # the watch would put the fence back and end there
        if ended is not None:
            watching = False
            warnings.append(
                f"Incident {incident} was released and only its watch was left. That watch ends here, since {ended}: "
                "the namespace is isolated and rebuilt again, in the same incident."
            )
    return {
        "incident": run.incident or incident,
        "namespace": namespace,
        "cluster": name,
        "state": state.state,
        "can_resolve": newest is not None,
        "newest_snapshot": newest,
        "nothing_to_do": healthy,
        "watching": watching,
        "watch_ended": ended,
        "watch_again": watching and (known.get("monitored") or {}).get("verdict") == "could-not-verify",
        "warnings": warnings,
        "records": count,
        "store": {
            "engine": identity.engine,
            "layout": identity.layout,
            "store_id": identity.store_id,
            "epoch": identity.epoch,
            "sequence": identity.sequence,
            "generation": state.generation,
        },
    }


def refuse_held(found: t.Sequence[IncidentState], namespace: str, run: Run) -> None:
    """Errors: LeaseHeld when another attempt works on the namespace in one of these and its lease has not run out."""
    for state in found:
        held = (
            state.state == "open" and state.lease_until > now_us() and state.attempt not in (run.attempt, run.takeover)
        )
        if held:
            raise LeaseHeld(
                f"{state.owner} works on {namespace} in incident {state.incident} since {rfc3339(state.opened)}.",
                f"wait for it to end; if that run is dead, start again after {rfc3339(state.lease_until)}",
                {
                    "owner": state.owner,
                    "attempt": state.attempt,
                    "incident": state.incident,
                    "since": rfc3339(state.opened),
                    "until": rfc3339(state.lease_until),
                },
            )


def _unasked(store: Store, namespace: str, benchmark: str | None, search: Search | None) -> list[str]:
    """Why the benchmark says nothing of the namespace: better known before it is fenced."""
    if not benchmark:
        return []
    if not concerning(parse(benchmark), namespace):
        return [
            f"No case of the benchmark concerns {namespace:.80}, which is judged as if there were none: add a case "
            "with this namespace to memory_benchmark, or one without any."
        ]
    if "encryption" in store.capabilities():
        return []
    with store.reader() as reader:
        why = benchmarks.accuracy(store, reader, namespace, None, benchmark, search)[1]
    if why is None:
        return []
    return [f"The benchmark has no answer today, so no validation will pass: {why}."]


def _lost(
    unknown: NamespaceUnknown,
    open_repository: t.Callable[[], t.Any],
    open_keyring: t.Callable[[], t.Any],
    name: str,
    namespace: str,
) -> NamespaceUnknown:
    """The same, and what to do where a snapshot has the namespace: its store was lost, and is a new one now."""
    try:
        chosen = sources.choose(open_repository(), name, open_keyring(), namespace, others=None, limit=1)
    except MemoryOpsError:
        return unknown
    if not chosen.snapshots:
        return unknown
    restore = commands.run("restore", memory_namespace=namespace, memory_create="true")
    return NamespaceUnknown(
        f"{unknown.message} Snapshot {chosen.snapshots[0].id} has it.",
        f"where the store was lost and this is a new one, bring it back: {restore}; otherwise correct the "
        "namespace, or the store's address",
    )


def _try(opener: t.Callable[[], t.Any], lost: str, warnings: list[str]) -> t.Any:
    try:
        return opener()
    except MemoryOpsError as exc:
        warnings.append(f"{lost}: {exc}")
        return None


@dataclass(frozen=True)
class Wish:
    """What a run was told to do: what is left to auto, or not told, is as it was."""

    strategy: str
    absent: str
    told: dict[str, t.Any]

    def other(self, facts: t.Mapping[str, t.Any]) -> bool:
        """Whether the incident of these facts was told something else."""
        plan = facts.get("plan") or {}
        return (
            told_otherwise(facts, self.told)
            or self.strategy not in ("auto", plan.get("strategy"))
            or self.absent not in ("auto", plan.get("absent"))
        )

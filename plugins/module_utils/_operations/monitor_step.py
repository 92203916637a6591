# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The monitor step: watch a released namespace, and close its incident when the watch passes.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._benchmark import concerning, parse
from .._errors import CannotProceed, InvalidInput
from .._model import Claim
from .._search import need_search, search_of
from .._store import Store
from .._store_optional import need_primary
from . import application_benchmark, apply, monitor
from . import incident as incidents
from .benchmark import ByBenchmark
from .commands import run as command
from .forgotten import refuse_forgotten
from .hit_rate import HitRate, source_of
from .incident import Journal, Run, microseconds, now_us, rfc3339


def watch(
    *,
    store: Store,
    store_params: t.Mapping[str, t.Any],
    namespace: str,
    keyring: t.Any,
    repository: t.Any | None,
    run: Run,
    seconds: float = 900.0,
    interval: float = 15.0,
    hit_rate: float = 0.80,
    logs: t.Sequence[t.Any] = (),
    again: bool = False,
    part: float | None = None,
    hit_rate_source: t.Mapping[str, t.Any] | None = None,
    benchmark: str | None = None,
    search: t.Mapping[str, t.Any] | None = None,
    name: str = "",
    check: bool = False,
) -> dict[str, t.Any]:
    """monitor.monitor() from the release to release + ``seconds``; a pass closes the incident.

    The deadline is absolute and kept: a watch that was killed goes on to the same one. Without an open incident the
    last one's verdict is returned, changed False. ``again`` watches another period from now on. With ``part`` it
    returns after so many seconds, {watching: True, said}, and the next call goes on. The hit rate is that of
    ``hit_rate_source``, else what the ``benchmark`` finds by the application's own ``search``, else the application's
    own benchmark's, else that of the access log or of the probes.
    """
    if not (seconds > 0 and interval > 0):
        raise InvalidInput("A watch needs a length and an interval above zero.", "correct memory_monitor_seconds")
    need_primary(store)
    rate = source_of(hit_rate_source, namespace, name) or _benchmark(store, namespace, benchmark, search)
    with store.reader() as reader:
        state = reader.namespace(namespace).state
    incident, known = incidents.facts(store, namespace, run.incident)
    if incident is None:
        refuse_forgotten(store, store_params, namespace, run)
        return _over(store, namespace, check)
    same = known.get("watch_released") in (None, known.get("released_at"))  # else it was of the release before
    if known.get("monitored") and same and not again and known["monitored"].get("verdict") != "could-not-verify":
        if not check:  # killed between the verdict and this
            store.close_incident(incidents.claim(store, namespace, run))
        return {**known["monitored"], "incident": incident, "changed": False}
    if state != "serving" or not known.get("released_at"):
        refusal = CannotProceed(
            f"{namespace} is {state}, not released.", command("release", memory_namespace=namespace)
        )
        return _rehearsed(refusal, incident, check)
    released = microseconds(known["released_at"]) or now_us()
    deadline = microseconds(known.get("watch_until")) or 0
    if known.get("watch_released") != known["released_at"]:  # released anew since: another watch
        deadline = released + int(seconds * 1e6)
        again = again or bool(known.get("watch_until"))
    if again:
        deadline = now_us() + int(seconds * 1e6)
    if check:
        return {
            "verdict": "could-not-verify",
            "changed": True,
            "samples": [],
            "breaches": [],
            "deadline": rfc3339(deadline),
            "incident": incident,
        }
    claim = incidents.claim(store, namespace, run)
    folder = incidents.folder(store_params, incident, run.work_dir)
    journal = Journal(folder)
    if again or not known.get("watch_until"):
        journal.append("monitor", "intent", run, deadline=rfc3339(deadline))
    fresh: dict[str, t.Any] = {"monitor": None, "monitored": None} if again else {}
    store.note(claim, watch_until=rfc3339(deadline), watch_released=known["released_at"], **fresh)
    try:
        found = monitor.monitor(
            store_params=store_params,
            keyring=keyring,
            claim=claim,
            namespace=namespace,
            deadline=deadline,
            interval=min(interval, seconds),
            pace=interval,
            slo=hit_rate,
            logs=logs,
            released_at=released,
            sleep=_until(part),
            rate=rate or application_benchmark.asked(store, namespace),
        )
    except _Paused:
        return {
            "watching": True,
            "said": _so_far(store, claim, namespace, deadline),
            "changed": True,
            "incident": incident,
        }
    told = ("verdict", "breaches", "reasons", "deadline", "hit_rate", "first_write_at", "samples", "watch_seconds")
    brief = {name: found.get(name) for name in told}
    store.note(claim, monitored=brief)
    journal.append("monitor", "result", run, verdict=found["verdict"], breaches=found["breaches"])
    warnings = incidents.mirror(store, claim, journal, repository, keyring) if repository is not None else []
    if found["verdict"] == "pass":
        apply.drop_former(store, claim, os.path.join(folder, "plan.db"))
        store.close_incident(claim)
    elif found["verdict"] == "fail":
        store.close_incident(claim)  # the fence stands; what goes wrong now is a new incident
    else:
        store.end_lease(claim)
    return {**found, "incident": incident, "changed": True, "warnings": warnings}


def _benchmark(
    store: Store, namespace: str, benchmark: str | None, search: t.Mapping[str, t.Any] | None
) -> HitRate | None:
    """The user's, where the values are an application's own and a case concerns the namespace.

    Errors: InvalidInput, CapabilityMissing.
    """
    who = search_of(search)
    if not benchmark or "encryption" in store.capabilities():
        return None
    need_search(store, benchmark, who, namespace)
    if not concerning(parse(benchmark), namespace):
        return None
    return ByBenchmark(store, who, namespace, benchmark)


class _Paused(Exception):
    """The part of the watch is over, the watch is not."""


def _until(part: float | None) -> t.Callable[[float], None]:
    """time.sleep that ends the part when its time is up; the monitor has noted everything before it sleeps."""
    if part is None:
        return time.sleep
    end = time.monotonic() + part

    def sleep(seconds: float) -> None:
        if time.monotonic() >= end:
            raise _Paused
        time.sleep(seconds)

    return sleep


def _so_far(store: Store, claim: Claim, namespace: str, deadline: int) -> str:
    """One line for a person who waits."""
    noted = store.incident(claim).facts[monitor.FACT]
    hits, misses, corrupt = noted["reads"]
    asked = hits + misses + corrupt
    rate = f"hit rate {hits / asked:.1%} of {asked} reads" if asked else "no reads yet"
    if noted.get("measured"):
        value = noted["measured"]["value"]
        rate = "no hit rate yet" if value is None else f"hit rate {value:.1%}"
    left = max(0, deadline - now_us()) // 1_000_000
    return f"watching {namespace}: {rate}, {left // 60}:{left % 60:02d} left"


def _over(store: Store, namespace: str, check: bool) -> dict[str, t.Any]:
    """The verdict of the newest incident that was watched to its end."""
    for state in store.incidents(namespace):
        if state.facts.get("monitored"):
            return {**state.facts["monitored"], "incident": state.incident, "changed": False}
    refusal = CannotProceed(
        f"{namespace} has no incident to watch: a watch follows the release of a rebuild.",
        f"look how it stands: {command('info')}",
    )
    return _rehearsed(refusal, None, check)


def _rehearsed(refusal: CannotProceed, incident: str | None, check: bool) -> dict[str, t.Any]:
    """Nothing was released; in a rehearsal perhaps since the release was only rehearsed."""
    if not check:
        raise refusal
    none: dict[str, t.Any] = {"samples": [], "breaches": [], "refused": str(refusal)}
    return {"verdict": "could-not-verify", "changed": True, "incident": incident, **none}

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The user's benchmark of a namespace: by our own reading where the values are ours, else by the application's search.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._benchmark import concerning, evaluate, parse
from .._errors import MemoryOpsError, StoreDamaged
from .._search import NoAnswer, Search
from .._store import Reader, Store
from .application_benchmark import accuracy_threshold
from .hit_rate import Measured

SOURCE: t.Final = "search"


def told(
    store: Store,
    reader: Reader,
    namespace: str,
    ring: t.Any,
    source: t.Any,
    baseline: float | None,
    gain: float,
    search: Search | None,
) -> dict[str, t.Any]:
    """{cases, passed, accuracy, baseline, threshold, failed, verdict, why}, and where the values are not ours
    ``asked``: "search" when the application's own search answered or was to, "benchmark" when there were keys alone."""
    empty: dict[str, t.Any] = {
        "cases": 0,
        "passed": 0,
        "accuracy": None,
        "baseline": baseline,
        "threshold": None,
        "failed": [],
    }
    if not source:
        return {**empty, "verdict": "not-asked", "why": "no benchmark was given"}
    cases = concerning(parse(source), namespace)
    if not cases:
        return {**empty, "verdict": "not-asked", "why": f"no case of the benchmark concerns {namespace}"}
    ours = "encryption" in store.capabilities()
    if not ours:
        empty["asked"] = SOURCE
    elif ring is None:
        return {**empty, "cases": len(cases), "verdict": "could-not-verify", "why": "no key is at hand"}
    try:
        if ours:
            found = evaluate(reader, ring, namespace, cases)
        else:
            found = _searched(store, search, namespace, cases, reader)
    except NoAnswer as exc:
        return {**empty, "cases": len(cases), "verdict": "could-not-verify", "why": str(exc)}
    except StoreDamaged as exc:
        return {**empty, "cases": len(cases), "verdict": "fail", "why": exc.message}
    result = {**empty, **found}
    if baseline is None:
        why = f"accuracy {found['accuracy']:.0%}, but there is no baseline to compare with"
        # as a hit rate it has a threshold of its own
        return {**result, "verdict": "could-not-verify" if ours else "not-asked", "why": why}
    threshold = accuracy_threshold(baseline, gain)
    good = found["accuracy"] >= threshold - 1e-9
    why = f"accuracy {found['accuracy']:.1%}, {threshold:.1%} is needed (baseline {baseline:.1%})"
    return {**result, "threshold": threshold, "verdict": "pass" if good else "fail", "why": why}


def accuracy(
    store: Store, reader: Reader, namespace: str, ring: t.Any, source: t.Any, search: Search | None
) -> tuple[float | None, str | None]:
    """The accuracy on the state that is there, and why there is none."""
    if not source:
        return None, None
    found = told(store, reader, namespace, ring, source, None, 0.0, search)
    return found["accuracy"], found["why"] if found["accuracy"] is None and "asked" in found else None


def _searched(
    store: Store, search: Search | None, namespace: str, cases: t.Any, reader: Reader
) -> dict[str, t.Any]:
    """Errors: NoAnswer."""
    from .._search import evaluate

    try:
        return evaluate(store, search, namespace, cases, reader)
    except StoreDamaged:
        raise
    except MemoryOpsError as exc:
        raise NoAnswer(exc.message.rstrip(".")) from None


def rate_of(found: t.Mapping[str, t.Any]) -> Measured | None:
    """The hit rate that a benchmark gave of values that are an application's own."""
    if "asked" not in found:
        return None
    share = found["accuracy"]
    return Measured(found["asked"], share, found["why"] if share is None else "", found["cases"])


class ByBenchmark:
    """See hit_rate.HitRate: the benchmark, asked again and again, but no more often than every ``EVERY`` seconds.

    It must have a case that concerns the namespace.
    """

    settle = 0.0
    EVERY: t.ClassVar[int] = 60_000_000  # µs

    def __init__(self, store: Store, search: Search | None, namespace: str, benchmark: str) -> None:
        self._store, self._search, self._namespace = store, search, namespace
        self._cases = concerning(parse(benchmark), namespace)
        self.seconds = 0.0 if search is None else search.timeout
        self.source = SOURCE if any(case.query is not None for case in self._cases) else "benchmark"
        self._last: Measured | None = None

    def measure(self, since: int, now: int) -> Measured:
        if self._last is None or self._last.at is None or now - self._last.at >= self.EVERY:
            self._last = self._ask(now)
        return self._last

    def _ask(self, now: int) -> Measured:
        with self._store.reader() as reader:
            try:
                found = _searched(self._store, self._search, self._namespace, self._cases, reader)
            except NoAnswer as exc:
                return Measured(self.source, None, str(exc), at=now)
        return Measured(self.source, found["accuracy"], reads=found["cases"], at=now)

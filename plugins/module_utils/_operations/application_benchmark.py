# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What an application's own benchmark says of a namespace, and what that is worth.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import MemoryOpsError
from .._store import Store
from .._store_own import HasOwnBenchmark
from .hit_rate import Measured

ACCURACY_GAIN = 0.30
LEAST_ACCURACY = 0.80


def accuracy_threshold(baseline: float, gain: float = ACCURACY_GAIN) -> float:
    """The accuracy to reach: max(0.80, min(0.99, 1.30 × baseline))."""
    return max(LEAST_ACCURACY, min(0.99, (1.0 + gain) * baseline))


class Rating(t.NamedTuple):
    """Shares from 0 to 1; ``why`` it is worth nothing, when both are None."""

    hit_rate: float | None
    accuracy: float | None
    why: str | None


def rating(store: Store, namespace: str) -> Rating | None:
    """None where there is no such benchmark."""
    if not isinstance(store, HasOwnBenchmark):
        return None
    try:
        if not store.has_own_benchmark():
            return None
        said = store.own_benchmark(namespace)
    except MemoryOpsError as exc:
        return Rating(None, None, exc.message.rstrip("."))
    return judge_answer(said)


class Asked:
    """See hit_rate.HitRate: the application's own benchmark, asked no more often than every ``EVERY`` seconds."""

    source = "evaluate_benchmark"
    settle = 0.0
    seconds = 30.0
    EVERY: t.ClassVar[int] = 60_000_000  # µs

    def __init__(self, store: Store, namespace: str) -> None:
        self._store, self._namespace = store, namespace
        self._last: Measured | None = None

    def measure(self, since: int, now: int) -> Measured:
        if self._last is None or self._last.at is None or now - self._last.at >= self.EVERY:
            found = rating(self._store, self._namespace) or Rating(None, None, "the memory object has it no more")
            why = found.why or "evaluate_benchmark gave no hit_rate"
            self._last = Measured(self.source, found.hit_rate, "" if found.hit_rate is not None else why, at=now)
        return self._last


def asked(store: Store, namespace: str) -> Asked | None:
    """None where there is no such benchmark, or it tells no hit rate."""
    found = rating(store, namespace)
    return None if found is None or (found.hit_rate is None and found.why is None) else Asked(store, namespace)


def judge_answer(said: t.Any) -> Rating:
    """What evaluate_benchmark gave: a number is a hit rate; of a mapping hit_rate and accuracy count."""
    found = said if isinstance(said, dict) else {"hit_rate": said}
    rates = [found.get(name) for name in ("hit_rate", "accuracy")]
    odd = next((rate for rate in rates if rate is not None and not _share(rate)), None)
    if odd is not None:
        return Rating(None, None, f"evaluate_benchmark gave {odd!r:.60}, which is no share from 0 to 1")
    if rates == [None, None]:
        return Rating(None, None, "evaluate_benchmark gave neither hit_rate nor accuracy")
    hits, accuracy = (None if rate is None else float(rate) for rate in rates)
    return Rating(hits, accuracy, None)


def _share(rate: t.Any) -> bool:
    return isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 <= rate <= 1


def judged(own: Rating | None, slo: float, baseline: float | None, gain: float) -> dict[str, t.Any]:
    """{hit_rate, accuracy, threshold, verdict, why}: the hit rate against ``slo``, and the accuracy where there is one
    to compare with."""
    body: dict[str, t.Any] = {"hit_rate": None, "accuracy": None, "threshold": slo, "verdict": "not-asked"}
    if own is None:
        return {**body, "why": "the application has no benchmark of its own"}
    body.update(hit_rate=own.hit_rate, accuracy=own.accuracy)
    if own.why is not None:
        return {**body, "verdict": "could-not-verify", "why": own.why}
    said = []
    good = known = True
    if own.hit_rate is not None:
        good = own.hit_rate >= slo
        said.append(f"hit rate {own.hit_rate:.1%}, {slo:.0%} is needed")
    if own.accuracy is not None and baseline is not None:
        wanted = accuracy_threshold(baseline, gain)
        good = good and own.accuracy >= wanted - 1e-9
        said.append(f"accuracy {own.accuracy:.1%}, {wanted:.1%} is needed (baseline {baseline:.1%})")
    elif own.accuracy is not None:
        known = own.hit_rate is not None
        said.append(f"accuracy {own.accuracy:.1%}, but there is no baseline to compare with")
    verdict = "fail" if not good else "pass" if known else "could-not-verify"
    return {**body, "verdict": verdict, "why": "; ".join(said)}

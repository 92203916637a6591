# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The hit rate of an application that keeps no access log here: as its Prometheus has it, or from its own spans.

PRIVATE to the collection. Whoever asks gets a number and where it is from, or no number and why. A number that nobody
has is never a good one.
"""
from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from .._errors import InvalidInput
from .._prometheus import NEXT, NoData, Prometheus, label
from . import application_spans
from .commands import counted
from .incident import rfc3339

KINDS: t.Final = ("prometheus", "spans")
QUERY: t.Final = 'memory_hit_rate{namespace="{namespace}"}'
MIN_READS: t.Final = 100  # fewer say nothing
SECOND: t.Final = 1_000_000  # µs


@dataclass(frozen=True)
class Measured:
    """``value`` None: no data, and ``why``. ``reads``: how many it is of, where the source says so. ``at``: µs."""

    source: str
    value: float | None
    why: str = ""
    reads: int | None = None
    at: int | None = None


class HitRate(t.Protocol):
    """Where the hit rate of a namespace is from. ``settle``: seconds after a release that the number still covers;
    ``seconds``: how long a measurement may take."""

    source: str
    settle: float
    seconds: float

    def measure(self, since: int, now: int) -> Measured: ...


def source_of(given: t.Mapping[str, t.Any] | None, namespace: str, store: str) -> HitRate | None:
    """What ``memory_hit_rate_source`` says, or None. Errors: InvalidInput."""
    said = {name: value for name, value in (given or {}).items() if value not in (None, "", [])}
    if not said:
        return None
    kind = said.get("kind")
    if kind not in KINDS:
        raise InvalidInput(
            f"memory_hit_rate_source.kind is {kind!r:.40}.", f"set it to one of: {', '.join(KINDS)}"
        )
    settle = float(said.get("settle", 60.0 if kind == "prometheus" else 0.0))
    if kind == "spans":
        places = said.get("spans")
        if not isinstance(places, (list, tuple)) or not places:
            raise InvalidInput(
                "memory_hit_rate_source names no spans.", "set its spans to a list of absolute paths or addresses"
            )
        application_spans.split([{"spans": place} for place in places])
        return _Spans([str(place) for place in places], namespace, store, settle)
    if not said.get("url"):
        raise InvalidInput("memory_hit_rate_source names no Prometheus.", "set its url")
    server = Prometheus(
        url=str(said["url"]),
        token=_secret(said, "token"),
        user=said.get("user"),
        password=_secret(said, "password"),
        ca_bundle=said.get("ca_bundle"),
        timeout=_positive(said, "timeout", 10.0),
    )
    return _Asked(server, str(said.get("query") or QUERY), namespace, _positive(said, "max_age", 120.0), settle)


def _positive(said: t.Mapping[str, t.Any], name: str, default: float) -> float:
    value = float(said.get(name, default))
    if not (math.isfinite(value) and value > 0):
        raise InvalidInput(f"memory_hit_rate_source.{name} is {value:g}.", "set it to some seconds above zero")
    return value


def _secret(said: t.Mapping[str, t.Any], name: str) -> str | None:
    """The option itself, or the first line of the file beside it. Errors: InvalidInput."""
    path = said.get(f"{name}_file")
    if not path:
        return t.cast("str | None", said.get(name))
    if said.get(name):
        raise InvalidInput(f"memory_hit_rate_source has both {name} and {name}_file.", "leave one of them out")
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(
            f"The file {path} with the {name} for Prometheus cannot be read: {getattr(exc, 'strerror', exc)}.", NEXT
        ) from None


class _Asked:
    """Prometheus, or what speaks its API."""

    source = "prometheus"

    def __init__(self, server: Prometheus, query: str, namespace: str, max_age: float, settle: float) -> None:
        self._server, self._query, self._namespace = server, query, namespace
        self._max_age, self.settle, self.seconds = max_age, settle, 2 * server.timeout

    def measure(self, since: int, now: int) -> Measured:
        seconds = max(1, (now - since) // SECOND)
        query = self._query.replace("{namespace}", label(self._namespace)).replace("{window}", f"{seconds}s")
        try:
            value, sampled = self._server.number(query, self._max_age)
        except NoData as exc:
            return Measured(self.source, None, str(exc))
        except OSError as exc:  # of the certificates
            return Measured(self.source, None, f"the certificates cannot be read: {exc.strerror or exc}")
        at = int(sampled * SECOND)
        if not -1e-9 <= value <= 1 + 1e-9:
            return Measured(self.source, None, f"the query gives {value:g}, which is no share between 0 and 1", at=at)
        if at < since:
            return Measured(self.source, None, f"the newest sample is of {rfc3339(at)}, before the release", at=at)
        return Measured(self.source, value, at=at)


class _Spans:
    """The application's searches, as it noted them itself."""

    source = "spans"
    seconds = 30.0

    def __init__(self, places: t.Sequence[str], namespace: str, store: str, settle: float) -> None:
        self._places, self._namespace, self._store, self.settle = places, namespace, store, settle

    def measure(self, since: int, now: int) -> Measured:
        found = application_spans.read(
            self._places, namespace=self._namespace, store=self._store, since=since, until=now
        )
        unread = [f"{one['source']}: {one['reason']}" for one in found["sources"] if one["status"] != "read"]
        if unread:
            return Measured(self.source, None, f"spans could not be read from {'; '.join(unread):.300}")
        hits, misses = found["reads"]["hits"], found["reads"]["misses"]
        reads = hits + misses
        if reads < MIN_READS:
            say = counted(reads, "search says", "searches say")
            why = f"{say} whether anything was found, {MIN_READS} are needed to tell a hit rate"
            return Measured(self.source, None, why, reads, now)
        return Measured(self.source, hits / reads, reads=reads, at=now)


def judged(measured: Measured | None, threshold: float) -> dict[str, t.Any]:
    """{value, source, threshold, verdict, why, reads}: no source and no data are could-not-verify."""
    if measured is None:
        why = "no source tells a hit rate: there are no probes, and memory_hit_rate_source is not set"
        return {"value": None, "source": None, "threshold": threshold, "verdict": "could-not-verify", "why": why}
    result = {"value": measured.value, "source": measured.source, "threshold": threshold, "reads": measured.reads}
    if measured.value is None:
        return {**result, "verdict": "could-not-verify", "why": f"no data from {measured.source}: {measured.why}"}
    why = f"{measured.value:.1%} by {measured.source}, {threshold:.0%} is needed"
    return {**result, "verdict": "pass" if measured.value >= threshold else "fail", "why": why}

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparisons of an engine that is a server, alike for all of them; each engine's file has its server and peers."""

from __future__ import annotations

import abc
import secrets
import shutil
import time
import typing as t

from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore

from . import isolating, peers
from .data import NAMESPACE, STORED_BYTES, Place
from .measure import Side, Table, median, ratio, run, said, turns
from .rows import rotating, scan
from .snapshots import fresh, take

WHOLE, SMALL, COPY = "whole", "small", "copy"


class Peer(t.NamedTuple):
    """One thing that ours is compared with. ``before`` is not timed; ``work`` is given its value."""

    name: str  # short, for the figures' details
    what: str
    limit: float | None
    before: t.Callable[[], t.Any]
    work: t.Callable[[t.Any], t.Any]

    def side(self) -> Side:
        return Side(self.before, self.work)


class Served(abc.ABC):
    """An engine that is measured, its server running."""

    engine: str
    pid: int
    raw: str  # how the engine reads itself

    @abc.abstractmethod
    def params(self, name: str) -> dict[str, t.Any]:
        """A store of the server."""

    @abc.abstractmethod
    def settle(self) -> None:
        """What the server would do in the background soon after a bulk change."""

    @abc.abstractmethod
    def drop(self, name: str) -> None:
        """A store, or nothing."""

    @abc.abstractmethod
    def backups(self, place: Place, repository: t.Mapping[str, t.Any]) -> list[Peer]:
        """What saves the store WHOLE to S3."""

    @abc.abstractmethod
    def reloads(self, place: Place) -> list[Peer]:
        """What brings the store WHOLE back from a file on this machine into a place of its own."""

    @abc.abstractmethod
    def read(self) -> int:
        """Every record of the store WHOLE through the engine's own driver, nothing done with them; how many bytes."""


def compare(table: Table, place: Place, served: Served, repository: t.Mapping[str, t.Any], rounds: int) -> None:
    started = time.monotonic()
    whole = served.params(WHOLE)
    place.fill(whole, [NAMESPACE], reads=True)
    served.settle()
    print(f"Wrote the store of {served.engine} in {time.monotonic() - started:.0f} s.", flush=True)
    _snapshot(table, place, served, whole, repository, rounds)
    _restore(table, place, served, whole, {**repository, "url": f"{repository['url']}/{served.engine}"}, rounds)
    _scan(table, place, served, whole, rounds)
    _rotation(table, place, served, whole, rounds)
    small = served.params(SMALL)
    place.fill(small, [NAMESPACE], records=place.records // 10, reads=True)
    served.settle()
    print(f"{served.engine}: ", end="")
    isolating.growth(table, place, small, whole, rounds, served.pid)


def _snapshot(table: Table, place: Place, served: Served, whole: dict[str, t.Any],
              repository: t.Mapping[str, t.Any], rounds: int) -> None:  # fmt: skip
    others = served.backups(place, repository)
    sides = {"ours": Side(lambda: fresh(repository), lambda at: take(whole, place.keyring, at))}
    sides.update((peer.name, peer.side()) for peer in others)
    found = turns(rounds, sides, served.pid)
    _ratios(table, f"{served.engine}: snapshot", found, others)
    sent = ", ".join(
        f"{name} {size / 1e6:.0f} MB"
        for name, runs in found.items()
        for size in [runs[0].value["bytes"]["stored"] if name == "ours" else runs[0].value]
    )
    print(f"  sent: {sent}", flush=True)
    table.memory(f"{served.engine}: snapshot", *found["ours"])


def _restore(table: Table, place: Place, served: Served, whole: dict[str, t.Any],
             repository: t.Mapping[str, t.Any], rounds: int) -> None:  # fmt: skip
    """Into an empty store, records and their log. The peers' file is on this machine: ours comes from a directory here,
    as theirs does, and from S3."""
    copy = served.params(COPY)
    directory = place.path(f"{served.engine}.repository")

    def side(at: t.Mapping[str, t.Any]) -> Side:
        taken = run(take, whole, place.keyring, at).value["snapshot"]

        def ours(_none: None) -> None:
            found = restore.restore(
                store_params=copy, repository=at, keyring=Keyring.open(place.keyring), name="memory",
                snapshot_id=taken, namespace=NAMESPACE, create=True,
            )  # fmt: skip
            if min(found["restored"], found["log_entries"]) < place.records:  # a snapshot's canary is one more
                raise RuntimeError(f"The restore says {found}")

        return Side(lambda: served.drop(COPY), ours)

    others = served.reloads(place)
    sides = {"ours": side({"url": f"file://{directory}"}), "ours from S3": side(repository)}
    sides.update((peer.name, peer.side()) for peer in others)
    found = turns(rounds, sides, served.pid)
    served.drop(COPY)
    shutil.rmtree(directory)
    _ratios(table, f"{served.engine}: restore with check, from a directory", found, others)
    for peer in others:
        table.add(f"  the same from S3 : {peer.what}", ratio(found["ours from S3"], found[peer.name]), peer.limit)
    table.memory(f"{served.engine}: restore", *found["ours"], *found["ours from S3"])


def _ratios(table: Table, what: str, found: dict[str, t.Any], others: list[Peer]) -> None:
    for number, peer in enumerate(others):
        table.add(f"{what} : {peer.what}", ratio(found["ours"], found[peer.name]), peer.limit,
                  detail=said(found) if number == 0 else "")  # fmt: skip
    if not others:
        print(f"{what}: {said(found)}", flush=True)


def _scan(table: Table, place: Place, served: Served, whole: dict[str, t.Any], rounds: int) -> None:
    sides = {
        "keyless": Side(lambda: None, lambda _none: scan(whole, None)),
        "raw read": Side(lambda: None, lambda _none: served.read()),
        "opened": Side(lambda: None, lambda _none: scan(whole, place.keyring)),
    }
    found = turns(rounds, sides, served.pid)
    least = place.records * STORED_BYTES
    if median([ran.value for ran in found["raw read"]]) < least:
        raise RuntimeError(f"The raw read gave {found['raw read'][0].value} bytes, not {least}")
    raw = found["raw read"]
    table.add(f"{served.engine}: speed of the integrity scan : {served.raw}", ratio(raw, found["keyless"]), 0.5,
              least=True, detail=said(found))  # fmt: skip
    table.add("  the same with every payload opened", ratio(raw, found["opened"]), None)
    table.memory(f"{served.engine}: integrity scan", *found["keyless"], *found["opened"])


def _rotation(table: Table, place: Place, served: Served, whole: dict[str, t.Any], rounds: int) -> None:
    def before() -> tuple[dict[str, t.Any], dict[str, t.Any]]:
        served.settle()
        return whole, place.keyring

    sides = {
        "rotation": Side(before, rotating),
        "cores": Side(lambda: None, lambda _none: peers.two_cores(place.records, STORED_BYTES)),
    }
    found = turns(rounds, sides, served.pid)
    served.settle()
    table.add(f"{served.engine}: rotation : what two cores decrypt, encrypt and hash",
              ratio(found["cores"], found["rotation"]), 0.25, least=True, detail=said(found))  # fmt: skip
    table.memory(f"{served.engine}: rotation", *found["rotation"])


def key() -> str:
    """A prefix in the bucket that nothing was written to."""
    return "peer-" + secrets.token_hex(4)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The replicas of the server that a store is on: users are not replicated, so the fence against raw clients is raised
on each of them, too.

PRIVATE to the collection.

A replica is reached at the address by which its primary knows it, with the operator's own login. Its user gets the very
rights that the primary's has now, but only where the two differ by namespaces of the store alone: whatever else an
administrator gave or took there stays, and the proof says that the fence does not hold on it.
"""
from __future__ import annotations

import contextlib
import re
import time
import typing as t
from dataclasses import replace

from .._errors import MemoryOpsError
from .._store import WHOLE
from .valkey_cluster import replicas
from .valkey_connect import Wire, packed
from .valkey_control import space_of
from .valkey_errors import RightMissing, valkey_errors
from .valkey_fence import Fence, fences, probes, save_users
from .valkey_rules import Taken, less, rule_of
from .valkey_waits import asks_again, end_waits

PATIENCE = 2.0  # seconds for an answer of one that may be gone
ARRIVAL = 1.0  # seconds that a replica in step may take for the last writes


def listed(info: t.Any) -> list[tuple[str, int]]:
    """(host, port) of each replica in INFO replication, also of those that are not in step."""
    found = re.findall(rb"^slave\d+:ip=([^,]+),port=(\d+)", info, re.M) if isinstance(info, bytes) else []
    return [(host.decode(), int(port)) for host, port in found]


class ReplicaFence(Fence):
    """What ``fence``, ``unfence`` and ``prove`` do beyond the primary."""

    def _replicas(self) -> t.Iterator[tuple[str, Wire]]:
        """(address, a connection that may not open) of every replica, and of the replicas of those."""
        with valkey_errors(self.place):
            ahead = listed(self.wire.many([packed("INFO", "replication")])[0])
        known: set[tuple[str, int]] = set()
        while ahead:
            host, port = ahead.pop(0)
            if (host, port) in known:
                continue
            known.add((host, port))
            place = replace(self.place, host=host, port=port, sentinels=(), service="")
            wire = Wire(place, (host, port), answer=PATIENCE)
            try:
                yield wire.place.where, wire
                with contextlib.suppress(MemoryOpsError), valkey_errors(wire.place):
                    ahead += listed(wire.many([packed("INFO", "replication")])[0])
            finally:
                wire.drop()

    def _fence_replicas(self, namespace: str) -> bool:
        """Give the applications' user on each replica the rights that it has on the primary; whether that changed any.
        One that cannot be reached or may not be changed is for the proof to tell."""
        if self.place.nodes.clustered:
            self._shut_out_replicas()
            return False
        user = self._fenced_user
        try:
            said = None if user is None else self._ask("ACL", "GETUSER", user)
        except RightMissing:
            return False
        if user is None or said is None:
            return False
        wanted, noted = rule_of(said)[0], self._noted(user)
        some = noted or Taken(wanted)
        some = some._replace(fenced=some.fenced | {namespace})
        changed = False
        for _address, wire in self._replicas():
            with contextlib.suppress(MemoryOpsError), valkey_errors(wire.place):
                there = wire.many([packed("ACL", "GETUSER", user)])[0]
                present = rule_of(there)[0] if isinstance(there, list) else wanted
                if present.same(wanted):
                    continue
                for taken in (some, some._replace(fenced=frozenset(self._all_namespaces()))):
                    if less(self.names, present, taken).same(less(self.names, wanted, taken)):
                        wire.call("ACL", "SETUSER", user, *wanted.settings())
                        save_users(wire, True)
                        changed = True
                        break
        return changed

    def _let_in_beside(self, namespace: str, reading: bool) -> None:
        """Let the users in on each replica on which they stand as the note of the fence says, before the namespace
        serves: one that is promoted in that moment would keep them out, and nobody would release it again. One that
        cannot be reached prevents nothing."""
        if self.place.nodes.clustered:
            return
        with valkey_errors(self.place):
            noted = fences(self.wire, self.names)
        of = {user: one for user, one in noted.items() if namespace in (one.reading if reading else one.fenced)}
        for _address, wire in self._replicas() if of else ():
            for user, taken in of.items():
                left = taken._replace(reading=taken.reading - {namespace}) if reading else taken._replace(
                    fenced=taken.fenced - {namespace}
                )  # fmt: skip
                with contextlib.suppress(MemoryOpsError), valkey_errors(wire.place):
                    said = wire.many([packed("ACL", "GETUSER", user)])[0]
                    if isinstance(said, list) and rule_of(said)[0].same(less(self.names, taken.base, taken)):
                        wire.call("ACL", "SETUSER", user, *less(self.names, taken.base, left).settings())
                        save_users(wire, True)

    def _end_waits(self) -> None:
        """Who waited for what comes when its rights were taken would get it, where the server does not ask again."""
        user = self._fenced_user
        if user is None:
            return
        with valkey_errors(self.place):
            if asks_again(self.wire):
                return
            end_waits(self.wire, user)
            others = replicas(self.wire) if self.place.nodes.clustered else (wire for _at, wire in self._replicas())
            for wire in others:
                with contextlib.suppress(MemoryOpsError), valkey_errors(wire.place):
                    end_waits(wire, user)

    def _all_namespaces(self) -> set[str]:
        return {WHOLE, *(name.decode() for name in self._ask("HKEYS", self.names.namespaces))}

    def _prove_replicas(self, namespace: str, generation: int) -> tuple[list[str], list[str]]:
        """(detail, not fenced)."""
        detail: list[str] = []
        open_to: list[str] = []
        if self.place.nodes.clustered:  # _prove_users has asked there
            return detail, open_to
        with valkey_errors(self.place):
            if not isinstance(self.wire.many([packed("INFO", "replication")])[0], bytes):
                return detail, ["clients of its replicas: the operator may not use INFO, so nobody knows of any"]
            raw = self._ask("HGET", self.names.namespaces, namespace)
        state = "serving" if raw is None else space_of(raw, namespace, self.place.where)["state"]
        for address, wire in self._replicas():
            try:
                with valkey_errors(wire.place):
                    more = self._prove_replica(address, wire, namespace, generation, state)
            except MemoryOpsError as exc:
                open_to.append(f"clients of the replica {address}: not tried ({exc.message})")
            else:
                open_to += more
                detail.append(f"the replica {address}: {'open' if more else 'fenced, too'}")
        return detail, open_to

    def _prove_replica(self, address: str, wire: Wire, namespace: str, generation: int, state: str) -> list[str]:
        """Who gets through there. The applications' own user may do what the namespace's ``state`` lets it do."""
        lines = []
        granted = {"quarantined": (), "reading": ("read",)}.get(state, ("write", "delete", "read"))
        if state in ("quarantined", "reading") and not self._arrived(wire, namespace):
            lines.append(f"Memory at the replica {address}: the fence has not arrived there")
        for name in wire.call("ACL", "USERS"):
            user = name.decode("utf-8", "replace")
            said = wire.call("ACL", "GETUSER", name)
            if user == (self.place.user or "default") or said is None or "off" in rule_of(said)[1]:
                continue
            key = self.names.records(namespace, generation)
            replies = wire.many([packed("ACL", "DRYRUN", name, *command) for command in probes(key)])
            may = [verb for verb, reply in zip(("write", "delete", "read"), replies)
                   if not (isinstance(reply, bytes) and b"has no permissions" in reply)
                   and not (user == self._fenced_user and verb in granted)]  # fmt: skip
            if may:
                lines.append(f"raw clients of user {user} at the replica {address}: it may {', '.join(may)}")
        return lines

    def _arrived(self, wire: Wire, namespace: str) -> bool:
        """Whether the replica knows of the fence; the last writes are given a second."""
        deadline = time.monotonic() + ARRIVAL
        while True:
            raw = wire.call("HGET", self.names.namespaces, namespace)
            if raw is not None and space_of(raw, namespace, wire.place.where)["state"] != "serving":
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

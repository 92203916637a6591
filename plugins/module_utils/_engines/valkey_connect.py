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
from .valkey_cluster import Address, Nodes, addresses, clustered, elsewhere, patience, reach
from .valkey_sentinel import primary_address, sentinels_of

CONNECT_SECONDS = 5.0
ROLE_SECONDS = 1.0  # how long a connection behind Sentinel is taken to lead to the primary
OLDEST = (7, 0)
PREFIX = r"[A-Za-z0-9._:-]+|[A-Za-z0-9._:-]*\{[A-Za-z0-9._:-]+\}[A-Za-z0-9._:-]*"
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
    nodes: Nodes = field(default_factory=lambda: Nodes("", ()), repr=False, compare=False)  # of all its connections
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
    seeds = addresses(parts.netloc.rpartition("@")[2])
    db = parts.path.strip("/")
    if parts.scheme not in SCHEMES or not seeds or parts.query or parts.fragment or not re.fullmatch(r"\d{0,4}", db):
        raise InvalidInput(
            "memory_store.url does not name a Valkey or Redis server.",
            "set it to valkey://host:6379/0 (valkeys://… for TLS; of a Cluster several nodes: valkey://a:6379,b:6379), "
            "without a login",
        )
    if parts.password is not None:
        raise InvalidInput(
            "memory_store.url contains a password.", "put it into memory_store.password or memory_store.password_file"
        )
    prefix = params.get("prefix") or "memops"
    if not isinstance(prefix, str) or not re.fullmatch(PREFIX, prefix) or len(prefix) > 100:
        raise InvalidInput(
            f"memory_store.prefix is {prefix!r:.80}; only letters, digits and ._:- can be in it, one part in braces.",
            "choose another one",
        )
    secret = params.get("sentinel_password_file")
    (nodes := Nodes(prefix, seeds)).check()
    return Place(
        host=seeds[0][0] if params.get("url") else "",
        port=seeds[0][1],
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
        nodes=nodes,
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
    primary then, where Sentinel knows it, and on a Cluster to the node that owns the store's slot."""

    def __init__(self, place: Place, at: Address | None = None, answer: float | None = None) -> None:
        """``at``: stay at this server. ``answer``: seconds for one, if not as long as a store's writers wait."""
        try:
            from redis.backoff import NoBackoff
            from redis.connection import Connection, SSLConnection
            from redis.exceptions import ConnectionError as Closing
            from redis.exceptions import ResponseError
            from redis.retry import Retry
        except ImportError:
            raise MemoryOpsError(
                "The Python package redis is missing, and the store is in Valkey.", "pip install redis"
            ) from None
        self.place, self._at = place, at
        self._refusal, self._closing = ResponseError, Closing
        self._nothing = None  # what hiredis gives when no whole reply has arrived
        with contextlib.suppress(ImportError):  # it moved, or was moved away
            from redis._parsers.hiredis import NOT_ENOUGH_DATA

            self._nothing = NOT_ENOUGH_DATA
        host, port = at or (place.host, place.port)
        options: dict[str, t.Any] = {
            "host": host,
            "port": port,
            "db": place.db,
            "username": place.user,
            "password": place.password,
            "socket_connect_timeout": answer or CONNECT_SECONDS,
            "socket_timeout": answer or max(CONNECT_SECONDS, place.timeout),
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
        self._check_process()
        if self._con._sock is None:
            self.session += 1
            if self.place.sentinels and self._at is None:
                self._find_primary()
            elif self.place.nodes.tagged and self._at is None:
                reach(self)
        replies = self._exchange(commands)
        if self.place.sentinels and any("READONLY" in str(one) for one in replies if isinstance(one, Exception)):
            self.drop()  # it was the primary; the next command finds the one that is
        return replies

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreUnavailable("A store was used across a fork.", "open it again in the child process")

    def _exchange(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        self.send(commands)
        return self.received(len(commands))

    def send(self, commands: t.Sequence[bytes]) -> None:
        """For who asks several servers at once: ``received`` has to follow. Errors: as of ``many``."""
        self._check_process()
        self._con.send_packed_command([b"".join(commands)], check_health=False)

    def received(self, count: int) -> list[t.Any]:
        try:
            replies: list[t.Any] = []
            while len(replies) < count:
                replies.append(self._reply())
                replies += self._at_hand(count - len(replies))
            return replies
        except BaseException:
            self.drop()  # what is still to come belongs to no other command
            raise

    def _reply(self) -> t.Any:
        try:
            return self._con.read_response()
        except self._refusal as exc:
            return exc

    def _at_hand(self, most: int) -> list[t.Any]:
        """Replies that have arrived with the last one: from hiredis, where it is, since redis-py's look at each of them
        costs five times as much. Errors: as of ``read_response``."""
        reader = getattr(self._con._parser, "_reader", None)
        found: list[t.Any] = []
        if reader is None or self._nothing is None:
            return found
        for _more in range(most):
            reply = reader.gets()
            if reply is self._nothing:
                break
            if isinstance(reply, self._closing):
                raise reply
            found.append(reply)
        return found

    def look(self, address: Address) -> t.Any:
        """Connect to that node and look at a key of the store: what it says. Errors: ConnectionError, TimeoutError."""
        self.drop()
        self._con.host, self._con.port = address
        try:
            return self._exchange([packed("EXISTS", f"{self.place.prefix}:store")])[0]
        except BaseException:
            self.drop()
            raise

    @property
    def address(self) -> Address:
        return self._con.host, self._con.port

    def to(self, address: Address) -> Wire:
        """Another connection, that stays at one node of the Cluster."""
        return Wire(self.place, address)

    def close(self) -> None:
        self.drop()

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
        """Commands that only read: once more when the connection was lost, and where another server may become the
        store's for as long as that takes. Errors: RedisError."""
        from redis import exceptions as e

        began, lost = time.monotonic(), 0
        while True:
            try:
                replies = self._asked(commands)
                trouble = next((reply for reply in replies if isinstance(reply, Exception)), None)
            except e.AuthenticationError:
                raise
            except e.RedisError as exc:
                trouble = exc
            if trouble is None:
                return replies
            lost += 1
            if not self._passes(trouble, lost, time.monotonic() - began):
                raise trouble
            self.drop()

    def _asked(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        follows = self.place.sentinels and self._at is None and self.connected
        if follows and time.monotonic() - self._looked_at > ROLE_SECONDS:
            said, *replies = self.many([packed("HELLO", "2"), *commands])
            self._check_primary(said)  # a former primary goes on answering those who only read
            return replies
        return self.many(commands)

    def _passes(self, trouble: Exception, lost: int, waited: float) -> bool:
        """Whether it may be over by now, after ``lost`` times and ``waited`` seconds."""
        from redis import exceptions as e

        if self._at is not None or not (self.place.nodes.clustered or self.place.sentinels):
            return lost == 1 and isinstance(trouble, e.ConnectionError) and not isinstance(trouble, e.BusyLoadingError)
        if self.place.nodes.clustered:
            again = elsewhere(trouble) and waited <= patience(trouble, self.place.timeout)
        else:
            moving = (e.ConnectionError, e.TimeoutError, e.ReadOnlyError, e.MasterDownError)
            again = isinstance(trouble, moving) and (lost == 1 or waited < self.place.timeout)
        if again:
            time.sleep(0.05)
        return again

    def drop(self) -> None:
        """Close; the next command opens it again."""
        with contextlib.suppress(Exception):
            self._con.disconnect()


def hello(wire: Wire) -> dict[str, str]:
    """What the server says of itself: server, version, mode, role. Errors: RedisError, CapabilityMissing, …"""
    raw = wire.ask([packed("HELLO", "2")])[0]
    said = {
        name.decode(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in zip(raw[::2], raw[1::2])
    }
    if said.get("mode") == "cluster":
        if not wire.place.nodes.tagged:
            raise clustered(wire.place)
        wire.place.nodes.clustered = True
    else:
        wire.place.nodes.check(wire.place.where)
    numbers = tuple(int(n) for n in re.findall(r"\d+", said.get("version", ""))[:2])
    if numbers < OLDEST:
        raise CapabilityMissing(
            f"The server {wire.place.where} is {said.get('server')} {said.get('version')}, which is too old.",
            "use Valkey, or Redis from 7.0",
        )
    return said

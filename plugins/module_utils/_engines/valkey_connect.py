# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Connections to a Valkey or Redis server: where it is, commands in bulk, and its errors in words.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import re
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from .._errors import (
    CapabilityMissing,
    InvalidInput,
    MemoryOpsError,
    StoreDamaged,
    StoreUnavailable,
)
from .leases import busy_timeout

CONNECT_SECONDS = 5.0
OLDEST = (7, 0)
RESTORE = "restore it from a snapshot: ansible-playbook memops.agent_memory.restore"
#: What an application's user needs beside its key patterns, and what an operator's needs more.
RIGHTS = "+@read +@write +@transaction +@connection +eval -@dangerous"
OPERATORS_RIGHTS = "+acl +info +config|get"
SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}


class RightMissing(StoreUnavailable):
    """The server's user may not run a command. ``command`` is empty when a key is meant."""

    def __init__(self, message: str, next_step: str, command: str) -> None:
        super().__init__(message, next_step)
        self.command = command


@dataclass(frozen=True)
class Place:
    """Where a store is, and as whom to reach it. ``where`` is fit for messages: it has no login."""

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

    @property
    def where(self) -> str:
        return f"{'valkeys' if self.tls else 'valkey'}://{self.host}:{self.port}/{self.db}"


def place_of(params: t.Mapping[str, t.Any]) -> Place:
    """Errors: InvalidInput, StoreUnavailable (password file)."""
    text = params.get("url")
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
    return Place(
        host=host,
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


def password_in(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise StoreUnavailable(
            f"The password file {path} cannot be read: {why}.", "correct memory_store.password_file"
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
    """One connection. It opens itself with the first command, and again after it was lost."""

    def __init__(self, place: Place) -> None:
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
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": max(CONNECT_SECONDS, place.timeout),
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
        con.send_packed_command([b"".join(commands)], check_health=False)
        replies: list[t.Any] = []
        for _command in commands:
            try:
                replies.append(con.read_response())
            except self._refusal as exc:
                replies.append(exc)
        return replies

    def call(self, *args: t.Any) -> t.Any:
        """One command. Errors: redis.exceptions.RedisError."""
        reply = self.many([packed(*args)])[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def ask(self, commands: t.Sequence[bytes]) -> list[t.Any]:
        """Commands that only read: once more when the connection was lost. Errors: RedisError."""
        from redis import exceptions as e

        try:
            replies = self.many(commands)
        except (e.BusyLoadingError, e.AuthenticationError, e.TimeoutError):
            raise
        except e.ConnectionError:
            self.drop()
            replies = self.many(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def drop(self) -> None:
        """Close; the next command opens it again."""
        with contextlib.suppress(Exception):
            self._con.disconnect()


@contextlib.contextmanager
def valkey_errors(place: Place) -> t.Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as exc:
        raise translate(exc, place) from None  # its own text may quote what was sent


def translate(exc: Exception, place: Place) -> MemoryOpsError:
    """What an error of the server or of the connection means to the person who runs the store."""
    from redis import exceptions as e

    code, text = str(getattr(exc, "status_code", "") or ""), str(exc)
    whole = f"{code} {text}"
    where, who = place.where, f"user {place.user or 'default'}"
    if isinstance(exc, e.AuthenticationError) or "WRONGPASS" in whole or "NOAUTH" in whole:
        return StoreUnavailable(
            f"The server {where} refuses the login of {who}.",
            "correct memory_store.user and memory_store.password (or password_file)",
        )
    if isinstance(exc, e.NoPermissionError) or "NOPERM" in whole:
        command = re.search(r"run the '([a-z|]{1,40})' command", text)
        what = f"run {command[1]}" if command else "use a key of the store" if "key" in text else "do this"
        more = " +restore" if command and command[1] == "restore" else ""
        return RightMissing(
            f"The server {where} does not allow {who} to {what}.",
            f"give it what a store needs: ~{place.prefix}:* {RIGHTS} (an operator also {OPERATORS_RIGHTS}{more})",
            command[1] if command else "",
        )
    if isinstance(exc, e.BusyLoadingError) or "LOADING" in whole:
        return StoreUnavailable(
            f"The server {where} is still loading its data.", "wait until it is done, then run the same command again"
        )
    if isinstance(exc, e.ReadOnlyError) or "READONLY" in whole:
        return StoreUnavailable(
            f"The server {where} is a read-only replica.", "set memory_store.url to the primary"
        )
    if "MASTERDOWN" in whole:
        return StoreUnavailable(
            f"The server {where} is a replica that has lost its primary.", "set memory_store.url to the primary"
        )
    if isinstance(exc, e.OutOfMemoryError) or "OOM" in whole:
        return StoreUnavailable(
            f"The server {where} is full: it has used all of its maxmemory. Nothing was written.",
            "raise maxmemory or free memory, then run the same command again",
        )
    if "MISCONF" in whole:
        return StoreUnavailable(
            f"The server {where} takes no writes, because it cannot save to its disk.",
            "look at the server's log and its disk (df), then run the same command again",
        )
    if "NOREPLICAS" in whole:
        return StoreUnavailable(
            f"The server {where} takes no writes, because too few replicas follow it.",
            "bring its replicas back, then run the same command again",
        )
    if "WRONGTYPE" in whole:
        return StoreDamaged(f"The store at {where} has a key of a wrong type; another program wrote there.", RESTORE)
    if isinstance(exc, (e.MovedError, e.AskError, e.ClusterError)) or re.search(r"\b(MOVED|CROSSSLOT)\b", whole):
        return clustered(where)
    if isinstance(exc, e.TimeoutError):
        return StoreUnavailable(
            f"The server {where} did not answer in time.",
            f"check it{' and whether it speaks TLS' if place.tls else ''}: valkey-cli -h {place.host} "
            f"-p {place.port} ping",
        )
    if isinstance(exc, e.ConnectionError):
        if place.tls and re.search(r"certificate|ssl|tls", text, re.I):
            _before, failed, reason = text.partition("certificate verify failed: ")
            why = "the handshake failed"
            if "ostname mismatch" in text or "match" in text:
                why = "its certificate is for another name"
            elif failed:
                why = "its certificate is not trusted: " + re.sub(r"\s*\(_?ssl.*", "", reason)
            elif re.search(r"certificate required|unknown ca", text):
                why = "it wants a client certificate that it trusts"
            elif "EOF occurred" in text:
                why = "it hung up, as one does that wants a client certificate it trusts"
            return StoreUnavailable(
                f"No TLS connection to the server {where}: {why}.",
                "correct memory_store.url, tls_ca, tls_cert or tls_key",
            )
        return StoreUnavailable(
            f"The server {where} cannot be reached{_why(text)}.",
            f"check memory_store.url and that the server runs (and whether it wants "
            f"{'a client certificate' if place.tls else 'TLS'}): valkey-cli -h {place.host} -p {place.port} ping",
        )
    if "unknown command" in text.lower():
        return StoreUnavailable(
            f"The server {where} does not know a command that the store needs.", "use Valkey, or Redis from 7.0"
        )
    return StoreUnavailable(f"The server {where} refused a command ({code or 'ERR'}).", "look at the server's log")


def _why(text: str) -> str:
    for sign, words in (
        ("refused", "the connection was refused"), ("reset", "the connection was reset"),
        ("closed", "it closed the connection"), ("Name or service", "its name is not known"),
        ("No route", "there is no route to it"), ("imeout", "it does not answer"),
        ("max number of clients", "it has too many clients"), ("certificate", "its certificate is not accepted"),
    ):  # fmt: skip
        if sign in text:
            return f": {words}"
    return ""


def clustered(where: str) -> MemoryOpsError:
    return CapabilityMissing(
        f"The server {where} runs in cluster mode, which this engine cannot use yet.",
        "use a server or a replica set without cluster mode",
    )


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

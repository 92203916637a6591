# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Sentinel as the one who knows which server is the primary: its options, and the question.

PRIVATE to the collection.
"""
from __future__ import annotations

import typing as t
import urllib.parse

from .._errors import InvalidInput, StoreUnavailable

if t.TYPE_CHECKING:
    from .valkey_connect import Place

PORT = 26379
ANSWER_SECONDS = 2.0  # for one Sentinel; another one is asked then


def sentinels_of(params: t.Mapping[str, t.Any]) -> tuple[tuple[str, int], ...]:
    """(host, port) of each; empty when Sentinel is not used. Errors: InvalidInput."""
    given = params.get("sentinels") or ()
    service = params.get("sentinel_service")
    if not given and not service:
        return ()
    if isinstance(given, str) or not given or not isinstance(service, str) or not service:
        raise InvalidInput(
            "memory_store.sentinels and memory_store.sentinel_service go together.",
            "set both: sentinels: [host:26379, …] and sentinel_service: mymaster",
        )
    found = []
    for text in given:
        try:
            parts = urllib.parse.urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port or PORT
        except ValueError:
            host, port = None, PORT
        if not host or parts.path or parts.username is not None:
            raise InvalidInput(f"memory_store.sentinels has {text!r:.80}.", "write each as host:26379")
        found.append((host, port))
    return tuple(found)


def sentinel_client(place: Place, host: str, port: int) -> t.Any:
    """A client of one Sentinel, by its login; its answers are text. It connects with the first command."""
    from redis import Redis

    return Redis(host, port, decode_responses=True, **_options(place))


def primary_address(place: Place) -> tuple[str, int]:
    """Where the primary is now, as Sentinel says. Errors: StoreUnavailable; redis.exceptions.ConnectionError while
    there is none that works."""
    from redis import sentinel as library
    from redis.exceptions import ConnectionError as Lost

    untyped: t.Any = library
    with untyped.Sentinel(place.sentinels, sentinel_kwargs=_options(place)) as sentinel:
        try:
            host, port = sentinel.discover_master(place.service)
        except Lost as exc:
            if sentinel_refuses(exc):
                raise login_refused(place) from None
            raise Lost(f"no Sentinel names a primary for {place.service}") from None
    return str(host), int(port)


def sentinel_refuses(exc: Exception) -> bool:
    """Whether this is about the login."""
    return any(sign in str(exc) for sign in ("WRONGPASS", "NOAUTH", "NOPERM", "uthentication", "username-password"))


def login_refused(place: Place) -> StoreUnavailable:
    return StoreUnavailable(
        f"The Sentinels of {place.service} refuse the login of user {place.sentinel_user or 'default'}.",
        "correct memory_store.sentinel_user and memory_store.sentinel_password_file",
    )


def _options(place: Place) -> dict[str, t.Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, t.Any] = {
        "username": place.sentinel_user,
        "password": place.sentinel_password,
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    if place.tls:
        options.update(ssl=True, ssl_ca_certs=place.tls_ca, ssl_certfile=place.tls_cert, ssl_keyfile=place.tls_key)
    return options

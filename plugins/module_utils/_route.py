# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The route file: which store serves which namespace. Applications follow it; failover and failback switch it.

PRIVATE to the collection. Format 1::

    {"format": 1, "generation": n, "default": {store parameters}, "namespaces": {name: {store parameters}}}

``generation`` grows with every change. A namespace without an entry of its own is served by ``default``. The file holds
no password: an application reads its own from the ``password_file`` that an entry names.
"""
from __future__ import annotations

import fcntl
import json
import os
import typing as t

from ._codec import check_namespace
from ._errors import InvalidInput, StoreUnavailable
from ._files import replace_file
from ._store_address import location

FORMAT = 1
Route = t.Dict[str, t.Any]


def read_route(path: str) -> Route:
    """The route file's content. Errors: InvalidInput (relative path, damaged file), StoreUnavailable (missing)."""
    _absolute("route file", path)
    try:
        with open(path, "rb") as file:
            raw = file.read(64 << 20)
    except FileNotFoundError:
        raise StoreUnavailable(
            f"There is no route file {path}.",
            "correct its path, or write one: "
            '{"format": 1, "generation": 1, "default": {"engine": "sqlite", "path": "/…/memory.db"}}',
        ) from None
    except OSError as exc:
        raise StoreUnavailable(
            f"The route file {path} cannot be read: {exc.strerror}.", f"let this user read {path}"
        ) from None
    try:
        route = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(route, dict):
        raise _damaged(path, "it is not a mapping")
    if route.get("format") != FORMAT:
        raise _damaged(path, f"its format is {route.get('format')!r:.20}, not {FORMAT}")
    generation, namespaces = route.get("generation"), route.get("namespaces", {})
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 1:
        raise _damaged(path, "its generation is not a number from 1")
    if not isinstance(namespaces, dict):
        raise _damaged(path, "namespaces is not a mapping")
    for where, store in [("default", route.get("default")), *namespaces.items()]:
        if not isinstance(store, dict) or not store:
            raise _damaged(path, f"the entry {where!r:.60} holds no store parameters")
        _store(store)
    return {"format": FORMAT, "generation": generation, "default": route["default"], "namespaces": namespaces}


def resolve(route: t.Mapping[str, t.Any], namespace: str) -> dict[str, t.Any]:
    """The store parameters that serve ``namespace``."""
    return dict(route["namespaces"].get(namespace) or route["default"])


def for_applications(store: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a route says of a store that an operator's parameters describe: where it is, and who applications are there.

    With ``application_user`` they are that user, with the password in ``application_password_file`` (a file on their
    hosts); else what the operator's parameters name. A password itself never goes into a route.
    """
    secret = {
        "password", "application_user", "application_password_file", "application_key", "application_key_file", "server"
    }  # fmt: skip
    kept = {key: value for key, value in store.items() if key not in secret and value is not None}
    if store.get("application_user"):
        for name in ("password_file", "tls_cert", "tls_key"):
            kept.pop(name, None)
        kept["user"] = store["application_user"]
        if store.get("application_password_file"):
            kept["password_file"] = store["application_password_file"]
    return kept


def switch_route(path: str, namespace: str | None, store: t.Mapping[str, t.Any] | None) -> bool:
    """Point a namespace (None: the default) at ``store``; whether the file changed.

    ``store`` None takes the namespace's own entry away, so that the default serves it again. A missing file is made
    when the default is set. Atomic and durable. Errors: InvalidInput, StoreUnavailable.
    """
    _absolute("route file", path)
    if namespace is not None:
        check_namespace(namespace)
    elif store is None:
        raise InvalidInput("The default of a route cannot be taken away.", "name the store that becomes the default")
    if store is not None:
        _store(store)

    def change(route: Route) -> Route:
        if namespace is None:
            return {**route, "default": dict(store or {})}
        others = {name: entry for name, entry in route["namespaces"].items() if name != namespace}
        return {**route, "namespaces": others if store is None else {**others, namespace: dict(store)}}

    return _rewrite(path, change, make=namespace is None)


def lead_all(route: Route, former: t.Mapping[str, t.Any], store: t.Mapping[str, t.Any]) -> Route:
    """The route when everything that led to the place of ``former`` follows the default, which leads to ``store``."""
    both = (location(former), location(store))
    kept = {name: entry for name, entry in route["namespaces"].items() if location(entry) not in both}
    mine = route["default"] is None or location(route["default"]) in both
    return {**route, "default": dict(store) if mine else route["default"], "namespaces": kept}


def switch_all(path: str, former: t.Mapping[str, t.Any], store: t.Mapping[str, t.Any]) -> bool:
    """Point all that led to ``former`` at ``store``, in one write; whether the file changed."""
    _absolute("route file", path)
    _store(store)
    return _rewrite(path, lambda route: lead_all(route, former, store), make=True)


def _rewrite(path: str, change: t.Callable[[Route], Route], *, make: bool) -> bool:
    try:
        path = os.path.realpath(path)
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _unwritable(path, exc) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if make and not os.path.exists(path):
            route: Route = {"format": FORMAT, "generation": 0, "default": None, "namespaces": {}}
        else:
            route = read_route(path)
        wanted = change(route)
        if wanted == route:
            return False
        body = {**wanted, "generation": route["generation"] + 1}
        try:
            replace_file(path, json.dumps(body, indent=1).encode() + b"\n")
        except OSError as exc:
            raise _unwritable(path, exc) from None
        return True
    finally:
        os.close(lock)


def _absolute(what: str, path: t.Any) -> None:
    if not isinstance(path, str) or not os.path.isabs(path):
        raise InvalidInput(f"The path of a {what} must be absolute, not {path!r:.80}.", "write the path from /")


def _store(store: t.Mapping[str, t.Any]) -> None:
    if store.get("path") is not None:
        _absolute("store in a route", store["path"])
    if store.get("password") is not None:
        raise InvalidInput(
            "A store in a route has a password, and every application reads the route.",
            "put it into a file that only the application reads, and name that in password_file",
        )


def _damaged(path: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"The route file {path} is damaged: {why}.", "put back a good copy; no application moves until then"
    )


def _unwritable(path: str, exc: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"The route file {path} cannot be written: {exc.strerror}; it is as it was before.",
        f"make the directory of {path} writable and free some space",
    )

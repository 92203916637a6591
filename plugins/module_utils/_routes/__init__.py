# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""How applications find the store that serves a namespace, and moving that.

PRIVATE to the collection. A kind of route says where it leads and leads elsewhere; ``move`` does the rest:
probe, apply, check.
"""

from __future__ import annotations

import typing as t

from .._errors import InvalidInput, RouteShared

Position = t.Optional[t.Dict[str, t.Any]]


class Route(t.Protocol):
    """One way to the store. Positions are JSON-able and compared as a whole; None: it leads nowhere yet."""

    #: What moves with it: "namespace", or "store" with every namespace in it.
    unit: str
    #: What it is, for people.
    name: str

    def current(self) -> Position:
        """Where it leads. Errors: RouteUnavailable, InvalidInput."""

    def wanted(self) -> Position:
        """The position that ``switch`` makes."""

    def elsewhere(self, position: Position) -> bool:
        """Whether ``position`` leads applications to another store than the one asked for."""

    def switch(self) -> None:
        """Lead there; what it raises says what it left. Errors: RouteUnavailable, InvalidInput, CannotProceed."""

    def check(self) -> None:
        """That it leads there now. Errors: RouteUnavailable."""

    def warnings(self) -> list[str]:
        """What is allowed and not wise."""


class Moved(t.NamedTuple):
    before: Position
    after: Position
    changed: bool
    elsewhere: bool  # whether it led to another store before


def move(route: Route, *, along: t.Sequence[str] = (), check: bool = False) -> Moved:
    """Let ``route`` lead where it was opened for. ``along``: namespaces that must not be moved by it.

    Errors: RouteShared, and those of the route.
    """
    if along and route.unit == "store":
        others = ", ".join(sorted(along)[:5]) + (f" and {len(along) - 5} more" if len(along) > 5 else "")
        raise RouteShared(
            f"{route.name} leads to the whole store, so {others} would move along.",
            "name all of them in memory_namespace of the failover and failback playbooks, or give each namespace a way "
            "of its own (memory_route.kind=file; kind=haproxy with {namespace} in memory_route.backend, or with "
            "memory_route.map)",
        )
    before, wanted = route.current(), route.wanted()
    elsewhere = route.elsewhere(before)
    if before == wanted:
        return Moved(before, wanted, False, False)
    if check:
        return Moved(before, wanted, True, elsewhere)
    route.switch()
    route.check()
    return Moved(before, route.current(), True, elsewhere)


def open_route(
    params: t.Mapping[str, t.Any],
    namespace: str,
    *,
    to: str | None = None,
    target: t.Mapping[str, t.Any] | None = None,
    former: t.Mapping[str, t.Any] | None = None,
) -> Route:
    """The route of ``params`` (the variable memory_route), to be led to the memory host ``to`` with store ``target``.
    With ``former`` it is led there for all that it led to that store.

    Errors: InvalidInput.
    """
    kind = params.get("kind") or "file"
    if kind == "file":
        from .file import FileRoute, WholeFileRoute

        if former and target:
            return WholeFileRoute(params, target, former)

        return FileRoute(params, namespace, target)
    if not to:
        raise InvalidInput("It is not said where the route is to lead.", "name a memory host in to, or in home")
    if kind == "haproxy":
        from .haproxy import HAProxyRoute

        return HAProxyRoute(params, namespace, to)
    if kind == "route53":
        from .route53 import Route53Route

        return Route53Route(params, to)
    raise InvalidInput(f"A route of kind {kind!r:.40} is not moved by the collection.", "see memory_route.kind")


def host_names(params: t.Mapping[str, t.Any], option: str, to: str) -> dict[str, str]:
    """``params[option]``: what stands for each memory host. Errors: InvalidInput when ``to`` is not in it."""
    given = params.get(option) or {}
    names = {str(host): str(name) for host, name in given.items()}
    if to not in names:
        raise InvalidInput(
            f"memory_route.{option} does not say what stands for {to}.",
            f"add {to} to memory_route.{option}",
        )
    if len(set(names.values())) < len(names):
        raise InvalidInput(
            f"memory_route.{option} has the same name for two memory hosts.", "give each of them one of its own"
        )
    return names

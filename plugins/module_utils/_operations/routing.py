# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Move a namespace's route, and remember at its home where a route leads that nobody can ask.

PRIVATE to the collection.
"""

from __future__ import annotations

import typing as t

from .._errors import InvalidInput
from .._routes import Position, Route, move, open_route
from .._store import Store
from . import incident as incidents
from .incident import Run

NOTED = ("tasks", "none")


class NotedRoute:
    """A route that others move: the user's own tasks, or the applications themselves.

    Where it leads is a fact of the open incident at home: {"to": host, "done": bool}, and no fact when it leads home.
    With ``begin`` only the intent is noted, so that a run that is cut short knows that the route may lead anywhere.
    """

    unit = "namespace"

    def __init__(
        self, kind: str, store: Store, namespace: str, run: Run, *, home: str, to: str, begin: bool = False
    ) -> None:
        self.name = "The user's own route" if kind == "tasks" else "A route that is not the collection's to move"
        self._store, self._namespace, self._run = store, namespace, run
        self._home, self._to, self._begin = home, to, begin

    def current(self) -> Position:
        known = incidents.facts(self._store, self._namespace, self._run.incident)[1]
        return dict(known.get("route") or {"to": self._home, "done": True})

    def wanted(self) -> Position:
        return {"to": self._to, "done": True}

    def elsewhere(self, position: Position) -> bool:
        return position != self.wanted()

    def switch(self) -> None:
        claim = incidents.claim(self._store, self._namespace, self._run)
        home = self._to == self._home and not self._begin
        self._store.note(claim, route=None if home else {"to": self._to, "done": not self._begin})

    def check(self) -> None:
        """There is nothing that could be asked."""

    def warnings(self) -> list[str]:
        return []


def move_route(
    *,
    params: t.Mapping[str, t.Any],
    namespace: str,
    home: str | None,
    to: str | None,
    target: t.Mapping[str, t.Any] | None,
    along: t.Sequence[str],
    begin: bool,
    open_store: t.Callable[[], Store],
    run: Run,
    former: t.Mapping[str, t.Any] | None = None,
    check: bool = False,
) -> dict[str, t.Any]:
    """Lead ``namespace`` to the memory host ``to`` (default: ``home``).

    Returns {changed, away (whether it led to another store before), before, after, route (what moved, for people),
    warnings}. Errors: InvalidInput, RouteShared, RouteUnavailable, StoreUnavailable.
    """
    kind = params.get("kind") or "file"
    route: Route
    if kind in NOTED:
        if not home:
            raise InvalidInput("It is not said where the namespace is at home.", "name its memory host in home")
        route = NotedRoute(kind, open_store(), namespace, run, home=home, to=to or home, begin=begin)
    else:
        route = open_route(params, namespace, to=to or home, target=target, former=former)
    moved = move(route, along=along, check=check)
    return {
        "changed": moved.changed,
        "away": moved.elsewhere,
        "before": moved.before,
        "after": moved.after,
        "route": route.name,
        "warnings": route.warnings(),
    }


def noted_away(store: Store, namespace: str, incident: str | None) -> bool:
    """Whether a route that nobody can ask was led away from here and is not home again."""
    return bool(incidents.facts(store, namespace, incident)[1].get("route"))

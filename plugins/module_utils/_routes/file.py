# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The route file as a route: each namespace may have an entry of its own.

PRIVATE to the collection.
"""

from __future__ import annotations

import os
import typing as t

from .._errors import InvalidInput, RouteUnavailable
from .._route import for_applications, lead_all, read_route, resolve, switch_all, switch_route
from .._store_address import location
from . import Position


class FileRoute:
    """Parameters: path, default. ``target``: store parameters; None follows the default again.

    Both are an operator's; the file gets what applications need of them. Positions: store parameters, and ``own`` where
    they stand in an entry of the namespace's own: on two hosts a file may lie at the same path, and then nothing else
    tells whether the namespace is at home.
    """

    unit = "namespace"

    def __init__(
        self, params: t.Mapping[str, t.Any], namespace: str, target: t.Mapping[str, t.Any] | None = None
    ) -> None:
        if not params.get("path"):
            raise InvalidInput("The route file is not named.", "set memory_route.path")
        self._path = str(params["path"])
        self._default = for_applications(params["default"]) if params.get("default") else None
        self._namespace = namespace
        self._target = for_applications(target) if target else None
        self.name = f"The route file {self._path}"

    def current(self) -> Position:
        if not os.path.exists(self._path):
            return None
        found = read_route(self._path)
        return {**resolve(found, self._namespace), **({"own": True} if self._namespace in found["namespaces"] else {})}

    def wanted(self) -> Position:
        missing = not os.path.exists(self._path)
        if missing and self._default is None:
            raise InvalidInput(
                f"The route file {self._path} does not exist.", "set memory_route.default so that it can be made"
            )
        if self._target is not None:
            return {**self._target, "own": True}
        return dict(self._default if missing and self._default else read_route(self._path)["default"])

    def elsewhere(self, position: Position) -> bool:
        if position is None:
            return False
        return location(position) != location(self.wanted() or {}) or (self._target is None and "own" in position)

    def switch(self) -> None:
        if self._default is not None and not os.path.exists(self._path):
            switch_route(self._path, None, self._default)
        switch_route(self._path, self._namespace, self._target)

    def check(self) -> None:
        if self.current() != self.wanted():
            raise RouteUnavailable(
                f"{self.name} was changed again by somebody else.", "look at the file and run the same command again"
            )

    def warnings(self) -> list[str]:
        return []


class WholeFileRoute:
    """The route file when all that led to the store ``former`` has to lead to ``target``. Positions: the whole file
    but for its generation."""

    unit = "store"

    def __init__(
        self, params: t.Mapping[str, t.Any], target: t.Mapping[str, t.Any], former: t.Mapping[str, t.Any]
    ) -> None:
        if not params.get("path"):
            raise InvalidInput("The route file is not named.", "set memory_route.path")
        self._path = str(params["path"])
        self._target, self._former = for_applications(target), for_applications(former)
        self.name = f"The route file {self._path}"

    def current(self) -> Position:
        if not os.path.exists(self._path):
            return None
        found = read_route(self._path)
        return {"default": found["default"], "namespaces": found["namespaces"]}

    def wanted(self) -> Position:
        found = self.current() or {"default": None, "namespaces": {}}
        return lead_all(found, self._former, self._target)

    def elsewhere(self, position: Position) -> bool:
        return position is not None and position != self.wanted()

    def switch(self) -> None:
        switch_all(self._path, self._former, self._target)

    def check(self) -> None:
        if self.current() != self.wanted():
            raise RouteUnavailable(
                f"{self.name} was changed again by somebody else.", "look at the file and run the same command again"
            )

    def warnings(self) -> list[str]:
        return []

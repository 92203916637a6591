# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""HAProxy as a route: one server of a backend is in service, or an entry of a map names the backend.

PRIVATE to the collection. Several instances are moved all or not at all. No file of HAProxy's is written: what
survives a reload is what its own server state file has.
"""

from __future__ import annotations

import re
import time
import typing as t
from contextlib import suppress

from .._errors import InvalidInput, MemoryOpsError, RouteUnavailable
from .._words import counted
from . import Position, host_names
from .haproxy_runtime import Runtime, Server

NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # of a backend or server, as HAProxy takes them
WORD = re.compile(r"[^\s;\\\x00-\x1f]+")  # what its runtime API takes unquoted
NOBODY = "nobody"
PAUSE = 0.1  # seconds between two looks at a server that is to become healthy


class HAProxyRoute:
    """Parameters: sockets, backend or map and key, servers, timeout.

    Positions: socket -> {host, sessions_elsewhere}.
    """

    def __init__(self, params: t.Mapping[str, t.Any], namespace: str, to: str) -> None:
        self._timeout = float(params.get("timeout") or 10.0)
        self._instances = [Runtime(str(address), self._timeout) for address in params.get("sockets") or []]
        if not self._instances:
            raise InvalidInput("No HAProxy is named.", "set memory_route.sockets")
        if bool(params.get("backend")) == bool(params.get("map")):
            raise InvalidInput(
                "memory_route has to name either the backend of HAProxy or its map.",
                "set one of memory_route.backend and memory_route.map",
            )
        self._map = _matching(WORD, "map", params["map"]) if params.get("map") else None
        template = str(params.get("key") or "{namespace}") if self._map else str(params["backend"])
        self.unit = "namespace" if "{namespace}" in template else "store"
        if self._map and self.unit == "store":
            raise InvalidInput(
                f"memory_route.key {template!r:.80} is the same for every namespace.", "write {namespace} into it"
            )
        named = host_names(params, "servers", to)
        self._servers = {host: _matching(NAME, "servers", name) for host, name in named.items()}
        self._hosts = {server: host for host, server in self._servers.items()}
        self._to = to
        filled = template.replace("{namespace}", namespace)
        if self._map:
            self._key = _matching(WORD, "key", filled)
            self.name = f"Entry {self._key} of HAProxy's map {self._map}"
        else:
            self._backend = _matching(NAME, "backend", filled)
            self.name = f"HAProxy's backend {self._backend}"

    def current(self) -> Position:
        return {runtime.address: self._position(runtime) for runtime in self._instances}

    def wanted(self) -> Position:
        return {runtime.address: {"host": self._to, "sessions_elsewhere": 0} for runtime in self._instances}

    def elsewhere(self, position: Position) -> bool:
        return any(where["host"] not in (self._to, NOBODY) for where in (position or {}).values())

    def switch(self) -> None:
        # All are asked before one is changed: what cannot be reached, or is not as declared, costs nothing.
        before = [(runtime, self._state(runtime)) for runtime in self._instances]
        begun: list[tuple[Runtime, list[str]]] = []
        try:
            for runtime, state in before:
                begun.append((runtime, state.back))
                runtime.order(*state.forth)
            self.check()
        except MemoryOpsError as exc:
            left = [runtime.address for runtime, back in begun if not _done(runtime, back)]
            said = f"it could not be put back at {', '.join(left)}" if left else "every instance is as it was before"
            raise RouteUnavailable(f"{exc.message} {self.name} was not moved; {said}.", exc.next_step) from None

    def check(self) -> None:
        waiting = list(self._instances)
        ends = time.monotonic() + self._timeout
        while True:
            waiting = [runtime for runtime in waiting if self._lacks(runtime)]
            if not waiting:
                return
            if time.monotonic() > ends:
                break
            time.sleep(PAUSE)
        raise RouteUnavailable(
            f"HAProxy at {waiting[0].address}: {self._lacks(waiting[0])} after {self._timeout:g} s.",
            f"see that HAProxy reaches {self._to} and that its health check passes there",
        )

    def warnings(self) -> list[str]:
        return []

    def _lacks(self, runtime: Runtime) -> str:
        """What is still missing at one instance; empty when nothing is."""
        position = self._position(runtime)
        if position["host"] != self._to:
            return f"{self.name} leads to {position['host']}"
        if position["sessions_elsewhere"]:
            return counted(position["sessions_elsewhere"], "session is", "sessions are") + " still open elsewhere"
        servers = runtime.servers(self._servers[self._to] if self._map else self._backend)
        chosen = servers.values() if self._map else [servers[self._servers[self._to]]]
        return "" if any(server.up for server in chosen) else f"the way to {self._to} is not up"

    def _position(self, runtime: Runtime) -> dict[str, t.Any]:
        if self._map:
            return {"host": self._hosts[self._entry(runtime)], "sessions_elsewhere": 0}
        servers = self._declared(runtime)
        ready = [s for s in servers.values() if s.state == "ready"]
        serving = [s.name for s in ready if not s.backup] or [s.name for s in ready]
        if len(serving) > 1:
            raise InvalidInput(
                f"{self.name} has {' and '.join(sorted(serving))} in service at once (HAProxy at {runtime.address}).",
                "declare all but the primary's server 'backup' or 'disabled' there; where health checks decide, "
                "set memory_route.kind=none",
            )
        elsewhere = sum(servers[name].sessions for name in self._hosts if name not in serving)
        return {"host": self._hosts[serving[0]] if serving else NOBODY, "sessions_elsewhere": elsewhere}

    def _entry(self, runtime: Runtime) -> str:
        found = runtime.entry(self._map or "", self._key)
        if found not in self._hosts:
            what = f"leads to {found}, which is no backend of memory_route.servers" if found else "is not there"
            raise InvalidInput(
                f"{self.name} {what} (HAProxy at {runtime.address}).",
                "add the entry to the map and reload HAProxy, or correct memory_route",
            )
        return str(found)

    def _declared(self, runtime: Runtime) -> dict[str, Server]:
        """The backend's servers. Errors: InvalidInput when they are not those that stand for memory hosts."""
        servers = runtime.servers(self._backend)
        absent = sorted(set(self._hosts) - set(servers))
        foreign = sorted(name for name, s in servers.items() if name not in self._hosts and s.state == "ready")
        if absent or foreign:
            what = f"lacks the server {absent[0]}" if absent else f"has the server {foreign[0]} in service, too"
            raise InvalidInput(
                f"{self.name} {what} (HAProxy at {runtime.address}).",
                "let memory_route.servers name the server of each memory host",
            )
        return servers

    def _state(self, runtime: Runtime) -> Orders:
        """What leads there, and what leads back."""
        if self._map:
            old, new = self._entry(runtime), self._servers[self._to]
            runtime.servers(new)
            cut = [f"shutdown sessions server {old}/{name}" for name in runtime.servers(old)] if old != new else []
            entry = f"set map {self._map} {self._key}"
            return Orders([f"{entry} {new}", *cut], [f"{entry} {old}"])
        servers = self._declared(runtime)
        mine = self._servers[self._to]
        others = [name for name in self._hosts if name != mine]
        return Orders(
            [
                *(f"set server {self._backend}/{name} state maint" for name in others),
                f"set server {self._backend}/{mine} state ready",
                *(f"shutdown sessions server {self._backend}/{name}" for name in others),
            ],
            [f"set server {self._backend}/{name} state {servers[name].state}" for name in [mine, *others]],
        )


class Orders(t.NamedTuple):
    forth: list[str]
    back: list[str]


def _done(runtime: Runtime, orders: list[str]) -> bool:
    with suppress(MemoryOpsError):
        runtime.order(*orders)
        return True
    return False


def _matching(pattern: re.Pattern[str], option: str, value: t.Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInput(
            f"HAProxy does not take {value!r:.80}, which memory_route.{option} stands for.",
            f"name it in letters, digits, '.', '_', ':' and '-' in memory_route.{option}",
        )
    return value

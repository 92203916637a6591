# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A change of roles under Sentinel, by Sentinel: anything else it would turn back.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import time
import typing as t

from .._engines.valkey_connect import Place
from .._engines.valkey_sentinel import login_refused, sentinel_client, sentinel_refuses
from .._errors import CannotProceed, StoreUnavailable

if t.TYPE_CHECKING:
    from .valkey import ValkeyServer

POLL_SECONDS = 0.05
HEAR_SECONDS = 12.0  # it asks a server every ten what it is
DOWN = ("s_down", "o_down", "disconnected", "failover_in_progress")


class NotYet(CannotProceed):
    """What Sentinel may see otherwise in a moment."""


class Sentinels:
    """Those that watch one service. Whoever is asked for a failover carries it out, so one is asked for all."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def promote(self, server: ValkeyServer, deadline: float, *, answers: bool) -> None:
        """Make that replica the primary. ``answers``: whether the primary does; Sentinel may not have missed it yet.
        Errors: as of Server.promote."""
        from redis.exceptions import RedisError

        asked = False
        try:
            with self._first() as sentinel:
                primary = self._ask(sentinel, "SENTINEL", "MASTERS", one=self.place.service)
                alive = answers and not any(flag in primary["flags"] for flag in DOWN)
                wanted = self._heard(sentinel, server, deadline, linked=alive)
                self._check_quorum(sentinel)
                with self._preferred(sentinel, server, wanted, deadline):
                    asked = True
                    self._fail_over(sentinel, alive=alive)
                    self._await(server, (wanted["ip"], wanted["port"]), deadline)
        except (RedisError, StoreUnavailable) as exc:
            lost = exc if isinstance(exc, StoreUnavailable) else self._lost()
            raise (lost if asked else CannotProceed(lost.message, lost.next_step)) from None

    def name(self, server: ValkeyServer) -> bool:
        """Whether all of them that answer, and enough for a quorum, say that this server is the primary."""
        with self._first() as sentinel:
            self._check_quorum(sentinel)
            primary = self._ask(sentinel, "SENTINEL", "MASTERS", one=self.place.service)
        return primary.get("runid") == server.run_id and self._named() == {(str(primary["ip"]), str(primary["port"]))}

    # --- what they know -----------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _first(self) -> t.Iterator[t.Any]:
        """The first one that answers."""
        for host, port in self.place.sentinels:
            client = sentinel_client(self.place, host, port)
            with contextlib.closing(client):
                if self._answers(client):
                    yield client
                    return
        raise CannotProceed(
            f"No Sentinel of {self.place.service} answers. Nothing was changed.",
            f"check memory_store.sentinels: {self.place.look}",
        )

    def _answers(self, client: t.Any) -> bool:
        from redis.exceptions import RedisError

        try:
            client.ping()
        except RedisError as exc:
            if sentinel_refuses(exc):
                raise login_refused(self.place) from None
            return False
        return True

    def _ask(self, client: t.Any, *args: str, one: str = "") -> t.Any:
        """The answer; with ``one`` its entry of that name. Errors: StoreUnavailable."""
        from redis.exceptions import RedisError

        try:
            found = client.execute_command(*args)
        except RedisError as exc:
            if sentinel_refuses(exc):
                raise login_refused(self.place) from None
            raise self._lost() from None
        if not one:
            return found
        known = next((entry for entry in _entries(found) if entry.get("name") == one), None)
        if known is None:
            raise CannotProceed(
                f"The Sentinels know no service {one!r:.80}.", "correct memory_store.sentinel_service"
            )
        return known

    def _lost(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"A Sentinel of {self.place.service} refused a command or was lost.", f"look at it: {self.place.look}"
        )

    def _heard(self, sentinel: t.Any, server: ValkeyServer, deadline: float, *, linked: bool) -> dict[str, str]:
        """As ``_find``, once Sentinel has asked the server again: it may have become a replica just now."""
        patience = min(deadline, time.monotonic() + HEAR_SECONDS)
        while True:
            try:
                return self._find(sentinel, server, linked=linked)
            except NotYet:
                if time.monotonic() >= patience:
                    raise
            time.sleep(POLL_SECONDS)

    def _find(self, sentinel: t.Any, server: ValkeyServer, *, linked: bool = False) -> dict[str, str]:
        """This replica as Sentinel knows it, and ``linked`` to its primary. Errors: CannotProceed."""
        me = server.run_id
        found = next((one for one in self._replicas(sentinel) if one.get("runid") == me), None)
        where, service = server.place.where, self.place.service
        if found is None:
            raise NotYet(
                f"The Sentinels of {service} do not know the replica {where} (yet). Nothing was changed.",
                f"wait, or compare with: {self.place.look}",
            )
        kind, why = CannotProceed, None
        if any(flag in found["flags"] for flag in DOWN) or (linked and found.get("master-link-status") != "ok"):
            kind, why = NotYet, "is not in order in their eyes"
        elif found.get("slave-priority") == "0":
            why = "has replica-priority 0, so that they never promote it"
        if why:
            raise kind(
                f"The Sentinels of {service} will not promote the replica {where}: it {why}. Nothing was changed.",
                "mend that, then run the same command again",
            )
        return found

    def _replicas(self, sentinel: t.Any) -> list[dict[str, str]]:
        return _entries(self._ask(sentinel, "SENTINEL", "REPLICAS", self.place.service))

    def _check_quorum(self, sentinel: t.Any) -> None:
        from redis.exceptions import ResponseError

        try:
            sentinel.execute_command("SENTINEL", "CKQUORUM", self.place.service)
        except ResponseError as exc:
            if sentinel_refuses(exc):
                raise login_refused(self.place) from None
            raise CannotProceed(
                f"The Sentinels of {self.place.service} have no quorum: they can promote nobody. Nothing was changed.",
                f"bring the others back: {self.place.look}",
            ) from None

    # --- what they do -------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _preferred(
        self, sentinel: t.Any, server: ValkeyServer, wanted: t.Mapping[str, str], deadline: float
    ) -> t.Iterator[None]:
        """Sentinel takes the replica with the lowest priority that is not 0; what it was comes back."""
        before = wanted["slave-priority"]
        rivals = [
            int(one["slave-priority"])
            for one in self._replicas(sentinel)
            if one.get("runid") != wanted["runid"] and one.get("slave-priority", "0") != "0"
        ]
        if not rivals or int(before) < min(rivals):
            yield
            return
        if min(rivals) <= 1:
            raise CannotProceed(
                f"Another replica of {self.place.service} has the lowest replica-priority there is. Nothing was "
                "changed.",
                f"raise it there, or give {server.place.where} a lower one than all others",
            )
        server.setting("replica-priority", str(min(rivals) - 1))
        try:
            while int(self._find(sentinel, server)["slave-priority"]) >= min(rivals):  # it asks every ten seconds
                if time.monotonic() >= deadline:
                    raise CannotProceed(
                        f"Sentinel did not hear in time that {server.place.where} is to be the primary. The roles are "
                        "as they were.",
                        "allow more time, then run the same command again",
                    )
                time.sleep(POLL_SECONDS)
            yield
        finally:
            server.setting("replica-priority", before)

    def _fail_over(self, sentinel: t.Any, *, alive: bool) -> None:
        """With the primary's help where it lives and Sentinel knows how (recent Valkey)."""
        from redis.exceptions import ResponseError

        command = ("SENTINEL", "FAILOVER", self.place.service)
        if alive:
            try:
                sentinel.execute_command(*command, "COORDINATED")
                return
            except ResponseError as exc:
                if "INPROG" in str(exc):
                    return  # what it leads to is looked at below
        try:
            sentinel.execute_command(*command)
        except ResponseError as exc:
            if "INPROG" not in str(exc):
                raise CannotProceed(
                    f"The Sentinels of {self.place.service} refused to promote: {str(exc)[:80]}. The roles are as they "
                    "were.",
                    f"look at it: {self.place.look}",
                ) from None

    def _await(self, server: ValkeyServer, wanted: tuple[str, str], deadline: float) -> None:
        """Until that server is a primary and all Sentinels that answer say so."""
        while True:
            named = self._named()
            if named == {wanted} and server.info()["role"] == "master":
                return
            if time.monotonic() >= deadline:
                said = ", ".join(sorted(":".join(one) for one in named)) or "nobody"
                raise StoreUnavailable(  # it may yet come to that
                    f"The Sentinels of {self.place.service} name {said} as the primary, not {server.place.where}.",
                    f"look at their logs and at {self.place.look}, then run the same command again",
                )
            time.sleep(POLL_SECONDS)

    def _named(self) -> set[tuple[str, str]]:
        found = set()
        for host, port in self.place.sentinels:
            with contextlib.closing(sentinel_client(self.place, host, port)) as client:
                if self._answers(client):
                    said = self._ask(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.place.service)
                    found.add((said[0], said[1]) if said else ("nobody", "0"))
        return found


def _entries(found: t.Any) -> list[dict[str, str]]:
    """However the client library hands them out."""
    return [one if isinstance(one, dict) else dict(zip(one[::2], one[1::2])) for one in found]

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence against raw clients: a user of the server loses its rights on one namespace's keys, and gets them back.

PRIVATE to the collection.

Open connections are bound at once.
"""
from __future__ import annotations

import contextlib
import os
import re
import shlex
import typing as t
from dataclasses import replace

from .._errors import MemoryOpsError
from .._store_optional import LeftFence
from .valkey_cluster import replicas, shard
from .valkey_connect import Wire, packed, password_in
from .valkey_control import Transaction, space_of
from .valkey_errors import valkey_errors
from .valkey_rules import Rule, Taken, less, plain, rule_of
from .valkey_server import said
from .valkey_transactions import Connected
from .valkey_values import Names
from .valkey_waits import asks_again, may_end_waits


def fences(wire: Wire, names: Names) -> dict[str, Taken]:
    """User → what was taken from it. Errors: RedisError."""
    raw = wire.ask([packed("HGETALL", names.fences)])[0]
    return {user.decode(): Taken.of(text) for user, text in zip(raw[::2], raw[1::2])}


def lowered(wire: Wire, names: Names) -> dict[str, str]:
    """User → the namespaces that it was to be kept from and has again; nothing where one may not look."""
    found = {}
    noted = fences(wire, names)
    for one in [wire, *(replicas(wire) if noted else ())]:
        for user, taken in noted.items():
            rule = _rule(one, user)
            if rule is not None and not less(names, rule[0], taken).same(rule[0]):
                found[user] = ", ".join(repr(name) if name else "all namespaces" for name in taken.all)
    return found


def _rule(wire: Wire, user: str) -> tuple[Rule, set[str]] | None:
    """None where there is no such user, or one may not look. Errors: redis.exceptions.ConnectionError, …"""
    said = wire.many([packed("ACL", "GETUSER", user)])[0]
    return rule_of(said) if isinstance(said, list) else None


def _restored(names: Names, present: Rule, noted: Taken, left: Taken) -> tuple[Rule, Rule]:
    """(what the user could do before, what it may do from now on) when ``left`` of ``noted`` stays taken."""
    base = noted.base
    if less(names, base, left).same(present):
        return base, present
    base = base.given_back(present, less(names, base, noted), [names.fenced(name) for name in noted.all])
    return base, less(names, base, left)


class Fence(Connected):
    """What ``fence``, ``unfence`` and ``prove`` do with the server's users."""

    _unsaved = False  # the server has a file of users and could not write it

    @property
    def _fenced_user(self) -> str | None:
        """The applications' user, unless the operator is that user: nobody shuts out itself."""
        user = self.place.application_user
        return None if user in (None, self.place.user or "default") else user

    def _user(self, user: str) -> tuple[Rule, set[str]] | None:
        said = self._ask("ACL", "GETUSER", user)
        return None if said is None else rule_of(said)

    def _noted(self, user: str) -> Taken | None:
        raw = self._ask("HGET", self.names.fences, user)
        return None if raw is None else Taken.of(raw)

    def _noted_reading(self, namespace: str) -> bool:
        """Whether users lost the right to write the namespace to a service that is read-only."""
        with valkey_errors(self.place):
            return any(namespace in taken.reading for taken in fences(self.wire, self.names).values())

    def _shut_out(self, tx: Transaction, namespace: str, *, reading: bool = False) -> bool:
        """Take the namespace (``reading``: only the right to write it) from the applications' user with this
        transaction; whether that changes anything.

        Errors: RightMissing when the operator may not look at users.
        """
        user = self._fenced_user
        found = None if user is None else self._user(user)
        if user is None or found is None:
            return False
        noted = self._noted(user)
        former = noted or Taken(found[0])
        taken = former._replace(fenced=former.fenced | {namespace}) if not reading else former._replace(
            reading=former.reading | {namespace}
        )  # fmt: skip
        wanted = less(self.names, found[0], taken)
        if taken != noted:
            self._note_taken(tx, user, taken)
        if wanted.same(found[0]):
            return False
        self._set(tx, user, wanted)
        return True

    def _let_in(
        self, tx: Transaction, namespace: str, *, reading: bool = False, noted_still: bool = False
    ) -> None:
        """Give the namespace back, with this transaction, to the users that it was taken from (``reading``: by a
        service that is read-only). ``noted_still``: the note of what was taken stays, so that this can be done
        again."""
        for user, noted in fences(self.wire, self.names).items():
            if namespace not in (noted.reading if reading else noted.fenced):
                continue
            found, base = self._user(user), noted.base
            left = noted._replace(reading=noted.reading - {namespace}) if reading else noted._replace(
                fenced=noted.fenced - {namespace}
            )  # fmt: skip
            if found is not None:
                base, wanted = _restored(self.names, found[0], noted, left)
                if not wanted.same(found[0]):
                    self._set(tx, user, wanted)
            self._let_in_replicas(user, noted, left)
            self._note_taken(tx, user, (noted if noted_still else left)._replace(base=base))

    def _let_in_replicas(self, user: str, noted: Taken, left: Taken) -> None:
        """Errors: StoreUnavailable: a node that kept the fence would keep applications out once it takes over."""
        with valkey_errors(self.place):
            for wire in replicas(self.wire):
                found = _rule(wire, user)
                if found is not None:
                    _base, wanted = _restored(self.names, found[0], noted, left)
                    if not wanted.same(found[0]):
                        wire.call("ACL", "SETUSER", user, *wanted.settings())
                        wire.many([packed("ACL", "SAVE")])

    def _shut_out_replicas(self) -> None:
        """The other nodes of the shard keep the same users out. A node that cannot be reached prevents nothing: the
        proof names it."""
        from redis.exceptions import RedisError

        with valkey_errors(self.place):
            noted = fences(self.wire, self.names)
            for wire in replicas(self.wire) if noted else ():
                for user, taken in noted.items():
                    with contextlib.suppress(RedisError):
                        found = _rule(wire, user)
                        wanted = None if found is None else less(self.names, found[0], taken)
                        if found is not None and wanted is not None and not wanted.same(found[0]):
                            wire.call("ACL", "SETUSER", user, *wanted.settings())
                            wire.many([packed("ACL", "SAVE")])

    def _raise_again(self) -> list[str]:
        """Fences that a restart of the server or an administrator took away; what was done."""
        done = []
        for user, lost in lowered(self.wire, self.names).items():
            with self._transaction() as tx:
                noted, found = self._noted(user), self._user(user)
                if noted and found:
                    self._set(tx, user, less(self.names, found[0], noted))
            done.append(f"took {lost} from the server's user {user} again")
        if done:
            self._save_users()
            self._shut_out_replicas()
        return done

    def _set(self, tx: Transaction, user: str, rule: Rule) -> None:
        tx.add("ACL", "SETUSER", user, *rule.settings())

    def _save_users(self, roles_change: bool = False) -> None:
        """``roles_change``: the server's configuration is written by whoever changes roles."""
        with valkey_errors(self.place):
            self._unsaved = not save_users(self.wire, roles_change or self._in_a_group())

    def _in_a_group(self) -> bool:
        """Whether the server has, had or may get another role. Errors: RedisError."""
        if self.place.nodes.clustered:
            return False
        known = said(self.wire, ("replication",))
        former = known.get("second_repl_offset", "-1") != "-1"
        return bool(self.place.sentinels) or former or known.get("connected_slaves", "0") != "0"

    def left_fences(self, namespace: str) -> list[LeftFence]:
        """See _store_optional.FencesByUsers."""
        user, raw = self._fenced_user, self._ask("HGET", self.names.namespaces, namespace)
        space = None if raw is None else space_of(raw, namespace, self.place.where)
        if user is None or (space and space["state"] != "serving"):
            return []
        key = self.names.records(namespace, space["generation"] if space else 0)
        with valkey_errors(self.place):
            answer = self.wire.many([packed("ACL", "DRYRUN", user, *probes(key)[2])])[0]
        pattern = f"~{plain(self.names.fenced(namespace))}*"
        left = []
        if isinstance(answer, bytes) and b"has no permissions to access" in answer:
            left.append(
                LeftFence(
                    f"The user {user} of the server {self.place.where} may not use the keys of {namespace!r:.80}, "
                    "which serves: what a fence took from it was not given back, as nothing notes it any more, or it "
                    "never had that right.",
                    f"if it is to have it, there: {shlex.join(('ACL', 'SETUSER', user, pattern))}, then ACL SAVE",
                )
            )
        if self._unsaved:
            left.append(
                LeftFence(
                    f"The server {self.place.where} cannot write the file that has its users: when it starts again, "
                    f"user {user} has the rights that stand there, which may be those of the fence.",
                    "look at the server's log and its disk, let it write that file, then there: ACL SAVE (or CONFIG "
                    "REWRITE, where it has no ACL file)",
                )
            )
        return left

    def _note_taken(self, tx: Transaction, user: str, taken: Taken) -> None:
        if taken.all:
            tx.add("HSET", self.names.fences, user, taken.noted())
        else:
            tx.add("HDEL", self.names.fences, user)

    # --- proof --------------------------------------------------------------------------------------------------
    def _prove_users(self, namespace: str, generation: int) -> tuple[bool, bool, bool, list[str], list[str]]:
        """(writes refused, reads refused, reads accepted, detail, not fenced) for users of the server other than the
        operator."""
        detail: list[str] = []
        open_to: list[str] = []
        writes = refused = accepted = True
        user, key = self.place.application_user, self.names.records(namespace, generation)
        own = self.place.user or "default"
        if user is not None and self._fenced_user is None:
            writes = refused = False
            detail.append(f"raw commands as user {user}: not refused, it is the operator's own user")
        elif user is not None:
            writes, refused, accepted = self._prove_at(self.wire, user, key, detail)
        if user is not None and user != own:
            open_to += self._past_keys(user)
        try:
            for wire in self._other_nodes(open_to):
                where = "{}:{}".format(*wire.address)
                if user is not None and user != own:
                    more: list[str] = []
                    also = self._prove_at(wire, user, key, more)
                    detail += [f"at {where}: {line}" for line in more]
                    writes, refused, accepted = writes and also[0], refused and also[1], accepted and also[2]
        except MemoryOpsError as exc:
            open_to.append(f"raw clients of a replica that could not be asked ({exc.message})")
        for raw in self._ask("ACL", "USERS"):
            other = raw.decode("utf-8", "replace")
            if other in (user, own):
                continue
            found = self._user(other)
            if found is None or "off" in found[1]:
                continue
            may = [verb for verb, command in zip(("write", "delete", "read"), probes(key))
                   if not self._try(other, command, [])]  # fmt: skip
            if may:
                open_to.append(f"raw clients of user {other}: it may {', '.join(may)}")
            else:
                open_to += self._past_keys(other)
        open_to.append(f"raw clients of user {own}, the operator's own")
        return writes, refused, accepted, detail, open_to

    def _past_keys(self, user: str) -> list[str]:
        """What rights of commands let the user do, whichever keys it may use."""
        may = [what for command, what in PAST_KEYS if not self._try(user, command, [])]
        return [f"raw clients of user {user}: it may {', '.join(may)}"] if may else []

    def _other_nodes(self, open_to: list[str]) -> t.Iterator[Wire]:
        """Those that can be reached of the nodes that may serve the store's slot."""
        from redis.exceptions import RedisError

        if not self.place.nodes.clustered:
            return
        with valkey_errors(self.place):
            nodes = shard(self.wire)
        if nodes is None:
            open_to.append("raw clients of the shard's replicas: the operator may not use CLUSTER SLOTS to find them")
        for address in (nodes or [])[1:]:
            with contextlib.closing(self.wire.to(address)) as wire:
                try:
                    wire.call("PING")
                except RedisError:
                    open_to.append("raw clients of {}:{}, which cannot be reached".format(*address))
                else:
                    yield wire

    def _prove_at(self, wire: Wire, user: str, key: str, detail: list[str]) -> tuple[bool, bool, bool]:
        """(writes refused, reads refused, reads accepted) at one node."""
        tried = [self._try(user, command, detail, wire) for command in probes(key)]
        writes, refused, accepted = all(tried[:2]), tried[2], not tried[2]
        login = self.place.application_password_file
        if login and not os.path.exists(os.path.expanduser(login)):
            detail.append(f"a connection of user {user}: not tried, {login} is not on this host")
        elif login:
            write, read = self._really(wire, key, detail)
            writes, refused, accepted = writes and write, refused and read, accepted and not read
        return writes, refused, accepted

    def _try(self, user: str, command: t.Sequence[str], detail: list[str], wire: Wire | None = None) -> bool:
        """Whether the server would refuse the command of that user."""
        with valkey_errors(self.place):
            reply = (wire or self.wire).many([packed("ACL", "DRYRUN", user, *command)])[0]
        refused = isinstance(reply, bytes) and b"has no permissions" in reply
        said = "refused" if refused else "accepted" if reply == b"OK" else f"not tried ({reply!s:.80})"
        detail.append(f"raw {command[0]} as user {user}: {said}")
        return refused

    def _really(self, node: Wire, key: str, detail: list[str]) -> tuple[bool, bool]:
        """With the applications' own login: whether a write that is discarded and a read are refused.

        Errors: StoreUnavailable.
        """
        from redis.exceptions import NoPermissionError

        password = password_in(str(self.place.application_password_file))
        wire = Wire(replace(self.place, user=self.place.application_user, password=password), node.address)
        try:
            with valkey_errors(wire.place):
                replies = wire.many(
                    [packed("MULTI"), packed(*probes(key)[0]), packed("DISCARD"), packed("ZCARD", key)]
                )
        finally:
            wire.drop()
        refused = [isinstance(reply, NoPermissionError) for reply in (replies[1], replies[3])]
        write, read = refused
        for verb, no in (("ZADD", write), ("ZCARD", read)):
            said = "refused" if no else "accepted"
            detail.append(f"{verb} on a connection of user {self.place.application_user}: {said}")
        return write, read

    def _standing(self) -> list[str]:
        """What weakens a fence by users."""
        lines = []
        with valkey_errors(self.place):
            answer = self.wire.many([packed("CONFIG", "GET", "aclfile")])[0]
        if self._fenced_user is not None and isinstance(answer, list) and not answer[1]:
            lines.append("a restart of the server: it has no ACL file, run isolate again afterwards")
        elif self._unsaved:
            lines.append(
                "a restart of the server: it cannot write the file that has its users, run isolate again afterwards"
            )
        if self._fenced_user is not None and self.place.sentinels:
            lines.append("a server that joins later, or comes back, and is made the primary: run isolate again then")
        if self._fenced_user is not None:
            with valkey_errors(self.place):
                if not asks_again(self.wire) and not may_end_waits(self.wire):
                    lines.append(
                        "clients that waited in BLPOP, XREAD BLOCK and the like before: a server older than 7.2 serves "
                        "them still, and the operator may not end their wait (+client|list +client|unblock)"
                    )
        return lines


#: Commands that no pattern of keys takes from a user.
PAST_KEYS = (
    (("FLUSHALL",), "empty the server (FLUSHALL)"),
    (("SWAPDB", "0", "1"), "exchange its databases (SWAPDB)"),
    (("MONITOR",), "see what others send and get (MONITOR)"),
    (("ACL", "SETUSER", "default"), "give itself any right (ACL SETUSER)"),
)


def save_users(wire: Wire, configuration: bool) -> bool:
    """Write the server's users to its file of users; where it has none, to its ``configuration``, if that is written
    anyway when roles change: else a server that changed its role in a quarantine starts with the fence ever after.

    False when it could not, True also where it has neither or one may not. Errors: RedisError.
    """
    reply = wire.many([packed("ACL", "SAVE")])[0]
    if isinstance(reply, Exception) and "not configured to use an ACL file" in str(reply):
        reply = wire.many([packed("CONFIG", "REWRITE")])[0] if configuration else b"OK"
    may_not = isinstance(reply, Exception) and re.search("without a config file|no permission", str(reply))
    return bool(may_not) or not isinstance(reply, Exception)


def probes(key: str) -> tuple[list[str], list[str], list[str]]:
    return ["ZADD", key, "0", "x"], ["DEL", key], ["ZRANGE", key, "0", "0"]

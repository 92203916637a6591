# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence against raw clients: a user of the server loses its rights on one namespace's keys, and gets them back.

PRIVATE to the collection.

Open connections are bound at once.
"""
from __future__ import annotations

import os
import re
import typing as t
from dataclasses import replace

from .valkey_connect import Wire, packed, password_in, valkey_errors
from .valkey_control import Transaction
from .valkey_rules import Rule, Taken, less, rule_of
from .valkey_transactions import Connected
from .valkey_values import Names


def fences(wire: Wire, names: Names) -> dict[str, Taken]:
    """User → what was taken from it. Errors: RedisError."""
    raw = wire.ask([packed("HGETALL", names.fences)])[0]
    return {user.decode(): Taken.of(text) for user, text in zip(raw[::2], raw[1::2])}


def lowered(wire: Wire, names: Names) -> dict[str, str]:
    """User → the namespaces that it was to be kept from and has again; nothing where one may not look."""
    found = {}
    for user, noted in fences(wire, names).items():
        said = wire.many([packed("ACL", "GETUSER", user)])[0]
        if isinstance(said, list):
            present = rule_of(said)[0]
            if not less(names, present, noted).same(present):
                found[user] = ", ".join(repr(name) for name in noted.all)
    return found


class Fence(Connected):
    """What ``fence``, ``unfence`` and ``prove`` do with the server's users."""

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
            if found is not None and not less(self.names, base, left).same(found[0]):
                present, ours = found[0], less(self.names, base, noted)
                base = base.given_back(present, ours, [self.names.fenced(name) for name in noted.all])
                wanted = less(self.names, base, left)
                if not wanted.same(present):
                    self._set(tx, user, wanted)
            self._note_taken(tx, user, (noted if noted_still else left)._replace(base=base))

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
        return done

    def _set(self, tx: Transaction, user: str, rule: Rule) -> None:
        tx.add("ACL", "SETUSER", user, *rule.settings())

    def _save_users(self) -> None:
        with valkey_errors(self.place):
            self.wire.many([packed("ACL", "SAVE")])  # refused where there is no ACL file; the proof says so

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
            tried = [self._try(user, command, detail) for command in probes(key)]
            writes, refused, accepted = all(tried[:2]), tried[2], not tried[2]
            login = self.place.application_password_file
            if login and not os.path.exists(os.path.expanduser(login)):
                detail.append(f"a connection of user {user}: not tried, {login} is not on this host")
            elif login:
                write, read = self._really(key, detail)
                writes, refused, accepted = writes and write, refused and read, accepted and not read
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
        open_to.append(f"raw clients of user {own}, the operator's own")
        return writes, refused, accepted, detail, open_to

    def _try(self, user: str, command: t.Sequence[str], detail: list[str]) -> bool:
        """Whether the server would refuse the command of that user."""
        with valkey_errors(self.place):
            reply = self.wire.many([packed("ACL", "DRYRUN", user, *command)])[0]
        refused = isinstance(reply, bytes) and b"has no permissions" in reply
        said = "refused" if refused else "accepted" if reply == b"OK" else f"not tried ({reply!s:.80})"
        detail.append(f"raw {command[0]} as user {user}: {said}")
        return refused

    def _really(self, key: str, detail: list[str]) -> tuple[bool, bool]:
        """With the applications' own login: whether a write that is discarded and a read are refused.

        Errors: StoreUnavailable.
        """
        from redis.exceptions import NoPermissionError

        password = password_in(str(self.place.application_password_file))
        wire = Wire(replace(self.place, user=self.place.application_user, password=password))
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
            answers = self.wire.many([packed("CONFIG", "GET", "aclfile"), packed("INFO", "replication")])
        if self._fenced_user is not None and isinstance(answers[0], list) and not answers[0][1]:
            lines.append("a restart of the server: it has no ACL file, run isolate again afterwards")
        if isinstance(answers[1], bytes) and (slaves := re.search(rb"connected_slaves:([1-9]\d*)", answers[1])):
            lines.append(f"raw clients of its {slaves[1].decode()} replicas: users are not replicated")
        return lines


def probes(key: str) -> tuple[list[str], list[str], list[str]]:
    return ["ZADD", key, "0", "x"], ["DEL", key], ["ZRANGE", key, "0", "0"]


def application_keys(prefix: str, namespace: str) -> list[str]:
    """The key patterns that a user needs whose applications use one namespace alone."""
    names = Names(prefix)
    return [f"~{names.store}", f"~{names.store}:*", f"~{names.fenced(namespace)}*"]

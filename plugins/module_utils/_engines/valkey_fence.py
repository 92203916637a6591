# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The fence against raw clients: a user of the server loses its rights on one namespace's keys, and gets them back.

PRIVATE to the collection.

An ACL has no patterns that take rights away. But everything except keys with a certain beginning can be named by
patterns: for each character of that beginning, "the same up to here, then another character". So a user that serves
many namespaces by one broad pattern loses exactly the quarantined ones. Open connections are bound at once.
"""
from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import replace

from .valkey_connect import Wire, packed, password_in
from .valkey_control import Transaction
from .valkey_errors import valkey_errors
from .valkey_transactions import Connected
from .valkey_values import Names

PERMISSION = re.compile(r"(~|%R~|%W~|%RW~)(.*)", re.S)
GLOB = frozenset("*?[")
TAIL = re.compile(r"(?:\[\^((?:\\.|[^\]\\-])+)\])?\*", re.S)  # what a pattern ends with that can be divided


def _literal(pattern: str) -> tuple[str, str]:
    """(the text that every match begins with, the rest of the pattern)."""
    out, at = [], 0
    while at < len(pattern) and pattern[at] not in GLOB:
        if pattern[at] == "\\" and at + 1 < len(pattern):
            at += 1
        out.append(pattern[at])
        at += 1
    return "".join(out), pattern[at:]


def _plain(text: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def without(tokens: t.Sequence[str], beginnings: t.Collection[str]) -> list[str]:
    """Key permissions (~pattern, %R~pattern …) less all keys with one of these beginnings.

    A pattern with other wildcards than at its end that might match such keys stays; the proof finds it.
    """
    out: list[str] = []
    for token in tokens:
        match = PERMISSION.fullmatch("~*" if token == "allkeys" else token)
        if match is None:
            out.append(token)
            continue
        kind, (head, rest) = match[1], _literal(match[2])
        if any(head.startswith(one) for one in beginnings):
            continue
        tail = TAIL.fullmatch(rest)
        other = set(re.sub(r"\\(.)", r"\1", tail[1] or "")) if tail else set()
        below = [one for one in beginnings if one.startswith(head) and one[len(head)] not in other]
        if tail is None or not below:
            out.append(token)
        else:
            out += [f"{kind}{pattern}" for pattern in _divided(head, other, below)]
    return _merged(out)


def _divided(head: str, other: set[str], below: t.Sequence[str]) -> t.Iterator[str]:
    """Patterns for all texts that begin with ``head`` (and go on with none of ``other``) but with none of ``below``."""
    parts = [(head, other, below)]
    while parts:
        stem, known, some = parts.pop()
        follow = {one[len(stem)] for one in some}
        chars = "".join("\\" + c if c in "-]\\^" else c for c in sorted(follow | known))
        yield f"{_plain(stem)}[^{chars}]*"
        if stem and not known:
            yield _plain(stem)
        for c in sorted(follow):
            longer = [one for one in some if one[len(stem)] == c]
            if stem + c not in longer:
                parts.append((stem + c, set(), longer))


def _merged(tokens: t.Sequence[str]) -> list[str]:
    """As the server lists them: a pattern that may be read and written stands there once."""
    rights: dict[str, set[str]] = {}
    for token in tokens:
        match = PERMISSION.fullmatch(token)
        kind, pattern = (match[1], match[2]) if match else ("", token)
        rights.setdefault(pattern, set()).update("RW" if kind in ("~", "%RW~") else kind.strip("%~"))
    if rights.get("*") == {"R", "W"}:
        return ["~*"]  # the server takes no other one beside it
    return [
        ("~" if len(kinds) == 2 else f"%{min(kinds)}~" if kinds else "") + pattern for pattern, kinds in rights.items()
    ]


def _together(present: t.Sequence[str], former: t.Sequence[str], beginnings: t.Collection[str]) -> list[str]:
    """The present permissions, and of the former ones what lies below ``beginnings``."""
    more = []
    for token in former:
        for one in beginnings:
            match = PERMISSION.fullmatch(token)
            if match and _literal(match[2])[0].startswith(one):
                more.append(token)
            elif match and without([token], [one]) != [token]:
                more.append(f"{match[1]}{_plain(one)}*")
    return _merged([*present, *more])


class Rule(t.NamedTuple):
    """What a user may do with keys: its own permissions, and those of its selectors."""

    keys: list[str]
    selectors: list[list[str]]  # commands, channels, then keys

    def without(self, beginnings: t.Collection[str]) -> Rule:
        return Rule(
            without(self.keys, beginnings), [[*s[:2], *without(s[2:], beginnings)] for s in self.selectors]
        )

    def given_back(self, present: Rule, ours: Rule, beginnings: t.Collection[str]) -> Rule:
        """This, with what the user got meanwhile. Where our own patterns were changed (another store on this server
        took something from the same user), the present ones, and everything below ``beginnings`` that this allows."""
        if set(ours.keys) <= set(present.keys) and present.selectors == ours.selectors:
            return self._replace(keys=_merged([*self.keys, *(k for k in present.keys if k not in ours.keys)]))
        selectors = self.selectors
        if len(present.selectors) == len(selectors):
            selectors = [
                [*new[:2], *_together(new[2:], old[2:], beginnings)] for new, old in zip(present.selectors, selectors)
            ]
        return Rule(_together(present.keys, self.keys, beginnings), selectors)

    def same(self, other: Rule) -> bool:
        return set(self.keys) == set(other.keys) and self.selectors == other.selectors

    def settings(self) -> list[str]:
        out = ["resetkeys", *self.keys]
        if self.selectors:
            out += ["clearselectors", *(f"({' '.join(part for part in s if part)})" for s in self.selectors)]
        return out


def rule_of(said: t.Sequence[t.Any]) -> tuple[Rule, set[str]]:
    """(rule, flags) of an answer to ACL GETUSER."""
    known = {name.decode(): value for name, value in zip(said[::2], said[1::2])}
    selectors = []
    for raw in known.get("selectors") or []:
        one = {name.decode(): value.decode() for name, value in zip(raw[::2], raw[1::2])}
        selectors.append([one.get("commands", ""), one.get("channels", ""), *one.get("keys", "").split()])
    flags = {flag.decode() for flag in known.get("flags", [])}
    return Rule(known.get("keys", b"").decode().split(), selectors), flags


def less(names: Names, base: Rule, fenced: t.Collection[str]) -> Rule:
    return base.without([names.fenced(name) for name in fenced]) if fenced else base


def fences(wire: Wire, names: Names) -> dict[str, dict[str, t.Any]]:
    """User → what it could do before, and the namespaces that were taken from it. Errors: RedisError."""
    raw = wire.ask([packed("HGETALL", names.fences)])[0]
    return {user.decode(): json.loads(text) for user, text in zip(raw[::2], raw[1::2])}


def lowered(wire: Wire, names: Names) -> dict[str, str]:
    """User → the namespaces that it was to be kept from and has again; nothing where one may not look."""
    found = {}
    for user, noted in fences(wire, names).items():
        said = wire.many([packed("ACL", "GETUSER", user)])[0]
        if isinstance(said, list):
            present = rule_of(said)[0]
            if not less(names, present, noted["fenced"]).same(present):
                found[user] = ", ".join(repr(name) if name else "all namespaces" for name in noted["fenced"])
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

    def _noted(self, user: str) -> dict[str, t.Any] | None:
        raw = self._ask("HGET", self.names.fences, user)
        return None if raw is None else t.cast(t.Dict[str, t.Any], json.loads(raw))

    def _shut_out(self, tx: Transaction, namespace: str) -> bool:
        """Take the namespace from the applications' user with this transaction; whether that changes anything.

        Errors: RightMissing when the operator may not look at users.
        """
        user = self._fenced_user
        found = None if user is None else self._user(user)
        if user is None or found is None:
            return False
        noted = self._noted(user)
        base = Rule(noted["keys"], noted["selectors"]) if noted else found[0]
        fenced = sorted({*(noted["fenced"] if noted else ()), namespace})
        wanted = self._less(found[0], fenced)
        if noted is None or fenced != noted["fenced"]:
            self._note_fences(tx, user, base, fenced)
        if wanted.same(found[0]):
            return False
        self._set(tx, user, wanted)
        return True

    def _let_in(self, tx: Transaction, namespace: str, *, noted_still: bool = False) -> None:
        """Give the namespace back, with this transaction, to the users that it was taken from. ``noted_still``: the
        note of what was taken stays, so that this can be done again."""
        for user, noted in fences(self.wire, self.names).items():
            if namespace not in noted["fenced"]:
                continue
            found = self._user(user)
            base = Rule(noted["keys"], noted["selectors"])
            fenced = [one for one in noted["fenced"] if one != namespace]
            if found is not None and not self._less(base, fenced).same(found[0]):
                present, ours = found[0], self._less(base, noted["fenced"])
                base = base.given_back(present, ours, [self.names.fenced(name) for name in noted["fenced"]])
                wanted = self._less(base, fenced)
                if not wanted.same(present):
                    self._set(tx, user, wanted)
            self._note_fences(tx, user, base, noted["fenced"] if noted_still else fenced)

    def _raise_again(self) -> list[str]:
        """Fences that a restart of the server or an administrator took away; what was done."""
        done = []
        for user, lost in lowered(self.wire, self.names).items():
            with self._transaction() as tx:
                noted, found = self._noted(user), self._user(user)
                if noted and found:
                    self._set(tx, user, self._less(found[0], noted["fenced"]))
            done.append(f"took {lost} from the server's user {user} again")
        if done:
            self._save_users()
        return done

    def _less(self, base: Rule, fenced: t.Collection[str]) -> Rule:
        return less(self.names, base, fenced)

    def _set(self, tx: Transaction, user: str, rule: Rule) -> None:
        tx.add("ACL", "SETUSER", user, *rule.settings())

    def _save_users(self) -> None:
        with valkey_errors(self.place):
            self.wire.many([packed("ACL", "SAVE")])  # refused where there is no ACL file; the proof says so

    def _note_fences(self, tx: Transaction, user: str, base: Rule, fenced: t.Sequence[str]) -> None:
        if fenced:
            row = {"keys": base.keys, "selectors": base.selectors, "fenced": list(fenced)}
            tx.add("HSET", self.names.fences, user, json.dumps(row))
        else:
            tx.add("HDEL", self.names.fences, user)

    # --- proof --------------------------------------------------------------------------------------------------
    def _prove_users(self, namespace: str, generation: int) -> tuple[bool, bool, list[str], list[str]]:
        """(writes refused, reads refused, detail, not fenced) for users of the server other than the operator."""
        detail: list[str] = []
        open_to: list[str] = []
        writes = reads = True
        user, key = self.place.application_user, self.names.records(namespace, generation)
        own = self.place.user or "default"
        if user is not None and self._fenced_user is None:
            writes = reads = False
            detail.append(f"raw commands as user {user}: not refused, it is the operator's own user")
        elif user is not None:
            tried = [self._try(user, command, detail) for command in probes(key)]
            writes, reads = all(tried[:2]), tried[2]
            login = self.place.application_password_file
            if login and not os.path.exists(os.path.expanduser(login)):
                detail.append(f"a connection of user {user}: not tried, {login} is not on this host")
            elif login:
                really = self._really(key, detail)
                writes, reads = writes and really, reads and really
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
        return writes, reads, detail, open_to

    def _try(self, user: str, command: t.Sequence[str], detail: list[str]) -> bool:
        """Whether the server would refuse the command of that user."""
        with valkey_errors(self.place):
            reply = self.wire.many([packed("ACL", "DRYRUN", user, *command)])[0]
        refused = isinstance(reply, bytes) and b"has no permissions" in reply
        said = "refused" if refused else "accepted" if reply == b"OK" else f"not tried ({reply!s:.80})"
        detail.append(f"raw {command[0]} as user {user}: {said}")
        return refused

    def _really(self, key: str, detail: list[str]) -> bool:
        """With the applications' own login: a write that is discarded and a read. Errors: StoreUnavailable."""
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
        detail.append(
            f"ZADD and ZCARD on a connection of user {self.place.application_user}: "
            f"{'refused' if all(refused) else 'accepted'}"
        )
        return all(refused)

    def _standing(self) -> list[str]:
        """What weakens a fence by users."""
        lines = []
        with valkey_errors(self.place):
            answer = self.wire.many([packed("CONFIG", "GET", "aclfile")])[0]
        if self._fenced_user is not None and isinstance(answer, list) and not answer[1]:
            lines.append("a restart of the server: it has no ACL file, run isolate again afterwards")
        if self._fenced_user is not None and self.place.sentinels:
            lines.append("a server that joins later, or comes back, and is made the primary: run isolate again then")
        return lines


def probes(key: str) -> tuple[list[str], list[str], list[str]]:
    return ["ZADD", key, "0", "x"], ["DEL", key], ["ZRANGE", key, "0", "0"]


def application_keys(prefix: str, namespace: str) -> list[str]:
    """The key patterns that a user needs whose applications use one namespace alone."""
    names = Names(prefix)
    return [f"~{names.store}", f"~{names.store}:*", f"~{names.fenced(namespace)}*"]

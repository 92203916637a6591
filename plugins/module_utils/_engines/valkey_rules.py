# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a user of a Valkey server may do with keys, and how to take some keys from it. No I/O.

PRIVATE to the collection.

An ACL has no patterns that take rights away. But everything except keys with a certain beginning can be named by
patterns: for each character of that beginning, "the same up to here, then another character". So a user that serves
many namespaces by one broad pattern loses exactly the quarantined ones. Of a namespace that is served read-only it
loses the same, and gets it back for reading (%R~).
"""
from __future__ import annotations

import json
import re
import typing as t

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


def plain(text: str) -> str:
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


def readable(tokens: t.Sequence[str], beginnings: t.Collection[str]) -> list[str]:
    """Key permissions less the right to write keys with one of these beginnings."""
    out: list[str] = []
    for token in tokens:
        match = PERMISSION.fullmatch("~*" if token == "allkeys" else token)
        if match is None or match[1] == "%R~":
            out.append(token)
            continue
        left = without([token], beginnings)
        out += left
        if match[1] != "%W~" and left != _merged([token]):
            out.append(f"%R~{match[2]}")
    return _merged(out)


def _divided(head: str, other: set[str], below: t.Sequence[str]) -> t.Iterator[str]:
    """Patterns for all texts that begin with ``head`` (and go on with none of ``other``) but with none of ``below``."""
    parts = [(head, other, below)]
    while parts:
        stem, known, some = parts.pop()
        follow = {one[len(stem)] for one in some}
        chars = "".join("\\" + c if c in "-]\\^" else c for c in sorted(follow | known))
        yield f"{plain(stem)}[^{chars}]*"
        if stem and not known:
            yield plain(stem)
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
                more.append(f"{match[1]}{plain(one)}*")
    return _merged([*present, *more])


class Rule(t.NamedTuple):
    """What a user may do with keys: its own permissions, and those of its selectors."""

    keys: list[str]
    selectors: list[list[str]]  # commands, channels, then keys

    def without(self, beginnings: t.Collection[str]) -> Rule:
        return Rule(
            without(self.keys, beginnings), [[*s[:2], *without(s[2:], beginnings)] for s in self.selectors]
        )

    def readable(self, beginnings: t.Collection[str]) -> Rule:
        return Rule(
            readable(self.keys, beginnings), [[*s[:2], *readable(s[2:], beginnings)] for s in self.selectors]
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


class Taken(t.NamedTuple):
    """What a user could do before, and the namespaces of which all, or all but reading, was taken from it."""

    base: Rule
    fenced: frozenset[str] = frozenset()
    reading: frozenset[str] = frozenset()

    @classmethod
    def of(cls, raw: bytes) -> Taken:
        row = json.loads(raw)
        base = Rule(row["keys"], row["selectors"])
        return cls(base, frozenset(row["fenced"]), frozenset(row.get("reading", ())))

    def noted(self) -> str:
        row = {"keys": self.base.keys, "selectors": self.base.selectors, "fenced": sorted(self.fenced)}
        return json.dumps({**row, "reading": sorted(self.reading)} if self.reading else row)

    @property
    def all(self) -> list[str]:
        return sorted(self.fenced | self.reading)


def less(names: Names, base: Rule, taken: Taken) -> Rule:
    """``base`` without what is taken."""
    if taken.fenced:
        base = base.without([names.fenced(name) for name in sorted(taken.fenced)])
    if taken.reading:
        base = base.readable([names.fenced(name) for name in sorted(taken.reading)])
    return base

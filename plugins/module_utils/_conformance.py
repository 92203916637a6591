# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a memory object has to do so that the layout ``python`` can use it: one check for each rule.

PRIVATE to the collection; ``conformance.py`` is what people run. Each check works in scratch namespaces, through the
process and the calls that the layout itself uses.
"""
from __future__ import annotations

import contextlib
import typing as t

from ._engines.python_fence import trial
from ._engines.python_remote import Remote, Spec
from ._errors import MemoryOpsError, StoreUnavailable
from ._operations.application_benchmark import judge_answer
from ._python_values import pack, unpack
from ._words import counted

PASS, FAIL, UNKNOWN, NONE = "pass", "fail", "could-not-verify", "not-asked"
VALUES: t.Final[dict[str, t.Any]] = {
    "text": "words, 語, \U0001f9e0 and \x00", "empty text": "", "number": 42, "big number": 2**70, "float": 0.1,
    "true": True, "list": [1, [2.5, None, False], {"a": "b"}], "vector": [0.1] * 300, "empty list": [],
    "mapping": {"b": 1, "a": {"nested": [1, 2]}}, "empty mapping": {}, "long text": "x" * 100_000,
}  # fmt: skip
KEYS: t.Final = ("plain", "Plain", "with space", "a/b:c*?[x]", "ключ 鍵", "%41", "'; --", ".", "k" * 200)


class Failed(Exception):
    """The rule is broken; says how."""


class Unknown(Exception):
    """The rule cannot be tried; says why."""


class NotAsked(Exception):
    """The rule is tried only when somebody asks for it; says how."""


class Case:
    """The object in two processes, scratch namespaces, and what was written into them."""

    def __init__(self, spec: Spec, space: str, rotate: bool) -> None:
        self.here, self.there = Remote(spec), Remote(spec)
        self.space, self.other, self.rotate = space, f"{space}-other", rotate
        self.written: set[tuple[str, str]] = set()

    def write(
        self, key: str, data: t.Any, space: str = "", view: str = "operator", remote: Remote | None = None
    ) -> None:
        name = space or self.space
        self.written.add((name, key))
        (remote or self.here).ask(view, "write", name, [(key, pack(data))], "memops conformance")

    def look(
        self, key: str, space: str = "", view: str = "operator", remote: Remote | None = None
    ) -> tuple[str, t.Any]:
        """("value", it) | ("absent", None) | ("unreadable", why)."""
        _key, kind, value = (remote or self.here).ask(view, "read", space or self.space, [key])[0]
        return kind, unpack(value) if kind == "value" else value.decode("utf-8", "replace") or None

    def named(self, space: str = "") -> list[t.Any]:
        """What list_keys names; what is no key as a Failed."""
        found = self.here.ask("operator", "keys", space or self.space, 1_000_000)
        odd = [item[1] for item in found if item[0] is None]
        if odd:
            raise Failed(f"list_keys names {odd[0]}, which is no key: keys are non-empty texts")
        return [item[0] for item in found]

    def delete(self, key: str, soft: bool, space: str = "") -> None:
        self.here.ask("operator", "delete", space or self.space, [key], soft)

    def has(self, *methods: str) -> bool:
        return self.here.offers() >= set(methods)

    def expect(self, key: str, data: t.Any, when: str, space: str = "", remote: Remote | None = None) -> None:
        kind, found = self.look(key, space, remote=remote)
        if kind != "value":
            raise Failed(f"{when}, read({key!r:.60}) gives {'nothing' if kind == 'absent' else found}")
        if pack(found) != pack(data):
            raise Failed(f"{when}, read({key!r:.60}) gives {found!r:.60} and not {data!r:.60}")

    def gone(self, key: str, when: str, space: str = "") -> None:
        kind, found = self.look(key, space)
        if kind != "absent":
            raise Failed(f"{when}, read({key!r:.60}) gives {found!r:.60}: it has to give None or raise KeyError(key)")
        if key in self.named(space):
            raise Failed(f"{when}, list_keys still names {key!r:.60}")

    def clean(self) -> str | None:
        """Take away what was written; what is left, in words."""
        left = []
        for name in (self.space, self.other):
            mine = sorted(key for where, key in self.written if where == name)
            why = ""
            for soft in (False, True):  # if the one does nothing, perhaps the other does
                try:
                    mine = self._there(name, mine)
                    if mine:
                        self.here.ask("operator", "delete", name, mine, soft)
                        mine = self._there(name, mine)
                except MemoryOpsError as exc:
                    why = f" ({exc.message.rstrip('.')})"
            if mine:
                left.append(f"{counted(len(mine), 'record')} in the namespace {name}{why}")
        if not left:
            return None
        return f"these checks leave {' and '.join(left)}: take them out of the object's storage by its own means"

    def _there(self, name: str, keys: t.Sequence[str]) -> list[str]:
        """Which of these list_keys names, or read gives all the same. Errors: MemoryOpsError of list_keys."""
        listed = {item[0] for item in self.here.ask("operator", "keys", name, 1_000_000)}
        found = [key for key in keys if key in listed]
        with contextlib.suppress(MemoryOpsError):  # then the list has to do
            found += [key for key in keys if key not in listed and self.look(key, name)[0] == "value"]
        return found

    def close(self) -> None:
        self.here.close()
        self.there.close()


# --- write and read -------------------------------------------------------------------------------------------------
def values(c: Case) -> str:
    for key, data in VALUES.items():
        c.write(key, data)
        c.expect(key, data, "after write")
    return "every kind of value comes back as it was written"


def replaced(c: Case) -> str:
    c.write("twice", "first")
    c.write("twice", {"second": 2})
    c.expect("twice", {"second": 2}, "after a second write")
    return "a second write replaces the first"


def keys_apart(c: Case) -> str:
    for number, key in enumerate(KEYS):
        c.write(key, number)
    for number, key in enumerate(KEYS):
        c.expect(key, number, "after other keys were written")
    return "keys with any characters are kept apart"


def absent(c: Case) -> str:
    c.gone("never written", "for a key that was never written")
    return "a key that is not there gives None or KeyError(key)"


def spaces_apart(c: Case) -> str:
    c.write("shared", "here")
    c.gone("shared", "in another namespace", c.other)
    c.write("shared", "there", c.other)
    c.expect("shared", "here", "after another namespace was written")
    return "namespaces are kept apart"


def kept(c: Case) -> str:
    c.write("kept", [1, 2])
    c.expect("kept", [1, 2], "in another process", remote=c.there)
    c.write("kept", [3], remote=c.there)
    c.expect("kept", [3], "after another process wrote")
    return "what one process writes another one reads at once"


def reading(c: Case) -> str:
    c.write("read often", "same")
    before = sorted(c.named())
    for _turn in range(3):
        c.expect("read often", "same", "after it was read before")
    if sorted(c.named()) != before:
        raise Failed("reading changed what list_keys names")
    return "reading changes nothing"


# --- list_keys and delete -------------------------------------------------------------------------------------------
def listed(c: Case) -> str:
    mine = [f"listed {number}" for number in range(50)]
    for key in mine:
        c.write(key, key)
    found = c.named()
    if len(found) != len(set(found)):
        raise Failed("list_keys names keys twice")
    missing = sorted({key for name, key in c.written if name == c.space and c.look(key)[0] == "value"} - set(found))
    if missing:
        raise Failed(f"list_keys does not name {missing[0]!r:.60}, which read gives")
    phantoms = [key for key in found if c.look(key)[0] == "absent"]
    if phantoms:
        raise Failed(f"list_keys names {phantoms[0]!r:.60}, for which read gives nothing")
    return "list_keys names each key once, and all that read gives"


def nothing_listed(c: Case) -> str:
    found = c.named(f"{c.space}-empty")
    if found:
        raise Failed(f"list_keys of a namespace without records names {found[0]!r:.60}")
    return "list_keys of a namespace without records names nothing"


def _deleted(c: Case, soft: bool) -> str:
    for key in ("doomed", "neighbour"):
        c.write(key, key)
        c.write(key, key, c.other)
    c.delete("doomed", soft)
    c.gone("doomed", f"after delete(soft={soft})")
    c.expect("neighbour", "neighbour", "after another key was deleted")
    c.expect("doomed", "doomed", "after the key was deleted in another namespace", c.other)
    c.write("doomed", "again")
    c.expect("doomed", "again", f"written again after delete(soft={soft})")
    if "doomed" not in c.named():
        raise Failed(f"list_keys does not name a key that was written again after delete(soft={soft})")
    return f"delete(soft={soft}) takes away that key alone, and it can be written again"


def deleted_softly(c: Case) -> str:
    return _deleted(c, True)


def deleted_hard(c: Case) -> str:
    return _deleted(c, False)


def deleted_twice(c: Case) -> str:
    for soft in (True, False):
        try:
            c.delete("never written", soft)
        except StoreUnavailable as exc:
            raise Failed(f"delete of a key that is not there is an error: {exc.message}") from None
    return "delete of a key that is not there is no error"


# --- what it need not have ------------------------------------------------------------------------------------------
def logged(c: Case) -> str:
    before = len(c.here.ask("operator", "entries", c.space, 1_000_000))
    c.write("logged", 1, view="application")
    entries = c.here.ask("operator", "entries", c.space, 1_000_000)
    if len(entries) <= before:
        raise Failed("get_access_logs has no entry of a write of the application")
    if entries[-1][0] is None or entries[-1][1] is None:
        raise Unknown(
            "entries are no mappings with operation and at (or timestamp): errors are found in them, bursts are not"
        )
    return "get_access_logs gives entries with operation and time"


def rotated(c: Case) -> str:
    if not c.rotate:
        raise NotAsked("rotate_keys works on all that the object has: say --rotate to have it called")
    c.write("sealed before", {"a": 1})
    c.here.call("rotate_keys")
    c.expect("sealed before", {"a": 1}, "after rotate_keys")
    c.expect("sealed before", {"a": 1}, "after rotate_keys in another process", remote=c.there)
    return "what was written before rotate_keys is read after it"


def rated(c: Case) -> str:
    c.write("rated", "x")
    found = judge_answer(c.here.call("evaluate_benchmark", c.space))
    if found.why is not None:
        raise Failed(found.why)
    said = [f"{word} {rate:.2f}" for word, rate in zip(("hit_rate", "accuracy"), found[:2]) if rate is not None]
    return f"evaluate_benchmark gives {' and '.join(said)}"


def living(c: Case) -> str:
    for seconds in (3600.0, None):
        c.here.call("set_ttl", c.space, seconds)
        found = c.there.call("ttl", c.space)
        if found != seconds:
            raise Failed(f"after set_ttl({seconds}) ttl gives {found!r:.40}")
    why = trial(c.here)
    then = "lowers it to 1 s" if why is None else f"leaves it alone: {why}"
    return f"ttl gives what set_ttl set; a quarantine {then}"


def spaces_listed(c: Case) -> str:
    c.write("somewhere", 1)
    found = [item[0] for item in c.here.ask("operator", "namespaces", 1_000_000)]
    if c.space not in found:
        raise Failed("list_namespaces does not name a namespace that has records")
    return "list_namespaces names those that have records"


# --- the fence ------------------------------------------------------------------------------------------------------
def fenced(c: Case) -> str:
    if not c.here.spec.operator_arguments:
        raise Unknown(
            "say with --operator-argument what the factory makes the operator's object of: it has to pass the fence"
        )
    c.write("fenced", "before")
    c.write("fenced", "before", c.other)
    for turn in ("quarantine", "quarantine"):
        c.here.call(turn, c.space)
    try:
        for where, remote in (("the same process", c.here), ("another process", c.there)):
            if c.look("fenced", view="application", remote=remote)[0] == "value":
                raise Failed(f"in quarantine the application of {where} reads")
            _refused(c, remote, where)
        c.expect("fenced", "before", "in quarantine, for the operator")
        c.write("fenced", "repaired")
        c.expect("fenced", "repaired", "written by the operator in quarantine")
        if c.look("fenced", c.other, "application", c.there) != ("value", "before"):
            raise Failed("a quarantine of one namespace keeps the application from another one")
    finally:
        for turn in ("release", "release"):
            c.here.call(turn, c.space)
    if c.look("fenced", view="application", remote=c.there) != ("value", "repaired"):
        raise Failed("after release the application does not read what is there")
    c.write("fenced", "after", view="application", remote=c.there)
    c.expect("fenced", "after", "written by the application after release")
    return "quarantine keeps the application of every process away, and release brings it back"


def _refused(c: Case, remote: Remote, where: str) -> None:
    try:
        c.write("intruder", 1, view="application", remote=remote)
    except StoreUnavailable:
        if c.look("intruder")[0] == "value":
            raise Failed(f"in quarantine a write of the application of {where} raises, and is stored") from None
        return
    raise Failed(f"in quarantine the application of {where} writes: write has to raise")


#: (methods that it is about, what it asks for, the check)
RULES: t.Final[tuple[tuple[tuple[str, ...], t.Callable[[Case], str]], ...]] = (
    (("write", "read"), values),
    (("write", "read"), replaced),
    (("write", "read"), keys_apart),
    (("read", "list_keys"), absent),
    (("write", "read", "list_keys"), spaces_apart),
    (("write", "read"), kept),
    (("read", "write", "list_keys"), reading),
    (("list_keys", "write", "read"), listed),
    (("list_keys",), nothing_listed),
    (("delete", "write", "read", "list_keys"), deleted_softly),
    (("delete", "write", "read", "list_keys"), deleted_hard),
    (("delete",), deleted_twice),
    (("get_access_logs", "write"), logged),
    (("rotate_keys", "write", "read"), rotated),
    (("evaluate_benchmark", "write"), rated),
    (("set_ttl", "ttl", "write", "read", "delete"), living),
    (("list_namespaces", "write"), spaces_listed),
    (("quarantine", "release", "write", "read"), fenced),
)
MUST: t.Final = ("write", "read", "delete", "list_keys")

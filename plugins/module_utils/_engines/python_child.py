# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The process in which an application's own memory object runs.

PRIVATE to the collection. Whatever the object does (print, hang, exit, crash), it does here: ``python_remote.py``
waits at the other end with a deadline for each call. Frames are marshalled built-in values, so nothing of the
application's classes leaves this process.
"""
from __future__ import annotations

import importlib
import marshal
import os
import struct
import sys
import threading
import time
import typing as t

from .._codec import check_key
from .._errors import InvalidInput
from .._python_values import pack, unpack

LENGTH: t.Final = struct.Struct(">I")
SEND_SECONDS = 0.2  # an answer that takes longer is sent in parts, each a sign of life
PART_ITEMS, PART_BYTES = 500, 1 << 20
MOST_BYTES = 8 << 20  # payloads of one answer
MOST_TEXT = 160  # characters of what an exception says
METHODS: t.Final = (
    "write", "read", "delete", "list_keys", "get_access_logs", "rotate_keys", "evaluate_benchmark", "set_ttl", "ttl",
    "quarantine", "release", "list_namespaces",
)  # fmt: skip
Item = t.Tuple[t.Any, ...]


def frame(value: t.Any) -> bytes:
    body = marshal.dumps(value)
    return LENGTH.pack(len(body)) + body


def said(exc: BaseException) -> str:
    """An exception in one short line."""
    text = "".join(c if c.isprintable() else " " for c in _text(exc))[:MOST_TEXT].strip()
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _text(value: t.Any) -> str:
    try:
        return str(value)
    except Exception:
        return ""


class _NobodyListens(Exception):
    """The parent has closed its end."""


class Wrong(Exception):
    """The object broke a rule of its methods; says which."""


class Objects:
    """The object as the operator has it, and as the application has it; made when they are first asked for."""

    def __init__(self, factory: str, arguments: dict[str, t.Any], operator: dict[str, t.Any]) -> None:
        self._factory = factory
        self._arguments = {"application": arguments, "operator": {**arguments, **operator}}
        self._made: dict[str, t.Any] = {}

    def __getitem__(self, view: str) -> t.Any:
        if view == "operator" and self._arguments["operator"] == self._arguments["application"]:
            view = "application"
        if view not in self._made:
            module, _colon, name = self._factory.partition(":")
            made: t.Any = importlib.import_module(module)
            for part in name.split("."):
                made = getattr(made, part)
            self._made[view] = made(**self._arguments[view])
        return self._made[view]


# --- what can be asked: each yields items ---------------------------------------------------------------------------
def offers(memory: t.Any) -> t.Iterator[Item]:
    for name in METHODS:
        if callable(getattr(memory, name, None)):
            yield (name,)


def _each(found: t.Any, method: str) -> t.Iterator[t.Any]:
    if isinstance(found, (str, bytes)) or not hasattr(found, "__iter__"):
        raise Wrong(f"{method} gave {type(found).__name__}, which is no list of what was asked for")
    yield from found


def keys(memory: t.Any, namespace: str, most: int) -> t.Iterator[Item]:
    """(key,) of each, or (None, what it is) of what is no key. Ends with Wrong after ``most`` (0: without an end)."""
    yield from _names(memory.list_keys(namespace), "list_keys", most)


def some(memory: t.Any, namespace: str, many: int) -> t.Iterator[Item]:
    """The first ``many`` keys."""
    found = keys(memory, namespace, 0)
    for _turn in range(many):
        item = next(found, None)
        if item is None:
            return
        yield item


def namespaces(memory: t.Any, most: int) -> t.Iterator[Item]:
    yield from _names(memory.list_namespaces(), "list_namespaces", most)


def _names(found: t.Any, method: str, most: int) -> t.Iterator[Item]:
    for number, name in enumerate(_each(found, method), 1):
        if most and number > most:
            raise Wrong(f"{method} did not end after {most:,} names")
        try:
            if name.__class__ is not str:
                raise InvalidInput("no text")
            yield (check_key(name),)
        except InvalidInput:
            yield None, f"{name!a:.60}" if isinstance(name, (str, bytes, int)) else type(name).__name__


def read(memory: t.Any, namespace: str, wanted: t.Sequence[str]) -> t.Iterator[Item]:
    """(key, "value", payload) | (key, "absent", b"") | (key, "unreadable", why), in order, until MOST_BYTES."""
    size = 0
    for key in wanted:
        if size > MOST_BYTES:
            return
        item = _look(memory, namespace, key)
        size += len(item[2])
        yield item


def _look(memory: t.Any, namespace: str, key: str) -> Item:
    try:
        data = memory.read(namespace, key)
        if data is None:
            return key, "absent", b""
        return key, "value", pack(data)
    except KeyError as exc:
        if exc.args == (key,):
            return key, "absent", b""
        return key, "unreadable", f"read raised {said(exc)}".encode("utf-8", "replace")
    except InvalidInput as exc:
        return key, "unreadable", f"read gives what cannot be carried: {exc.message}".encode("utf-8", "replace")
    except BaseException as exc:  # SystemExit of a library is no reason to end either
        return key, "unreadable", f"read raised {said(exc)}".encode("utf-8", "replace")


def write(memory: t.Any, namespace: str, items: t.Sequence[tuple[str, bytes]], reason: str) -> t.Iterator[Item]:
    for key, payload in items:
        memory.write(namespace, key, unpack(payload), reason=reason)
        yield (key,)


def delete(memory: t.Any, namespace: str, wanted: t.Sequence[str], soft: bool) -> t.Iterator[Item]:
    for key in wanted:
        memory.delete(namespace, key, soft=soft)
        yield (key,)


def call(memory: t.Any, method: str, arguments: t.Sequence[t.Any]) -> t.Iterator[Item]:
    """(what it gave,), a built-in value; anything else as a text that names its type."""
    found = getattr(memory, method)(*arguments)
    try:
        marshal.dumps(found)
    except ValueError:
        if hasattr(found, "close"):
            found.close()  # a coroutine that nobody awaits
        yield (f"<{type(found).__name__}>",)
    else:
        yield (found,)


def entries(memory: t.Any, namespace: str, most: int) -> t.Iterator[Item]:
    """(operation, seconds since 1970 or None, line) of each entry of the access log."""
    for number, entry in enumerate(_each(memory.get_access_logs(namespace), "get_access_logs"), 1):
        if number > most:
            raise Wrong(f"get_access_logs did not end after {most:,} entries")
        operation = at = None
        if isinstance(entry, dict):
            operation = next((str(entry[n]) for n in ("operation", "action", "event", "op") if n in entry), None)
            at = next((entry[n] for n in ("at", "timestamp", "time", "ts") if n in entry), None)
            line = " ".join(f"{name}={_text(value)}" for name, value in entry.items())
        else:
            line = _text(entry)
        yield operation, _seconds(at), line[:2000]


def _seconds(at: t.Any) -> float | None:
    if isinstance(at, bool):
        return None
    if isinstance(at, (int, float)):
        return float(at)
    try:
        from datetime import datetime, timezone

        moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at).replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


COMMANDS: t.Final[dict[str, t.Callable[..., t.Iterator[Item]]]] = {
    one.__name__: one for one in (offers, keys, some, namespaces, read, write, delete, call, entries)
}


# --- the loop -------------------------------------------------------------------------------------------------------
def _answer(objects: Objects, view: str, command: str, arguments: t.Sequence[t.Any], out: t.BinaryIO) -> None:
    """Parts of the answer, then how it ended: done; broken (the object cannot be made); wrong; raised."""
    part: list[Item] = []
    size, since = 0, time.monotonic()

    def send(kind: str, value: t.Any) -> None:
        try:
            out.write(frame((kind, value)))
            out.flush()
        except OSError as exc:
            raise _NobodyListens from exc

    try:
        try:
            memory = objects[view]
        except BaseException as exc:
            send("broken", said(exc))
            return
        send("part", [])  # it is there: from now on a call takes its time
        since = time.monotonic()
        for item in COMMANDS[command](memory, *arguments):
            part.append(item)
            size += sum(len(x) for x in item if isinstance(x, (bytes, str)))
            if len(part) >= PART_ITEMS or size > PART_BYTES or time.monotonic() - since > SEND_SECONDS:
                send("part", part)
                part, size, since = [], 0, time.monotonic()
        if part:
            send("part", part)
        send("done", None)
    except _NobodyListens:
        raise
    except Wrong as exc:
        send("part", part)
        send("wrong", str(exc))
    except BaseException as exc:
        send("part", part)
        send("raised", said(exc))


def _end_with(parent: int) -> None:
    """Nobody waits for the answers of a call that hangs when the parent is dead."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main(parent: int) -> None:
    """Speak with the parent on what were standard input and output; the object sees neither."""
    inn, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def receive() -> t.Any:
        head = inn.read(LENGTH.size)
        if len(head) < LENGTH.size:
            os._exit(0)  # the object's own threads do not keep us
        return marshal.loads(inn.read(LENGTH.unpack(head)[0]))

    path, factory, arguments, operator = receive()
    sys.path[:0] = path
    objects = Objects(factory, arguments, operator)
    while True:
        view, command, args = receive()
        try:
            _answer(objects, view, command, args, out)
        except _NobodyListens:
            os._exit(0)

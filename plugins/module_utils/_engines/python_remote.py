# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""An application's own memory object in a process of its own, and a deadline for each of its calls.

PRIVATE to the collection. The process is a new interpreter, the one that this process runs in: the object sees nothing
of ours, prints into nothing, and is killed when a call does not end.
"""
from __future__ import annotations

import contextlib
import json
import marshal
import os
import select
import subprocess
import sys
import time
import typing as t

from .._errors import CapabilityMissing, InvalidInput, StoreDamaged, StoreUnavailable
from .python_child import LENGTH, SEND_SECONDS, Item, frame

CALL_TIMEOUT = 30.0
MAKING_SECONDS = 300.0  # that a new interpreter, the application's imports and its factory may take
MOST_NAMES = 50_000_000  # keys of a namespace
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); name, parent = sys.argv[2:]; del sys.argv[1:]; "
    "__import__(name); sys.modules[name].main(int(parent))"
)
Each = t.Callable[[t.List[Item]], None]
#: Which operations cannot do without a method.
NEEDED: t.Final = {
    "list_keys": "every step",
    "read": "every step",
    "write": "a rebuild and a restore",
    "delete": "a rebuild, a restore and the isolation of single records",
    "rotate_keys": "the rotation of keys",
}


class Stopped(StoreUnavailable):
    """A call did not end, or ended the object's process: nobody knows what it did."""


class Spec(t.NamedTuple):
    """What memory_store says of the object."""

    factory: str
    arguments: t.Dict[str, t.Any]
    operator_arguments: t.Dict[str, t.Any]
    path: t.Tuple[str, ...]
    timeout: float


def spec_of(params: t.Mapping[str, t.Any]) -> Spec:
    """Errors: InvalidInput."""
    factory = params.get("factory")
    module, _colon, name = str(factory or "").partition(":")
    if not all(part.isidentifier() for text in (module, name) for part in text.split(".")):
        raise InvalidInput(
            f"memory_store.factory is {factory!r:.80}, not package.module:factory.",
            "name the function or class that makes the application's memory object, such as agent.memory:make",
        )
    given = [params.get(word) or {} for word in ("arguments", "operator_arguments")]
    for word, arguments in zip(("arguments", "operator_arguments"), given):
        if not isinstance(arguments, t.Mapping) or not all(isinstance(one, str) for one in arguments):
            raise InvalidInput(f"memory_store.{word} is no mapping of names to values.", "write it as name: value")
        try:
            marshal.dumps(dict(arguments))
        except ValueError:
            raise InvalidInput(
                f"memory_store.{word} holds what is no plain value.", "use texts, numbers, lists and mappings"
            ) from None
    timeout = params.get("call_timeout")
    try:
        seconds = CALL_TIMEOUT if timeout is None else float(timeout)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise InvalidInput(
            f"memory_store.call_timeout is {timeout!r:.80}, not a number of seconds up to 3600.",
            "set it to a number such as 30, or leave it out",
        )
    path = tuple(os.path.abspath(os.path.expanduser(str(one))) for one in params.get("python_path") or ())
    return Spec(str(factory), dict(given[0]), dict(given[1]), path, seconds)


class Remote:
    """Asks the object. An answer is read to its end before the next question, so nothing is ever asked in between."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._buffer = bytearray()
        self._offers: frozenset[str] | None = None

    # --- what it has --------------------------------------------------------------------------------------------
    def offers(self) -> frozenset[str]:
        """Its methods."""
        if self._offers is None:
            self._offers = frozenset(name for (name,) in self.ask("operator", "offers"))
        return self._offers

    def need(self, *methods: str) -> None:
        """Errors: CapabilityMissing that names the first that is missing, and who needs it."""
        for method in methods:
            if method not in self.offers():
                raise CapabilityMissing(
                    f"The memory object of {self.spec.factory} has no method {method}, which "
                    f"{NEEDED.get(method, 'this step')} needs.",
                    "add it to the object (docs/python_memory.md says what it has to do)",
                )

    # --- asking -------------------------------------------------------------------------------------------------
    def ask(self, view: str, command: str, *arguments: t.Any, each: Each | None = None) -> list[Item]:
        """The items of the answer; with ``each`` they are handed over as they come.

        Errors: InvalidInput (the object cannot be made), StoreDamaged (it broke a rule of its methods),
        StoreUnavailable (it raised), Stopped.
        """
        found: list[Item] = []
        take = each or found.extend
        self._send((view, command, arguments))
        seconds = max(MAKING_SECONDS, self.spec.timeout)
        while True:
            kind, value = self._receive(command, arguments, seconds)
            seconds = self.spec.timeout
            if kind == "part":
                take(value)
            elif kind == "done":
                return found
            elif kind == "broken":
                raise InvalidInput(
                    f"The memory object of {self.spec.factory} cannot be made: {value}.",
                    "correct memory_store.factory, arguments or python_path; the module runs it with the interpreter "
                    "of the memory host (ansible_python_interpreter)",
                )
            elif kind == "wrong":
                raise StoreDamaged(
                    f"The memory object of {self.spec.factory} breaks a rule: {value}.",
                    "run its conformance suite (docs/python_memory.md), correct the object, then run this again",
                )
            else:
                raise StoreUnavailable(
                    f"{_named(command, arguments)} of the memory object of {self.spec.factory} raised {value}.",
                    "look at the application's store, then run the same command again",
                )

    def call(self, method: str, *arguments: t.Any, view: str = "operator") -> t.Any:
        """One method's answer, a built-in value. Errors: as of ask."""
        return self.ask(view, "call", method, list(arguments))[0][0]

    def _send(self, value: t.Any) -> None:
        with contextlib.suppress(OSError):  # why it is gone is told when the answer is waited for
            stdin = self._started().stdin
            if stdin is not None:
                stdin.write(frame(value))
                stdin.flush()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._pid == os.getpid():
            return self._process
        self._buffer.clear()
        self._pid = os.getpid()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(sys.path), __name__.rpartition(".")[0] + ".python_child",
                 str(self._pid)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as exc:
            raise StoreUnavailable(
                f"No process can be started for the memory object: {exc.strerror}.", "free memory, then try again"
            ) from None
        self._send((list(self.spec.path), self.spec.factory, self.spec.arguments, self.spec.operator_arguments))
        return self._process

    def _receive(self, command: str, arguments: t.Sequence[t.Any], seconds: float) -> tuple[str, t.Any]:
        process = self._started()
        if process.stdout is None:
            raise AssertionError("process.stdout")
        out = process.stdout.fileno()
        deadline = time.monotonic() + seconds + SEND_SECONDS
        waiting = select.poll()
        waiting.register(out, select.POLLIN | select.POLLHUP)
        while True:
            if len(self._buffer) >= LENGTH.size:
                end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
                if len(self._buffer) >= end:
                    value: tuple[str, t.Any] = marshal.loads(bytes(self._buffer[LENGTH.size : end]))
                    del self._buffer[:end]
                    return value
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                why = f"did not answer within {seconds:g} s (memory_store.call_timeout)"
                break
            some = os.read(out, 1 << 20)
            if not some:
                why = f"ended its process (status {process.wait()})"
                break
            self._buffer += some
        self.close()
        raise Stopped(
            f"{_named(command, arguments)} of the memory object of {self.spec.factory} {why}, and nobody knows what it "
            "did.",
            "look at the application's store, then run the same command again, which looks first",
        )

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        if self._pid == os.getpid():  # after a fork it is the parent's
            process.kill()
            process.wait()


def _named(command: str, arguments: t.Sequence[t.Any]) -> str:
    """The method that a command calls."""
    if command == "call":
        return str(arguments[0])
    return {
        "keys": "list_keys", "some": "list_keys", "namespaces": "list_namespaces", "entries": "get_access_logs",
        "offers": "making",
    }.get(command, command)  # fmt: skip

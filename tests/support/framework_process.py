# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A program that uses an agent framework, in a process of its own with the framework's interpreter: its methods are
called from here."""
from __future__ import annotations

import json
import pathlib
import subprocess
import threading
import typing as t

from .frameworks import frameworks


class Refused(Exception):
    """What the program's framework raised, by name and text."""


class FrameworkProcess:
    """``process.put(…)`` calls ``put`` of the program in tests/support/<program>."""

    def __init__(self, program: str, *arguments: str) -> None:
        path = pathlib.Path(__file__).with_name(program)
        self._process = subprocess.Popen(
            [frameworks(), str(path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._one_at_a_time = threading.Lock()

    def __getattr__(self, method: str) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any) -> t.Any:
            with self._one_at_a_time:
                self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            if not line:
                raise AssertionError("the application has ended")
            said = json.loads(line)
            if "error" in said:
                raise Refused(said["error"])
            return said["value"]

        return call

    def __enter__(self) -> FrameworkProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

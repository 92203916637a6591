# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of tests/support that run in the frameworks' environment: asked one JSON line at a time, or left to work."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import typing as t

from tests.support.frameworks import frameworks

FOLDER = pathlib.Path(__file__).parent


class Application:
    """One such program. ``ask`` sends a request and gives its answer."""

    def __init__(self, program: str, *arguments: str, **variables: str) -> None:
        """``variables``: of its environment."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON"))}
        self._process = subprocess.Popen(
            [frameworks(), str(FOLDER / program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env={**clean, **variables},
        )  # fmt: skip

    def ask(self, do: str, **more: t.Any) -> t.Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self.line())
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["answer"]

    def line(self) -> str:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the application ended: {self._process.stderr.read()[-3000:]}")
        return line

    def end(self) -> str:
        """Its last words."""
        said, errors = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the application failed: {errors[-3000:]}")
        return said.strip().splitlines()[-1] if said.strip() else ""

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A virtual environment for what tests run beside the collection, by the pip of their own environment.

A pip in each environment costs 4 s of processor time. Bytecode is compiled where it is first used: most of what the
agent frameworks bring is never imported, and to compile it all costs 20 s.
"""
from __future__ import annotations

import pathlib
import subprocess
import sys


def add(python: pathlib.Path, folder: pathlib.Path, *wanted: str) -> None:
    """Let pip install into ``folder``, for a PYTHONPATH of that interpreter, which has all else that it needs."""
    _run(*_pip(python), "--no-deps", "--target", str(folder), *wanted)


def make(folder: pathlib.Path, *wanted: str) -> pathlib.Path:
    """Make ``folder`` anew with what pip is told to install; the path of its interpreter."""
    base, python = getattr(sys, "_base_executable", sys.executable), folder / "bin" / "python"
    _run(base, "-m", "venv", "--clear", "--without-pip", str(folder))
    _run(*_pip(python), *wanted)
    return python


def _pip(python: pathlib.Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--no-compile"]
    return [*command, "--disable-pip-version-check"]


def _run(*command: str) -> None:
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{' '.join(command)}: {made.stderr[-2000:] or made.stdout[-2000:]}")

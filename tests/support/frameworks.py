# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A virtual environment with the real agent frameworks, whose programs the tests run beside the runbook.

    python = frameworks()                      # its interpreter; the environment is made when it is not there
    folder = former_mem0()                     # for the PYTHONPATH of that interpreter: mem0 as it was before

It is made once for a version of requirements-frameworks.txt and of the interpreter, whoever asks first.
"""
from __future__ import annotations

import fcntl
import hashlib
import pathlib
import sys
import typing as t

from tests.support import environments

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements-frameworks.txt"
FORMER_MEM0 = "mem0ai==1.0.11"  # what it needs is what its newest version needs


def frameworks() -> str:
    """The path of the environment's interpreter."""
    return str(_home() / "bin" / "python")


def former_mem0() -> str:
    """The path of a folder that has nothing but this."""
    home = _home()
    folder = home / FORMER_MEM0
    _once(home / f"{FORMER_MEM0}.made", lambda: environments.add(home / "bin" / "python", folder, FORMER_MEM0))
    return str(folder)


def _home() -> pathlib.Path:
    base = getattr(sys, "_base_executable", sys.executable)
    mark = hashlib.sha256(REQUIREMENTS.read_bytes() + base.encode() + sys.version.encode()).hexdigest()[:12]
    home = VENVS / f"frameworks-{mark}"
    _once(home / "made", lambda: environments.make(home, "--requirement", str(REQUIREMENTS)))
    return home


def _once(done: pathlib.Path, make: t.Callable[[], object]) -> None:
    """``make``, unless somebody did; ``done`` says so."""
    if done.exists():
        return
    VENVS.mkdir(exist_ok=True)
    with open(VENVS / "frameworks.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make()
            done.touch()

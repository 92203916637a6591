# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A virtual environment with the real agent frameworks, whose programs the tests run beside the runbook.

    python = frameworks()                      # its interpreter; the environment is made when it is not there

It is made once for a version of requirements-frameworks.txt and of the interpreter, whoever asks first.
"""
from __future__ import annotations

import fcntl
import hashlib
import pathlib
import sys

from tests.support import environments

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-frameworks.txt"


def frameworks() -> str:
    """The path of the environment's interpreter."""
    base = getattr(sys, "_base_executable", sys.executable)
    mark = hashlib.sha256(REQUIREMENTS.read_bytes() + base.encode() + sys.version.encode()).hexdigest()[:12]
    home = ROOT / ".venv" / f"frameworks-{mark}"
    python, done = home / "bin" / "python", home / "made"
    if done.exists():
        return str(python)
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / "frameworks.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            environments.make(home, "--requirement", str(REQUIREMENTS))
            done.touch()
    return str(python)

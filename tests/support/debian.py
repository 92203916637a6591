# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Servers that tests need and that no Python package has: from Debian's archive, installed when they are missing."""
from __future__ import annotations

import glob
import os
import shutil
import subprocess


def _path() -> str:
    return os.pathsep.join(
        [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *glob.glob("/usr/lib/postgresql/*/bin")]
    )


def need(package: str, binary: str) -> str:
    """The path of ``binary``, of Debian's ``package``; root installs it. Errors: AssertionError with what to do."""
    found = shutil.which(binary, path=_path())
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # Tests that run side by side may both want it.
        apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
        install = [*apt, "install", "-y", "--no-install-recommends", package]
        if _quiet(install) != 0 and _quiet([*apt, "update"]) == 0:
            _quiet(install)
        found = shutil.which(binary, path=_path())
    if found is None:
        raise AssertionError(f"{binary} is missing on this machine. Next: as root: apt-get install {package}")
    return found


def _quiet(command: list[str]) -> int:
    """The exit status."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False
    ).returncode

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python interpreters this machine really has."""
from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess

VERSIONS = tuple(f"3.{minor}" for minor in range(9, 15))


def _runs(path: str, version: str) -> bool:
    """A version manager puts stubs on PATH for versions that are not active, so only a run counts."""
    code = f"import sys, ssl, ensurepip, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@functools.cache
def find(version: str) -> str | None:
    """Path of a working interpreter of this version ("3.12") with venv and TLS, or None."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    candidates = [shutil.which(f"python{version}"), f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"]
    candidates += sorted(glob.glob(f"{root}/versions/{version}.*/bin/python{version}"), reverse=True)
    return next((path for path in candidates if path and _runs(path, version)), None)

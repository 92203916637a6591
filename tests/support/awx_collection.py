# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection awx.awx, taken from PyPI's package ansible: the one of Galaxy, by way of a Python package index."""
from __future__ import annotations

import fcntl
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "ansible==12.3.0"
VERSION = "24.6.1"
COLLECTIONS = pathlib.Path(__file__).resolve().parents[2] / ".ansible" / "collections" / "ansible_collections"
HERE = COLLECTIONS / "awx" / "awx"


def bring() -> pathlib.Path:
    """The collection's folder among those of this checkout. The package is 54 MB and is fetched once."""
    COLLECTIONS.mkdir(parents=True, exist_ok=True)
    with open(COLLECTIONS.parent / "awx.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if _version() != VERSION:
            with tempfile.TemporaryDirectory(dir=COLLECTIONS.parent) as folder:
                pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--disable-pip-version-check"]
                subprocess.run([*pip, "--only-binary", ":all:", "-d", folder, PACKAGE], check=True)
                (wheel,) = pathlib.Path(folder).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    names = [n for n in archive.namelist() if n.startswith("ansible_collections/awx/awx/")]
                    archive.extractall(folder, names)
                shutil.rmtree(HERE, ignore_errors=True)
                HERE.parent.mkdir(parents=True, exist_ok=True)
                (pathlib.Path(folder) / "ansible_collections" / "awx" / "awx").rename(HERE)
            assert _version() == VERSION, f"{PACKAGE} has awx.awx {_version()}, the tests are for {VERSION}"
    return HERE


def _version() -> str:
    try:
        manifest = json.loads((HERE / "MANIFEST.json").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return str(manifest["collection_info"]["version"])

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In place of the get-pip script that ansible-test would download: pip comes with Python.

ansible-test makes an environment for each of its tests, some twenty, and wants the same pip in all of them. What the
first of a Python version got is kept, and the others get a copy: to install and compile it costs seconds each time.
"""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig


def install(arguments: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
    # In a process of its own: ensurepip switches pip's configuration off for the process that calls it.
    subprocess.check_call([sys.executable, "-m", "ensurepip"], env=env, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "pip", "install", "-q", "--compile", "--upgrade", *arguments]
    subprocess.check_call(command, env=env)


def main() -> None:
    arguments = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    name = "-".join(arg for arg in arguments if not arg.startswith("-"))
    kept = pathlib.Path(__file__).with_name(f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}")
    if kept.is_dir():
        shutil.copytree(kept, packages, dirs_exist_ok=True)
        return
    install(arguments)
    unfinished = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copytree(packages, unfinished)
    unfinished.rename(kept)


main()

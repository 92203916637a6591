# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A memory host that the role prepares gets the versions that were tested."""
from __future__ import annotations

import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
LISTS = sorted((ROOT / "roles" / "prepare" / "files").glob("*.txt"))


def pins(path: pathlib.Path, python: str) -> dict[str, str]:
    """name -> version of the lines that count for this Python; a marker here is one comparison."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r'([\w.-]+)==([\w.]+)(?:; python_(?:full_)?version (<|>=) "([\d.]+)")?', line)
        if line.startswith("#"):
            continue
        assert match, f"{path.name}: {line}"
        name, version, compare, limit = match.groups()
        here = [int(part) for part in python.split(".")]
        if compare and (here < [int(part) for part in limit.split(".")]) is not (compare == "<"):
            continue
        assert found.setdefault(name, version) == version, f"{path.name} pins {name} twice for Python {python}"
    return found


def listed(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return {one.lower(): version for one, version in re.findall(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", text, re.M)}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_list_pins_what_the_tests_run_with(path: pathlib.Path) -> None:
    tested = {**listed("constraints.txt"), **listed("requirements.txt")}
    mine = pins(path, "3.14" if sys.version_info >= (3, 14) else "3.11.3")
    assert mine
    assert {name.replace("_", "-"): version for name, version in mine.items()}.items() <= tested.items()


def test_every_package_of_a_memory_host_is_in_a_list_for_every_python() -> None:
    needed = set(listed("requirements.txt"))
    assert needed
    for python in ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"):
        assert needed <= {name for path in LISTS for name in pins(path, python)}

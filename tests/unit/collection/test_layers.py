# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom (docs/architecture.md); and what no other test runs can at least be imported."""
from __future__ import annotations

import ast
import importlib
import pathlib
import re
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
CORE = ROOT / "plugins" / "module_utils"
CORE_NAME = ("ansible_collections", "memops", "agent_memory", "plugins", "module_utils")
BENCH = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("*.py"))

#: A part of module_utils, and the other parts that may import it.
IMPORTED_BY: dict[str, set[str]] = {
    "_ansible": {"_modules"},
    "_modules": set(),
    "_operations": {"_ansible", "_modules", "memory", "_conformance"},
    "_engines": {"_store", "_replication", "conformance", "_conformance"},
    "_replication": {"_operations"},
    "_routes": {"_operations"},
}
#: A part, and what it does without: a layout is data and opens no connection, a repository knows no store.
DOES_WITHOUT = {"_layouts": {"_store", "_connections", "_repository"}, "_repository": {"_store", "_layouts"}}


def imports(path: pathlib.Path) -> t.Iterator[tuple[str, ...]]:
    """What a file imports from the core, also inside functions: its path from module_utils on."""
    here = (*CORE_NAME, *path.relative_to(CORE).parts[:-1]) if path.is_relative_to(CORE) else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = (*(here[: len(here) - node.level + 1] if node.level else ()), *(node.module or "").split("."))
            for alias in node.names:
                name = tuple(filter(None, (*base, alias.name)))
                if name[: len(CORE_NAME)] == CORE_NAME:
                    yield name[len(CORE_NAME) :]


def test_each_part_of_the_core_is_imported_by_those_above_it_alone() -> None:
    wrong, seen = [], set()
    for path in sorted(CORE.rglob("*.py")):
        importer = path.relative_to(CORE).parts[0].removesuffix(".py")
        for name in imports(path):
            imported = name[0]
            seen |= {importer, imported}
            alone = IMPORTED_BY.get(imported)
            refused = imported in DOES_WITHOUT.get(importer, ())
            if importer != imported and (refused or (alone is not None and importer not in alone)):
                wrong.append(f"{path.relative_to(CORE)} imports {'.'.join(name)}")
    assert wrong == []
    named = {*IMPORTED_BY, *DOES_WITHOUT}.union(*IMPORTED_BY.values(), *DOES_WITHOUT.values())
    assert named - seen == set()  # what is said above is said of parts that are there


def test_a_module_imports_its_arguments_and_its_call_alone() -> None:
    modules = sorted((ROOT / "plugins" / "modules").glob("*.py"))
    found = {name[0] for path in modules for name in imports(path)}
    assert found == {"_modules"}


def test_only_the_ansible_layer_imports_ansible() -> None:
    pattern = re.compile(r"^\s*(from|import) ansible(\.|\s)", re.M)
    core = CORE.rglob("*.py")
    found = [str(path.relative_to(ROOT)) for path in core if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == ["plugins/module_utils/_ansible.py"]


@pytest.mark.parametrize("name", BENCH)
def test_every_part_of_the_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"tests.bench.{name}")

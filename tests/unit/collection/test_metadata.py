# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What galaxy.yml, meta/ and the tree say about each other."""
from __future__ import annotations

import ast
import fnmatch
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]


def load(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def plugins(kind: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "plugins" / kind).glob("[!_]*.py"))


def names(requirements: str) -> set[str]:
    lines = (ROOT / requirements).read_text(encoding="utf-8").splitlines()
    return {re.split(r"[\[=<>;\s]", line)[0].lower() for line in lines if line and line[0] not in "#-"}


def documents_group(module: str) -> bool:
    """Whether a module's documentation promises membership in the action group."""
    source = (ROOT / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8")
    return "memops.agent_memory.memory.actiongroup_memory" in source


def test_every_module_that_documents_the_action_group_is_in_it() -> None:
    documented = [name for name in plugins("modules") if documents_group(name)]
    assert sorted(load("meta/runtime.yml")["action_groups"]["memory"]) == documented


def test_every_module_of_the_action_group_goes_through_the_action() -> None:
    runtime = load("meta/runtime.yml")
    routed = {name: rule["action_plugin"] for name, rule in runtime["plugin_routing"]["modules"].items()}
    assert routed == dict.fromkeys(runtime["action_groups"]["memory"], "memops.agent_memory.memory")


def test_the_execution_environment_gets_what_a_memory_host_gets() -> None:
    assert names("meta/ee-requirements.txt") == names("requirements.txt")


def test_third_party_packages_are_imported_inside_functions_only() -> None:
    packages = names("requirements.txt") | {"botocore"}
    found = []
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{path.relative_to(ROOT)}: {name}" for name in imported if name.split(".")[0] in packages]
    assert found == []


def test_every_file_of_the_core_carries_its_licence() -> None:
    core = (ROOT / "plugins" / "module_utils").rglob("*.py")
    marker = "SPDX-License-Identifier: Apache-2.0"
    assert [str(path) for path in core if marker not in path.read_text(encoding="utf-8")] == []


def test_the_built_collection_leaves_the_workshop_at_home() -> None:
    ignored = load("galaxy.yml")["build_ignore"]
    workshop = [".ansible", ".venv", ".ci", "demo", "Makefile", "requirements-test.txt", "tests/unit", "tests/support"]
    assert [path for path in workshop if not any(fnmatch.fnmatch(path, rule) for rule in ignored)] == []
    content = ["plugins", "roles", "playbooks", "meta/runtime.yml", "meta/ee-requirements.txt", "LICENSES", "COPYING"]
    assert [path for path in content if any(fnmatch.fnmatch(path, rule) for rule in ignored)] == []


def test_the_changelog_knows_the_version_or_a_fragment_announces_it() -> None:
    version = load("galaxy.yml")["version"]
    released = load("changelogs/changelog.yaml")["releases"]
    assert version in released or (ROOT / "changelogs" / "fragments" / f"{version}.yml").is_file()

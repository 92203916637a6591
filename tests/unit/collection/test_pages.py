# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages for people: every command in them names what is there, and what they call code runs."""
from __future__ import annotations

import functools
import json
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from ansible_collections.memops.agent_memory.plugins.module_utils._layouts import ALL_CAPABILITIES
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import Journal, Run
from ansible_collections.memops.agent_memory.plugins.plugin_utils._variables import KNOWN

ROOT = pathlib.Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
THERE = {
    "playbooks": {path.stem for path in (ROOT / "playbooks").glob("[!_]*.yml")},
    "modules": {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")},
    "filters": {path.stem for path in (ROOT / "plugins" / "filter").glob("*.py")},
    "roles": {path.name for path in (ROOT / "roles").iterdir()},
    "callbacks": {path.stem for path in (ROOT / "plugins").glob("callback/*.py")},
    "rulebooks": {path.stem for path in (ROOT / "extensions").glob("eda/rulebooks/*.yml")},
}


@functools.cache
def options() -> dict[str, dict]:
    """Of every variable what the roles' argument specifications say."""
    found: dict[str, dict] = {}
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            found.update(entry.get("options", {}))
    return found


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """Fenced blocks of that language, those that are part of a list too, with continued lines joined."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r" *\\\n\s*", " ", block) for _indent, block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_collection_in_a_page_is_there(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"(?<!\.)\bmemops\.agent_memory\.([a-z_]+)", text))  # not in a Python import
    assert names <= set().union(*THERE.values()), page.name
    for line in (line for block in blocks(page, "console") for line in block.splitlines()):
        if line.startswith("ansible-playbook"):
            command = re.search(r" memops\.agent_memory\.([a-z_]+)", line)
            assert command and command.group(1) in THERE["playbooks"], line
            assert " -i " in line, f"{page.name}: no inventory: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_in_a_page_is_known_and_takes_that_value(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = options()
    given = {name for words in re.findall(r"-e ('\{.*?\}'|\S+)", text) for name in re.findall(r"\bmemory_\w+", words)}
    for block in blocks(page, "yaml"):
        given |= set(re.findall(r"^ *(memory_\w+):", block, re.MULTILINE))
    assert given <= KNOWN, page.name
    for name, value in re.findall(r"-e (memory_[a-z_]+)=([^\s'`|]+)", text):
        choices = known.get(name, {}).get("choices")
        if choices:
            assert value.strip(".,;)") in choices, f"{page.name}: {name}={value}"


def test_every_make_target_in_a_page_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set()
    for page in PAGES:
        named |= set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "docs"} <= named
    assert named <= targets


def test_every_file_that_a_page_for_a_reader_names_is_there() -> None:
    for name in ("on_call", "auditor", "developing_layouts", "application_owner"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for path in re.findall(r"`((?:plugins|tests|docs|roles)/[\w/.*]+)`", text):
            assert list(ROOT.glob(path.rstrip("/"))), f"{name}: {path}"


def test_the_page_of_the_on_call_is_one_page() -> None:
    assert len((ROOT / "docs" / "on_call.md").read_text(encoding="utf-8").split()) < 1000


def test_the_auditors_program_follows_a_journal_and_sees_a_change(tmp_path: pathlib.Path) -> None:
    (program,) = blocks(ROOT / "docs" / "auditor.md", "python")
    (tmp_path / "check.py").write_text(program, encoding="utf-8")
    (tmp_path / "incident").mkdir()
    journal = Journal(str(tmp_path / "incident"))
    for number in range(3):
        with journal.step("fence", Run("a:1:1", "test"), number=number):
            pass
    written = tmp_path / "incident" / "journal.jsonl"

    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "check.py"), str(written)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check().returncode == 0 and check().stdout.startswith("whole; the last hash is ")
    lines = written.read_bytes().splitlines()
    written.write_bytes(b"\n".join([lines[0].replace(b'"number":0', b'"number":7'), *lines[1:], b""]))
    assert written.read_bytes().splitlines() != lines
    assert check().returncode == 1 and "broken at entry 1" in check().stderr


def test_the_page_for_layouts_knows_every_capability() -> None:
    text = (ROOT / "docs" / "developing_layouts.md").read_text(encoding="utf-8")
    table = text.partition("## Capabilities")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    words = {word for row in rows for word in re.findall(r"`([a-z-]+)`", row)}
    assert words == set(ALL_CAPABILITIES)


def test_the_questions_in_the_owners_page_are_json() -> None:
    (block,) = blocks(ROOT / "docs" / "application_owner.md", "json")
    assert [set(json.loads(line)) for line in block.splitlines()] == [
        {"key", "expect", "namespace"}, {"query", "expect", "namespace"}
    ]  # fmt: skip

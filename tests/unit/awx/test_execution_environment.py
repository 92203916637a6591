# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment's image can be described from what the repository has; nothing is built or fetched here."""
from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
from awx_collection import VERSION

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILDER = pathlib.Path(sys.executable).with_name("ansible-builder")


def test_ansible_builder_creates_the_context(tmp_path: pathlib.Path) -> None:
    command = [BUILDER, "create", "-f", ROOT / "execution-environment.yml", "-c", tmp_path / "context"]
    command += ["--output-filename", "Containerfile"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "context" / "Containerfile").read_text(encoding="utf-8")
    assert "quay.io/centos/centos:stream9" in text
    collections = yaml.safe_load((tmp_path / "context" / "_build" / "requirements.yml").read_text())["collections"]
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert collections == [
        {"name": "memops.agent_memory", "version": version},
        {"name": "awx.awx", "version": VERSION},
    ]
    assert "openssh-clients" in (tmp_path / "context" / "_build" / "bindep.txt").read_text()


def test_what_the_image_gets_beside_the_collection_is_what_was_tested() -> None:
    pinned = "\n".join((ROOT / f"requirements-{name}.txt").read_text(encoding="utf-8") for name in ("demo", "test"))
    wanted = yaml.safe_load((ROOT / "execution-environment.yml").read_text(encoding="utf-8"))["dependencies"]
    for name in ("ansible_core", "ansible_runner"):
        assert re.search(rf"^{re.escape(wanted[name]['package_pip'])}(;|$)", pinned, re.MULTILINE), name


def test_ansible_builder_finds_what_the_collection_needs() -> None:
    """The step that runs while the image is built, on the collection as it lies here."""
    command = [BUILDER, "introspect", ROOT / ".ansible" / "collections", "--sanitize"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = yaml.safe_load(done.stdout)
    needs = (ROOT / "meta" / "ee-requirements.txt").read_text(encoding="utf-8")
    for name in re.findall(r"^[a-z][\w-]*", needs, re.MULTILINE):
        assert any(line.startswith(name) for line in found["python"]), (name, found)

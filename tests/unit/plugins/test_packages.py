# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as Ansible packed them: kept from run to run, and used only when they are what Ansible would pack now."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t
import zipfile

import pytest
from ansible import constants as C
from ansible.executor import module_common

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _packages

MODULE = "memops.agent_memory.store_info"
PLAY = """
- hosts: localhost
  gather_facts: false
  vars:
    memory_store: {{path: {path}}}
    memory_namespace: agent-7
  roles:
    - memops.agent_memory.preflight
"""


def of(path: pathlib.Path) -> bytes:
    """The archive in a package."""
    kind = getattr(module_common, "_CachedModule", None)
    return base64.b64decode(kind.load(str(path)).zip_data if kind is not None else path.read_bytes())


def become(path: pathlib.Path, archive: bytes) -> None:
    kind = getattr(module_common, "_CachedModule", None)
    if kind is not None:
        dataclasses.replace(kind.load(str(path)), zip_data=base64.b64encode(archive)).dump(str(path))
    else:
        path.write_bytes(base64.b64encode(archive))


def pack(monkeypatch: pytest.MonkeyPatch, run: pathlib.Path, source: bytes) -> None:
    """As if Ansible had packed one file in the run that has its temporary files in ``run``."""
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(run))
    path = _packages._of_run(MODULE)
    path.parent.mkdir(parents=True)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("ansible/one.py", source)
    data = base64.b64encode(made.getvalue())
    kind = getattr(module_common, "_CachedModule", None)
    if kind is not None:
        kind(zip_data=data, metadata=None, source_mapping={}).dump(str(path))
    else:
        path.write_bytes(data)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    plugins = tmp_path / "plugins"
    for folder in ("modules", "module_utils"):
        (plugins / folder).mkdir(parents=True)
    (plugins / "module_utils" / "_a.py").write_text("a = 1\n")
    monkeypatch.setattr(_packages, "PLUGINS", plugins)
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "memops-packages"


def brought(monkeypatch: pytest.MonkeyPatch, run: pathlib.Path, local: bool) -> t.Optional[bytes]:
    """What a run finds that packed nothing so far."""
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(run))
    _packages.bring(MODULE, local)
    path = _packages._of_run(MODULE)
    return of(path) if path.exists() else None


def test_a_second_run_does_not_pack_again_and_compiles_nothing(tmp_path: pathlib.Path) -> None:
    play = tmp_path / "play.yml"
    play.write_text(PLAY.format(path=tmp_path / "none.db"))
    program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    command = [program, "-i", "localhost,", "-c", "local", str(play)]
    environment = {
        **os.environ,
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }

    def run() -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stdout

    assert "There is no memory store at" in run()
    (kept,) = (path for path in (tmp_path / "home" / "memops-packages").rglob("*") if path.is_file())
    # Bytecode that says something else than the source beside it: what comes out tells which of both ran.
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(of(kept))) as archive, zipfile.ZipFile(changed, "w") as new:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename.endswith(".pyc"):
                data = data.replace(b"There is no memory store at", b"Nobody made a memory store ")
            new.writestr(entry, data)
    become(kept, changed.getvalue())
    again = run()
    assert "Nobody made a memory store " in again and "There is no memory store at" not in again


def test_with_pipelining_python_reads_the_package_at_once(tmp_path: pathlib.Path) -> None:
    """A program of its own on standard input it reads byte by byte, which takes longer than what the module does."""
    play, told, python = tmp_path / "play.yml", tmp_path / "told", tmp_path / "python"
    play.write_text(PLAY.format(path=tmp_path / "none.db"))
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> {told}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_pipelining=true ansible_python_interpreter={python}", str(play)]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "There is no memory store at" in done.stdout, done.stdout + done.stderr
    assert set(told.read_text().splitlines()) == {"-c"}


def test_this_machine_gets_bytecode_and_a_host_behind_a_network_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    pack(monkeypatch, tmp_path / "1", b"one = 1\n")
    _packages.keep(MODULE, True)
    _packages.keep(MODULE, False)
    for local, names in ((True, ["ansible/one.py", "ansible/one.pyc"]), (False, ["ansible/one.py"])):
        found = brought(monkeypatch, tmp_path / "2", local)  # a run may call both, and what it has is replaced
        assert found is not None
        with zipfile.ZipFile(io.BytesIO(found)) as archive:
            assert archive.namelist() == names


@pytest.mark.parametrize("what", ["changed", "added", "ansible"])
def test_other_code_is_another_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path, what: str
) -> None:
    pack(monkeypatch, tmp_path / "1", b"one = 1\n")
    _packages.keep(MODULE, True)
    assert brought(monkeypatch, tmp_path / "2", True) is not None
    if what == "ansible":
        monkeypatch.setattr(_packages, "ansible_version", "9.9.9")
    else:
        name = {"changed": "_a.py", "added": "_b.py"}[what]
        (_packages.PLUGINS / "module_utils" / name).write_text("other = 'code'\n")
    assert brought(monkeypatch, tmp_path / "3", True) is None


def test_code_that_is_installed_in_the_middle_of_a_run_waits_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    pack(monkeypatch, tmp_path / "1", b"one = 1\n")
    _packages.keep(MODULE, True)
    assert brought(monkeypatch, tmp_path / "2", True) is not None
    (_packages.PLUGINS / "module_utils" / "_a.py").write_text("other = 'code'\n")
    _packages.keep(MODULE, True)
    assert brought(monkeypatch, tmp_path / "3", True) is None


def test_packages_that_others_may_write_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    pack(monkeypatch, tmp_path / "1", b"one = 1\n")
    _packages.keep(MODULE, True)
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o770)
    assert brought(monkeypatch, tmp_path / "2", True) is None
    shutil.rmtree(home)
    home.mkdir()
    home.chmod(0o777)
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "1"))
    _packages.keep(MODULE, True)
    assert not list(home.iterdir())


def test_packages_of_former_code_do_not_gather(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    for number in range(_packages.STATES + 2):
        (_packages.PLUGINS / "module_utils" / "_a.py").write_text(f"a = {'1' * number}0\n")
        pack(monkeypatch, tmp_path / str(number), b"one = 1\n")
        _packages.keep(MODULE, True)
    assert len(list(home.iterdir())) == _packages.STATES
    assert brought(monkeypatch, tmp_path / "again", True) is not None


def test_what_cannot_be_read_is_packed_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    """A package of a form that is not known, or a home that cannot be written, stops nothing."""
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path / "1"))
    path = _packages._of_run(MODULE)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a package")
    _packages.keep(MODULE, True)
    assert not [found for found in home.rglob("*") if found.is_file()]
    monkeypatch.setenv("ANSIBLE_HOME", "/proc/nowhere")
    _packages.bring(MODULE, True)
    _packages.keep(MODULE, True)
    assert path.read_bytes() == b"not a package"

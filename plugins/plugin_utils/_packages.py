# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as Ansible packed them, kept from run to run below ANSIBLE_HOME.

Ansible reads and parses all code that a module may import, in every run anew: about a second of processor time. It
looks for a finished package in the run's own temporary folder, so a kept one is put there before a module is called.
For this machine the package has the bytecode beside the sources, without which each module compiles all it imports; a
host at the end of a network gets the smaller one. Whatever is amiss with what is kept, Ansible packs by itself.

PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import marshal
import os
import pathlib
import shutil
import sys
import tempfile
import typing as t
import zipfile

from ansible import constants as C
from ansible.executor import module_common
from ansible.plugins.loader import module_utils_loader
from ansible.release import __version__ as ansible_version

FORMAT = "1"
PLUGINS = pathlib.Path(__file__).resolve().parents[1]
COLLECTION = "memops.agent_memory."
STATES = 4  # of the code (other versions of it or of Ansible), of which packages are kept
UNCHECKED = (1).to_bytes(4, "little")  # bytecode that no time stamp is compared with


def bring(module: str, local: bool) -> None:
    """Put the kept package of ``module`` where Ansible looks for it in this run."""
    with contextlib.suppress(OSError):
        kept = _kept(local) / _file(module)
        run = _of_run(module)
        if not kept.is_file() or (run.exists() and run.samefile(kept)):
            return
        run.parent.mkdir(parents=True, exist_ok=True)
        with _beside(run) as new:
            try:
                os.link(kept, new)
            except OSError:  # the temporary folder is on another file system
                shutil.copyfile(kept, new)


def keep(module: str, local: bool) -> None:
    """Keep what Ansible packed in this run."""
    try:
        kept, run = _kept(local) / _file(module), _of_run(module)
        if kept.exists() or not run.is_file():
            return
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _beside(kept) as new:
            if local:
                _with_bytecode(run, new)
            else:
                shutil.copyfile(run, new)
        _forget_old(kept.parents[2])
    except Exception:
        return  # the packages of a later Ansible may be made otherwise


def _kept(local: bool) -> pathlib.Path:
    """The folder of the code as it is now. OSError when somebody else could have put something there."""
    home = pathlib.Path(C.config.get_config_value("ANSIBLE_HOME")) / "memops-packages"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = home.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{home} belongs to somebody else, or others may write there")
    return home / _state_of_run() / ("local" if local else "remote")


def _state_of_run() -> str:
    """As it was when this run began: what Ansible packed stays that, whatever is installed in the middle of it."""
    path = pathlib.Path(C.DEFAULT_LOCAL_TMP) / "ansiballz_cache" / "memops-state"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as new:
            new.write_text(_state(), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _state() -> str:
    """What all code that goes into a package depends on."""
    parts = [FORMAT, ansible_version, os.path.realpath(module_common.__file__), sys.version, str(PLUGINS)]
    folders = [PLUGINS / "modules", PLUGINS / "module_utils"]
    # What lies there takes the place of Ansible's own code.
    folders += [pathlib.Path(path).resolve() for path in module_utils_loader.print_paths().split(os.pathsep) if path]
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            found = path.stat()
            parts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _file(module: str) -> str:
    """As Ansible names it; releases from 2.19 add what was added for debugging."""
    name = f"ansible_collections.{COLLECTION}plugins.modules.{module[len(COLLECTION) :]}-{C.DEFAULT_MODULE_COMPRESSION}"
    return f"{name}-none" if hasattr(module_common, "_CachedModule") else name


def _of_run(module: str) -> pathlib.Path:
    return pathlib.Path(C.DEFAULT_LOCAL_TMP) / "ansiballz_cache" / _file(module)


@contextlib.contextmanager
def _beside(path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """Where to make the new ``path``, so that nobody ever sees half of it."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=path.parent))
    try:
        yield folder / path.name
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _with_bytecode(run: pathlib.Path, new: pathlib.Path) -> None:
    kind = getattr(module_common, "_CachedModule", None)
    if kind is None:  # before ansible-core 2.19
        new.write_bytes(_compiled(run.read_bytes()))
        return
    package = kind.load(str(run))
    dataclasses.replace(package, zip_data=_compiled(package.zip_data)).dump(str(new))


def _compiled(encoded: bytes) -> bytes:
    """The archive with bytecode for this Python; another one passes over it and takes the sources."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(encoded))) as package, zipfile.ZipFile(made, "w") as archive:
        for entry in package.infolist():
            source = package.read(entry)
            archive.writestr(entry, source)
            if entry.filename.endswith(".py"):
                code = marshal.dumps(compile(source, entry.filename, "exec", dont_inherit=True))
                head = importlib.util.MAGIC_NUMBER + UNCHECKED + importlib.util.source_hash(source)
                bytecode = zipfile.ZipInfo(entry.filename + "c", entry.date_time)
                bytecode.compress_type = entry.compress_type
                archive.writestr(bytecode, head + code)
    return base64.b64encode(made.getvalue())


def _forget_old(home: pathlib.Path) -> None:
    states = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in states[STATES:]:
        shutil.rmtree(path, ignore_errors=True)

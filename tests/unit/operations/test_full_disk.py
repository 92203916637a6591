# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A disk that is full in the middle of a rebuild: one sentence, nothing half done, and the same step finishes later."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines import sqlite_connect
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import rotate_own
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.plan_doubted import Doubted
from tests.unit.operations.operations_help import small_disk
from tests.unit.operations.runbook import NS, OTHER, STEPS, Site, attempt, refused
from tests.unit.operations.test_rebuild_kills import EXPECTED, damaged, options


@pytest.fixture
def site(tmp_path):
    return damaged(tmp_path / "site")


def limited(monkeypatch, pages):
    """Every connection of the engine may grow its file by ``pages``."""
    connect = sqlite_connect.connect

    def full(path, busy_timeout, *, read_only=False):
        con = connect(path, busy_timeout, read_only=read_only)
        count = con.execute("PRAGMA page_count").fetchone()[0]
        con.execute(f"PRAGMA max_page_count = {count + pages}")
        return con

    monkeypatch.setattr(sqlite_connect, "connect", full)
    for module in ("sqlite", "sqlite_operators", "sqlite_structure"):
        monkeypatch.setattr(f"{sqlite_connect.__name__.rpartition('.')[0]}.{module}.connect", full)


@pytest.mark.parametrize("strategy", ["soft", "hard"])
def test_a_disk_that_is_full_while_the_plan_is_applied(tmp_path, monkeypatch, strategy):
    site = Site(tmp_path / "site")
    values = {f"k{n:04d}": "x" * 2000 for n in range(600)}
    with site.memory() as memory:
        memory.write_many(NS, values)
        memory.write(OTHER, "o", 1)
    site.backup()
    with site.sql() as con:
        con.execute("UPDATE memory_records SET payload = zeroblob(2100) WHERE key < 'k0500'")
    elsewhere, run = site.untouched(), attempt()
    site.rebuild(strategy, until="plan", run=run)
    active = site.generation()
    with monkeypatch.context() as patch:
        limited(patch, 60)
        with refused("full"):
            site.step("apply", run)
    assert site.state() == "quarantined" and site.generation() == active
    for name in ("apply", "validate", "release"):
        site.step(name, run, **options(name, strategy))
    assert site.served() == values and site.untouched() == elsewhere


@pytest.mark.parametrize("place", ["repository", "work folder"])
def test_a_small_disk_that_is_full(site, tmp_path, place, monkeypatch):
    """A real small file system where one may be mounted, else the operating system's own error."""
    disk = tmp_path / "disk"
    mounted = small_disk(disk, "1m")
    try:
        run = attempt() if place == "repository" else attempt(work_dir=str(disk))
        site.step("isolate", run)
        rows = site.rows()
        if place == "repository":
            shutil.copytree(os.path.join(site.folder, "repository"), disk / "repository")
            kept, site.repository = site.repository, {"url": f"file://{disk}/repository"}
        if mounted:
            with open(disk / "filler", "wb", buffering=0) as stream, contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(4096))
        else:

            def full(*_args, **_kwargs):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "fsync", full)
        if place == "repository":
            with refused("No space left"):
                site.step("forensic", run)
            site.repository = kept
            monkeypatch.undo()
        else:
            with refused(str(disk)):
                site.step("forensic", run)
                site.step("diagnose", run)
            os.unlink(disk / "filler") if mounted else monkeypatch.undo()
        assert site.state() == "quarantined" and site.rows() == rows
        for name in STEPS[1:]:
            site.step(name, run, **options(name, "soft"))
        assert site.served() == EXPECTED
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize("who", ["plan", "rotation"])
def test_a_disk_of_temporary_files_that_is_full_is_said_to_be_that(tmp_path, who):
    """A limit that the operating system puts on every file of a process stands for the disk."""
    site = Site(tmp_path / "site")
    with site.memory() as memory:
        memory.write_many(NS, {f"{n:04d}" + "k" * 1000: n for n in range(5000)})
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            with refused("A temporary file of this step cannot be written"):
                if who == "plan":
                    doubted = Doubted()
                    for key in site.rows():
                        doubted.add(key, b"", None, None, None)
                else:
                    with site.open() as store:
                        rotate_own._Digests().fill(store, NS, lambda: None)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

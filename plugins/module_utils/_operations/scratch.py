# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders for scratch stores, which hold memories: they go afterwards, also those of a process that was killed.

PRIVATE to the collection. Who works in one holds a lock in it, so the next one knows what nobody works in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import typing as t

PREFIX: t.Final = "memops-scratch-"
LOCK: t.Final = "in-use"


@contextlib.contextmanager
def folder(parent: str | None) -> t.Iterator[str]:
    """One below ``parent`` (None: the system's temporary folder). Errors: OSError."""
    parent = parent or tempfile.gettempdir()
    _clear(parent)
    path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    try:
        coming = os.path.join(path, f".{LOCK}")
        with open(coming, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(coming, os.path.join(path, LOCK))  # locked from the moment that anybody sees it
            yield path
    finally:
        _empty(path)


def _clear(parent: str) -> None:
    """What is left of our own. Errors: none."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove(os.path.join(parent, name))


def _remove(path: str) -> None:
    """Errors: OSError, also where somebody works in it."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    with open(os.path.join(path, LOCK), "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _empty(path)


def _empty(path: str) -> None:
    """The lock goes last: without it nobody would dare to remove what is left when this is killed. Errors: none."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != LOCK:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        if os.listdir(path) == [LOCK]:
            os.unlink(os.path.join(path, LOCK))
    with contextlib.suppress(OSError):
        os.rmdir(path)

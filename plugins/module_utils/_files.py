# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Small files that are replaced as a whole.

PRIVATE to the collection.
"""
from __future__ import annotations

import contextlib
import os
import stat
import tempfile


def replace_file(path: str, data: bytes, *, mode: int | None = None) -> None:
    """Atomically replace ``path``: temporary file, fsync, rename, fsync of the directory.

    ``mode`` None keeps the mode (and as root the owner) of the former file, 0644 for a new one. Errors: OSError.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            try:
                former = os.stat(path)
                if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), former.st_uid, former.st_gid)
                wanted = stat.S_IMODE(former.st_mode)
            except FileNotFoundError:
                wanted = 0o644
            os.fchmod(file.fileno(), wanted if mode is None else mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of a SQLite file for its readers, where an open read transaction would keep the application from writing.

PRIVATE to the collection. It lies beside the file, readable by this user alone, and has a name only until its readers
have opened it; what a killed process left is removed with the next copy.
"""
from __future__ import annotations

import contextlib
import glob
import os
import secrets
import sqlite3
import time
import typing as t
import urllib.parse

from .._errors import StoreUnavailable
from .sqlite_connect import READ_CACHE_KIB

MARK: t.Final = ".memops-copy-"
OLD_SECONDS: t.Final = 600  # no copy has a name for so long


@contextlib.contextmanager
def private_file(path: str) -> t.Iterator[str]:
    """The path of an empty file beside ``path``, which loses its name at the end. Errors: StoreUnavailable."""
    for left in glob.glob(glob.escape(path) + MARK + "*"):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(left).st_mtime > OLD_SECONDS:
                os.unlink(left)
    copy = path + MARK + secrets.token_hex(6)
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as exc:
        raise StoreUnavailable(
            f"No copy of {path} can be made beside it: {exc.strerror}.",
            "let this user write to that directory, or free space on its disk",
        ) from None
    try:
        yield copy
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


@contextlib.contextmanager
def copied(con: sqlite3.Connection, path: str) -> t.Iterator[str]:
    """The path of a copy of the file that ``con`` has open, of one point in time. Errors: StoreUnavailable."""
    with private_file(path) as copy:  # pylint: disable=contextmanager-generator-missing-cleanup
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")  # nobody needs it after a crash
            target.execute("PRAGMA journal_mode = OFF")
            con.backup(target)
        yield copy


def opened_copy(path: str) -> sqlite3.Connection:
    """A connection to a copy, which nobody changes. Errors: sqlite3.Error."""
    uri = "file:" + urllib.parse.quote(path) + "?mode=ro&immutable=1"
    con = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        con.execute("PRAGMA temp_store = FILE")
        con.execute(f"PRAGMA cache_size = -{READ_CACHE_KIB}")
        con.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the file: it may lose its name now
    except BaseException:
        con.close()
        raise
    return con

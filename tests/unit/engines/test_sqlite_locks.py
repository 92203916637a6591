# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POSIX drops all locks of a process on a file when it closes any descriptor of it: a store must not do that."""
from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.stores import fill, new_keyring, new_store, rows_of


def elsewhere(program: str, *arguments: str) -> str:
    """Run Python text in another process."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


OPEN_WRITE_CLOSE = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("UPDATE memops_store SET commits = commits + 1")
con.close()
"""
COUNT = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM memory_records").fetchone()[0])
"""


def test_opening_a_store_again_costs_no_lock_and_so_no_write(tmp_path):
    params, keyring = new_store(tmp_path), new_keyring(tmp_path)
    first = open_store(params)
    first.identity()  # this connection holds its lock on the file now
    second = open_store(params)
    try:
        elsewhere(OPEN_WRITE_CLOSE, params["path"])  # thinks itself the last one if the lock is gone
        assert os.path.exists(params["path"] + "-wal"), "the write-ahead log was deleted under an open store"
        with first.writing("a", 1):
            pass
        fill(params, keyring, "a", {"k": 1})
        assert len(rows_of(params, "a")) == 1
        assert elsewhere(COUNT, params["path"]) == "1"
    finally:
        second.close()
        first.close()
    assert sqlite3.connect(params["path"]).execute("PRAGMA integrity_check").fetchall() == [("ok",)]

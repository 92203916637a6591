# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What two write logs tell of the writes that one alone has, after one was pruned."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations.rejoin_store import only_here
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from ansible_collections.memops.agent_memory.plugins.module_utils.memory import Memory


def write(path, keyring, *keys):
    with Memory(store={"path": str(path)}, keyring=keyring, create=True) as memory:
        for key in keys:
            memory.write("agent-7", key, {"of": key})


def opened(path):
    return contextlib.closing(open_store({"engine": "sqlite", "path": str(path)}))


@pytest.mark.parametrize(
    ("here", "there", "certain", "found"),
    [
        (0, 0, True, ["alone 1", "alone 2"]),
        (2, 0, True, ["alone 1", "alone 2"]),
        (0, 2, True, ["alone 1", "alone 2"]),
        (2, 2, True, ["alone 1", "alone 2"]),
        (0, 3, False, ["both 1", "both 2", "both 3", "alone 1", "alone 2"]),
        (0, 4, False, ["both 1", "both 2", "both 3", "alone 1", "alone 2"]),
        (4, 0, False, ["alone 2"]),
        (5, 0, False, []),
    ],
)
def test_writes_up_to_the_newest_common_entry_are_common_and_without_one_nobody_knows(
    tmp_path, here, there, certain, found
):
    """Each pruned up to that sequence; both parted after the third."""
    master = tmp_path / "master.key"
    master.write_text("ab" * 32)
    master.chmod(0o600)
    keyring = {"path": str(tmp_path / "keyring.json"), "master_key_file": str(master)}
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    write(one, keyring, "both 1", "both 2", "both 3")
    shutil.copy(one, other)
    write(one, keyring, "alone 1", "alone 2")
    write(other, keyring, "after 1", "after 2")
    with opened(one) as mine, opened(other) as theirs:
        mine.prune_log(0, (mine.identity().epoch, here))
        theirs.prune_log(0, (theirs.identity().epoch, there))
        alone = only_here(mine, theirs)
        assert (alone.certain, [entry.key for entry in alone.entries]) == (certain, found)

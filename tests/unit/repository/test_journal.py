# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The journal of an incident in a repository: appended, read whole or refused."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors

from .conftest import Place


def test_journal(place: Place) -> None:
    place.snapshot()
    repository, keyring = place.open(), place.keyring
    for number, entry in enumerate((b"first", b"", b"third")):
        assert repository.put_journal("inc-1", number, entry, keyring)
        assert not repository.put_journal("inc-1", number, entry, keyring)
    assert repository.read_journal("inc-1", keyring) == [b"first", b"", b"third"]
    assert repository.read_journal("inc-2", keyring) == []
    with pytest.raises(errors.RepositoryRefused):
        repository.put_journal("inc-1", 1, b"other", keyring)
    with pytest.raises(errors.RepositoryRefused):
        repository.put_journal("inc-1", 5, b"later", keyring)
    path = place.root / "incidents" / "inc-1" / "000001"
    kept = path.read_bytes()
    for changed in (kept[:-1], kept[:-1] + bytes([kept[-1] ^ 1]), (path.parent / "000000").read_bytes(), b""):
        path.write_bytes(changed)
        with pytest.raises(errors.SnapshotUnusable):
            repository.read_journal("inc-1", keyring)
    path.unlink()
    with pytest.raises(errors.SnapshotUnusable):
        repository.read_journal("inc-1", keyring)

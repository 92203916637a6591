# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the repository share: a store, a keyring, a directory repository, a real S3 server."""
from __future__ import annotations

import os
import sqlite3
import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._store import open_store
from tests.support.s3_server import S3Server
from tests.support.stores import fill, new_keyring, new_store

if t.TYPE_CHECKING:
    from .master_key_help import Site

NAME = "memory"


class Place:
    """A store with its keyring and a directory repository, and the operations on them with their usual arguments."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keyring = new_keyring(directory)
        self.store = new_store(directory)
        self.repository: dict[str, t.Any] = {"url": f"file://{directory}/repository"}
        self.root = directory / "repository"

    def fill(self, namespace: str, items: t.Mapping[str, t.Any], **more: t.Any) -> None:
        fill(self.store, self.keyring, namespace, items, **more)

    def open(self) -> Repository:
        return Repository.open(self.repository)

    def snapshot(self, purpose: str = "scheduled", **more: t.Any) -> dict[str, t.Any]:
        arguments = {"repository": self.repository, "keyring": self.keyring, "store_params": self.store, **more}
        return snapshot.create(name=NAME, purpose=purpose, **arguments)

    def objects(self, snapshot_id: str) -> dict[str, Path]:
        """Every stored object of a snapshot, by its name below the snapshot."""
        top = self.root / "snapshots" / NAME / snapshot_id
        return {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}


def many(count: int, start: int = 0, size: int = 300) -> dict[str, bytes]:
    return {f"key/{number:07d}": os.urandom(size) for number in range(start, start + count)}


def damage(place: Place, sql: str, *values: t.Any) -> int:
    """Change the store's file behind everybody's back."""
    con = sqlite3.connect(place.store["path"], isolation_level=None)
    for name in ("insert", "update", "delete"):
        con.execute(f"DROP TRIGGER IF EXISTS memops_fence_{name}")
    changed = con.execute(sql, values).rowcount
    con.close()
    open_store(place.store).close()
    return changed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def filled(place: Place) -> Place:
    place.fill("n", {f"k{number:04d}": number for number in range(500)})
    place.fill("n", {"k0007": None})
    place.fill("m", {"only": "one"})
    return place


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository under one master key; each test's ``site`` is a copy of it, since to make it takes longer."""
    from .master_key_help import make

    return make(tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Site:
    from .master_key_help import copied

    return copied(made, tmp_path)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[S3Server]:
    with S3Server(str(tmp_path_factory.mktemp("s3"))) as server:
        yield server


@pytest.fixture
def s3_repository(s3: S3Server, request: pytest.FixtureRequest) -> dict[str, t.Any]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return s3.repository(f"test/{name}")

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the repository share: a store, a keyring, a directory repository, a real S3 server."""
from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._operations import snapshot
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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

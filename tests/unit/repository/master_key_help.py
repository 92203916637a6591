# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A repository on its way to another master key."""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import verify
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.master_key import (
    rewrap_keyring,
    rewrap_repository,
)
from tests.support.stores import keyring_params

from .conftest import NAME, Place, many


class Site(Place):
    """Three snapshots (full, incremental, forensic) and a journal under the old master key."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.old = keyring_params(directory)
        self.new, self.third = ({**keyring_params(directory, n), "path": self.old["path"]} for n in ("new", "third"))

    def make(self) -> Site:
        self.fill("a", many(60))
        full = self.snapshot()["snapshot"]
        self.fill("b", many(40, 1000))
        incremental = self.snapshot()["snapshot"]
        self.ids = [full, incremental, self.snapshot("forensic", namespaces=["a"], incident="inc-1")["snapshot"]]
        for number in range(2):
            self.open().put_journal("inc-1", number, b"entry %d" % number, self.keyring)
        return self

    def move(self, **more: t.Any) -> dict[str, t.Any]:
        arguments: dict[str, t.Any] = {"keyring": self.old, "new_master": self.new, **more}
        return rewrap_repository(self.repository, NAME, **arguments)

    def everything(self) -> None:
        """The role's order, with retirement."""
        rewrap_keyring(self.old, self.new)
        assert self.move()["verdict"] == "pass"
        rewrap_keyring(self.old, self.new, retire=True)
        assert self.move(retire=True)["verdict"] == "pass"

    def opens(self, params: dict[str, t.Any]) -> set[str]:
        """Which snapshots this master key alone opens, with every record key and payload."""
        ring, found = Keyring.open({**params, "path": None}), set()
        for one in self.ids:
            try:
                if self._verdict(ring, one) == "pass":
                    found.add(one)
            except errors.KeyUnavailable:
                pass
        return found

    def _verdict(self, ring: Keyring, snapshot_id: str) -> str:
        found = verify.verify(
            repository=self.open(), name=NAME, keyring=ring, snapshot_id=snapshot_id, depth="opened", record=False
        )
        return str(found["verdict"])

    def keys(self, snapshot_id: str) -> dict[str, Path]:
        return {name[5:]: path for name, path in self.objects(snapshot_id).items() if name.startswith("keys/")}

    def stored(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


def make(folder: Path) -> Path:
    """What ``copied`` copies."""
    (folder / "ids").write_text(json.dumps(Site(folder).make().ids))
    return folder


def copied(made: Path, folder: Path) -> Site:
    """A copy of a site that was made, with what was noted beside it."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    site = Site(folder)
    site.ids = json.loads((folder / "ids").read_text())
    return site

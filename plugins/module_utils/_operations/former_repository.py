# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Which repository a store was last saved to: a note on the memory host, so that a mistyped address, or a disk that is
not mounted, does not silently begin another one.

PRIVATE to the collection. The note helps and is no promise: where it cannot be read or written, a backup goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from .._errors import MemoryOpsError, RepositoryGone, RepositoryMissing, RepositoryRefused
from .._repository import Repository
from .incident import base, folder, write_note

FOLDER: t.Final = "backup"  # beside those of the incidents


class Former:
    """``id`` and ``location`` of the repository that took the newest snapshot of the store ``name``; None before the
    first. ``new``: another one may be made all the same."""

    def __init__(
        self, store_params: t.Mapping[str, t.Any], name: str, work_dir: str | None, new: bool = False
    ) -> None:
        self._params, self._name, self._work_dir, self._new = store_params, name, work_dir, new
        noted: t.Any = None
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(work_dir or base(store_params), FOLDER, self._file), encoding="utf-8") as file:
                noted = json.load(file)
        known = noted if isinstance(noted, dict) else {}
        self.id: str | None = known.get("repository")
        self.location: str | None = known.get("location")

    @property
    def _file(self) -> str:
        return f"{self._name}.json"

    def open(self, params: t.Mapping[str, t.Any]) -> Repository:
        """The repository of ``params``; where there is none it is made.

        Errors: RepositoryRefused when the store was saved to another one before, RepositoryGone when to this one, and
        those of Repository.open.
        """
        try:
            return Repository.open(params, create=not self._missed)
        except RepositoryMissing as exc:
            raise self._refusal(exc) from None

    def look(self, params: t.Mapping[str, t.Any]) -> Repository | None:
        """As ``open``, without a write: None where one would be made."""
        try:
            return Repository.open(params)
        except RepositoryMissing as exc:
            if self._missed:
                raise self._refusal(exc) from None
            return None

    @property
    def _missed(self) -> bool:
        return self.id is not None and not self._new

    def _refusal(self, exc: RepositoryMissing) -> RepositoryRefused:
        anew = "; to begin a new repository there, -e memory_new_repository=true"
        if f"in {self.location}." in exc.message:
            return RepositoryGone(
                f"The repository in {self.location} is gone: {self._name} was saved there before.",
                f"mount or mend that place{anew}",
            )
        return RepositoryRefused(
            f"{exc.message[:-1]}, and {self._name} was saved to {self.location} before.",
            f"correct memory_repository.url{anew}",
        )

    def first(self, place: Repository | None) -> bool:
        """Whether the repository is made for a store that was never saved; ``place`` as ``look`` gave it."""
        return (place is None or place.made) and self.id is None

    def warnings(self, place: Repository | None, location: str) -> list[str]:
        """What has to be said of the repository that takes the snapshot."""
        before = f" {self._name} was saved to {self.location} before." if self.id else ""
        hint = " If that was not meant, correct memory_repository.url."
        if place is None:
            return [f"There is no repository in {location}: a new one would be made.{before}{hint}"]
        if place.made:
            return [f"Made a new repository in {place.location}.{before}{hint}"]
        if self.id not in (None, place.identity["repository"]):
            return [f"{place.location} is another repository than the one before:{before}{hint}"]
        return []

    def note(self, place: Repository) -> None:
        known = {"repository": place.identity["repository"], "location": place.location}
        if (self.id, self.location) == (known["repository"], known["location"]):
            return
        with contextlib.suppress(OSError, MemoryOpsError):
            path = os.path.join(folder(self._params, FOLDER, self._work_dir), self._file)
            write_note(path, known)

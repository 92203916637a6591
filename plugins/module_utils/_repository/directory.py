# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects as files below a directory.

PRIVATE to the collection. A file appears under its name only when it is complete and durable.
"""
from __future__ import annotations

import contextlib
import errno
import os
import secrets
import typing as t

from .._errors import RepositoryUnavailable
from .objects import ObjectExists, ObjectInfo, ObjectMissing

TEMPORARY = ".part-"


class DirectoryObjects:
    """An ObjectStore (see objects.py) on a file system with hard links."""

    kind = "directory"
    locks = None

    def __init__(self, path: str) -> None:
        self._root = os.path.abspath(path)
        self.location = f"file://{self._root}"

    def _path(self, key: str) -> str:
        path = os.path.normpath(os.path.join(self._root, key))
        if not path.startswith(self._root + os.sep):
            raise ObjectMissing(f"The key {key!r} leaves the repository.", "")
        return path

    def _failed(self, action: str, key: str, exc: OSError) -> RepositoryUnavailable:
        return RepositoryUnavailable(
            f"The repository {self.location} cannot {action} {key or 'its directory'}: {exc.strerror or exc}.",
            "check that the directory exists, is writable by this user and has free space",
        )

    def put(self, key: str, data: bytes, *, if_absent: bool = False, sha256: bytes | None = None) -> None:
        path = self._path(key)
        folder = os.path.dirname(path)
        part = os.path.join(folder, TEMPORARY + secrets.token_hex(8))
        try:
            self._make(folder)
            try:
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(handle, "wb", buffering=0) as file:
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) or 0 :]
                    os.fsync(file.fileno())
                if if_absent:
                    os.link(part, path)
                else:
                    os.replace(part, path)
            finally:
                if os.path.exists(part):
                    os.unlink(part)
            self._sync(folder)
        except FileExistsError:
            if self.get(key) != data:
                raise ObjectExists(
                    f"The repository {self.location} already has another {key}.", "look who else writes there"
                ) from None
        except OSError as exc:
            raise self._failed("write", key, exc) from None

    def _make(self, folder: str) -> None:
        """Make the directory, and make its entry durable in every directory that it is new in."""
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            self._sync(os.path.dirname(path))

    @staticmethod
    def _sync(folder: str) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            with open(self._path(key), "rb") as file:
                if start:
                    file.seek(start)
                return file.read() if length is None else file.read(length)
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(
                f"The repository {self.location} has no {key}.", "list the snapshots, or verify this one"
            ) from None
        except OSError as exc:
            raise self._failed("read", key, exc) from None

    def list(self, prefix: str) -> t.Iterator[ObjectInfo]:
        top = self._path(prefix) if prefix else self._root
        for folder, names, files in os.walk(top, onerror=self._walk_error):
            names.sort()
            for name in sorted(files):
                if name.startswith(TEMPORARY):
                    continue
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue  # deleted while we looked
                yield ObjectInfo(os.path.relpath(path, self._root), status.st_size, status.st_mtime)

    def _walk_error(self, exc: OSError) -> None:
        if not isinstance(exc, (FileNotFoundError, NotADirectoryError)):
            raise self._failed("list", "", exc) from None

    def children(self, prefix: str) -> t.List[str]:
        try:
            names = os.listdir(self._path(prefix) if prefix else self._root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise self._failed("list", prefix, exc) from None
        return sorted(name for name in names if not name.startswith(TEMPORARY))

    def delete(self, keys: t.Sequence[str]) -> None:
        folders = set()
        for key in keys:
            try:
                os.unlink(self._path(key))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as exc:
                raise self._failed("delete", key, exc) from None
            folders.add(os.path.dirname(self._path(key)))
        for folder in sorted(folders, key=len, reverse=True):
            while folder != self._root:
                try:
                    os.rmdir(folder)  # S3 has no empty directories either
                except OSError:
                    break
                folder = os.path.dirname(folder)

    def purge(self, prefix: str, last: str) -> int:
        self.delete(sorted(info.key for info in self.list(prefix) if info.key != last))
        self.delete([last])
        return 0

    def sweep(self, prefix: str, before: float) -> None:
        with contextlib.suppress(OSError):  # somebody removes the same, or writes there after all: it is for next time
            found = [
                (path, os.stat(path).st_mtime)
                for folder, dummy, files in os.walk(self._path(prefix))
                for path in [folder, *(os.path.join(folder, name) for name in files if name.startswith(TEMPORARY))]
            ]
            for path, modified in reversed(found):
                if modified >= before:
                    continue
                if os.path.isdir(path):
                    with contextlib.suppress(OSError):  # not empty
                        os.rmdir(path)
                else:
                    os.unlink(path)

    def clock(self) -> t.Optional[float]:
        return None  # nothing tells it without a write

    def refuses_wrong_checksum(self, key: str) -> t.Optional[bool]:
        return None

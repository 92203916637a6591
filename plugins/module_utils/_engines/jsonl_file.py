# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The file of one namespace, and the directory that stands in its place while nobody may reach it.

PRIVATE to the collection. File and directory change places in one step (renameat2 with RENAME_EXCHANGE), so there is no
moment at which an application finds nothing, believes in an empty memory and writes a new one. A file that is to be
renamed over a directory, or written through its name, is refused by the kernel, whoever asks.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import time
import typing as t

from .._errors import CannotProceed, InvalidInput, StoreUnavailable

NOTE: t.Final = "QUARANTINED"
SAID: t.Final = (
    "The memory of this name is being worked on by an operator (memops.agent_memory). Nothing is lost.\n"
    "It comes back with: ansible-playbook memops.agent_memory.release\n"
)
AT_FDCWD: t.Final = -100
RENAME_NOREPLACE: t.Final = 1
RENAME_EXCHANGE: t.Final = 2
POLL_SECONDS: t.Final = 0.01
STILL_SECONDS: t.Final = 0.5
COPY_IN_MEMORY: t.Final = 4 << 20
#: how long a call of an application may be under way that has read the file and will write it: this, and the time for
#: so many bytes
CALL_SECONDS: t.Final = 0.2
CALL_BYTES_PER_SECOND: t.Final = 20e6


@contextlib.contextmanager
def file_errors(path: str) -> t.Iterator[None]:
    """Errors of the file and of those beside it in words. Errors: StoreUnavailable."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreUnavailable(
            f"The memory {path} cannot be read or written: {exc.strerror}.",
            "free space on its disk, then run the same command again" if full
            else "make the file and its directory readable and writable for this user, then run the same command again",
        ) from exc  # fmt: skip


def renameat2(one: str, other: str, flags: int) -> None:
    """Errors: OSError, CannotProceed where the system or its file system cannot do it."""
    from ctypes import CDLL, get_errno

    unable = CannotProceed(
        f"The file system of {one} cannot exchange two names in one step, so nothing keeps an application from it.",
        "move the memory to a local file system (ext4, xfs, btrfs, tmpfs), or stop the application and work on a copy",
    )
    call = getattr(CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise unable
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), flags):
        number = get_errno()
        if number in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP):
            raise unable
        raise OSError(number, os.strerror(number), one)


class MemoryFile:
    """``path``, and beside it ``taken`` (what lay there while an operator has it) and ``draft`` (what will)."""

    def __init__(self, path: str, wait: float) -> None:
        self.path, self.taken, self.draft, self._wait = path, path + ".memops-taken", path + ".memops-new", wait

    # --- looks --------------------------------------------------------------------------------------------------
    def there(self) -> bool:
        """Whether an application finds a file. Errors: InvalidInput for what is neither a file nor the fence."""
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISREG(mode):
            return True
        if self.fenced():
            return False
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "no file"
        raise InvalidInput(
            f"The memory {self.path} is {what}.", "set memory_store.path to the file itself, as its server has it"
        )

    def fenced(self) -> bool:
        return _is_fence(self.path)

    def holds_taken(self) -> bool:
        return os.path.isfile(self.taken)

    def source(self, placing: bool) -> str | None:
        """Where the lines of a namespace that serves lie; None: nowhere."""
        if self.there():
            return self.path
        if self.fenced() and placing and os.path.isfile(self.draft):
            return self.draft
        return self.taken if self.fenced() and self.holds_taken() else None

    # --- taking -------------------------------------------------------------------------------------------------
    def take(self) -> os.stat_result | None:
        """Put the fence in the file's place; what lay there is ``taken``. Its status, None where there was no file.

        Errors: CannotProceed (a program goes on writing to it; it stays taken), StoreUnavailable.
        """
        if not self.fenced():
            if self.there():
                self._own(os.lstat(self.path))
            if self.holds_taken():
                raise CannotProceed(
                    f"Beside the memory {self.path} lies {self.taken}, which nobody knows anything about.",
                    "compare the two, move that one away, then run the same command again",
                )
            if not _is_fence(self.taken):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.taken, 0o755)
            with open(os.path.join(self.taken, NOTE), "w", encoding="ascii") as stream:
                stream.write(SAID)  # its time is that of the fence
            while not self._fence():
                pass
            _sync(os.path.dirname(self.path))
        if not self.holds_taken():
            return None
        self._wait_for_writers()
        return os.stat(self.taken)

    def _own(self, found: os.stat_result) -> None:
        """Errors: CannotProceed for a file of another user, as the new one would belong to this one."""
        if os.geteuid() not in (0, found.st_uid):
            raise CannotProceed(
                f"The memory {self.path} belongs to the user {found.st_uid}, and could not be given back to it.",
                "run the playbook as that user or as root",
            )

    def _fence(self) -> bool:
        """Whether the fence stands; False when a file came or went at this very moment."""
        there = self.there()
        try:
            renameat2(self.taken, self.path, RENAME_EXCHANGE if there else RENAME_NOREPLACE)
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def _wait_for_writers(self) -> None:
        """Until no program has the file open for writing: one that writes in place may have begun before."""
        end = time.monotonic() + max(self._wait, STILL_SECONDS)
        with open(self.taken, "rb") as stream:
            while not _unwritten(stream):
                if time.monotonic() > end:
                    raise CannotProceed(
                        f"A program has the memory {self.path} open for writing and does not close it.",
                        f"stop it (fuser -v {self.taken}), then run the same command again",
                    )
                time.sleep(POLL_SECONDS)

    def give_back(self) -> None:
        """Undo ``take``."""
        if not self.fenced():
            return
        if not self.holds_taken():
            _remove(self.path)
        else:
            renameat2(self.taken, self.path, RENAME_EXCHANGE)
            _remove(self.taken)
        _sync(os.path.dirname(self.path))

    # --- putting ------------------------------------------------------------------------------------------------
    def write(self, parts: t.Iterable[bytes], mode: int, owner: int | None, group: int | None) -> None:
        """Make the draft, durable."""
        _remove(self.draft)
        number = os.open(self.draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(number, "wb", buffering=1 << 20) as stream:
                for part in parts:
                    stream.write(part)
                stream.flush()
                if owner is not None and group is not None and os.geteuid() == 0:
                    os.fchown(number, owner, group)
                elif group is not None:
                    with contextlib.suppress(PermissionError):  # a group that this user is not in
                        os.fchown(number, -1, group)
                os.fchmod(number, mode)
                os.fsync(number)
        except BaseException:
            _remove(self.draft)
            raise

    def let_calls_end(self) -> None:
        """An application that read the file before the fence stood would write over what is placed: it has to meet the
        fence. So the fence stands as long as a call may take."""
        if not self.fenced():
            return
        status = os.stat(os.path.join(self.path, NOTE))
        size = max((os.stat(one).st_size for one in (self.taken, self.draft) if os.path.isfile(one)), default=0)
        needed = CALL_SECONDS + size / CALL_BYTES_PER_SECOND
        passed = max(0.0, time.time() - status.st_mtime)
        if passed < needed:
            time.sleep(needed - passed)

    def place(self) -> None:
        """Put the draft into the file's place, where the fence is, and clean up; nothing where that was done."""
        if self.fenced() and os.path.isfile(self.draft):
            renameat2(self.draft, self.path, RENAME_EXCHANGE)
            _sync(os.path.dirname(self.path))
        self.clean()

    def clean(self) -> None:
        for one in (self.draft, self.taken):
            _remove(one)


def _is_fence(path: str) -> bool:
    return os.path.isfile(os.path.join(path, NOTE))


def _remove(path: str) -> None:
    """A file, or the fence; what else there may be stays."""
    try:
        if _is_fence(path):
            os.unlink(os.path.join(path, NOTE))
            os.rmdir(path)
        elif os.path.isdir(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _sync(folder: str) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unwritten(stream: t.IO[bytes]) -> bool:
    """Whether no program has the file open for writing. The kernel gives a read lease only then; where it gives none to
    this user, the file has to stand still for a while."""
    try:
        # whoever opens it in between waits until the lease is given back, and this process is told by a signal
        fcntl.fcntl(stream.fileno(), fcntl.F_SETSIG, signal.SIGURG)  # that nobody minds: SIGIO would end it
        fcntl.fcntl(stream.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return False
    except OSError:
        before = os.fstat(stream.fileno())
        time.sleep(STILL_SECONDS)
        after = os.fstat(stream.fileno())
        return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    fcntl.fcntl(stream.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def still_copy(path: str, wait: float) -> t.IO[bytes]:
    """A copy of a file, in a temporary one, of a moment when no program was writing to it; what takes longer is then
    done with the copy. Errors: OSError, StoreUnavailable when there is no such moment in so many seconds."""
    end = time.monotonic() + max(wait, STILL_SECONDS)
    copy = t.cast("t.IO[bytes]", tempfile.SpooledTemporaryFile(COPY_IN_MEMORY))  # noqa: SIM115  # the caller closes it
    try:
        while time.monotonic() < end:
            with open(path, "rb") as stream:
                before = os.fstat(stream.fileno())
                if _unwritten(stream):
                    shutil.copyfileobj(stream, copy, 1 << 20)
                    after = os.fstat(stream.fileno())
                    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
                    if same and copy.tell() == after.st_size and _unwritten(stream):
                        copy.seek(0)
                        return copy
            copy.seek(0)
            copy.truncate()
            time.sleep(POLL_SECONDS / 10)
    except BaseException:
        copy.close()
        raise
    copy.close()
    raise StoreUnavailable(
        f"The memory {path} is written to all the time.", "try again, or stop the program that writes to it"
    )

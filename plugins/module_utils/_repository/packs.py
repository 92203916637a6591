# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames and packs: how chunks become encrypted objects, and back.

PRIVATE to the collection. docs/snapshot_format.md states the same in words; tests/decoder/ proves it.
A frame is one chunk: flag byte (0 raw, 1 zstd) and body, sealed with AES-256-GCM under the key of its object.
"""
from __future__ import annotations

import hashlib
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._errors import MemoryOpsError, RepositoryUnavailable, SnapshotUnusable
from .objects import ObjectStore

UPLOADS = 2  # objects that are put at the same time
PACK_BYTES = 8 << 20  # a pack is closed once it holds this much; chunks are at most some 1 MiB, huge rows apart
WORTH_IT = 0.95  # what zstd must come to; else the body is stored as it is
THOROUGH = 0.75  # to be worth more than its quickest level
LOOK_AGAIN = 16  # frames
TAG_BYTES = 16


def derive(secret: bytes, label: str) -> bytes:
    """HKDF-SHA256 (no salt) of a snapshot key; ``label`` is the info."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise MemoryOpsError("The Python package cryptography is missing.", "pip install cryptography") from None
    return bytes(HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(secret))


def pack_name(number: int) -> str:
    return f"{number:06d}"


class FrameCipher:
    """Seals and opens the frames of one object ("pack 000000" or "index") of one snapshot."""

    def __init__(self, secret: bytes, snapshot: str, label: str) -> None:
        key = derive(secret, label)
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._context = f"memops snapshot 1|{snapshot}|{label}|"
        self._label = label

    def seal(self, frame: int, plain: bytes, last: bool) -> bytes:
        aad = f"{self._context}{frame}|{int(last)}".encode()
        return self._cipher.encrypt(frame.to_bytes(12, "big"), plain, aad)

    def open(self, frame: int, data: bytes, last: bool) -> bytes:
        """Errors: SnapshotUnusable."""
        from cryptography.exceptions import InvalidTag

        aad = f"{self._context}{frame}|{int(last)}".encode()
        try:
            return self._cipher.decrypt(frame.to_bytes(12, "big"), data, aad)
        except (InvalidTag, ValueError):
            raise SnapshotUnusable(
                f"Frame {frame} of {self._label} does not authenticate.", "verify the snapshot, use an older one"
            ) from None


class Squeezer:
    """zstd as far as it pays. Of ciphertext it saves what stands around the payloads, when it is quick enough."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError:
            raise MemoryOpsError("The Python package zstandard is missing.", "pip install zstandard") from None
        self._thorough = zstandard.ZstdCompressor(level=-1).compress
        self._quick = zstandard.ZstdCompressor(level=-10).compress
        self._chosen = self._thorough
        self._turn = 0

    def squeeze(self, plain: bytes) -> bytes:
        if self._turn % LOOK_AGAIN == 0:
            self._chosen = self._thorough
        body = self._chosen(plain)
        if self._turn % LOOK_AGAIN == 0 and len(body) > len(plain) * THOROUGH:
            self._chosen = self._quick
        self._turn += 1
        return b"\1" + body if len(body) < len(plain) * WORTH_IT else b"\0" + plain


def expand(data: bytes) -> bytes:
    """The inverse of squeeze. Errors: SnapshotUnusable."""
    if data[:1] == b"\0":
        return data[1:]
    if data[:1] == b"\1":
        try:
            import zstandard
        except ImportError:
            raise MemoryOpsError("The Python package zstandard is missing.", "pip install zstandard") from None
        try:
            return zstandard.ZstdDecompressor().decompress(data[1:])
        except zstandard.ZstdError as exc:
            raise SnapshotUnusable(f"A frame does not decompress: {exc}.", "verify the snapshot") from None
    raise SnapshotUnusable(f"A frame has the unknown flag {data[:1]!r}.", "use a newer version of the collection")


class Uploader:
    """Puts objects from a few threads; at most as many objects wait in memory. The first error is raised."""

    def __init__(self, objects: ObjectStore, *, read_back: bool = False) -> None:
        self._objects = objects
        self._read_back = read_back
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._room = threading.Semaphore(UPLOADS)
        self._pending: list[Future[None]] = []

    def put(self, key: str, data: bytes, sha256: bytes) -> None:
        self._room.acquire()
        waiting = []
        for future in self._pending:
            if future.done():
                future.result()
            else:
                waiting.append(future)
        self._pending = waiting
        self._pending.append(self._pool.submit(self._run, key, data, sha256))

    def _run(self, key: str, data: bytes, sha256: bytes) -> None:
        try:
            put_checked(self._objects, key, data, self._read_back, sha256)
        finally:
            self._room.release()

    def abandon(self) -> None:
        """Stop after what is being sent just now."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def finish(self) -> None:
        """Wait for everything; raises what failed."""
        self._pool.shutdown(wait=True)
        for future in self._pending:
            future.result()


def put_checked(objects: ObjectStore, key: str, data: bytes, read_back: bool, sha256: bytes | None = None) -> None:
    """Put, and where the endpoint does not verify checksums read it back. Errors: RepositoryUnavailable."""
    sha256 = sha256 or hashlib.sha256(data).digest()
    objects.put(key, data, sha256=sha256)
    if read_back and hashlib.sha256(objects.get(key)).digest() != sha256:
        raise RepositoryUnavailable(
            f"The repository {objects.location} stored {key} wrongly.", "do not use this endpoint; verify its snapshots"
        )


Put = t.Callable[[str, t.List[bytes], bytes], None]  # key below the snapshot's folder, parts of the data, their SHA-256


class PackWriter:
    """Collects frames into packs. Its packs are numbered first, first + step, …: writers side by side never meet."""

    def __init__(self, put: Put, secret: bytes, snapshot: str, first: int = 0, step: int = 1) -> None:
        self._put = put
        self._secret = secret
        self._snapshot = snapshot
        self._number = first
        self._step = step
        self._squeezers: dict[str, Squeezer] = {}  # by kind of rows: what pays for one does not for another
        self._held: tuple[bytes, list[t.Any]] | None = None  # the newest frame: it may turn out to be the last
        self._start()
        self.packs: list[list[t.Any]] = []  # [number, size, SHA-256 in hex, frames]

    def _start(self) -> None:
        self._sealed: list[bytes] = []
        self._digest = hashlib.sha256()  # once: for the manifest and for the endpoint
        self._frames = 0
        self._size = 0
        self._cipher: FrameCipher | None = None

    def add(self, plain: bytes, entry: list[t.Any], kind: str = "") -> None:
        """Append a frame and fill ``entry`` = [pack, frame, offset, length, last, …] in."""
        self._flush(False)
        squeezer = self._squeezers.get(kind) or self._squeezers.setdefault(kind, Squeezer())
        body = squeezer.squeeze(plain)
        length = len(body) + TAG_BYTES
        entry[0:5] = [self._number, self._frames, self._size, length, False]
        self._held = (body, entry)
        self._frames += 1
        self._size += length
        if self._size >= PACK_BYTES:
            self.close()

    def _flush(self, last: bool) -> None:
        if self._held is None:
            return
        body, entry = self._held
        self._held = None
        if self._cipher is None:
            self._cipher = FrameCipher(self._secret, self._snapshot, f"pack {pack_name(self._number)}")
        entry[4] = last
        self._sealed.append(self._cipher.seal(entry[1], body, last))
        self._digest.update(self._sealed[-1])

    def close(self) -> None:
        """Put the pack under way, if there is one."""
        if not self._frames:
            return
        self._flush(True)
        sealed, digest = self._sealed, self._digest
        self.packs.append([self._number, self._size, digest.hexdigest(), self._frames])
        self._number += self._step
        self._start()
        self._put(f"packs/{pack_name(self.packs[-1][0])}.pack", sealed, digest.digest())

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Look for "memory corrupt", failed decryptions and storage errors in an application's own log lines.

PRIVATE to the collection. Files are read in blocks and lines are cut, so memory is bounded whatever they hold. A file
that is not there is no data, which is not the same as no errors.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import typing as t

from .._errors import InvalidInput
from .incident import rfc3339
from .log_times import timestamp

#: kind → regular expressions, matched anywhere in a line, case ignored.
PATTERNS: dict[str, tuple[str, ...]] = {
    "corruption": (
        r"memory[ _]corrupt",
        r"(?:record|memory|entry|payload|index|checksum|hash)\S* (?:is |was )?(?:corrupt|damaged|mismatch)",
        r"(?:checksum|hash)\S* does not (?:hold|match)",
        r"checksum (?:mismatch|error|fail)",
        r"database disk image is malformed",
        r"file is not a database",
        r"index corrupt",
    ),
    "decryption": (
        r"(?:decryption|decrypting|unseal\w*) (?:\w+ )?(?:fail|error)",
        r"(?:fail\w*|unable|cannot|could not|error) (?:to )?(?:\w+ ){0,2}?(?:decrypt|unwrap|unseal)",
        r"\bInvalidTag\b",
        r"\bMAC check failed\b",
        r"does not open with (?:the|its) record key",
        r"(?:record|data|encryption) key \S* ?(?:is )?(?:missing|not found|unavailable|not in the keyring)",
    ),
    "storage": (
        r"disk I/O error",
        r"\binput/output error",
        r"no space left on device",
        r"database or disk is full",
        r"read-only (?:file ?system|database)",
        r"unable to open database",
        r"memory store (?:is )?(?:unavailable|unreachable)",
    ),
}
LINE = 16 << 10  # bytes of a line that are looked at
BLOCK = 1 << 20
SAMPLES = 20
SAMPLE_CHARS = 300
JOURNAL_TIMEOUT = 60.0

Source = t.Union[str, t.Mapping[str, t.Any]]


def scan(sources: t.Sequence[Source], since: int | None = None) -> list[dict[str, t.Any]]:
    """``errors`` of scan_logs: [{kind, count, first, last, sample}], what a diagnosis needs."""
    return t.cast("list[dict[str, t.Any]]", scan_logs(sources, since=since)["errors"])


def scan_logs(
    sources: t.Sequence[Source],
    *,
    state: t.Mapping[str, t.Any] | None = None,
    since: int | None = None,
    max_bytes: int = 1 << 30,
) -> dict[str, t.Any]:
    """Scan ``sources``: paths, {"path": p} or {"journal_unit": name}.

    ``state`` is what an earlier call returned (or ``positions``): only what came after it is read, through one
    rotation of the file; without it everything, of each file the last ``max_bytes``. Lines older than ``since`` (µs)
    are left out where they begin with a time; times without a zone are this host's.

    Returns {data (every source was read), sources [{source, status: read | no-data, bytes, reason}], counts {kind: n},
    total, first, last (RFC 3339 or None), errors [{kind, count, first, last, sample}], samples [≤ 20 lines, secrets
    masked], state}. Errors: InvalidInput (a source that cannot be meant).
    """
    finding = _Finding(since)
    before = dict(state or {})
    after: dict[str, t.Any] = {}
    report = []
    for source in sources:
        name, path, unit = _parse(source)
        finding.source = name
        if unit is not None:
            status, after[name] = _journal(unit, before.get(name), since, finding)
        else:
            status, after[name] = _file(path, before.get(name), state is not None, max_bytes, finding)
        report.append({"source": name, **status})
    return {
        "data": bool(report) and all(one["status"] == "read" for one in report),
        "sources": report,
        "counts": {kind: one["count"] for kind, one in finding.kinds.items()},
        "total": sum(one["count"] for one in finding.kinds.values()),
        "first": rfc3339(min((o["first"] for o in finding.kinds.values() if o["first"]), default=None)),
        "last": rfc3339(max((o["last"] for o in finding.kinds.values() if o["last"]), default=None)),
        "errors": [
            {"kind": kind, **one, "first": rfc3339(one["first"]), "last": rfc3339(one["last"])}
            for kind, one in finding.kinds.items()
        ],
        "samples": finding.samples,
        "state": after,
    }


def positions(sources: t.Sequence[Source]) -> dict[str, t.Any]:
    """The state "read up to now": what scan_logs reads with it came later."""
    found: dict[str, t.Any] = {}
    for source in sources:
        name, path, unit = _parse(source)
        if unit is not None:
            found[name] = _journal(unit, None, None, None)[1]
            continue
        try:
            info = os.stat(path)
        except OSError:
            found[name] = {"device": None, "inode": None, "offset": 0}
        else:
            found[name] = {"device": info.st_dev, "inode": info.st_ino, "offset": info.st_size}
    return found


@functools.lru_cache(maxsize=1)
def _compiled() -> list[tuple[str, re.Pattern[bytes]]]:
    joined = ((kind, "|".join(f"(?:{text})" for text in texts)) for kind, texts in PATTERNS.items())
    return [(kind, re.compile(text.encode(), re.IGNORECASE)) for kind, text in joined]


def kind_of(text: str) -> str | None:
    """Which kind of failure a text tells of, as of a log line; None: of none."""
    raw = text.encode("utf-8", "replace")
    return next((kind for kind, pattern in _compiled() if pattern.search(raw, 0, LINE)), None)


def mask(text: str) -> str:
    """``text`` without anything that looks like a secret, on one line, cut."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= SAMPLE_CHARS else text[:SAMPLE_CHARS] + "…"


_SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"-----BEGIN .*", "***"),
        (r"\b([a-z][a-z0-9+.-]*://)[^\s/@]+@", r"\1***@"),
        (r"\b(bearer|basic|token)\s+[a-z0-9._~+/=-]{6,}", r"\1 ***"),
        (
            r"(\b[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|apikey|access[_-]?key|private[_-]?key"
            r"|master[_-]?key|credential|authorization|auth|cookie|session|signature)[\w.-]*[\"']?\s*[=:]\s*)"
            r"(?:\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|(?:bearer|basic)?\s*[^\s,;&\"'}]+)",
            r"\1***",
        ),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}", "***"),
        (r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]+)?", "***"),
        (r"\b(?:gh[pousr]_|sk-|xox[a-z]-|hvs\.)[\w-]{8,}", "***"),
        (r"(?<![\w+/=-])(?=[\w+/=-]*\d)[\w+/=-]{28,}", "***"),
    )
)


# --- what is found ------------------------------------------------------------------------------------------------
class _Finding:
    def __init__(self, since: int | None) -> None:
        self.kinds: dict[str, dict[str, t.Any]] = {}
        self.samples: list[dict[str, t.Any]] = []
        self.source = ""
        self._patterns = _compiled()
        self._since = since
        self._at: int | None = None  # of the newest line that began with a time: a traceback's lines have none

    def block(self, data: bytes) -> None:
        """Whole lines."""
        for raw in data.split(b"\n"):
            if raw:
                self.line(raw)

    def line(self, raw: bytes, at: int | None = None) -> None:
        kind = next((kind for kind, pattern in self._patterns if pattern.search(raw, 0, LINE)), None)
        if kind is None and self._since is None:
            return  # its time matters to nobody
        text = raw[:LINE].decode("utf-8", "replace")
        stamp = at if at is not None else timestamp(text)
        if stamp is not None:
            self._at = stamp
        elif kind is not None and self._since is None:
            self._at = None  # the lines before were not looked at
        if kind is None or (self._since is not None and self._at is not None and self._at < self._since):
            return
        found = self.kinds.setdefault(kind, {"count": 0, "first": None, "last": None, "sample": None})
        found["count"] += 1
        if self._at is not None:
            found["first"] = min(self._at, found["first"] or self._at)
            found["last"] = max(self._at, found["last"] or self._at)
        if len(self.samples) < SAMPLES or found["sample"] is None:
            shown = mask(text[:4096])
            found["sample"] = found["sample"] or shown
            if len(self.samples) < SAMPLES:
                self.samples.append({"source": self.source, "kind": kind, "at": rfc3339(self._at), "line": shown})

    def new_source(self) -> None:
        self._at = None


def _parse(source: Source) -> tuple[str, str, str | None]:
    """(name, path, journal unit)."""
    if isinstance(source, str) and source:
        return source, source, None
    if isinstance(source, t.Mapping):
        path, unit = source.get("path"), source.get("journal_unit")
        if isinstance(path, str) and path and unit is None:
            return path, path, None
        if isinstance(unit, str) and re.fullmatch(r"[\w@.:\\][\w@.:\\-]*", unit) and path is None:
            return f"journal:{unit}", "", unit
    raise InvalidInput(
        f"{source!r:.100} names no log.", 'set memory_logs to a list of paths or of {"journal_unit": name}'
    )


# --- files --------------------------------------------------------------------------------------------------------
def _file(
    path: str, before: t.Mapping[str, t.Any] | None, following: bool, max_bytes: int, finding: _Finding
) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """(status, state) of one file; a file that was rotated away is read to its end first."""
    seen = dict(before or {"device": None, "inode": None, "offset": 0})
    read = 0
    notes = []
    finding.new_source()
    try:
        with open(path, "rb") as stream:
            info = os.fstat(stream.fileno())
            offset = int(seen["offset"])
            if seen["inode"] is not None and (info.st_dev, info.st_ino) != (seen["device"], seen["inode"]):
                former = _former(path, seen)
                if former is None:
                    notes.append("the file was replaced and its former content is gone")
                else:
                    with open(former, "rb") as rest:
                        read += _read(rest, offset, finding, True) - offset
                offset = 0
            elif offset > info.st_size:
                notes.append("the file was truncated and is read from its start")
                offset = 0
            if info.st_size - offset > max_bytes:
                notes.append(f"only the last {max_bytes} bytes were read")
                offset = info.st_size - max_bytes
            end = _read(stream, offset, finding, not following)
            read += end - offset
            state = {"device": info.st_dev, "inode": info.st_ino, "offset": end}
    except OSError as exc:
        reason = f"{path} cannot be read: {exc.strerror or exc}"
        return {"status": "no-data", "bytes": read, "reason": reason}, seen
    return {"status": "read", "bytes": read, "reason": "; ".join(notes) or None}, state


def _former(path: str, seen: t.Mapping[str, t.Any]) -> str | None:
    """Where the file that had this name is now: a neighbour whose name begins with it (app.log.1, app.log-20260101)."""
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(name.split(".")[0]) and entry.inode() == seen["inode"]:
                    info = entry.stat()
                    if info.st_dev == seen["device"] and info.st_size >= seen["offset"]:
                        return entry.path
    except OSError:
        pass
    return None


def _read(stream: t.BinaryIO, offset: int, finding: _Finding, whole: bool) -> int:
    """Look at the lines from ``offset``; the offset after the last one. A last line without its end waits for the
    next call, unless ``whole``. Of an endless line only the first part is looked at."""
    stream.seek(offset)
    rest = b""
    skipping = False
    while True:
        data = stream.read(BLOCK)
        if not data:
            break
        offset += len(data)
        cut = data.rfind(b"\n") + 1
        if not cut:
            if not skipping:
                rest += data
                if len(rest) > BLOCK:
                    finding.line(rest[:LINE])
                    rest, skipping = b"", True
            continue
        if skipping:  # the end of an endless line
            first = data.index(b"\n") + 1
            data, cut, skipping = data[first:], cut - first, False
        finding.block(rest + data[:cut])
        rest = data[cut:]
    if rest and (whole or len(rest) > LINE):
        finding.line(rest)
        return offset
    return offset - len(rest)


# --- the systemd journal ------------------------------------------------------------------------------------------
def _journal(
    unit: str, before: t.Any, since: int | None, finding: _Finding | None
) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """Through journalctl: entries after the cursor of ``before`` or since a time; without a finding only the cursor."""
    command = ["journalctl", "--no-pager", "--quiet", f"--unit={unit}", "--output=short-unix", "--show-cursor"]
    cursor = (before or {}).get("cursor")
    if finding is None:
        command.append("--lines=0")
    elif cursor:
        command.append(f"--after-cursor={cursor}")
    elif since is not None:
        command.append(f"--since=@{since // 1_000_000}")
    read = 0
    state = {"cursor": cursor}
    if finding is not None:
        finding.new_source()
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        ) as process:
            if process.stdout is None:
                raise AssertionError("process.stdout")
            if process.stderr is None:
                raise AssertionError("process.stderr")
            try:
                for raw in iter(functools.partial(process.stdout.readline, BLOCK), b""):
                    if raw.startswith(b"-- cursor: "):
                        state["cursor"] = raw[11:].strip().decode("utf-8", "replace")
                        continue
                    read += len(raw)
                    if finding is not None:
                        finding.line(raw.rstrip(b"\n"))
                complaint = process.stderr.read(2000).decode("utf-8", "replace").strip()
                code = process.wait(JOURNAL_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                return {"status": "no-data", "bytes": read, "reason": "journalctl did not end"}, state
    except OSError as exc:
        reason = f"journalctl cannot be run: {exc.strerror}"
        return {"status": "no-data", "bytes": 0, "reason": reason}, state
    if code:
        reason = f"journalctl ended with {code}: {mask(complaint)}"
        return {"status": "no-data", "bytes": read, "reason": reason}, state
    return {"status": "read", "bytes": read, "reason": None}, state

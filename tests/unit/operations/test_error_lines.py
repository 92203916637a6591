# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Log lines: what is found, what is not, what follows a rotated file, what a sample must not show."""

from __future__ import annotations

import os
import resource
import stat

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import InvalidInput
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import error_lines, log_times
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.incident import microseconds

LINES = """\
2026-01-05T10:00:00Z INFO started
2026-01-05T10:00:01Z ERROR memory corrupt: key user/1
2026-01-05T10:00:02.500Z ERROR decryption failed for user/2
2026-01-05T10:00:03Z ERROR sqlite3.OperationalError: disk I/O error
2026-01-05T10:00:04Z INFO decrypted 12 records, wrote a checksum
2026-01-05T10:00:05Z ERROR failed to decrypt user/3
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text(LINES)
    return path


def test_kinds_are_counted_with_first_and_last_time(log):
    found = error_lines.scan_logs([str(log)])
    assert found["counts"] == {"corruption": 1, "decryption": 2, "storage": 1}
    assert (found["total"], found["data"]) == (4, True)
    assert (found["first"], found["last"]) == ("2026-01-05T10:00:01.000Z", "2026-01-05T10:00:05.000Z")
    by_kind = {one["kind"]: one for one in error_lines.scan([str(log)])}
    assert by_kind["decryption"]["first"] == "2026-01-05T10:00:02.500Z"
    assert by_kind["decryption"]["sample"] == "2026-01-05T10:00:02.500Z ERROR decryption failed for user/2"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("memory_corrupt ns=a", "corruption"),
        ("database disk image is malformed", "corruption"),
        ("cryptography.exceptions.InvalidTag", "decryption"),
        ("ValueError: MAC check failed", "decryption"),
        ("Unable to decrypt the record", "decryption"),
        ("OSError: [Errno 28] No space left on device", "storage"),
        ("attempt to write a readonly database: read-only file system", "storage"),
        ("all is well, nothing is corrupted by us: no", None),
        ("decryption took 3 ms", None),
        ("request failed with status 500", None),
    ],
)
def test_patterns(tmp_path, line, kind):
    path = tmp_path / "l"
    path.write_text(line + "\n")
    assert error_lines.scan_logs([str(path)])["counts"] == ({kind: 1} if kind else {})


def test_since_leaves_older_lines_out_and_a_traceback_has_the_time_of_its_first_line(tmp_path):
    path = tmp_path / "l"
    path.write_text(
        "2026-01-05 10:00:00+00:00 ERROR oops\nInvalidTag\n2026-01-05 12:00:00+02:00 ERROR oops\nInvalidTag\n"
        "2026-01-05T11:00:00Z ERROR oops\n  InvalidTag\n"
    )
    found = error_lines.scan_logs([str(path)], since=microseconds("2026-01-05T10:30:00Z"))
    assert found["counts"] == {"decryption": 1}
    assert found["first"] == "2026-01-05T11:00:00.000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T10:00:00Z x",
        "[2026-01-05 10:00:00 +0000] x",
        '{"time": "2026-01-05T10:00:00.000Z", "level": "error"}',
        "ts=2026-01-05T10:00:00Z x",
        "1767607200.0 host x",
    ],
)
def test_times(text):
    assert log_times.timestamp(text) == microseconds("2026-01-05T10:00:00Z")


def test_no_time():
    assert log_times.timestamp("ERROR at 2026-13-45T99:00:00Z") is None
    assert log_times.timestamp("2026-13-45T10:00:00Z") is None
    assert log_times.timestamp("Jan 32 10:00:00 host") is None
    assert log_times.timestamp("Jan  5 10:00:00 host") is not None


def test_only_what_came_later_is_read(log):
    state = error_lines.positions([str(log)])
    first = error_lines.scan_logs([str(log)], state=state)
    assert (first["total"], first["data"]) == (0, True)
    with log.open("a") as stream:
        stream.write("memory corrupt\nmemory cor")
    second = error_lines.scan_logs([str(log)], state=first["state"])
    assert second["counts"] == {"corruption": 1}
    with log.open("a") as stream:
        stream.write("rupt\n")
    third = error_lines.scan_logs([str(log)], state=second["state"])
    assert third["counts"] == {"corruption": 1}, "a line that was half written is read when it is whole"
    assert error_lines.scan_logs([str(log)], state=third["state"])["total"] == 0


def test_a_rotated_file_is_read_to_its_end_and_the_new_one_from_its_start(log):
    state = error_lines.positions([str(log)])
    with log.open("a") as stream:
        stream.write("memory corrupt\n")
    os.rename(log, f"{log}.1")
    log.write_text("InvalidTag\nInvalidTag\n")
    found = error_lines.scan_logs([str(log)], state=state)
    assert found["counts"] == {"corruption": 1, "decryption": 2}
    assert error_lines.scan_logs([str(log)], state=found["state"])["total"] == 0


def test_a_truncated_file_is_read_from_its_start(log):
    state = error_lines.positions([str(log)])
    log.write_text("InvalidTag\n")
    found = error_lines.scan_logs([str(log)], state=state)
    assert found["counts"] == {"decryption": 1}
    assert "truncated" in found["sources"][0]["reason"]


def test_a_missing_file_is_no_data_and_is_read_when_it_comes(tmp_path, log):
    path = tmp_path / "later.log"
    state = error_lines.positions([str(path), str(log)])
    found = error_lines.scan_logs([str(path), str(log)], state=state)
    assert found["data"] is False
    assert [one["status"] for one in found["sources"]] == ["no-data", "read"]
    assert "No such file" in found["sources"][0]["reason"]
    path.write_text("InvalidTag\n")
    assert error_lines.scan_logs([str(path), str(log)], state=found["state"])["counts"] == {"decryption": 1}
    assert error_lines.scan_logs([])["data"] is False


@pytest.mark.parametrize(
    "bad", ["", 7, {}, {"journal_unit": "--flush"}, {"journal_unit": "a b"}, {"path": "a", "journal_unit": "b"}]
)
def test_a_source_that_cannot_be_meant(bad):
    with pytest.raises(InvalidInput):
        error_lines.scan_logs([bad])


def test_secrets_are_masked(tmp_path):
    secrets = {
        "password=hunter2secret": "hunter2secret",
        '"api_key": "abc def ghi"': "def",
        "postgres://user:s3cr3tpw@db/x": "s3cr3tpw",
        "Authorization: Bearer abcdef123456": "abcdef123456",
        "AKIAABCDEFGHIJKLMNOP": "AKIAABCDEFGHIJKLMNOP",
        "master_key_hex: 00112233": "00112233",
        "token eyJhbGciOi.eyJzdWIi.c2ln": "eyJzdWIi",
        "blob 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08": "9f86d081884c7d65",
        "-----BEGIN PRIVATE KEY----- MIIE": "MIIE",
    }
    path = tmp_path / "l"
    path.write_text("".join(f"memory corrupt {line}\n" for line in secrets))
    found = error_lines.scan_logs([str(path)])
    shown = " ".join(one["line"] for one in found["samples"])
    assert found["total"] == len(secrets)
    for secret in secrets.values():
        assert secret not in shown
    assert shown.count("memory corrupt") == len(secrets)


def test_samples_are_few_short_and_printable(tmp_path):
    path = tmp_path / "l"
    path.write_bytes(b"".join(b"memory corrupt \x1b[31m \xff %d %s\n" % (n, b"x " * 400) for n in range(100)))
    found = error_lines.scan_logs([str(path)])
    assert (found["total"], len(found["samples"])) == (100, 20)
    assert all(len(one["line"]) <= 301 and one["line"].isprintable() for one in found["samples"])


def test_huge_lines_and_files_take_little_memory(tmp_path):
    path = tmp_path / "huge.log"
    with path.open("wb") as stream:
        stream.write(b"memory corrupt ")
        for _turn in range(64):
            stream.write(b"y" * (1 << 20))
        stream.write(b"\nInvalidTag\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = error_lines.scan_logs([str(path)])
    assert found["counts"] == {"corruption": 1, "decryption": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10
    last = error_lines.scan_logs([str(path)], max_bytes=100)
    assert last["counts"] == {"decryption": 1}
    assert "only the last 100 bytes" in last["sources"][0]["reason"]


def test_the_journal(tmp_path, monkeypatch):
    """A stand-in for journalctl, because a test machine need not run systemd: it prints what the real one would."""
    program = tmp_path / "journalctl"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'case "$*" in\n'
        '  *nothing*) echo "No such unit" >&2; exit 1;;\n'
        '  *lines=0*) echo "-- cursor: s=1";;\n'
        '  *after-cursor=s=1*) echo "1767607200.5 host app[1]: memory corrupt"; echo "-- cursor: s=2";;\n'
        '  *) echo "-- cursor: s=2";;\n'
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    unit = {"journal_unit": "agent.service"}
    state = error_lines.positions([unit])
    found = error_lines.scan_logs([unit], state=state)
    assert found["counts"] == {"corruption": 1}
    assert found["first"] == "2026-01-05T10:00:00.500Z"
    assert error_lines.scan_logs([unit], state=found["state"])["total"] == 0
    assert "--unit=agent.service" in (tmp_path / "calls").read_text()
    missing = error_lines.scan_logs([{"journal_unit": "nothing"}])
    assert (missing["data"], missing["sources"][0]["status"]) == (False, "no-data")
    assert "No such unit" in missing["sources"][0]["reason"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "cannot be run" in error_lines.scan_logs([unit])["sources"][0]["reason"]

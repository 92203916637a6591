# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A move to another master key that is cut short: faults, kills at every write, an endpoint that hangs up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import threading
import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils import _repository
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from tests.support.s3_server import S3Server

from .conftest import NAME
from .faulty import Faults, FaultyObjects
from .master_key_help import Site, copied


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What happens in every place that is opened from now on."""
    shared = Faults()
    monkeypatch.setattr(
        _repository, "open_objects", lambda params: FaultyObjects(params["url"][len("file://") :], shared)
    )
    return shared


def _unlocked(site: Site, snapshot_id: str) -> set[str]:
    found = set()
    for which, params in (("old", site.old), ("new", site.new)):
        with contextlib.suppress(errors.KeyUnavailable):
            site.open().snapshot(NAME, snapshot_id, Keyring.open({**params, "path": None}))
            found.add(which)
    return found


def _copies(made: Path, folder: Path, step: int) -> t.Iterator[tuple[int, Site]]:
    for number in range(1, 400, step):
        yield number, copied(made, folder / "copy")
        shutil.rmtree(folder / "copy")


def _finish(site: Site) -> None:
    """Whatever happened, no snapshot is without a master key that opens it, and the same command ends it."""
    assert all(_unlocked(site, one) for one in site.ids)
    site.everything()
    assert all(_unlocked(site, one) == {"new"} for one in site.ids)
    assert Keyring.open(site.new).active_id
    assert not site.move(retire=True)["changed"]


@pytest.mark.parametrize(("writes", "late", "step"), [(False, False, 5), (True, False, 1), (True, True, 1)])
def test_a_fault_in_the_middle_and_the_same_command_finishes(
    made: Path, tmp_path: Path, faults: Faults, writes: bool, late: bool, step: int
) -> None:
    failed = 0
    for number, site in _copies(made, tmp_path, step):
        faults.writes, faults.late, faults.calls, faults.fail_at = writes, late, 0, number
        try:
            site.everything()
            ended = True
        except errors.RepositoryUnavailable:
            ended = False
            failed += 1
        faults.fail_at = 0
        _finish(site)
        if ended:
            break
    assert failed >= 7, "four keys objects are written and three deleted"


@pytest.mark.parametrize("late", [False, True])
def test_killed_at_each_write_and_the_same_command_finishes(
    made: Path, tmp_path: Path, faults: Faults, late: bool
) -> None:
    killed = 0
    for number, site in _copies(made, tmp_path, 1):
        child = os.fork()
        if not child:
            faults.writes, faults.late, faults.deadly = True, late, True
            faults.calls, faults.fail_at = 0, number
            site.everything()
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        _finish(site)
        if not ended:
            break
        assert os.WTERMSIG(ended) == signal.SIGKILL
        killed += 1
    assert killed >= 7


def test_a_repository_that_only_reads(site: Site) -> None:
    before = site.stored()
    for path in (site.directory, *site.directory.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in site.directory.parents:  # where pytest keeps its folders to itself
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    for params, name in ((site.old, "OLD_MASTER"), (site.new, "NEW_MASTER")):
        os.environ[name] = Path(params["master_key_file"]).read_text()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            site.move(keyring={"source": "env", "master_key_env": "OLD_MASTER"},
                      new_master={"source": "env", "master_key_env": "NEW_MASTER"})  # fmt: skip
        except errors.RepositoryUnavailable as exc:
            os.write(write, str(exc).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    said = os.read(read, 4096).decode()
    assert "cannot write" in said and "Permission denied" in said and "Next:" in said
    assert site.stored() == before


class Relay(socketserver.ThreadingTCPServer):
    """Between the client and the S3 server; from the second PUT on it hangs up."""

    daemon_threads = True
    puts = 0

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relayed)
        self.behind = port


class _Relayed(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.behind)) as behind:
            threading.Thread(target=self._answers, args=(behind,), daemon=True).start()
            while data := self.request.recv(1 << 16):
                self.server.puts += data.startswith(b"PUT ")
                if self.server.puts >= 2:
                    break
                behind.sendall(data)
            with contextlib.suppress(OSError):
                behind.shutdown(socket.SHUT_RDWR)

    def _answers(self, behind: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := behind.recv(1 << 16):
                self.request.sendall(data)


def test_an_s3_endpoint_that_hangs_up_in_the_middle(s3: S3Server, s3_repository: dict[str, t.Any], site: Site) -> None:
    place = Repository.open(s3_repository, create=True)
    for key, data in site.stored().items():
        if key != "repository.json":
            place.objects.put(key, data)
    with Relay(s3.port) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        site.repository = {**s3_repository, "endpoint_url": f"http://127.0.0.1:{relay.server_address[1]}", "retries": 1}
        with pytest.raises(errors.RepositoryUnavailable, match="Next:"):
            site.move()
        relay.shutdown()
    assert relay.puts >= 2
    site.repository = s3_repository
    done = site.move()
    assert done["verdict"] == "pass" and done["wrapped"] in (3, 4)  # the first may have been on its way too
    assert all(_unlocked(site, one) == {"old", "new"} for one in site.ids)
    assert site.move(retire=True)["retired"] == 3
    assert all(_unlocked(site, one) == {"new"} for one in site.ids)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A repository moves to another master key: what is proven, what is not, faults at every call, kills at every write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils import _repository
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, snapshot, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.master_key import (
    rewrap_keyring,
    rewrap_repository,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.directory import DirectoryObjects
from tests.support.s3_server import S3Server
from tests.support.stores import keyring_params, new_keyring, new_store, rows_of

from .conftest import NAME, Place
from .test_snapshot import many

DECODER = Path(__file__).resolve().parents[2] / "decoder" / "decode_snapshot.py"


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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "ids").write_text(json.dumps(Site(folder).make().ids))
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Site:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    copy = Site(tmp_path)
    copy.ids = json.loads((tmp_path / "ids").read_text())
    return copy


def test_all_is_opened_by_both_then_by_the_new_one_alone(site: Site) -> None:
    before = site.stored()
    told = site.move(check=True)
    assert (told["verdict"], told["changed"], told["wrapped"]) == ("pass", True, 4)
    assert site.stored() == before
    done = site.move()
    assert (done["snapshots"], done["journals"], done["wrapped"]) == (3, 1, 4)
    after = site.stored()
    assert {key: after[key] for key in before} == before, "what was there is never rewritten"
    assert site.opens(site.old) == site.opens(site.new) == set(site.ids)
    assert not site.move()["changed"] and site.stored() == after
    rewrap_keyring(site.old, site.new)
    rewrap_keyring(site.old, site.new, retire=True)
    assert site.move(retire=True, check=True)["retired"] == 3
    assert site.stored() == after
    assert site.move(retire=True)["retired"] == 3
    assert site.opens(site.new) == set(site.ids) and not site.opens(site.old)
    assert [len(site.keys(one)) for one in site.ids] == [1, 1, 1]
    assert not site.move(retire=True)["changed"]
    again = site.move(keyring=site.new, new_master=None, retire=True)
    assert (again["verdict"], again["changed"]) == ("pass", False)


def test_the_new_master_key_alone_restores_on_a_bare_machine(site: Site, tmp_path: Path) -> None:
    site.everything()
    bare = {**site.new, "path": str(tmp_path / "bare.json")}
    Path(site.old["master_key_file"]).unlink()
    Path(site.old["path"]).unlink()
    store = new_store(tmp_path, "bare.db")
    ring = Keyring.open(bare, create=True)
    for namespace in ("a", "b"):
        arguments: dict[str, t.Any] = {"store_params": store, "keyring": ring, "create": True, "namespace": namespace}
        restore.restore(repository=site.open(), name=NAME, snapshot_id=site.ids[1], **arguments)
        assert [row[0] for row in rows_of(store, namespace)] == [row[0] for row in rows_of(site.store, namespace)]
    command = [sys.executable, str(DECODER), str(site.root), NAME, site.new["master_key_file"]]
    command += ["--store", site.store["path"]]
    done = subprocess.run([*command, "--snapshot", site.ids[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_journal_is_read_and_continued(site: Site) -> None:
    entry = site.root / "incidents" / "inc-1" / "000000"
    before = entry.read_bytes()
    site.everything()
    assert entry.read_bytes() == before, "the next entry holds its hash"
    ring = Keyring.open(site.new)
    assert not site.open().put_journal("inc-1", 1, b"entry 1", ring), "it is there already"
    assert site.open().put_journal("inc-1", 2, b"entry 2", ring)
    assert site.open().read_journal("inc-1", ring) == [b"entry 0", b"entry 1", b"entry 2"]
    assert not site.move(retire=True)["changed"]
    third = site.move(keyring=site.new, new_master=site.third)
    assert (third["wrapped"], third["journals"]) == (4, 1)
    last = Keyring.open({**site.third, "path": None})
    assert len(site.open().read_journal("inc-1", last)) == 3
    (site.root / "incidents" / "inc-1" / "keys").rename(site.root / "elsewhere")
    with pytest.raises(errors.KeyUnavailable):
        site.open().read_journal("inc-1", ring)


def test_what_neither_opens_is_listed_and_keeps_the_former_master_key(site: Site, tmp_path: Path) -> None:
    stranger = new_keyring(tmp_path, "stranger")
    site.fill("c", many(3))
    strange = site.snapshot(keyring=stranger)["snapshot"]
    (damaged,) = site.keys(site.ids[0]).values()
    body = bytearray(damaged.read_bytes())
    body[len(body) // 2] ^= 1
    damaged.write_bytes(bytes(body))
    found = site.move()
    assert (found["verdict"], found["changed"]) == ("could-not-verify", True)
    unproven = sorted(one["what"] for one in found["unproven"])  # two ids of one second stand in any order
    assert unproven == sorted(f"Snapshot {n} of {NAME}" for n in (site.ids[0], strange))
    assert any(stranger.master_id in one for one in found["reasons"])
    assert site.opens(site.new) == set(site.ids[2:])  # the second refers to chunks of the first
    before = site.stored()
    refused = site.move(retire=True)
    assert (refused["verdict"], refused["changed"]) == ("could-not-verify", False)
    assert site.stored() == before
    forced = site.move(retire=True, force=True)
    assert forced["verdict"] == "pass" and strange in str(forced["warnings"])
    assert [len(site.keys(one)) for one in (*site.ids, strange)] == [1, 1, 1, 1]
    assert damaged.exists() and site.keys(strange) and not site.move(retire=True, force=True)["changed"]


def test_a_new_keys_object_that_rots_is_made_again(site: Site) -> None:
    site.move()
    names = set(site.keys(site.ids[0]))
    (new,) = names - {f"{Keyring.open(site.old).master_id}.json"}
    site.keys(site.ids[0])[new].write_bytes(b"rotten")
    done = site.move()
    assert (done["wrapped"], done["verdict"]) == (1, "pass")
    assert site.opens(site.new) == set(site.ids)
    # the old one is gone too: nothing can be made again, and nothing more is given up
    for path in site.keys(site.ids[1]).values():
        path.write_bytes(b"rotten")
    assert site.move(retire=True)["verdict"] == "could-not-verify"
    assert len(site.keys(site.ids[0])) == 2


def test_a_manifest_that_does_not_authenticate_is_no_proof(site: Site) -> None:
    manifest = site.root / "snapshots" / NAME / site.ids[2] / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"suspect":false', b'"suspect":true '))
    found = site.move(retire=True)
    assert found["verdict"] == "could-not-verify" and "does not authenticate" in found["reasons"][0]
    assert found["retired"] == 0 and site.opens(site.old) == set(site.ids[:2])


def test_other_clusters_of_the_repository(site: Site, tmp_path: Path) -> None:
    """Under the same master key: wrapped too, given up by their own run. Under another: told, and left alone."""
    stranger, other = new_keyring(tmp_path, "stranger"), new_store(tmp_path, "other.db")
    arguments: dict[str, t.Any] = {"repository": site.repository, "store_params": other, "purpose": "scheduled"}
    same = snapshot.create(name="same", keyring=site.keyring, **arguments)["snapshot"]
    snapshot.create(name="strange", keyring=stranger, **arguments)
    site.open().put_journal("inc-strange", 0, b"theirs", stranger)
    done = site.move(retire=True)
    assert (done["verdict"], done["snapshots"], done["retired"]) == ("pass", 4, 3)
    assert done["others"] == ["inc-strange", "strange"] and "strange" in str(done["warnings"])
    assert len(list((site.root / "snapshots" / "same" / same / "keys").iterdir())) == 2


def test_a_forensic_snapshot_that_waits_in_the_spool_is_done_too(site: Site, tmp_path: Path) -> None:
    spool = str(tmp_path / "spool")
    assert site.move(spool=spool)["snapshots"] == 3, "there is none"
    assert not os.path.exists(spool)
    waiting = snapshot.create(
        repository={"url": "s3://nowhere/x", "endpoint_url": "http://127.0.0.1:9", "retries": 1}, keyring=site.keyring,
        store_params=site.store, name=NAME, purpose="forensic", namespaces=["a"], incident="inc-2", spool=spool,
    )  # fmt: skip
    assert waiting["spooled"]
    assert site.move(spool=spool)["snapshots"] == 4
    ring = Keyring.open({**site.new, "path": None})
    assert Repository.open({"url": f"file://{spool}"}).snapshot(NAME, waiting["snapshot"], ring)


def test_a_snapshot_under_way_when_its_master_key_is_given_up_is_not_published(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = snapshot.pack_index

    def meanwhile(*arguments: t.Any) -> bytes:
        site.everything()
        return genuine(*arguments)

    monkeypatch.setattr(snapshot, "pack_index", meanwhile)
    before = [info.id for info in site.open().snapshots(NAME)]
    site.fill("d", many(3))
    with pytest.raises(errors.KeyUnavailable, match="Next: point memory_keyring"):
        site.snapshot()
    assert [info.id for info in site.open().snapshots(NAME)] == before
    monkeypatch.undo()
    assert site.snapshot(keyring=Keyring.open(site.new))["changed"]


def test_backups_under_the_former_master_key_meanwhile_are_done_by_the_next_run(site: Site) -> None:
    rewrap_keyring(site.old, site.new)
    site.move()
    site.fill("d", many(3))
    late = site.snapshot()["snapshot"]  # incremental: refers to chunks of the first
    site.fill("e", many(3))
    site.ids += [late, site.snapshot(keyring=Keyring.open(site.new))["snapshot"]]
    found = site.move(keyring=site.new, new_master=None, retire=True)
    assert found["verdict"] == "could-not-verify" and late in found["reasons"][0] and not found["retired"]
    site.everything()
    assert site.opens(site.new) == set(site.ids)


# --- faults ----------------------------------------------------------------------------------------------------------
class Counting(DirectoryObjects):
    """A directory whose call (with ``writes``: whose write) number ``fail_at`` fails or kills this process."""

    fail_at = calls = 0
    writes = late = deadly = False
    lock = threading.Lock()

    @classmethod
    def _turn(cls, write: bool) -> int:
        if cls.writes and not write:
            return 0
        with cls.lock:
            cls.calls += 1
            number = cls.calls
        if not cls.late:
            cls._strike(number)
        return number

    @classmethod
    def _strike(cls, number: int) -> None:
        if number and number == cls.fail_at:
            if cls.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            raise errors.RepositoryUnavailable("The place failed.", "try again")

    def put(self, key: str, data: bytes, **more: t.Any) -> None:
        number = self._turn(True)
        super().put(key, data, **more)
        if self.late:
            self._strike(number)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._turn(False)
        return super().get(key, start, length)

    def children(self, prefix: str) -> list[str]:
        self._turn(False)
        return super().children(prefix)

    def delete(self, keys: t.Sequence[str]) -> None:
        number = self._turn(True)
        super().delete(keys)
        if self.late:
            self._strike(number)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr(_repository, "open_objects", lambda params: Counting(params["url"][len("file://") :]))
    for name in ("fail_at", "calls", "writes", "late", "deadly"):
        monkeypatch.setattr(Counting, name, getattr(Counting, name))
    return Counting


def _unlocked(site: Site, snapshot_id: str) -> set[str]:
    found = set()
    for which, params in (("old", site.old), ("new", site.new)):
        with contextlib.suppress(errors.KeyUnavailable):
            site.open().snapshot(NAME, snapshot_id, Keyring.open({**params, "path": None}))
            found.add(which)
    return found


def _copies(made: Path, folder: Path, step: int) -> t.Iterator[tuple[int, Site]]:
    for number in range(1, 400, step):
        shutil.copytree(made, folder / "copy")
        site = Site(folder / "copy")
        site.ids = json.loads((folder / "copy" / "ids").read_text())
        yield number, site
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
    made: Path, tmp_path: Path, counting: type[Counting], writes: bool, late: bool, step: int
) -> None:
    failed = 0
    for number, site in _copies(made, tmp_path, step):
        counting.writes, counting.late, counting.calls, counting.fail_at = writes, late, 0, number
        try:
            site.everything()
            ended = True
        except errors.RepositoryUnavailable:
            ended = False
            failed += 1
        counting.fail_at = 0
        _finish(site)
        if ended:
            break
    assert failed >= 7, "four keys objects are written and three deleted"


@pytest.mark.parametrize("late", [False, True])
def test_killed_at_each_write_and_the_same_command_finishes(
    made: Path, tmp_path: Path, counting: type[Counting], late: bool
) -> None:
    killed = 0
    for number, site in _copies(made, tmp_path, 1):
        child = os.fork()
        if not child:
            counting.writes, counting.late, counting.deadly = True, late, True
            counting.calls, counting.fail_at = 0, number
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

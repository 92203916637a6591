# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The same on a real S3 server, and the errors of endpoints in words."""
from __future__ import annotations

import os
import socket
import threading
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._operations import restore, verify
from ansible_collections.memops.agent_memory.plugins.module_utils._repository import Repository
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.objects import ObjectExists, ObjectMissing
from tests.support.s3_server import S3Server
from tests.support.stores import new_store, rows_of

from .conftest import NAME, Place


def test_objects(s3_repository: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent/bundle.pem")  # must not break plain http
    repository = Repository.open(s3_repository, create=True)
    assert repository.seen == {"kind": "s3", "conditional_put": True, "checksum_verified": True, "delete": True}
    assert repository.warnings == []
    objects = repository.objects
    objects.put("a/b", b"0123456789", if_absent=True)
    objects.put("a/b", b"0123456789", if_absent=True)  # the same again is fine
    with pytest.raises(ObjectExists):
        objects.put("a/b", b"other", if_absent=True)
    assert objects.get("a/b", 3, 4) == b"3456" and objects.get("a/b", 8) == b"89" and objects.get("a/b", 0, 0) == b""
    with pytest.raises(ObjectMissing):
        objects.get("a/c")
    objects.put("a/d/e", b"x")
    assert objects.children("a/") == ["b", "d"] and [info.key for info in objects.list("a/")] == ["a/b", "a/d/e"]
    assert [info.size for info in objects.list("a/b")] == [10]
    objects.delete(["a/b", "a/d/e", "never"])
    assert list(objects.list("a/")) == []


def test_listing_goes_on_after_a_page(s3_repository: dict[str, t.Any]) -> None:
    objects = Repository.open(s3_repository, create=True).objects
    for number in range(7):
        objects.put(f"many/{number}/x", b"")
    pages = objects._pages  # type: ignore[attr-defined]
    objects._pages = lambda prefix, **more: pages(prefix, MaxKeys=3, **more)  # type: ignore[attr-defined]
    assert len(list(objects.list("many/"))) == 7
    assert objects.children("many/") == [str(number) for number in range(7)]


def test_snapshot_verify_restore(place: Place, s3_repository: dict[str, t.Any], tmp_path: t.Any) -> None:
    place.repository = s3_repository
    place.fill("n", {f"k{number:06d}": os.urandom(40) for number in range(51_000)})
    first = place.snapshot()
    again = place.snapshot()
    assert again["bytes"]["sent"] == 0 and again["base"] == first["snapshot"]
    for depth in verify.DEPTHS:
        result = verify.verify(
            repository=s3_repository, keyring=place.keyring, name=NAME, snapshot_id=again["snapshot"], depth=depth
        )
        assert (result["verdict"], result["problems"]) == ("pass", [])
    target = new_store(tmp_path, "target.db")
    result = restore.restore(
        store_params=target, repository=s3_repository, keyring=place.keyring, name=NAME, namespace="n", create=True
    )
    assert result["changed"] and rows_of(target, "n") == rows_of(place.store, "n")


@pytest.mark.parametrize(
    "change",
    [{"secret_key": "wrong"}, {"access_key": "nobody"}, {"url": "s3://no-such-bucket/x"}, {"region": "bad region"}],
)
def test_refusals_are_one_sentence(s3: S3Server, change: dict[str, t.Any]) -> None:
    params = {**s3.repository("x"), **change}
    with pytest.raises((errors.RepositoryUnavailable, errors.RepositoryRefused)) as caught:
        Repository.open(params)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and s3.secret_key not in text


def test_an_endpoint_that_answers_nothing_or_rubbish(s3: S3Server) -> None:
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"rubbish\r\n\r\n",
               b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"]  # fmt: skip
    for answer in answers:
        with socket.create_server(("127.0.0.1", 0)) as server:
            stop = threading.Event()

            def serve(server: socket.socket = server, answer: bytes = answer, stop: threading.Event = stop) -> None:
                server.settimeout(0.2)
                while not stop.is_set():
                    try:
                        connection, _address = server.accept()
                    except OSError:
                        continue
                    connection.settimeout(1)
                    try:
                        connection.recv(4096)
                        connection.sendall(answer)
                    except OSError:
                        pass
                    connection.close()

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                port = server.getsockname()[1]
                params = {**s3.repository("x"), "endpoint_url": f"http://127.0.0.1:{port}", "retries": 1,
                          "read_timeout": 2}  # fmt: skip
                with pytest.raises(errors.RepositoryUnavailable) as caught:
                    Repository.open(params)
                assert "\n" not in str(caught.value)
            finally:
                stop.set()
                thread.join()


def test_absurd_timeouts_are_refused(s3: S3Server) -> None:
    for value in (0, -1, "soon", 1e9):
        with pytest.raises(errors.InvalidInput):
            Repository.open({**s3.repository("x"), "read_timeout": value})

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects that are read by plain requests: the same bytes as boto3 brings, and boto3 wherever that cannot be."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import typing as t

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import _errors as errors
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.objects import (
    ObjectMissing,
    open_objects,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._repository.s3_get import PlainGets
from tests.support.certificates import Authority
from tests.support.link import Link
from tests.support.s3_server import S3Server

BODY = bytes(range(256)) * 400


def opened(params: dict[str, t.Any]) -> t.Any:
    return t.cast(t.Any, open_objects(params))


def by_boto3(objects: t.Any) -> bool:
    return bool(objects._clients)


@pytest.mark.parametrize("key", ["a/b.pack", "with space/and+plus", "percent%41", "tilde~/=&?#", "grün/\u6771"])
def test_plain_requests_and_boto3_read_the_same(s3_repository: dict[str, t.Any], key: str) -> None:
    opened(s3_repository).put(key, BODY)
    plain, other = opened(s3_repository), opened(s3_repository)
    other._plain = None
    for start, length in ((0, None), (0, 10), (7, 4096), (100_000, None), (102_300, 5000), (0, 0), (0, 10**6)):
        assert plain.get(key, start, length) == other.get(key, start, length) == BODY[start:][:length]
    assert not by_boto3(plain) and by_boto3(other)


def test_what_is_not_the_object_is_asked_again_and_told_in_words(s3: S3Server) -> None:
    params = s3.repository("told")
    opened(params).put("there", BODY)
    with pytest.raises(ObjectMissing):
        opened(params).get("missing")
    for name in ("access_key", "secret_key"):
        with pytest.raises(errors.RepositoryUnavailable) as caught:
            opened({**params, name: "nobody"}).get("there")
        assert s3.secret_key not in str(caught.value)
    with pytest.raises(errors.RepositoryUnavailable):
        opened(params).get("there", 10**7, 10)  # behind its end


@pytest.mark.parametrize(
    "change",
    [
        {"access_key": ""}, {"secret_key": None}, {"region": None}, {"profile": "backup"}, {"endpoint_url": None},
        {"addressing_style": "virtual"}, {"endpoint_url": "https://s3.example.org"}, {"endpoint_url": "ftp://x"},
        {"endpoint_url": "http://s3.example.org/below"}, {"endpoint_url": "http://s3.example.org:port"},
        {"endpoint_url": "https://s3.example.org", "ca_bundle": "/nonexistent"},
    ],
    ids=str,
)  # fmt: skip
def test_what_boto3_has_to_find_out_is_left_to_it(s3: S3Server, change: dict[str, t.Any]) -> None:
    assert PlainGets.if_plain("bucket", s3.repository(), 5, 30) is not None
    assert PlainGets.if_plain("bucket", {**s3.repository(), **change}, 5, 30) is None


def test_a_proxy_is_left_to_boto3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert PlainGets.if_plain("bucket", s3.repository(), 5, 30) is None


def test_connections_that_broke_are_replaced(s3: S3Server) -> None:
    with Link(s3.port) as link:
        objects = opened(s3.repository("broke", endpoint_url=f"http://127.0.0.1:{link.port}"))
        opened(s3.repository("broke")).put("there", BODY)
        for _turn in range(3):
            assert objects.get("there") == BODY
            link.cut()
            link.heal(reset=True)  # while it was idle
        assert not by_boto3(objects)


def test_an_answer_that_breaks_off_is_asked_for_again(s3: S3Server) -> None:
    with Link(s3.port) as link:
        objects = opened(s3.repository("off", endpoint_url=f"http://127.0.0.1:{link.port}", read_timeout=20))
        opened(s3.repository("off")).put("there", BODY)
        link.cut(answers=True)
        threading.Timer(0.3, lambda: link.heal(reset=True)).start()
        assert objects.get("there") == BODY
        assert by_boto3(objects)


def test_both_sides_of_a_fork_have_connections_of_their_own(s3: S3Server) -> None:
    objects = opened(s3.repository("fork"))
    numbers = range(40)
    for number in numbers:
        objects.put(f"{number}", b"%d" % number * 1000)
    assert objects.get("0") == b"0" * 1000  # leaves a connection
    child = os.fork()
    if not child:
        wrong = [number for number in numbers if objects.get(f"{number}") != b"%d" % number * 1000]
        os._exit(bool(wrong))
    assert all(objects.get(f"{number}") == b"%d" % number * 1000 for number in numbers)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_with_the_authority_that_was_named_alone(s3: S3Server, tmp_path: t.Any, trusted: bool) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    opened(s3.repository("tls")).put("there", BODY)
    with _tls_before(s3.port, authority.certificate("127.0.0.1")) as port:
        params = s3.repository(
            "tls",
            endpoint_url=f"https://127.0.0.1:{port}",
            ca_bundle=(authority if trusted else stranger).ca,
            retries=1,
        )
        objects = opened(params)
        if trusted:
            assert objects.get("there", 3, 500) == BODY[3:503] and not by_boto3(objects)
        else:
            with pytest.raises(errors.RepositoryUnavailable):
                objects.get("there")


@contextlib.contextmanager
def _tls_before(target: int, certificate: tuple[str, str]) -> t.Iterator[int]:
    """A port that speaks TLS and hands on to ``target`` what it hears."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def carry(source: t.Any, sink: t.Any) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            with context.wrap_socket(near, server_side=True) as tls, socket.create_connection(
                ("127.0.0.1", target)
            ) as far:
                back = threading.Thread(target=carry, args=(far, tls), daemon=True)
                back.start()
                carry(tls, far)
                back.join(10)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the master key comes from."""
from __future__ import annotations

import base64
import http.server
import json
import os
import pathlib
import threading

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import (
    InvalidInput,
    KeyDoesNotOpen,
    KeyUnavailable,
)
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring import Keyring
from ansible_collections.memops.agent_memory.plugins.module_utils._keyring_masters import open_master
from ansible_collections.memops.agent_memory.plugins.module_utils._operations.master_key import rewrap_keyring
from tests.support.aws_server import AwsServer
from tests.support.vault_server import VaultServer

KEY = bytes(range(100, 132))


@pytest.mark.parametrize(
    "text",
    [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), base64.urlsafe_b64encode(KEY).decode().rstrip("=")],
)
def test_file_and_env_take_hex_and_base64(tmp_path, monkeypatch, text):
    path = tmp_path / "m"
    path.write_text(text + "\n")
    path.chmod(0o640)
    monkeypatch.setenv("MY_MASTER", f" {text} ")
    one = open_master({"source": "file", "master_key_file": str(path)})
    two = open_master({"source": "env", "master_key_env": "MY_MASTER"})
    three = open_master({"source": "value", "master_key": f"{text}\n"})
    assert one.id == two.id == three.id
    assert len(one.id) == 16
    assert two.decrypt(one.encrypt(b"secret", "k"), "k") == b"secret"


@pytest.mark.parametrize("text", ["", "hello", "0" * 63, "zz" * 32, base64.b64encode(b"x" * 31).decode(), "\0" * 32])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path, text):
    path = tmp_path / "m"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyUnavailable, match="is no master key") as caught:
        open_master({"master_key_file": str(path)})
    assert len(text) < 4 or text not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_world_open_file_is_refused(tmp_path, mode):
    path = tmp_path / "m"
    path.write_text(KEY.hex())
    path.chmod(mode)
    with pytest.raises(KeyUnavailable, match=f"{mode:04o}.*Next: chmod 600"):
        open_master({"master_key_file": str(path)})


def test_missing_things_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMORY_MASTER_KEY", raising=False)
    with pytest.raises(KeyUnavailable, match="no master key file"):
        open_master({"master_key_file": str(tmp_path / "none")})
    with pytest.raises(KeyUnavailable, match="MEMORY_MASTER_KEY"):
        open_master({"source": "env"})
    with pytest.raises(InvalidInput, match="master_key_file"):
        open_master({})
    with pytest.raises(InvalidInput, match="'ldap'"):
        open_master({"source": "ldap"})


@pytest.fixture(scope="module")
def bao():
    with VaultServer() as server:
        for name in ("memory", "later"):
            server.key(name)
        yield server


def test_a_real_server_keeps_record_keys(bao, tmp_path):
    params = bao.keyring("memory", str(tmp_path / "token"), path=str(tmp_path / "keyring.json"))
    ring = Keyring.open(params, create=True)
    sealed = ring.seal(b"memory", b"h", ring.active_id)
    again = Keyring.open(params)
    assert again.open_payload(sealed, b"h", again.active_id) == b"memory"
    bao.call("POST", "transit/keys/memory/rotate")
    assert Keyring.open(params).open_payload(sealed, b"h", again.active_id) == b"memory", "a new version, the same key"
    master = open_master(params)
    wrapped = master.encrypt(b"secret", "k1")
    for other, bound in ((master, "k2"), (open_master(bao.keyring("later", str(tmp_path / "t"))), "k1")):
        with pytest.raises(KeyDoesNotOpen, match="does not open"):
            other.decrypt(wrapped, bound)
    with pytest.raises(KeyUnavailable, match=r"encrypt with the key other: HTTP status 403.*Next: check the token"):
        open_master({**params, "vault_key": "other"}).encrypt(b"secret", "k1")
    (tmp_path / "token").write_text("s.wrong")
    with pytest.raises(KeyUnavailable, match="HTTP status 403") as caught:
        master.decrypt(wrapped, "k1")
    assert "s.wrong" not in str(caught.value)


def test_a_real_server_that_is_sealed(tmp_path):
    with VaultServer() as server:
        server.key("memory")
        master = open_master(server.keyring("memory", str(tmp_path / "token")))
        wrapped = master.encrypt(b"secret", "k1")
        server.call("POST", "sys/seal")
        with pytest.raises(KeyUnavailable, match=r"HTTP status 503.*Next: .*is up and unsealed") as caught:
            master.decrypt(wrapped, "k1")
        assert not isinstance(caught.value, KeyDoesNotOpen)


class Transit(http.server.BaseHTTPRequestHandler):
    """A stand-in for Vaults that no server of today is: one that ignores associated data, ones that answer rubbish.

    It keeps what it was given under a number.
    """

    kept: dict
    ignores_associated_data = False
    answer = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _root, version, mount, operation, key = self.path.split("/")
        if self.answer:
            return self.reply(*self.answer)
        if self.headers["X-Vault-Token"] != "s.right":
            return self.reply(403, {"errors": ["permission denied"]})
        if (version, mount, key) != ("v1", "transit", "memory"):
            return self.reply(404, {"errors": []})
        bound = "" if self.ignores_associated_data else body["associated_data"]
        if operation == "encrypt":
            name = f"vault:v1:{len(self.kept)}"
            self.kept[name] = (body["plaintext"], bound)
            return self.reply(200, {"data": {"ciphertext": name}})
        plaintext, wanted = self.kept.get(body["ciphertext"], (None, None))
        if plaintext is None or wanted != bound:
            return self.reply(400, {"errors": ["cipher: message authentication failed"]})
        return self.reply(200, {"data": {"plaintext": plaintext}})

    def reply(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


@pytest.fixture
def vault(tmp_path):
    handler = type("Handler", (Transit,), {"kept": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    token = tmp_path / "token"
    token.write_text("s.right\n")
    handler.params = {
        "source": "vault",
        "vault_url": f"http://127.0.0.1:{server.server_port}",
        "vault_key": "memory",
        "vault_token_file": str(token),
        "path": str(tmp_path / "keyring.json"),
    }
    yield handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ignores", [False, True])
def test_vault_binds_the_key_id_even_where_vault_does_not(vault, ignores):
    vault.ignores_associated_data = ignores
    master = open_master(vault.params)
    wrapped = master.encrypt(b"secret", "k1")
    assert master.decrypt(wrapped, "k1") == b"secret"
    with pytest.raises(KeyUnavailable, match="does not open"):
        master.decrypt(wrapped, "k2")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((503, b"sealed"), "503"),
        ((200, b"<html>"), "not transit"),
        ((200, {"data": None}), "not transit"),
        ((200, {"data": {"ciphertext": 5}}), "not transit"),
        ((307, b""), "307"),
    ],
)
def test_vault_trouble_is_one_sentence(vault, answer, why):
    vault.answer = answer
    with pytest.raises(KeyUnavailable, match=why) as caught:
        open_master(vault.params).encrypt(b"secret", "k")
    assert caught.value.next_step


def test_vault_missing_token_and_wrong_url(vault, monkeypatch):
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    with pytest.raises(KeyUnavailable, match="VAULT_TOKEN"):
        open_master({**vault.params, "vault_token_file": None}).encrypt(b"secret", "k")
    for url in ("http://user:pw@localhost", "ftp://x", "localhost:8200", "https://h?token=x"):
        with pytest.raises(InvalidInput, match="vault_url") as refused:
            open_master({**vault.params, "vault_url": url})
        assert "pw" not in str(refused.value)
    with pytest.raises(KeyUnavailable, match="did not encrypt"):
        open_master({**vault.params, "vault_url": "http://127.0.0.1:9"}).encrypt(b"secret", "k")


@pytest.fixture(scope="module")
def aws():
    """moto's server imitates AWS KMS: it encrypts, authenticates the encryption context, and knows keys and aliases."""
    with AwsServer() as server:
        for alias in ("alias/memory", "alias/later"):
            key = server.client("kms").create_key()["KeyMetadata"]["KeyId"]
            server.client("kms").create_alias(AliasName=alias, TargetKeyId=key)
        yield server


@pytest.fixture
def kms(aws, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return {
        "source": "aws_kms",
        "kms_key_id": "alias/memory",
        "region": "us-east-1",
        "endpoint_url": aws.endpoint,
        "path": str(tmp_path / "keyring.json"),
    }


def test_kms_keeps_record_keys(kms):
    ring = Keyring.open(kms, create=True)
    sealed = ring.seal(b"memory", b"h", ring.active_id)
    assert Keyring.open(kms).open_payload(sealed, b"h", ring.active_id) == b"memory"
    assert ring.master_id == "kms-alias-memory"


def test_kms_trouble_is_one_sentence(kms):
    master = open_master(kms)
    wrapped = master.encrypt(b"secret", "k1")
    assert master.decrypt(wrapped, "k1") == b"secret"
    with pytest.raises(KeyDoesNotOpen, match="does not open"):
        master.decrypt(wrapped, "k2")
    with pytest.raises(KeyUnavailable, match="alias/later"):  # AWS says IncorrectKey, moto AccessDenied
        open_master({**kms, "kms_key_id": "alias/later"}).decrypt(wrapped, "k1")
    with pytest.raises(KeyUnavailable, match="NotFoundException") as caught:
        open_master({**kms, "kms_key_id": "alias/other"}).encrypt(b"secret", "k1")
    assert "secret" not in str(caught.value)
    with pytest.raises(KeyUnavailable, match="cannot be used"):
        open_master({**kms, "profile": "nobody"})


def test_a_keyring_moves_from_a_file_to_kms_to_vault(tmp_path, kms, bao):
    file = tmp_path / "master.key"
    file.write_text(KEY.hex())
    file.chmod(0o600)
    path = kms["path"]
    first = {"master_key_file": str(file), "path": path}
    later = bao.keyring("later", str(tmp_path / "token"), path=path)
    ring = Keyring.open(first, create=True)
    sealed, key = ring.seal(b"memory", b"h", ring.active_id), ring.active_id
    for old, new in ((first, kms), (kms, later)):
        assert rewrap_keyring(old, new)["changed"]
        for params in (old, new):
            assert Keyring.open(params).open_payload(sealed, b"h", key) == b"memory"
        assert not rewrap_keyring(old, new)["changed"]
        assert rewrap_keyring(old, new, retire=True)["changed"]
        with pytest.raises(KeyUnavailable, match="is wrapped by the master key"):
            Keyring.open(old)
    assert Keyring.open(later).open_payload(sealed, b"h", key) == b"memory"


def test_a_key_service_that_is_away_is_not_taken_for_a_wrong_key(tmp_path, kms, bao):
    """Else a snapshot would be listed as lost, or a keyring be given up, because a service did not answer."""
    Keyring.open(kms, create=True)
    before = pathlib.Path(kms["path"]).read_bytes()
    later = bao.keyring("later", str(tmp_path / "token"))
    bao.call("POST", "sys/policies/acl/later", policy='path "transit/encrypt/later" { capabilities = ["update"] }')
    for old, new, why in (
        (kms, later, "did not decrypt with the key later: HTTP status 403"),  # encrypts, and would never open again
        ({**kms, "endpoint_url": "http://127.0.0.1:9"}, later, "AWS KMS cannot be used"),
        (kms, {**later, "vault_url": "http://127.0.0.1:9"}, "did not encrypt"),
    ):
        with pytest.raises(KeyUnavailable, match=why) as caught:
            rewrap_keyring(old, new, retire=True)
        assert not isinstance(caught.value, KeyDoesNotOpen)
        assert pathlib.Path(kms["path"]).read_bytes() == before

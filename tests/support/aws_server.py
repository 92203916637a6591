# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""moto's server on this machine: it imitates the interfaces of AWS (the tests use Route 53 and KMS), and keeps state.

    with AwsServer() as server:
        client = server.client("route53")
"""
from __future__ import annotations

import os
import secrets
import sys
import typing as t

from tests.support.guard import Guarded, listens
from tests.support.s3_server import free_ports


class AwsServer(Guarded):
    def __init__(self) -> None:
        super().__init__("aws")
        self.port = free_ports(1)[0]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def start(self, timeout: float = 300.0) -> AwsServer:
        command = os.path.join(os.path.dirname(sys.executable), "moto_server")
        try:
            self.run([command, "-H", "127.0.0.1", "-p", str(self.port)])
            self.wait_until(lambda: listens(self.port), "moto's server", timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def client(self, service: str) -> t.Any:
        from boto3.session import Session

        session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
        return session.client(service, endpoint_url=self.endpoint)

    def unique(self) -> str:
        return secrets.token_hex(8)

    def __enter__(self) -> AwsServer:
        return self.start()

    def __exit__(self, *_: t.Any) -> None:
        self.stop()

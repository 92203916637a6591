# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The test servers leave nothing behind, however a test run ends."""
from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.support.{engine}_server import {kind} as Server
server = Server().start()
print(server.directory, server.port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("engine", "kind"), [("postgresql", "PostgresqlServer"), ("valkey", "ValkeyServer")])
def test_a_server_does_not_outlive_a_killed_test_run(engine, kind):
    code = KILLED.format(engine=engine, kind=kind)
    run = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False)
    assert run.returncode == -9, run.stderr
    directory, port = run.stdout.split()
    deadline = time.monotonic() + 300
    while os.path.exists(directory):
        assert time.monotonic() < deadline, os.listdir(directory)
        time.sleep(0.05)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_what_the_fixtures_hand_out(postgresql_server, valkey_server):
    """Passwords are asked for; the application's role is not the owner's."""
    with postgresql_server.connect("memops") as owner, postgresql_server.connect("agent") as agent:
        assert owner.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (
            "memops", False,
        )  # fmt: skip
        assert agent.execute("SELECT has_database_privilege('memory', 'CREATE')").fetchone() == (False,)
    agent = valkey_server.client("agent")
    assert agent.acl_whoami() == "agent" and valkey_server.client().acl_whoami() == "memops"
    for server in (postgresql_server, valkey_server):
        assert "password" not in server.url and server.store()["password"] != server.application()["password"]

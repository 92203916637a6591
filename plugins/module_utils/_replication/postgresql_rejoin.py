# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Make a former PostgreSQL primary a replica of the one that took over, on the host where its files lie.

PRIVATE to the collection. No password stands in a command line: the programs find it in a file of mode 0600.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import typing as t

from .._engines.postgresql_session import Address, driver
from .._errors import CannotProceed, InvalidInput, StoreUnavailable

#: The host's own: pg_rewind would replace them by the other host's, and a new copy has none.
OWN_FILES: t.Final = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf", "postmaster.opts")
PASSFILE: t.Final = "memops.pgpass"
REWRITTEN: t.Final = re.compile(r"^\s*(primary_conninfo|primary_slot_name|recovery_target\w*)\s*=")


class Rejoin:
    """``params`` is the memory_store mapping of the server that rejoins, ``server`` in it says where its files lie.

    Stop, rewind (else copy anew), keep the host's own configuration, start. Killed anywhere, it begins again.
    """

    def __init__(self, params: t.Mapping[str, t.Any], where: str, source: Address) -> None:
        self.notes: list[str] = []
        self.where, self.source = where, source
        self.server = {k: v for k, v in dict(params.get("server") or {}).items() if v}
        if not self.server.get("data_directory"):
            raise CannotProceed(
                f"Where the files of {where} lie is not known, so it cannot be made a replica.",
                "set memory_store.server.data_directory for its host, or make it a replica by hand; then run it again",
            )
        self.data = os.path.abspath(os.path.expanduser(str(self.server["data_directory"])))
        self.keep, self.staging = f"{self.data}.memops-own", f"{self.data}.memops-new"
        try:
            owner = os.stat(self.data if os.path.isdir(self.data) else os.path.dirname(self.data))
        except OSError as exc:
            raise InvalidInput(
                f"memory_store.server.data_directory {self.data} cannot be read: {exc.strerror}.",
                "correct it, and run as root or as the user that runs the server",
            ) from None
        self.uid, self.gid = owner.st_uid, owner.st_gid
        if os.geteuid() not in (0, self.uid):
            raise InvalidInput(
                f"The files of {where} belong to another user.",
                "run this host as root or as that user (ansible_become)",
            )

    def run(self, system: str) -> None:
        """``system``: the identifier that both servers have to have."""
        self._finish_swap()
        found = self._system()
        if found not in (system, ""):
            raise CannotProceed(
                f"{self.where} is no copy of {self.source.where}: their system identifiers differ.",
                f"make it a replica by hand (pg_basebackup) when nothing in {self.data} is needed",
            )
        with tempfile.TemporaryDirectory(prefix="memops-") as folder:
            self._own(folder)
            secret = self._secret(os.path.join(folder, PASSFILE))
            self._stop()
            self._keep_own_files()
            if not found or not self._rewind(secret):
                self._copy(secret)
            self._configure()
        self._start()
        shutil.rmtree(self.keep, ignore_errors=True)

    # --- what the server is -------------------------------------------------------------------------------------------
    def _system(self) -> str:
        """The system identifier of the files; "" where there are none to rewind."""
        if not os.path.exists(os.path.join(self.data, "global", "pg_control")):
            return ""
        said = self._program("pg_controldata", "-D", self.data).stdout
        match = re.search(r"^Database system identifier:\s+(\d+)", said, re.M)
        return match[1] if match else ""

    def _binaries(self) -> str:
        """As the inventory says, else where the server was last started from."""
        if self.server.get("binaries"):
            return str(self.server["binaries"])
        with contextlib.suppress(IndexError):
            return os.path.dirname(self._last_start().split()[0])
        raise CannotProceed(
            f"Where PostgreSQL's programs lie on the host of {self.where} is not known.",
            "set memory_store.server.binaries there, such as /usr/lib/postgresql/17/bin",
        )

    def _last_start(self) -> str:
        """The command line that the server was last started with; "" where there is none."""
        for folder in (self.data, self.keep):
            with contextlib.suppress(OSError), open(os.path.join(folder, "postmaster.opts"), encoding="utf-8") as file:
                return file.read()
        return ""

    def _configuration(self) -> str:
        """The configuration file, where it does not lie with the data, as Debian has it; else ""."""
        found = re.search(r'"(?:--|-c" ")config_file=([^"]+)"', self._last_start())
        return found[1] if found else ""

    def _program(
        self, name: str, *arguments: str, passfile: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Errors: StoreUnavailable with what the program said."""
        who: dict[str, t.Any] = {}
        if os.geteuid() == 0 and self.uid != 0:
            who = {"user": self.uid, "group": self.gid, "extra_groups": ()}
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"}
        if passfile:
            environment["PGPASSFILE"] = passfile
        command = [os.path.join(self._binaries(), name), *arguments]
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                **who,
            )
        except OSError as exc:
            raise StoreUnavailable(
                f"{command[0]} cannot be run: {exc.strerror}.", "correct memory_store.server.binaries on that host"
            ) from None
        if check and done.returncode:
            raise StoreUnavailable(
                f"{name} on the host of {self.where} failed: {_last(done.stderr or done.stdout)}.",
                "mend that, then run the same command again",
            )
        return done

    def _own(self, path: str) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def _write(self, path: str, text: str) -> str:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._own(path)
        return path

    # --- the login --------------------------------------------------------------------------------------------------
    def _password(self) -> str | None:
        path = self.server.get("replication_password_file")
        if not path:
            own = self.source.arguments.get("password")
            return None if self.server.get("replication_user") else own
        try:
            with open(os.path.expanduser(str(path)), encoding="utf-8") as file:
                return file.readline().rstrip("\r\n")
        except OSError as exc:
            raise InvalidInput(
                f"memory_store.server.replication_password_file {path} cannot be read: {exc.strerror}.",
                "correct its path and its permissions",
            ) from None

    def _secret(self, path: str) -> str:
        password = self._password()
        escaped = (password or "").replace("\\", "\\\\").replace(":", "\\:")
        return self._write(path, f"*:*:*:*:{escaped}\n" if password else "")

    def _connection(self, **more: t.Any) -> str:
        names = ("host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcert", "sslkey")
        found = {name: self.source.arguments[name] for name in names if self.source.arguments.get(name)}
        found["user"] = self.server.get("replication_user") or self.source.arguments.get("user")
        return str(driver().conninfo.make_conninfo(**found, **more))

    # --- the work ---------------------------------------------------------------------------------------------------
    def _service(self, verb: str) -> bool:
        unit = self.server.get("service")
        if not unit:
            return False
        try:
            done = subprocess.run(["systemctl", verb, str(unit)], capture_output=True, text=True, check=False)
        except OSError as exc:
            raise StoreUnavailable(
                f"systemctl cannot be run: {exc.strerror}.", "leave memory_store.server.service out on that host"
            ) from None
        if done.returncode:
            raise StoreUnavailable(
                f"systemctl {verb} {unit} failed: {_last(done.stderr)}.", "mend that, then run the same command again"
            )
        return True

    def _runs(self) -> bool:
        return (
            os.path.isdir(self.data)
            and self._program("pg_ctl", "-D", self.data, "status", check=False).returncode == 0
        )

    def _stop(self) -> None:
        self._service("stop")
        if self._runs():
            self._program("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def _start(self) -> None:
        if self._service("start") or self._runs():
            return
        log, apart = os.path.join(self.data, "memops_start.log"), self._configuration()
        options = ["-o", f"-c config_file={shlex.quote(apart)}"] if apart else []
        self._program("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", log, *options, "start")

    def _keep_own_files(self) -> None:
        """Copies that a killed rejoin left are the true ones."""
        if os.path.isdir(self.keep) and os.path.exists(os.path.join(self.keep, "complete")):
            return
        try:
            shutil.rmtree(self.keep, ignore_errors=True)
            os.mkdir(self.keep, 0o700)
            for name in OWN_FILES:
                if os.path.exists(os.path.join(self.data, name)):
                    shutil.copy2(os.path.join(self.data, name), self.keep)
            self._write(os.path.join(self.keep, "complete"), "")
        except OSError as exc:
            raise StoreUnavailable(
                f"The folder {self.keep} for the host's own configuration cannot be made: {exc.strerror}.",
                "run this host as root, or free space there",
            ) from None

    def _rewind(self, secret: str) -> bool:
        """Whether the files are now those of the source up to where both parted."""
        where = self._connection(dbname=self.source.arguments.get("dbname") or "postgres")
        apart = self._configuration()
        options = ["-R", *([f"--config-file={apart}"] if apart else [])]
        done = self._program(
            "pg_rewind", "-D", self.data, f"--source-server={where}", *options, passfile=secret, check=False
        )
        if done.returncode:
            self.notes.append(f"pg_rewind was not possible ({_last(done.stderr)}), so everything was copied anew")
            return False
        self.notes.append("pg_rewind took back its own later writes")
        return True

    def _copy(self, secret: str) -> None:
        """A whole new copy beside the old one, then in its place."""
        shutil.rmtree(self.staging, ignore_errors=True)
        try:
            os.mkdir(self.staging, 0o700)
            self._own(self.staging)
            self._program(
                "pg_basebackup",
                "-D",
                self.staging,
                "-X",
                "stream",
                "-c",
                "fast",
                "-d",
                self._connection(),
                passfile=secret,
            )
            self._configure(self.staging)
            os.rename(self.data, f"{self.data}.memops-former")
            self._finish_swap()
        except OSError as exc:
            raise StoreUnavailable(
                f"A new copy cannot be put in the place of {self.data}: {exc.strerror}.",
                "free space beside it; where it is a mount point, make the replica by hand (pg_basebackup), then run "
                "the same command again",
            ) from None

    def _finish_swap(self) -> None:
        former = f"{self.data}.memops-former"
        if os.path.isdir(former):
            if not os.path.isdir(self.data):
                os.rename(self.staging, self.data)
            shutil.rmtree(former, ignore_errors=True)

    def _configure(self, data: str = "") -> None:
        data = data or self.data
        self._write(os.path.join(data, "standby.signal"), "")
        for name in OWN_FILES:
            kept = os.path.join(self.keep, name)
            if os.path.exists(kept):
                shutil.copyfile(kept, os.path.join(data, name))
                self._own(os.path.join(data, name))
        passfile = self._secret(os.path.join(data, PASSFILE))
        login = self._connection(passfile=os.path.join(self.data, os.path.basename(passfile)), **self._known_as(data))
        path = os.path.join(data, "postgresql.auto.conf")
        lines = []
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            lines = [line.rstrip("\n") for line in file if not REWRITTEN.match(line)]
        quoted = login.replace("'", "''")
        self._write(
            path, "\n".join([*lines, f"primary_conninfo = '{quoted}'", "recovery_target_timeline = 'latest'", ""])
        )

    def _known_as(self, data: str) -> dict[str, str]:
        """By the name that it had as a replica before: synchronous_standby_names on the primary may name it. One that
        had none the server itself calls by its cluster_name."""
        apart = self._configuration()
        options = [f"--config-file={apart}"] if apart else []
        said = self._program("postgres", "-D", data, *options, "-C", "primary_conninfo", check=False)
        psycopg = driver()
        try:
            found = psycopg.conninfo.conninfo_to_dict(said.stdout.strip() if said.returncode == 0 else "")
        except psycopg.Error:
            return {}
        return {"application_name": str(found["application_name"])} if found.get("application_name") else {}


def _last(text: str) -> str:
    """What a program said last, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()] or lines
    return (told[-1] if told else "it said nothing").rstrip(".")[:300]

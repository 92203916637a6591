# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL on a SystemdHost as Debian's package has it: a unit starts and stops it, and its configuration lies apart
from its data."""
from __future__ import annotations

import pathlib

from host_servers import ADMINISTRATOR, HostPostgresql
from ssh_hosts import NamespaceHost

from tests.support.debian import need


def install() -> None:
    need("systemd", "systemctl")
    need("postgresql", "pg_createcluster")


class UnitPostgresql(HostPostgresql):
    """The newest version that the machine has."""

    def __init__(self, host: NamespaceHost, words: dict[str, str], like: HostPostgresql | None = None) -> None:
        super().__init__(host, words, like)
        versions = (path.name for path in pathlib.Path("/usr/lib/postgresql").iterdir() if path.name.isdigit())
        self.version = max(versions, key=int)
        self.unit, self.data = f"postgresql@{self.version}-main", f"/var/lib/postgresql/{self.version}/main"

    def on_host(self) -> dict[str, str]:
        """Where its programs lie is left to be found."""
        told = {name: value for name, value in super().on_host().items() if name != "binaries"}
        return {**told, "data_directory": self.data, "service": self.unit}

    def _make(self) -> None:
        secret = self._secret(self.passwords[ADMINISTRATOR])
        made = f"--port={self.port} --encoding=UTF8 --locale=C --start-conf=manual {self.version} main"
        self.host.run(f"sudo pg_createcluster {made} -- --pwfile={secret} --no-sync --no-instructions")
        self._configure(self.host.folder / "kept" / "etc" / "postgresql" / self.version / "main")

    def _copy(self, like: HostPostgresql) -> None:
        self._make()
        program = f"/usr/lib/postgresql/{self.version}/bin/pg_basebackup"
        secret = self._secret(like.passfile)
        *options, place = like.copy(self.data, secret)
        self.host.run(f"sudo rm -rf {self.data} && cd / && sudo -u postgres {program} {' '.join(options)} '{place}'")

    def _secret(self, text: str) -> str:
        """A file that its server's user reads."""
        path = "/tmp/secret"
        self.host.run(f"sudo rm -f {path}; sudo -u postgres sh -c 'umask 077; cat >{path}'", input=text)
        return path

    def _launch(self) -> None:
        self.host.run(f"sudo systemctl start {self.unit}")

    def last_start(self) -> str:
        """Another one with each start by systemd. The server that runs has to be the unit's."""
        shown = "systemctl show --property=InvocationID --property=MainPID"
        told = dict(line.split("=") for line in self.host.run(f"sudo {shown} {self.unit}").stdout.split())
        (postmaster,) = self.host.run(f"sudo head -n 1 {self.data}/postmaster.pid").stdout.split()
        assert told["MainPID"] == postmaster, (told, postmaster)
        return told["InvocationID"]

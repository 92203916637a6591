# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of a lab whose first process is systemd, so that ``systemctl`` starts and stops real units there.

It has a cgroup of its own, which systemd rules. Of this machine's units only sshd runs; others start when they are told
to. Beside /srv the folders in ``KEPT`` outlive a power cut. Standard library only.
"""
from __future__ import annotations

import machine
from ssh_hosts import BOOT, Lab, NamespaceHost

KEPT = ("etc/postgresql", "var/lib/postgresql")  # where Debian's PostgreSQL has its configuration and its data
RUN_SSHD = 'exec "$4" -D -e -f /srv/sshd/config\n'
RUN_SYSTEMD = r"""
mkdir -p /run/systemd/system
cd /run/systemd/system
printf '[Unit]\nDefaultDependencies=no\nWants=lab-sshd.service\n' >lab.target
printf '[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=%s -D -e -f /srv/sshd/config\n' "$4" >lab-sshd.service
cd /
systemd-tmpfiles --create --prefix=/run/postgresql
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=lab.target --log-target=console
"""
MOUNT_SYS = "mount -t sysfs -o ro sysfs sys\n"
MOUNT_MORE = f"""\
mount -t cgroup2 cgroup2 sys/fs/cgroup
rm -rf usr/lib/systemd/system/*.wants etc/systemd/system/*.wants
for kept in {" ".join(KEPT)}; do
    mkdir -p "srv/kept/$kept"
    chown --reference="$kept" "srv/kept/$kept"
    mount --bind "srv/kept/$kept" "$kept"
done
"""


class SystemdHost(NamespaceHost):
    """As NamespaceHost. The machine has to have Debian's ``systemd``, and what is in KEPT."""

    script = BOOT.replace(MOUNT_SYS, MOUNT_SYS + MOUNT_MORE).replace(RUN_SSHD, RUN_SYSTEMD)
    spaces = (*NamespaceHost.spaces, "--cgroup")

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.cgroup = machine.cgroups() / self.link

    def boot(self) -> None:
        self.cgroup.mkdir(exist_ok=True)
        super().boot()

    def _unshare(self) -> list[str]:
        # In its cgroup first: that is the one which the new namespace has as its root.
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(self.cgroup), *super()._unshare()]

    def kill(self) -> None:
        super().kill()
        machine.remove_cgroup(self.cgroup)

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as administrators like them: a greeting in each shell, a strict umask, no programs in /tmp, sudo with a
password, reached through another host. And what is said where a host lets nobody work."""
from __future__ import annotations

import contextlib
import json
import pathlib
import shlex
import sys
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from s3_server import S3Server
from ssh_hosts import LOGIN, OWNER, Lab
from ssh_site import SshSite, python_of_hosts, wheels

PASSWORD = "a word for sudo"
ODD = f"""
usermod -s /bin/bash {LOGIN}
echo 'echo "*** Authorised use only {{1}} [2] ***"; umask 077' >~{LOGIN}/.bashrc
chown {LOGIN} ~{LOGIN}/.bashrc
mount -o remount,noexec /tmp
echo '{LOGIN}:{PASSWORD}' | chpasswd
echo '{LOGIN} ALL=(ALL) ALL' >/etc/sudoers.d/lab
"""


@pytest.fixture
def site(tmp_path: pathlib.Path) -> t.Iterator[OddSite]:
    with Lab(["h1", "h2"], real=True) as lab, S3Server(str(lab.folder / "s3"), address=lab.address) as s3:
        through = lab.hosts["h2"].variables["ansible_ssh_common_args"]
        through = f"ssh {through} -i {lab.folder}/key -W %h:%p {LOGIN}@{lab.hosts['h2'].address}"
        one = OddSite(tmp_path, lab, s3)
        one.odd = {"ansible_become_password": PASSWORD, "through": through}
        one.write_inventory()
        on_h1(one, ODD)
        yield one
        assert s3.process
        s3.process.kill()  # nobody needs what it still has to write


class OddSite(SshSite):
    """``odd``: what the inventory has for h1 beside the usual; ``through``: by way of which program it is reached."""

    odd: t.ClassVar[dict[str, str]] = {}

    def write_inventory(self) -> None:
        super().write_inventory()
        inventory = json.loads(self.inventory.read_text())
        more = dict(self.odd)
        through = more.pop("through", "")
        first = inventory["memory"]["hosts"]["h1"]
        first.update(more)
        if through:
            first["ansible_ssh_common_args"] += f" -o ProxyCommand={shlex.quote(through)}"
        self.inventory.write_text(json.dumps(inventory))

    @contextlib.contextmanager
    def but(self, **odd: str) -> t.Iterator[None]:
        usual, self.odd = self.odd, odd
        self.write_inventory()
        try:
            yield
        finally:
            self.odd = usual
            self.write_inventory()


def on_h1(site: SshSite, script: str) -> None:
    """As root there."""
    site.hosts["primary"].run(f"echo {shlex.quote(PASSWORD)} | sudo -kS sh -ec {shlex.quote(script)}")


def told(site: SshSite, playbook: str, *words: str, **variables: t.Any) -> None:
    outcome = site.play(playbook, "--limit", "h1", **variables)
    assert outcome.status != 0, outcome.text
    assert "Traceback" not in outcome.text
    for word in words:
        assert word in outcome.text, outcome.text


def test_a_host_behind_another_with_a_greeting_a_strict_umask_and_a_password(site: OddSite) -> None:
    made = site.play("prepare", memory_wheels=str(wheels()))
    assert made.status == 0, made.text
    site.give_master_key()
    site.fill("agent-7", 100)
    site.read("agent-7", 150)
    backed = site.play("backup")
    assert backed.status == 0, backed.text
    site.flip("agent-7", ["key-00003"])
    with site.working("agent-7"):
        rebuilt = site.play("rebuild", "-vvv", memory_namespace="agent-7")
    assert rebuilt.status == 0, rebuilt.text[-6000:]
    assert PASSWORD not in rebuilt.text
    assert site.s3.secret_key not in rebuilt.text
    assert pathlib.Path(site.keyring["master_key_file"]).read_text().strip() not in rebuilt.text
    again = site.play("backup")
    assert again.status == 0, again.text


def test_a_host_that_lets_nobody_work_is_told_in_one_sentence(site: OddSite) -> None:
    site.variables["ansible_python_interpreter"] = python_of_hosts()  # nothing gets so far that it needs a package
    with site.but():
        for playbook in ("info", "prepare"):
            told(site, playbook, "(Missing sudo password)", "with --ask-become-pass, or set ansible_become_password")
    with site.but(ansible_become_password="another word"):
        told(site, "info", "(Incorrect sudo password)", "Next: run the same command with --ask-become-pass")
    home = site.hosts["primary"].root + "/home"
    on_h1(site, f"install -d -m 777 {home}/{OWNER}/.ansible/tmp")  # as `prepare` makes it, else /tmp serves
    on_h1(site, f"mount --bind {home} {home}; mount -o remount,ro,bind {home}")
    told(site, "info", "On h1 nothing can be written to", "(Read-only file system)", "ansible_remote_tmp for this host")
    on_h1(site, f"umount -l {home}; mv /etc/sudoers.d/lab /root/sudoers")
    for playbook in ("info", "prepare"):
        told(site, playbook, f"{LOGIN} is not in the sudoers file", "Next: let sudo allow it there")
    known = site.lab.folder / "known_hosts"
    other = (site.lab.folder / "key.pub").read_text().split()[:2]
    known.write_text(f"{site.hosts['primary'].address} {' '.join(other)}\n")
    with site.but(ansible_control_path_dir=f"{site.lab.sockets}/other"):  # not by a connection that is there already
        told(site, "info", "h1 cannot be reached: Host key for", "has changed", "ssh-keygen -R")

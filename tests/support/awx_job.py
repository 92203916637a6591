# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job as AWX runs it: ansible-runner in a private data directory of the job's own, with a process table and a host
name of its own, as in a container.

As in AWX 24.6.1 the inventory is a script, every extra variable is unsafe (never rendered), what a credential type
injects lies in a file of its own, and artifacts are what ``set_stats`` left in the last event.
"""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import jinja2.sandbox
import yaml

from playbooks import CONFIG, share_packages

ROOT = pathlib.Path(__file__).resolve().parents[2]
Json = t.Dict[str, t.Any]


class Job:
    """One job of a job template. ``private``: its private data directory; ``answers``: the survey's."""

    def __init__(self, folder: pathlib.Path, number: int, playbook: str, inventory: Json, answers: Json) -> None:
        self.number, self.playbook, self.inventory, self.answers = number, playbook, inventory, answers
        self.private = folder / f"awx_{number}"
        self.launch_type = "manual"
        self.workflow: int | None = None
        self.credentials: t.List[t.Tuple[Json, Json]] = []  # each a type and its inputs
        self.status = -1

    def relaunched(self, number: int) -> Job:
        """AWX makes a new job with the same answers; nothing else is left of the former one."""
        other = Job(self.private.parent, number, self.playbook, self.inventory, self.answers)
        other.launch_type, other.credentials = "relaunch", self.credentials
        return other

    def run(self, *arguments: str) -> Job:
        """To its end. ``arguments``: what AWX adds to ansible-playbook, such as --check for a job of type check."""
        self._lay_out()
        more = [*arguments, *(f"-e @{path}" for path in self._inject())]
        command = [
            *("unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("sh", "-c", 'hostname "$0" && exec "$@"', f"automation-job-{self.number}"),
            *(os.path.join(os.path.dirname(sys.executable), "ansible-runner"), "run", str(self.private)),
            *("--playbook", f"playbooks/{self.playbook}.yml", "--ident", str(self.number), "--quiet"),
        ]
        if more:
            command.append(f"--cmdline={' '.join(more)}")
        path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        environment = {"PATH": path, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        self.status = done.returncode
        assert self.artifacts_folder.is_dir(), done.stdout + done.stderr
        return self

    @property
    def artifacts_folder(self) -> pathlib.Path:
        return self.private / "artifacts" / str(self.number)

    @property
    def said(self) -> str:
        return (self.artifacts_folder / "stdout").read_text(encoding="utf-8")

    @property
    def events(self) -> t.List[Json]:
        paths = (self.artifacts_folder / "job_events").glob("*-*.json")
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return sorted(found, key=lambda event: int(event["counter"]))

    @property
    def artifacts(self) -> Json:
        """What AWX hands to the nodes after this one."""
        ended = [e for e in self.events if e["event"] == "playbook_on_stats"]
        return t.cast("Json", ended[-1]["event_data"].get("artifact_data", {})) if ended else {}

    def _lay_out(self) -> None:
        (self.private / "env").mkdir(parents=True, mode=0o700)
        (self.private / "inventory").mkdir()
        (self.private / "project").symlink_to(ROOT)
        share_packages(self.private / ".ansible")
        script = f"#! {sys.executable}\nprint({json.dumps(self.inventory)!r})\n"
        (self.private / "inventory" / "hosts").write_text(script, encoding="utf-8")
        (self.private / "inventory" / "hosts").chmod(0o700)
        told: Json = {"job_id": self.number, "job_launch_type": self.launch_type}
        if self.workflow:
            told["workflow_job_id"] = self.workflow
        meta = {f"{who}_{what}": value for who in ("awx", "tower") for what, value in told.items()}
        lines = [f"{name}: {_unsafe(value)}" for name, value in {**self.answers, **meta}.items()]
        (self.private / "env" / "extravars").write_text("---\n" + "\n".join(lines) + "\n", encoding="utf-8")
        environment = {
            "ANSIBLE_CONFIG": CONFIG,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "AWX_PRIVATE_DATA_DIR": str(self.private),
            "HOME": str(self.private),
            "JOB_ID": str(self.number),
        }
        (self.private / "env" / "envvars").write_text(json.dumps(environment), encoding="utf-8")

    def _inject(self) -> t.Iterator[pathlib.Path]:
        """Files with the extra variables of the job's credentials."""
        render = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string
        for number, (kind, inputs) in enumerate(self.credentials):
            injected = kind["injectors"]["extra_vars"]
            path = self.private / "env" / f"tmp{number}"
            variables = {name: render(text).render(**inputs) for name, text in injected.items()}
            path.write_text(yaml.safe_dump(variables), encoding="utf-8")
            path.chmod(0o400)
            yield path


def _unsafe(value: t.Any) -> str:
    """AWX tags every text, in lists too."""
    if isinstance(value, str):
        return "!unsafe " + json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_unsafe, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_unsafe(name)}: {_unsafe(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


def script_of(inventory: Json) -> Json:
    """An inventory as one group of hosts with variables, as AWX's script prints it."""
    (name,) = inventory
    group = inventory[name]
    return {
        name: {"hosts": sorted(group["hosts"]), "vars": group["vars"]},
        "_meta": {"hostvars": group["hosts"]},
    }

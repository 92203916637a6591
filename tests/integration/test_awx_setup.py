# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook awx_setup, through the real modules of awx.awx 24.6.1, against a server that keeps AWX's objects."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import awx_collection
from awx_server import TOKEN, AwxServer

from playbooks import CONFIG, RECAP, ROOT, Outcome

PROJECT = "https://git.example.com/agent-memory.git"
HOSTS = "https://git.example.com/site.git"
SLACK = "xoxb-a-token-that-nobody-may-read"
SITE: dict[str, t.Any] = {
    "memory_awx_organization": "SRE",
    "memory_awx_image": "registry.example.com/agent-memory-ee:1.0.0",
    "memory_awx_project_url": PROJECT,
    "memory_awx_project_branch": "1.0.0",
    "memory_awx_inventory_url": HOSTS,
    "memory_awx_credentials": ["ssh to memory hosts"],
    "memory_awx_report_dir": "/reports",
    "memory_awx_notifications": [
        {
            "name": "on call",
            "type": "slack",
            "configuration": {"token": SLACK, "channels": ["#memory"]},
        },
        {
            "name": "log",
            "type": "webhook",
            "configuration": {
                "url": "https://log.example.com",
                "http_method": "POST",
                "disable_ssl_verification": False,
                "username": "",
                "password": "",
                "headers": {},
            },
            "events": ["started", "success", "error"],
        },
    ],
}


def play(server: AwxServer, folder: pathlib.Path, *arguments: str) -> Outcome:
    awx_collection.bring()
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": CONFIG,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_PIPELINING": "1",
        "CONTROLLER_HOST": server.url,
        "CONTROLLER_OAUTH_TOKEN": TOKEN,
        "CONTROLLER_VERIFY_SSL": "false",  # it is plain HTTP: to read the certificates for each request takes longer
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "memops.agent_memory.awx_setup"]
    command += [*arguments, "-e", json.dumps({**SITE, **some()})]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    text = done.stdout + done.stderr
    return Outcome(done.returncode, sum(int(row[2]) for row in RECAP.findall(text)), text)


class Plain(yaml.SafeLoader):
    """Values as they are sent: ``!unsafe`` keeps Ansible from rendering a text, no more."""


Plain.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def some() -> dict[str, t.Any]:
    """Of the role's 24 job templates and 13 nodes some: a call of a module takes half a second; a unit test has all."""
    data = yaml.load((ROOT / "roles" / "awx_setup" / "vars" / "main.yml").read_text(encoding="utf-8"), Plain)
    nodes = {one["name"]: one for one in data["awx_setup_nodes"]}
    templates = data["awx_setup_templates"]
    return {
        "awx_setup_templates": [one for one in templates if one["playbook"] in ("plan", "apply", "verify")],
        "awx_setup_nodes": [{**nodes["plan"], "extra_data": {"memory_strategy": "soft"}}, {"name": "apply"}],
        "memory_awx_schedules": [
            {
                "name": "verify",
                "playbook": "verify",
                "rrule": "DTSTART;TZID=Europe/Berlin:20260101T030000 RRULE:FREQ=DAILY;INTERVAL=1",
                "extra_data": {"memory_depth": "opened"},
            }
        ],
    }


@pytest.fixture
def server() -> t.Iterator[AwxServer]:
    with AwxServer({PROJECT: ROOT, HOSTS: ROOT}) as one:
        one.create("credential_types", name="Machine", kind="net", managed=True)
        one.create("credentials", name="ssh to memory hosts", credential_type=1)
        yield one


def test_an_empty_awx_is_checked_then_set_up_then_found_right(server: AwxServer, tmp_path: pathlib.Path) -> None:
    made = len(server.writes)
    checked = play(server, tmp_path, "--check")
    assert checked.status == 0, checked.text
    assert checked.changed > 1
    assert "job templates, the workflow Memory runbook with approval and 1 schedule would be made" in checked.text
    assert server.writes[made:] == []

    first = play(server, tmp_path, "-vv")
    assert first.status == 0, first.text
    assert first.changed > 10
    assert SLACK not in first.text
    looks(server)

    written = len(server.writes)
    second = play(server, tmp_path)
    assert second.status == 0, second.text
    assert (second.changed, server.writes[written:]) == (0, []), second.text


def looks(server: AwxServer) -> None:
    apply = server.named("job_templates", "Memory apply")
    assert json.loads(apply["extra_vars"]) == {"memory_report_dir": "/reports"}
    assert server.surveys[apply["id"]]["spec"][0]["variable"] == "memory_namespace"
    assert server.linked("job_templates", "Memory apply", "credentials") == ["ssh to memory hosts"]
    told = server.linked("job_templates", "Memory apply", "notification_templates_error")
    assert sorted(told) == ["Memory log", "Memory on call"]
    flow = "Memory runbook with approval"
    assert server.linked("workflow_job_templates", flow, "notification_templates_approvals") == ["Memory on call"]
    seen, step = [], "plan"
    while step:
        seen.append(step)
        step = "".join(server.linked("workflow_job_template_nodes", step, "success_nodes"))
    assert seen == ["plan", "approval", "apply"]
    assert server.named("workflow_job_template_nodes", "plan")["extra_data"] == {"memory_strategy": "soft"}
    approval = server.named("workflow_job_template_nodes", "approval")["unified_job_template"]
    assert server.objects["workflow_approval_templates"][approval]["name"] == "Carry out the plan"
    slack = server.named("notification_templates", "Memory on call")
    assert slack["notification_configuration"]["token"] == SLACK
    assert "{{ job.id }}" in slack["messages"]["error"]["message"]
    (schedule,) = server.objects["schedules"].values()
    assert schedule["enabled"] is True

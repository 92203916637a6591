# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions do on the controller alone: misspelt variables, what is sent to a host, the list of lost keys."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import types
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.memops.agent_memory.plugins.action import memory, report
from ansible_collections.memops.agent_memory.plugins.modules import dispatch
from ansible_collections.memops.agent_memory.plugins.plugin_utils import _commands, _report

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_a_misspelt_variable_is_refused_and_a_strange_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: t.List[str] = []
    monkeypatch.setattr(memory.display, "warning", told.append)
    action = object.__new__(memory.ActionModule)
    assert action._misspelt({"memory_strategy": "hard", "memory_step": "plan", "own": 1}) is None and not told
    assert action._misspelt({"memory_into": "x"}) is None
    assert told == ["memory_into is no variable of this collection and has no effect."]
    refused = action._misspelt({"memory_stratgy": "hard"})
    assert refused is not None and refused["failed"] and not refused["changed"]
    said = "There is no variable memory_stratgy; nothing was changed. Next: did you mean memory_strategy?"
    assert refused["msg"] == said


@pytest.mark.parametrize("step", ["restore", "export", "resolve"])
def test_a_choice_that_a_step_would_pass_over_is_refused(step: str) -> None:
    """It would work on the whole namespace in place of some records."""
    action = object.__new__(memory.ActionModule)
    action._task = types.SimpleNamespace(action="memops.agent_memory.undo" if step == "resolve" else "restore")
    assert action._chosen_in_vain({"play_role": step, "memory_since": "", "memory_keys": []}) is None
    refused = action._chosen_in_vain({"play_role": step, "memory_since": "2026-01-31T13:50:00Z"})
    assert refused is not None and refused["failed"]
    name = "undo" if step == "resolve" else step
    assert refused["msg"].startswith(f"{name} takes no notice of memory_since; nothing was changed. Next: ")
    chosen = action._chosen_in_vain({"play_role": step, "memory_pattern": "a*"})
    assert (chosen is None) == (step == "restore")


@pytest.mark.parametrize("fetched", [False, True], ids=["written here", "fetched by the role"])
def test_lost_keys_are_not_for_everybody(tmp_path: pathlib.Path, fetched: bool) -> None:
    path = tmp_path / "lost_keys.jsonl"
    before = os.umask(0)
    try:
        if fetched:
            path.write_text('{"key": "a"}\n')
        plan = {"records": {"lost": 1}, "lost_keys": ["a"], "lost_total": 1}
        report._list_lost(str(tmp_path), [{"name": "plan", "result": plan}])
    finally:
        os.umask(before)
    assert path.read_text() == '{"key": "a"}\n'
    assert path.stat().st_mode & 0o777 == 0o640


def test_clusters_that_fail_in_the_same_second_have_a_report_each(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of no incident each; the end of the run says whose it is, as the namespace has the same name in all of them."""
    told: t.List[str] = []
    monkeypatch.setattr(report.display, "display", told.append)
    monkeypatch.setattr(report.time, "gmtime", lambda *_when: (2025, 3, 4, 3, 12, 0, 1, 63, 0))
    action = object.__new__(report.ActionModule)
    written = {}
    for cluster in ("one", "two"):
        args = {
            "namespace": "a",
            "cluster": cluster,
            "only_cluster": cluster,
            "slo": {},
            "template": None,
            "quiet": False,
        }
        written[cluster] = action._written(str(tmp_path), [], args, None)["path_json"]
    assert {name: json.loads(pathlib.Path(path).read_text())["cluster"] for name, path in written.items()} == {
        "one": "one",
        "two": "two",
    }
    assert [text.split("incident")[0].split("  ")[-2] for text in told] == ["a in one", "a in two"]


@pytest.mark.parametrize(
    ("outcome", "error", "said"),
    [
        (
            AnsibleConnectionFailure("Make sure this host can be reached over ssh: ssh: timed out\r\n"),
            "host-unreachable",
            "m1 cannot be reached: ssh: timed out. Next: mend the connection, then run the same command again.",
        ),
        (
            AnsibleConnectionFailure(
                "can be reached over ssh: " + "Property of the company. Authorised use only.\r\n" * 20
                + "debug1: Trying private key: /k\r\ndeploy@m1: Permission denied (publickey).\r\n"
            ),
            "host-unreachable",
            "m1 cannot be reached: Property of the company. Authorised use only. deploy@m1: Permission denied "
            "(publickey). Next: mend the connection, then run the same command again.",
        ),
        (
            AnsibleConnectionFailure(
                "can be reached over ssh: @@@@@@@@@@\r\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\n"
                "@@@@@@@@@@\r\nIT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r\nOffending key in /k:9\r\n"
                "Host key for m1 has changed and you have requested strict checking.\r\n"
                "Host key verification failed.\r\n"
            ),
            "host-unreachable",
            "m1 cannot be reached: Host key for m1 has changed and you have requested strict checking. "
            "Host key verification failed. Next: see who answers there; where m1 was set up anew, forget its former "
            "key (ssh-keygen -R), then run the same command again.",
        ),
        (
            AnsibleError("Missing sudo password"),
            "host-refused",
            "Who connects to m1 could not become another user (Missing sudo password). Next: run the same command with "
            "--ask-become-pass, or set ansible_become_password for this host (in a vault).",
        ),
        (
            {"failed": True, "rc": 1, "module_stdout": "Hello\n", "module_stderr": "ada is not in the sudoers file.\n"},
            "host-refused",
            "Who connects to m1 could not become another user (ada is not in the sudoers file). Next: let sudo allow "
            "it there, or correct ansible_become_user, then run the same command again.",
        ),
        (
            {
                "failed": True,
                "exception": "Failed to create remote module tmp path at dir '/home/a/.ansible/tmp' with prefix 'a-x': "
                "[Errno 30] Read-only file system: '/home/a/.ansible/tmp/ansible-x'",
            },
            "host-refused",
            "On m1 nothing can be written to /home/a/.ansible/tmp, where Ansible works (Read-only file system). Next: "
            "mend that, or name another folder in ansible_remote_tmp for this host, then run the same command again.",
        ),
        (
            AnsibleError("Failed to set permissions on the temporary files when becoming an unprivileged user (rc: 1)"),
            "host-refused",
            "Who connects to m1 cannot hand the module to the user that it becomes. "
            "Next: set ansible_pipelining: true in the inventory, or install the package acl there.",
        ),
        (
            {"failed": True, "rc": 127, "msg": "The module interpreter '/opt/x/python' was not found."},
            "host-not-prepared",
            "m1 has no Python at /opt/x/python. Next: correct its ansible_python_interpreter and run the same command "
            "again, or have a Python made there: ansible-playbook memops.agent_memory.prepare -e memory_hosts=m1",
        ),
        (
            {"failed": True, "rc": 1, "module_stdout": "", "module_stderr": "loader: no libpython3.so\n"},
            "host-not-prepared",
            "m1 cannot run /opt/x/python as its Python: loader: no libpython3.so. Next: correct its "
            "ansible_python_interpreter and run the same command again, or have a Python made there: "
            "ansible-playbook memops.agent_memory.prepare -e memory_hosts=m1",
        ),
        (
            {"failed": True, "rc": 137, "module_stdout": "", "msg": "No start of json char found"},
            "host-killed",
            "The step was killed on m1 before it could answer. "
            "Next: look there for why (dmesg, when memory ran out), then run the same command again.",
        ),
    ],
    ids=[
        "gone", "greeting", "other key", "password", "no sudo", "no home", "no pipelining", "not prepared",
        "does not start", "killed",
    ],
)  # fmt: skip
def test_a_host_that_cannot_run_a_module_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, outcome: t.Any, error: str, said: str
) -> None:
    def execute(self: t.Any, **_arguments: t.Any) -> t.Any:
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)

    monkeypatch.setattr(memory.ActionModule, "_execute_module", execute)
    action = object.__new__(memory.ActionModule)
    action._task = types.SimpleNamespace(action="memops.agent_memory.isolate", async_val=0, delegate_to=None)
    action._connection = types.SimpleNamespace(transport="ssh")
    action._used_interpreter = "/opt/x/python"
    result = action._call({}, {"inventory_hostname": "m1"})
    assert (result["failed"], result["changed"], result["error"], result["msg"]) == (True, False, error, said)


def test_a_failure_is_printed_without_its_parts_and_long_lists() -> None:
    said = "The store /a.db has no namespace 'x'. Next: name one of those that the playbook info lists"
    parts = {"reason": "The store /a.db has no namespace 'x'.", "next_step": said.rpartition("Next: ")[2]}
    failed = {"failed": True, "changed": False, "error": "namespace-unknown", "msg": said}
    assert memory._brief({**failed, **parts, "holder": {"owner": "o"}}) == {**failed, "holder": {"owner": "o"}}
    judged = {**failed, "error": "verdict", "msg": "The verdict is fail: a long enough reason. Next: look."}
    more = {"reasons": ["a long enough reason."], "findings": ["x" * 300], "snapshot": "s-1", "verdict": "fail"}
    assert memory._brief({**judged, **more}) == {**judged, "snapshot": "s-1", "verdict": "fail"}
    many = {"reasons": [f"snapshot {n} opens with neither key" for n in range(50)]}  # more than the sentence holds
    assert memory._brief({**judged, **many}) == {**judged, **many}


def test_a_command_that_a_host_names_gets_the_inventories_of_the_run() -> None:
    bare = "ansible-playbook memops.agent_memory.scrub"
    full = "ansible-playbook -i 'my hosts' -i b memops.agent_memory.scrub"
    result = {"msg": f"Damage. Next: {bare}", "checks": [{"says": "Old.", "next": bare}], "records": {"a": bare}}
    _commands.complete(result, ["my hosts", "b"])
    assert result["msg"] == f"Damage. Next: {full}" and result["checks"] == [{"says": "Old.", "next": full}]
    assert result["records"] == {"a": bare}
    _commands.complete(result, ["another"])  # it is there already
    assert result["msg"] == f"Damage. Next: {full}"
    _commands.complete(unknown := {"msg": bare}, [])
    assert unknown == {"msg": bare}


def messages() -> t.Any:
    """What ansible-core 2.19 and later keep messages in; None before."""
    name = "ansible.module_utils._internal"
    known = importlib.util.find_spec(name) and importlib.util.find_spec(f"{name}._messages")
    return importlib.import_module(f"{name}._messages") if known else None


def test_what_ansible_prints_of_a_failure_by_itself_has_the_inventories_too() -> None:
    result: dict[str, t.Any] = {"failed": True, "msg": "Damage. Next: ansible-playbook memops.agent_memory.rebuild"}
    kinds = messages()
    if kinds:  # before, there is nothing beside the message
        result["exception"] = kinds.ErrorSummary(event=kinds.Event(msg=result["msg"]))
    _commands.complete(result, ["inv"])
    told = result["exception"].event.msg if kinds else result["msg"]
    assert told == result["msg"] == "Damage. Next: ansible-playbook -i inv memops.agent_memory.rebuild"


def test_a_warning_of_a_module_has_the_inventories_too() -> None:
    said: t.Any = "Kept. ansible-playbook memops.agent_memory.restore"
    kinds = messages()
    if kinds:
        said = kinds.WarningSummary(event=kinds.Event(msg=said))
    result = {"warnings": [said], "warned": ["ansible-playbook memops.agent_memory.restore"]}
    _commands.complete(result, ["inv"])
    told = result["warnings"][0].event.msg if kinds else result["warnings"][0]
    assert told == "Kept. ansible-playbook -i inv memops.agent_memory.restore"
    assert result["warned"] == ["ansible-playbook -i inv memops.agent_memory.restore"]


@pytest.mark.parametrize(
    ("transport", "role", "parents", "sent"),
    [
        ("ssh", "memops.agent_memory.isolate", [], "memops.agent_memory.isolate"),
        ("local", "memops.agent_memory.isolate", [], "memops.agent_memory.dispatch"),
        ("ssh", "memops.agent_memory.isolate", ["memops.agent_memory.rebuild"], "memops.agent_memory.dispatch"),
        ("ssh", "memops.agent_memory.failover", [], "memops.agent_memory.dispatch"),
        ("ssh", None, None, "memops.agent_memory.dispatch"),
        ("ssh", "own.collection.isolate", [], "memops.agent_memory.dispatch"),
    ],
    ids=[
        "a step alone", "a step alone on this machine", "within the runbook", "a role of several modules",
        "a play's own task", "a role of others",
    ],
)  # fmt: skip
def test_modules_of_one_run_are_sent_as_one(
    monkeypatch: pytest.MonkeyPatch, transport: str, role: t.Any, parents: t.Any, sent: str
) -> None:
    called: t.List[t.Any] = []

    def execute(self: t.Any, **arguments: t.Any) -> t.Any:
        called.append((arguments["module_name"], arguments["module_args"]))
        return {}

    monkeypatch.setattr(memory.ActionModule, "_execute_module", execute)
    action = object.__new__(memory.ActionModule)
    action._task = types.SimpleNamespace(action="memops.agent_memory.isolate", async_val=0, delegate_to=None)
    action._connection = types.SimpleNamespace(transport=transport)
    found = {"inventory_hostname": "m1", "ansible_role_name": role, "ansible_parent_role_names": parents}
    action._call({"namespace": "a"}, {name: value for name, value in found.items() if value is not None})
    assert called == [(sent, {"namespace": "a", "module": "isolate"})]


def test_every_module_of_the_action_can_be_sent_as_the_shared_one() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert runtime["action_groups"]["memory"] == dispatch.MODULES
    for module in dispatch.MODULES:
        assert dispatch.main_of(module).__module__.endswith(f"module_utils._modules.{module}")


@pytest.mark.parametrize(
    ("clusters", "meant"),
    [
        ({"a": "one", "b": "one"}, ""),
        ({"a": "one", "b": "two"}, " -e memory_only_cluster=one"),
        ({"a": "my site", "b": None}, """ -e '{"memory_only_cluster": "my site"}'"""),
        ({"a": None, "b": "memory"}, ""),  # what it is called where no name is given
    ],
)
def test_a_command_names_its_cluster_where_the_inventory_has_others(
    clusters: dict[str, str | None], meant: str
) -> None:
    """A namespace of the same name in another cluster is not meant, and a snapshot's number is of one alone."""
    of = {name: {"memory_store": {}, **({"memory_cluster": one} if one else {})} for name, one in clusters.items()}
    hostvars = {**of, "applications": {"memory_cluster": "elsewhere"}}  # it holds no memory
    variables = {**hostvars["a"], "hostvars": hostvars, "groups": {"all": list(hostvars)}}
    result = {"msg": "Next: ansible-playbook memops.agent_memory.restore -e memory_namespace=x"}
    _commands.complete(result, ["inv"], lambda: _commands.one_of_several(variables))
    assert result["msg"] == f"Next: ansible-playbook -i inv{meant} memops.agent_memory.restore -e memory_namespace=x"
    report = _report.build_report(
        [], namespace="x", inventory=["inv"], only_cluster=_commands.one_of_several(variables)
    )
    assert report["next_command"] == f"ansible-playbook -i inv{meant} memops.agent_memory.rebuild -e memory_namespace=x"

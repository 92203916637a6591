# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the role awx_setup sends, against the roles it starts, the modules of awx.awx 24.6.1 and AWX's own rules."""
from __future__ import annotations

import copy
import importlib
import pathlib
import sys
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
import awx_collection
import awx_rules

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "awx_setup"
NO_TEMPLATE = {"awx_setup", "schedule"}  # they set up what runs the others; AWX has schedules of its own
OMITTED = "not sent"
PLAYS_OWN = {"memory_hosts"}  # a variable of the playbooks, of no role
#: the role of a playbook, where it has another name
ROLES = {"plan": "resolve", "apply": "resolve", "undo": "resolve"}


class Plain(yaml.SafeLoader):
    """Values as they are sent: ``!unsafe`` keeps Ansible from rendering a text, no more."""


Plain.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
LOADER = DataLoader()


def load(name: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", yaml.load((ROLE / name).read_text(encoding="utf-8"), Plain))


def templates(path: pathlib.Path) -> t.Any:
    """As Ansible reads it."""
    return LOADER.load_from_file(str(path), trusted_as_template=True)


DATA = {**load("defaults/main.yml"), **load("vars/main.yml")}
TEMPLATES = {one["playbook"]: one for one in DATA["awx_setup_templates"]}
SITE = {
    "memory_awx_image": "registry.example.com/ee:1",
    "memory_awx_project_url": "https://git.example.com/a.git",
    "memory_awx_inventory_url": "https://git.example.com/b.git",
    "memory_awx_notifications": [{"name": "n", "type": "slack", "configuration": {"token": "x", "channels": ["#a"]}}],
    "awx_setup_missing": False,
}


def questions(playbook: str) -> list[dict[str, t.Any]]:
    return list(TEMPLATES[playbook]["survey"])


def options(playbook: str) -> dict[str, dict[str, t.Any]]:
    """The variables of the role that a playbook includes."""
    path = ROOT / "roles" / ROLES.get(playbook, playbook) / "meta" / "argument_specs.yml"
    specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
    return dict((specs.get(playbook) or specs["main"]).get("options", {}))


def test_every_playbook_that_an_operator_runs_has_a_job_template() -> None:
    there = {path.stem for path in (ROOT / "playbooks").glob("[!_]*.yml")}
    assert there - NO_TEMPLATE == set(TEMPLATES)
    assert {f"playbooks/{name}.yml" for name in TEMPLATES} <= awx_rules.playbooks(ROOT)


@pytest.mark.parametrize("playbook", sorted(TEMPLATES))
def test_a_survey_is_one_that_awx_takes_and_asks_what_the_role_knows(playbook: str) -> None:
    asked = questions(playbook)
    assert awx_rules.survey({"name": "", "description": "", "spec": asked}) == []
    known = options(playbook)
    for one in asked:
        # an API call or a schedule may leave out what has a default
        assert one["required"] is ("default" not in one and one["min"] == 1), one
        assert one["question_description"]
        if one["variable"] in PLAYS_OWN:
            continue
        option = known[one["variable"]]
        if option["type"] == "bool":
            assert sorted(one["choices"]) == ["false", "true"]
            assert one["default"] == str(option["default"]).lower()
        elif one["type"] == "multiplechoice":
            assert one["choices"] == option["choices"]
            assert one["default"] == option["default"]
        elif one["type"] == "integer":
            assert one["default"] == option["default"]
    namespaced = "memory_namespace" in (one["variable"] for one in asked)
    by_namespace = "tasks/namespaces.yml" in (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    assert namespaced or not by_namespace


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"choices": yaml.safe_load("[on, off]"), "default": "on"}, "are no texts"),
        ({"choices": ["a", "b"], "default": "c"}, "none of its choices"),
        ({"choices": ["a"], "required": "no"}, "required has to be bool"),
        ({"type": "boolean"}, "no type of question"),
        ({"type": "integer", "default": "900"}, "is no int"),
        ({"type": "text", "min": "1"}, "min is no integer"),
        ({"type": "text", "min": 3, "max": 9, "default": "a"}, "too small"),
        ({"variable": "memory_hosts"}, "asked twice"),
    ],
)
def test_the_rules_meet_what_awx_refuses(broken: dict[str, t.Any], said: str) -> None:
    strategy = {**DATA["awx_setup_questions"]["strategy"], **broken}
    spec = {"name": "", "description": "", "spec": [DATA["awx_setup_questions"]["hosts"], strategy]}
    assert said in " ".join(awx_rules.survey(spec))


def test_the_workflow_is_the_runbook_with_the_approval_before_the_first_change_of_records() -> None:
    nodes = {one["name"]: one for one in [*DATA["awx_setup_nodes"], DATA["awx_setup_approval"]]}
    order, name = [], "preflight"
    while name:
        order.append(name)
        name = nodes[name].get("next", "")
    assert set(order) == set(nodes)
    assert order[order.index("approval") - 1 : order.index("approval") + 2] == ["plan", "approval", "apply"]
    survey = {"name": "", "description": "", "spec": DATA["awx_setup_workflow_survey"]}
    assert awx_rules.survey(survey) == []
    answered = {one["variable"] for one in survey["spec"]}
    reached: set[str] = set()
    for one in DATA["awx_setup_nodes"]:
        asked = questions(one.get("playbook", one["name"]))
        assert awx_rules.answers(asked, one.get("extra_data", {}), all_needed=False) == []
        assert {q["variable"] for q in asked if q["required"]} <= answered
        reached |= {q["variable"] for q in asked}
    assert answered <= reached


def test_schedules_messages_and_credential_types_are_what_awx_takes() -> None:
    for one in DATA["awx_setup_default_schedules"]:
        assert awx_rules.rrule(one["rrule"]) == []
        assert awx_rules.answers(questions(one["playbook"]), one.get("extra_data", {})) == []
    assert awx_rules.rrule("DTSTART:20260101T000000 RRULE:FREQ=SECONDLY") != []
    for one in DATA["awx_setup_credential_types"]:
        assert awx_rules.credential_type(one) == []
        assert awx_rules.credential_type({**one, "inputs": {"fields": []}}) != []
    told = {
        "notification_type": "slack",
        "notification_configuration": {"token": "", "channels": ["#a"]},
        "messages": DATA["awx_setup_messages"],
    }
    assert awx_rules.notification(told) == []
    wrong = copy.deepcopy(told)
    wrong["messages"]["error"]["message"] = "{{ job.extra_vars }}"
    assert awx_rules.notification(wrong) != []


class Captured(Exception):
    """The argument specification that a module has made."""


def specification(name: str) -> dict[str, t.Any]:
    """With those options that every module of the collection has."""
    module = importlib.import_module(f"ansible_collections.awx.awx.plugins.modules.{name}")
    real = module.ControllerAPIModule

    def capture(argument_spec: dict[str, t.Any], **_: t.Any) -> None:
        raise Captured({**real.AUTH_ARGSPEC, **argument_spec})

    module.ControllerAPIModule = capture
    try:
        with pytest.raises(Captured) as caught:
            module.main()
    finally:
        module.ControllerAPIModule = real
    return t.cast("dict[str, t.Any]", caught.value.args[0])


def tasks() -> t.Iterator[dict[str, t.Any]]:
    for path in sorted((ROLE / "tasks").glob("*.yml")):
        waiting = list(templates(path))
        while waiting:
            task = waiting.pop()
            waiting += task.get("block", [])
            yield task


def test_what_every_task_sends_is_what_its_module_takes() -> None:
    awx_collection.bring()
    importlib.invalidate_caches()
    data = {**templates(ROLE / "defaults" / "main.yml"), **templates(ROLE / "vars" / "main.yml"), **SITE}
    sent: dict[str, int] = {}
    for task in tasks():
        action = next((name for name in task if name.startswith("awx.awx.")), None)
        if action is None:
            continue
        spec = specification(action.rpartition(".")[2])
        validator = ArgumentSpecValidator(spec)
        loop = Templar(LOADER, variables=data).template(task["loop"]) if "loop" in task else [None]
        for item in loop:
            variable = task.get("loop_control", {}).get("loop_var", "item")
            variables = {**data, **task.get("vars", {}), variable: item, "omit": OMITTED}
            arguments = Templar(LOADER, variables=variables).template(task[action])
            arguments = {name: value for name, value in arguments.items() if value != OMITTED}
            result = validator.validate(arguments)
            assert result.error_messages == [], f"{task['name']}: {result.error_messages}"
            assert set(arguments) <= set(spec), task["name"]
            sent[action] = sent.get(action, 0) + 1
    assert sent["awx.awx.job_template"] == len(TEMPLATES)
    assert sent["awx.awx.schedule"] == 3
    assert len(sent) == 11


def test_a_module_refuses_what_it_does_not_have() -> None:
    awx_collection.bring()
    validator = ArgumentSpecValidator(specification("job_template"))
    result = validator.validate({"name": "a", "job_type": "off", "surveys": 1})
    assert len(result.error_messages) == 2

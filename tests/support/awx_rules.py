# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX 24.6.1 takes: its API's rules for the fields that the set-up sends, written down by hand.

Each check returns sentences about what is wrong, none when all is right.
"""
from __future__ import annotations

import json
import os
import pathlib
import re
import typing as t

import jinja2
import jinja2.sandbox

Json = t.Dict[str, t.Any]
NAME = ("string", 512)
TEXT = ("string", None)
BOOL = ("boolean", None)
INT = ("integer", None)
MAP = ("json", None)

#: resource -> field -> (type, longest or choices or the resource that an id is of); "!" marks what has to be there.
FIELDS: t.Dict[str, t.Dict[str, t.Tuple[str, t.Any]]] = {
    "organizations": {"name!": NAME, "description": TEXT},
    "credential_types": {
        "name!": NAME, "description": TEXT, "kind!": ("choice", ["net", "cloud"]), "inputs": MAP, "injectors": MAP,
        "managed": BOOL,
    },
    "credentials": {
        "name!": NAME, "description": TEXT, "organization": ("id", "organizations"), "inputs": MAP,
        "credential_type!": ("id", "credential_types"),
    },
    "execution_environments": {
        "name!": NAME, "description": TEXT, "organization": ("id", "organizations"), "image!": ("string", 1024),
        "credential": ("id", "credentials"), "pull": ("choice", ["", "always", "missing", "never"]),
    },
    "projects": {
        "name!": NAME, "description": TEXT, "organization": ("id", "organizations"), "scm_url": ("string", 1024),
        "scm_type": ("choice", ["", "git", "svn", "insights", "archive"]), "scm_branch": ("string", 256),
        "credential": ("id", "credentials"), "scm_update_on_launch": BOOL,
    },
    "inventories": {
        "name!": NAME, "description": TEXT, "organization!": ("id", "organizations"), "host_filter": TEXT,
        "kind": ("choice", ["", "smart", "constructed"]),
    },
    "inventory_sources": {
        "name!": NAME, "inventory!": ("id", "inventories"), "source!": ("choice", ["scm"]),
        "source_project": ("id", "projects"), "source_path": ("string", 1024), "overwrite": BOOL,
        "overwrite_vars": BOOL, "update_on_launch": BOOL, "update_cache_timeout": INT,
        "execution_environment": ("id", "execution_environments"),
    },
    "notification_templates": {
        "name!": NAME, "description": TEXT, "organization!": ("id", "organizations"),
        "notification_type!": ("choice", ["email", "slack", "pagerduty", "webhook"]),
        "notification_configuration": MAP, "messages": MAP,
    },
    "job_templates": {
        "name!": NAME, "description": TEXT, "organization": ("id", "organizations"),
        "job_type": ("choice", ["run", "check"]), "inventory": ("id", "inventories"),
        "project!": ("id", "projects"), "playbook!": ("string", 1024),
        "execution_environment": ("id", "execution_environments"), "extra_vars": ("variables", None),
        "ask_job_type_on_launch": BOOL, "ask_diff_mode_on_launch": BOOL, "ask_verbosity_on_launch": BOOL,
        "ask_variables_on_launch": BOOL, "allow_simultaneous": BOOL, "survey_enabled": BOOL,
    },
    "workflow_job_templates": {
        "name!": NAME, "description": TEXT, "organization": ("id", "organizations"), "allow_simultaneous": BOOL,
        "survey_enabled": BOOL,
    },
    "workflow_job_template_nodes": {
        "identifier": NAME, "workflow_job_template!": ("id", "workflow_job_templates"),
        "unified_job_template": ("id", "job_templates"), "extra_data": MAP,
    },
    "workflow_approval_templates": {"name!": NAME, "description": TEXT, "timeout": INT},
    "schedules": {
        "name!": NAME, "description": TEXT, "rrule!": TEXT, "extra_data": MAP, "enabled": BOOL,
        "unified_job_template!": ("id", "job_templates"),
    },
}  # fmt: skip
#: of a kind of notification: field -> (type, default if it has one)
NOTIFICATIONS: t.Dict[str, t.Dict[str, t.Tuple[t.Any, ...]]] = {
    "email": {
        "host": (str,), "port": (int,), "username": (str,), "password": (str,), "use_tls": (bool,), "use_ssl": (bool,),
        "sender": (str,), "recipients": (list,), "timeout": (int, 30),
    },
    "slack": {"token": (str,), "channels": (list,)},
    "pagerduty": {"subdomain": (str,), "token": (str,), "service_key": (str,), "client_name": (str,)},
    "webhook": {
        "url": (str,), "http_method": (str, "POST"), "disable_ssl_verification": (bool, False), "username": (str, ""),
        "password": (str, ""), "headers": (dict,),
    },
}  # fmt: skip
PASSWORDS = ("password", "token")
SURVEY_TYPES: t.Dict[str, t.Any] = {
    "text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str, "integer": int,
    "float": float,
}  # fmt: skip
PLAYBOOK = re.compile(r"^\s*?-?\s*?(?:hosts|(ansible\.builtin\.)?(include|import_playbook)):\s*?.*?$")
#: What a message of a notification may name.
MESSAGE = {
    "job": {"id": 42, "name": "a", "status": "failed", "url": "/api/v2/jobs/42/", "artifacts": {}},
    "job_friendly_name": "Job", "url": "https://awx", "workflow_url": "https://awx", "approval_status": "approved",
    "approval_node_name": "a", "job_metadata": "{}",
}  # fmt: skip


def is_a(value: t.Any, kind: t.Any) -> bool:
    """In JSON a boolean is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def fields(resource: str, given: Json, exists: t.Callable[[str, int], bool], *, creating: bool) -> t.Dict[str, str]:
    """field -> what is wrong with it."""
    wrong = {}
    rules = {name.rstrip("!"): rule for name, rule in FIELDS[resource].items()}
    if creating:
        missing = [n[:-1] for n in FIELDS[resource] if n.endswith("!") and given.get(n[:-1]) in (None, "")]
        wrong.update(dict.fromkeys(missing, "This field is required."))
    for name, value in given.items():
        if name in rules and (value is not None or name == "name"):
            said = _field(rules[name], value, exists)
            if said:
                wrong[name] = said
    return wrong


def _field(rule: t.Tuple[str, t.Any], value: t.Any, exists: t.Callable[[str, int], bool]) -> str:
    kind, more = rule
    if kind == "string":
        if not isinstance(value, str):
            return "Not a valid string."
        return f"no more than {more} characters." if more and len(value) > more else ""
    if kind == "choice":
        return "" if value in more else f'"{value}" is not a valid choice.'
    if kind == "id":
        return "" if is_a(value, int) and exists(more, value) else f'Invalid pk "{value}" - object does not exist.'
    if kind == "variables":
        try:
            return "" if isinstance(json.loads(value), dict) else "Input type is not a dictionary."
        except (TypeError, ValueError):
            return "Cannot parse as JSON."
    expected = {"boolean": bool, "integer": int, "json": dict}[kind]
    return "" if is_a(value, expected) else f"Not a valid {kind}."


def survey(spec: t.Any) -> t.List[str]:
    parts = (("name", str), ("description", str), ("spec", list))
    if not isinstance(spec, dict) or not all(is_a(spec.get(name), kind) for name, kind in parts):
        return ["name, description and spec have to be text, text and list."]
    wrong = [] if spec["spec"] else ["'spec' doesn't contain any items."]
    seen = set()
    for number, one in enumerate(spec["spec"]):
        where = f"question {number} ({one.get('variable')}):"
        for name, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
            if not is_a(one.get(name), kind):
                wrong.append(f"{where} {name} has to be {kind.__name__}")
        if one.get("variable") in seen:
            wrong.append(f"{where} asked twice")
        seen.add(one.get("variable"))
        kind = one.get("type")
        if kind not in SURVEY_TYPES:
            wrong.append(f"{where} no type of question: {kind}")
            continue
        default = one.get("default", "")
        if default != "" and not is_a(default, SURVEY_TYPES[kind]):
            wrong.append(f"{where} the default {default!r} is no {SURVEY_TYPES[kind].__name__}")
        wrong += [f"{where} {n} is no integer" for n in ("min", "max") if n in one and not is_a(one[n], int)]
        if kind in ("multiplechoice", "multiselect"):
            choices = one.get("choices")
            if not isinstance(choices, list) or not choices or not all(is_a(c, str) and c for c in choices):
                wrong.append(f"{where} the choices {choices!r} are no texts")
            elif default != "" and default not in choices:
                wrong.append(f"{where} the default {default!r} is none of its choices")
        elif default != "" and not wrong:
            wrong += [f"{where} its own default: {said}" for said in answers([one], {one["variable"]: default})]
    return wrong


def answers(questions: t.Sequence[Json], data: Json, *, all_needed: bool = True) -> t.List[str]:
    """What AWX says of answers to a survey, be they from a launch, a schedule or a workflow's node."""
    wrong = []
    for one in questions:
        name, kind = one["variable"], one["type"]
        if name not in data:
            if one["required"] and all_needed:
                wrong.append(f"'{name}' value missing")
            continue
        value = data[name]
        if kind in ("text", "textarea", "password"):
            size = len(value) if isinstance(value, str) else None
        elif kind in ("integer", "float"):
            size = value if is_a(value, int) or (kind == "float" and is_a(value, float)) else None
        else:
            if value not in one["choices"]:
                wrong.append(f"Value {value!r} for '{name}' expected to be one of {one['choices']}")
            continue
        if size is None:
            wrong.append(f"Value {value!r} for '{name}' expected to be {kind}")
        elif size < one.get("min", size) or size > one.get("max", size):
            wrong.append(f"'{name}' value {value!r} is too small or too large")
    known = {one["variable"] for one in questions}
    return wrong + [f"Variables {name} are not allowed on launch." for name in data if name not in known]


def rrule(text: str) -> t.List[str]:
    wrong = []
    starts = re.findall(r"DTSTART(?:;TZID=[^:]+:\d{8}T\d{6}|:\d{8}T\d{6}Z)(?= )", text)
    if len(starts) != 1 or text.count("DTSTART") != 1:
        wrong.append("One DTSTART is required, with a time zone.")
    rules = re.findall(r"RRULE:(\S*)", text)
    if not rules:
        wrong.append("One or more rule required in rrule.")
    if re.search("EXDATE:|RDATE:", text):
        wrong.append("EXDATE and RDATE are not allowed.")
    for rule in rules:
        parts = dict(part.split("=", 1) for part in rule.split(";"))
        if parts.get("FREQ") not in ("MINUTELY", "HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
            wrong.append(f"{parts.get('FREQ')} is not supported")
        if not parts.get("INTERVAL", "").isdigit():
            wrong.append("INTERVAL required in rrule")
        if re.match(r"\d", parts.get("BYDAY", "")):
            wrong.append("BYDAY with numeric prefix not supported")
        if ("COUNT" in parts and "UNTIL" in parts) or int(parts.get("COUNT", 0)) > 999:
            wrong.append("COUNT with UNTIL, or a COUNT above 999")
    return wrong


def credential_type(given: Json) -> t.List[str]:
    wrong = []
    ids = []
    inputs, injectors = given.get("inputs", {}), given.get("injectors", {})
    wrong += [f"inputs has no {name}" for name in set(inputs) - {"fields", "required"}]
    allowed = {"id", "label", "type", "format", "choices", "help_text", "multiline", "secret", "default"}
    for one in inputs.get("fields", []):
        ids.append(one.get("id"))
        named = re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", str(one.get("id"))) and one["id"] != "tower"
        if not named or not one.get("label"):
            wrong.append(f"the field {one} needs an id that is a variable's name, and a label")
        if set(one) - allowed or one.get("type", "string") not in ("string", "boolean"):
            wrong.append(f"the field {one.get('id')} has {set(one) - allowed} or a type that there is not")
    wrong += [f"{name} is required and no field" for name in inputs.get("required", []) if name not in ids]
    if len(ids) != len(set(ids)):
        wrong.append("field IDs must be unique")
    wrong += [f"no kind of injector: {name}" for name in set(injectors) - {"file", "env", "extra_vars"}]
    for kind, entries in injectors.items():
        for name, template in entries.items():
            if not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_.]*", name) or (kind == "env" and name.startswith("ANSIBLE_")):
                wrong.append(f"{kind} {name} is not allowed")
            wrong += _renders(template, dict.fromkeys(ids, "EXAMPLE"))
    return wrong


def notification(given: Json) -> t.List[str]:
    wrong = []
    configuration = given.get("notification_configuration", {})
    for name, rule in NOTIFICATIONS[given["notification_type"]].items():
        if name not in configuration:
            if len(rule) < 2:
                wrong.append(f"Missing required fields for Notification Configuration: {name}.")
        elif not is_a(configuration[name], rule[0]) or (rule[0] is list and not configuration[name]):
            wrong.append(f"Configuration field '{name}' incorrect type, expected {rule[0].__name__}.")
    for event, told in (given.get("messages") or {}).items():
        if event not in ("started", "success", "error", "workflow_approval"):
            wrong.append(f"Event '{event}' invalid")
        for message in told.values() if event == "workflow_approval" else [told]:
            for name, text in (message or {}).items():
                if name not in ("message", "body") or (name == "message" and "\n" in text):
                    wrong.append(f"{event}: {name} is no part of a message, or has lines")
                wrong += _renders(text, MESSAGE) if text is not None else []
    return wrong


def _renders(template: t.Any, names: Json) -> t.List[str]:
    if not isinstance(template, str):
        return [f"{template!r} is no text"]
    try:
        jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined).from_string(template).render(names)
    except jinja2.TemplateError as exc:
        return [f"{template} cannot be rendered: {exc}"]
    return []


def playbooks(project: pathlib.Path) -> t.Set[str]:
    """What AWX offers as playbooks of a project."""
    found = set()
    for folder, below, names in os.walk(project):
        where = pathlib.Path(folder).relative_to(project)
        below[:] = [name for name in below if not name.startswith(".") and name not in ("roles", "tasks", "group_vars")]
        for name in names:
            if name.endswith((".yml", ".yaml")) and not name.startswith("."):
                lines = (project / where / name).read_text(encoding="utf-8", errors="replace").splitlines()
                if any(PLAYBOOK.match(line) for line in lines):
                    found.add(str(where / name))
    return found

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server that keeps AWX's objects as its API shows them, for the real modules of awx.awx to work on.

It is no AWX: it starts no job. It refuses what AWX refuses (awx_rules.py), fills in what AWX does, and hides secrets.
"""
from __future__ import annotations

import http.server
import json
import pathlib
import re
import threading
import typing as t
import urllib.parse

import awx_rules
from awx_rules import Json

TOKEN = "the-token-of-the-test"
TEMPLATES = ("job_templates", "workflow_job_templates", "projects", "workflow_approval_templates")
TYPES = {"inventories": "inventory"}
HIDDEN = "$encrypted$"
#: What AWX fills in where nothing was sent.
DEFAULTS: t.Dict[str, Json] = {
    "execution_environments": {"credential": None, "pull": ""},
    "projects": {"scm_branch": "", "credential": None, "scm_revision": "0" * 40, "status": "successful"},
    "inventories": {"kind": "", "host_filter": None, "variables": ""},
    "workflow_job_template_nodes": {"unified_job_template": None, "extra_data": {}},
    "schedules": {"extra_data": {}, "enabled": True},
    "workflow_approval_templates": {"timeout": 0, "description": ""},
}


class AwxServer:
    """``objects``: resource -> id -> object, with all secrets. ``writes``: every request that was no GET, in order."""

    def __init__(self, projects: t.Mapping[str, pathlib.Path]) -> None:
        self.projects = projects  # of each git URL, the files
        self.objects: t.Dict[str, t.Dict[int, Json]] = {name: {} for name in awx_rules.FIELDS}
        self.surveys: t.Dict[int, Json] = {}
        self.associations: t.Dict[str, t.List[int]] = {}
        self.writes: t.List[str] = []
        self._last = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}") if length else {}
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    code, said = 401, {"detail": "Authentication credentials were not provided."}
                else:
                    code, said = server.request(self.command, self.path, body)
                data = b"" if code == 204 else json.dumps(said).encode()
                self.send_response(code)
                self.send_header("X-API-Product-Name", "AWX")
                self.send_header("X-API-Product-Version", "24.6.1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: t.Any) -> None:
                return

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._http.serve_forever)

    def __enter__(self) -> AwxServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def named(self, resource: str, name: str) -> Json:
        (found,) = [one for one in self.objects[resource].values() if name in (one.get("name"), one.get("identifier"))]
        return found

    def linked(self, resource: str, name: str, link: str) -> t.List[str]:
        """The names of what an object is associated with."""
        ids = self.associations.get(f"{resource}/{self.named(resource, name)['id']}/{link}", [])
        every = {number: one for objects in self.objects.values() for number, one in objects.items()}
        return [str(every[number].get("name") or every[number].get("identifier")) for number in ids]

    def create(self, resource: str, **given: t.Any) -> Json:
        """What a person made by hand."""
        code, said = self._create(resource, given)
        assert code == 201, said
        return said

    # --- the API ------------------------------------------------------------------------------------------------------
    def request(self, method: str, path: str, body: Json) -> t.Tuple[int, t.Any]:
        with self._lock:
            if method != "GET":
                self.writes.append(f"{method} {path}")
            url = urllib.parse.urlsplit(path)
            query = dict(urllib.parse.parse_qsl(url.query))
            match = re.fullmatch(r"/api/v2/(\w+)/(?:(\d+)/(?:(\w+)/)?)?", url.path)
            if not match or (match[1] not in self.objects and match[1] != "unified_job_templates"):
                return 404, {"detail": "Not found."}
            resource, number, sub = match[1], int(match[2] or 0), match[3]
            if not number:
                return self._list(resource, query) if method == "GET" else self._create(resource, body)
            one = self.objects[resource].get(number)
            if one is None:
                return 404, {"detail": "Not found."}
            if not sub:
                return (200, self._shown(resource, one)) if method == "GET" else self._change(resource, one, body)
            if sub == "survey_spec":
                return self._survey(number, method, body)
            if sub == "create_approval_template":
                code, said = self._create("workflow_approval_templates", body)
                if code == 201:
                    one["unified_job_template"] = said["id"]
                return code, said
            return self._associate(resource, number, sub, method, body)

    def _list(self, resource: str, query: Json) -> t.Tuple[int, t.Any]:
        kinds = TEMPLATES if resource == "unified_job_templates" else (resource,)
        found = []
        for kind in kinds:
            for one in self.objects[kind].values():
                shown = self._shown(kind, one)
                asked = {k: v for k, v in query.items() if not k.startswith("or__") and v != "None"}
                exact = all(str(shown.get(k)) == v for k, v in asked.items())
                either = [str(shown.get(k[4:])) == v for k, v in query.items() if k.startswith("or__")]
                if exact and (any(either) or not either):
                    found.append(shown)
        return 200, {"count": len(found), "next": None, "results": found}

    def _create(self, resource: str, body: Json) -> t.Tuple[int, t.Any]:
        same = ("name", "organization", "credential_type", "inventory", "unified_job_template")
        if "name" in body and resource != "workflow_approval_templates":
            for other in self.objects[resource].values():
                if all(other.get(field) == body.get(field) for field in same):
                    return 400, {"__all__": [f"{resource} with this Name and Organization already exists."]}
        one = {**DEFAULTS.get(resource, {}), **body}
        wrong = self._wrong(resource, one, body, creating=True)
        if wrong:
            return 400, wrong
        self._last += 1
        one["id"] = self._last
        self.objects[resource][self._last] = one
        return 201, self._shown(resource, one)

    def _change(self, resource: str, one: Json, body: Json) -> t.Tuple[int, t.Any]:
        wrong = self._wrong(resource, {**one, **body}, body, creating=False)
        if wrong:
            return 400, wrong
        one.update(body)
        return 200, self._shown(resource, one)

    def _wrong(self, resource: str, whole: Json, sent: Json, *, creating: bool) -> t.Dict[str, t.Any]:
        """As AWX judges: what was sent by the rules of the field, the whole object by those of its kind."""
        wrong: t.Dict[str, t.Any] = dict(awx_rules.fields(resource, sent, self._is, creating=creating))
        more: t.List[str] = []
        if wrong:
            return wrong
        if resource == "credential_types":
            for field in whole.get("inputs", {}).get("fields", []):
                field.setdefault("type", "string")
            more = awx_rules.credential_type(whole)
        elif resource == "notification_templates":
            more = awx_rules.notification(whole)
            for name, rule in awx_rules.NOTIFICATIONS[whole["notification_type"]].items():
                if len(rule) > 1:
                    whole["notification_configuration"].setdefault(name, rule[1])
        elif resource == "job_templates":
            url = self.objects["projects"][whole["project"]]["scm_url"]
            if whole["playbook"] not in awx_rules.playbooks(self.projects[url]):
                more = ["Playbook not found for project."]
        elif resource == "inventory_sources" and not whole.get("source_project"):
            more = ["Project required for scm type sources."]
        elif resource == "schedules":
            more = awx_rules.rrule(whole["rrule"])
            if "extra_data" in sent:
                more += awx_rules.answers(self._questions(whole), whole["extra_data"])
        elif resource == "workflow_job_template_nodes" and whole.get("extra_data"):
            more = awx_rules.answers(self._questions(whole), whole["extra_data"], all_needed=False)
        return {"__all__": more} if more else {}

    def _questions(self, of_template: Json) -> t.List[Json]:
        return list(self.surveys.get(of_template["unified_job_template"], {}).get("spec", []))

    def _is(self, resource: str, number: int) -> bool:
        if resource == "job_templates":
            return any(number in self.objects[name] for name in TEMPLATES)
        return number in self.objects[resource]

    def _survey(self, number: int, method: str, body: Json) -> t.Tuple[int, t.Any]:
        if method == "GET":
            return 200, self.surveys.get(number, {})
        wrong = awx_rules.survey(body)
        if wrong:
            return 400, {"error": wrong[0]}
        self.surveys[number] = body
        return 200, {}

    def _associate(self, resource: str, number: int, sub: str, method: str, body: Json) -> t.Tuple[int, t.Any]:
        target = re.sub("_(started|success|error|approvals)$", "", sub)
        if sub.endswith("_nodes"):
            target = "workflow_job_template_nodes"
        if target not in self.objects:
            return 404, {"detail": "Not found."}
        ids = self.associations.setdefault(f"{resource}/{number}/{sub}", [])
        if method == "GET":
            found = [self._shown(target, self.objects[target][one]) for one in ids]
            return 200, {"count": len(found), "next": None, "results": found}
        if body["id"] not in self.objects[target]:
            return 400, {"detail": "object does not exist"}
        if body.get("disassociate"):
            ids.remove(body["id"])
        else:
            ids.append(body["id"])
        return 204, None

    def _shown(self, resource: str, one: Json) -> Json:
        url = f"/api/v2/{resource}/{one['id']}/"
        shown: Json = json.loads(json.dumps(one))
        shown.update(url=url, type=TYPES.get(resource, resource[:-1]), related={}, summary_fields={})
        if resource in ("job_templates", "workflow_job_templates"):
            shown["related"]["survey_spec"] = url + "survey_spec/"
        if resource == "workflow_job_template_nodes" and one.get("unified_job_template"):
            kind = next(name for name in TEMPLATES if one["unified_job_template"] in self.objects[name])
            shown["related"]["unified_job_template"] = f"/api/v2/{kind}/{one['unified_job_template']}/"
        configuration = shown.get("notification_configuration", {})
        for name in awx_rules.PASSWORDS:
            if configuration.get(name):
                configuration[name] = HIDDEN
        return shown

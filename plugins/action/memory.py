# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind every module of the collection (meta/runtime.yml names it).

It says which run a call belongs to, takes over from a run that this controller knows to be dead, turns a host that
cannot be reached into a failed step (so that rescue and report still run), and keeps the steps for the report.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.memops.agent_memory.plugins.module_utils._extra_vars import run
from ansible_collections.memops.agent_memory.plugins.plugin_utils import _hosts
from ansible_collections.memops.agent_memory.plugins.plugin_utils._attempt import alive, attempt, awx_job, owner
from ansible_collections.memops.agent_memory.plugins.plugin_utils._commands import complete, inventories, one_of_several
from ansible_collections.memops.agent_memory.plugins.plugin_utils._options import wrong_options
from ansible_collections.memops.agent_memory.plugins.plugin_utils._packages import bring, keep
from ansible_collections.memops.agent_memory.plugins.plugin_utils._progress import Watch, every
from ansible_collections.memops.agent_memory.plugins.plugin_utils._reader import end_unread
from ansible_collections.memops.agent_memory.plugins.plugin_utils._report_words import shown
from ansible_collections.memops.agent_memory.plugins.plugin_utils._steps import (
    incident_of,
    of_this_run,
    remember,
    remember_incident,
    report_dir,
    save,
)
from ansible_collections.memops.agent_memory.plugins.plugin_utils._traces import Traces, of_module
from ansible_collections.memops.agent_memory.plugins.plugin_utils._variables import passed_over, sentence, unknown

display = Display()
KILLED = (-9, 137)  # exit codes after SIGKILL, of a process and as a shell tells it
PART_SECONDS = 30.0  # a watch says how it goes about as often
LONGEST_LEASE = 75.0  # seconds; longer than any lease that is not renewed
LOOK_SECONDS = 2.0  # how often to look whether a lease is over
COLLECTION = "memops.agent_memory."
# Without this Python reads a program from standard input byte by byte, 0.4 s for each megabyte of a package.
AT_ONCE = " -c 'import sys; exec(sys.stdin.buffer.read())'"
SHARED = COLLECTION + "dispatch"  # what modules are sent as, so that a run packs their code once
# the roles of several modules
SEVERAL = ("backup", "disaster_recovery", "doctor", "failback", "failover", "info", "rebuild", "rotate_master_key")


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments.setdefault("attempt", attempt(task_vars.get("awx_workflow_job_id")))
        arguments.setdefault("owner", owner())
        if self._task.action.endswith("monitor") and not self._task.check_mode:
            arguments.setdefault("part", PART_SECONDS)
        started = time.time()
        result = self._misspelt(task_vars) or self._chosen_in_vain(task_vars) or _mistaken(arguments)
        result = result or self._watched(arguments, task_vars)
        if self._task.action.endswith("doctor"):
            # only here, since every run of every playbook loads this file
            from ansible_collections.memops.agent_memory.plugins.module_utils._operations.doctor_clock import settle

            settle(result, started, time.time())
        dead = self._dead_holder(result)
        if dead:
            result = self._watched({**arguments, "takeover": dead}, task_vars)
        if awx_job():
            result = self._outwait(result, arguments, task_vars)
        while self._task.action.endswith("monitor") and result.get("watching") and not result.get("failed"):
            display.display(f"    {shown(result['said'], 300)}")
            result = self._call({**arguments, "again": False}, task_vars)
            result["changed"] = True
        complete(result, inventories(), lambda: one_of_several(task_vars))
        self._keep_step(result, task_vars, started)
        self._trace(arguments, result, task_vars, started)
        handled = self._task.failed_when or self._task.ignore_errors  # who deals with a failure reads all of it
        return _brief(result) if result.get("failed") and not handled else result

    def _misspelt(self, task_vars: dict[str, t.Any]) -> dict[str, t.Any] | None:
        """Refuse a variable that is nearly one of the collection's: ignoring it would do what was not asked for."""
        misspelt, others = unknown(task_vars)
        for name in others:
            display.warning(f"{name} is no variable of this collection and has no effect.")
        if not misspelt:
            return None
        return _invalid(sentence(*misspelt[0]))

    def _chosen_in_vain(self, task_vars: dict[str, t.Any]) -> dict[str, t.Any] | None:
        """Refuse what is to choose some records where the step would work on all of them."""
        name = self._task.action.rpartition(".")[2]
        missed = passed_over(name if name == "undo" else task_vars.get("play_role", ""), task_vars)
        return _invalid(missed) if missed else None

    def _watched(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Call the module, and show meanwhile how far it is."""
        watch = self._watch(task_vars)
        if watch is None:
            return self._call(arguments, task_vars)
        try:
            return self._call({**arguments, "progress_file": watch.path}, task_vars)
        finally:
            watch.stop()

    def _call(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        host = self._task.delegate_to or task_vars.get("inventory_hostname", "the memory host")
        try:
            result = self._execute_module(
                module_name=_payload(self._task.action, task_vars, self._local()),
                module_args={**arguments, "module": self._task.action.rpartition(".")[2]},
                task_vars=task_vars,
                wrap_async=bool(self._task.async_val),
            )
        except AnsibleConnectionFailure as exc:
            return _hosts.unreachable(str(host), str(exc))
        except AnsibleError as exc:
            refused = _hosts.refused(str(host), str(exc))
            if refused is None:
                raise
            return refused
        # since 2.19 Ansible has the words of an exception with a cause in its summary of it alone
        said = str(result.get("msg") or result.get("exception"))
        refused = _hosts.refused(str(host), said) if result.get("failed") else None
        if "module_stdout" in result:
            told = f"{result.get('module_stderr') or ''}\n{result['module_stdout']}"
            refused = refused or _hosts.forbidden(str(host), told)
        if refused:
            return refused
        if result.get("rc") == 127 and "interpreter" in str(result.get("msg")):
            return self._without_python(host, f"has no Python at {self._python()}")
        if result.get("rc") in KILLED and "module_stdout" in result:
            return _hosts.failed(
                "host-killed",
                f"The step was killed on {host} before it could answer. "
                "Next: look there for why (dmesg, when memory ran out), then run the same command again.",
            )
        if "module_stdout" in result:  # it gave no result, as a module does that was begun
            said = f"{result.get('module_stderr') or ''}\n{result['module_stdout']}"
            if "Traceback" not in said:
                lines = [line for line in said.splitlines() if not line.startswith("Shared connection to ")]
                why = " ".join(" ".join(lines).split())[:300].rstrip(". ")
                why = why or f"it said nothing (status {result.get('rc')})"
                return self._without_python(host, f"cannot run {self._python()} as its Python: {why}")
        return t.cast("dict[str, t.Any]", result)

    def _python(self) -> str:
        python = getattr(self, "_used_interpreter", None) or "the path in ansible_python_interpreter"
        return str(python).lstrip("#!")

    def _without_python(self, host: str, why: str) -> dict[str, t.Any]:
        return _hosts.failed(
            "host-not-prepared",
            f"{host} {why}. Next: correct its ansible_python_interpreter and run the same command again, or "
            f"have a Python made there: {run('prepare', memory_hosts=host)}",
        )

    def _watch(self, task_vars: dict[str, t.Any]) -> Watch | None:
        """None when nothing is to be shown, or the module tells it itself."""
        seconds = every(self._templar.template(task_vars.get("memory_progress_seconds")))
        if not seconds or self._task.check_mode or self._task.async_val or self._task.action.endswith("monitor"):
            return None
        host = str(task_vars.get("inventory_hostname", ""))
        namespace = self._namespace(task_vars)
        counts = [step["result"].get("records") for step in of_this_run(host, namespace)] if namespace else []
        known = [count for count in counts if isinstance(count, int)]
        return Watch(self._connection, namespace or host, seconds, known[-1] if known else None)

    def _local(self) -> bool:
        """Whether the host is this machine, so that nothing goes over a network."""
        return bool(self._connection.transport == "local")

    def _configure_module(self, module_name: str, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """Where Ansible packs the module; a package of an earlier run serves as well."""
        if not module_name.startswith(COLLECTION):  # Ansible's own around ours
            return super()._configure_module(module_name, *args, **kwargs)
        bring(module_name, self._local())
        packed = super()._configure_module(module_name, *args, **kwargs)
        keep(module_name, self._local())
        return packed

    def _low_level_execute_command(self, cmd: str, *args: t.Any, in_data: t.Any = None, **kwargs: t.Any) -> t.Any:
        """With pipelining a module comes by standard input."""
        if in_data and b"ANSIBALLZ_WRAPPER" in to_bytes(in_data)[:4096]:
            cmd += AT_ONCE
        return super()._low_level_execute_command(cmd, *args, in_data=in_data, **kwargs)

    def _update_module_args(
        self, module_name: str, module_args: dict[str, t.Any], *args: t.Any, **kwargs: t.Any
    ) -> None:
        """What a person reads, and the host's log, name the module of the task and not what it is sent as."""
        super()._update_module_args(module_name, module_args, *args, **kwargs)
        module_args["_ansible_module_name"] = self._task.action

    def cleanup(self, force: bool = False) -> None:
        """A host that is gone keeps its temporary folder; that must not undo what was caught above."""
        with contextlib.suppress(AnsibleConnectionFailure):
            super().cleanup(force)
        end_unread()

    def _dead_holder(self, result: dict[str, t.Any]) -> str | None:
        """The attempt that holds the lease, if it ran on this controller and its process is gone."""
        if result.get("error") != "lease-held":
            return None
        holder = str((result.get("holder") or {}).get("attempt") or "")
        return holder if holder and alive(holder) is False else None

    def _outwait(
        self, result: dict[str, t.Any], arguments: dict[str, t.Any], task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """A job that is relaunched cannot know whether the one before it still runs: each has a container of its own.

        Who is alive renews its lease, so one whose end stays the same is waited for until it is over.
        """
        until = _lease_end(result)
        deadline = time.monotonic() + LONGEST_LEASE
        if until:
            display.display(f"    {result.get('msg')} Waiting for the end of that lease, unless it is renewed.")
        while until and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            result = self._watched(arguments, task_vars)
            until = until if _lease_end(result) == until else None
        return result

    def _keep_step(self, result: dict[str, t.Any], task_vars: dict[str, t.Any], started: float) -> None:
        """Keep what happened for the report, when the role named this a step of the runbook."""
        host = str(task_vars.get("inventory_hostname", ""))
        name = self._value(task_vars, "memory_step")
        if not name:
            if not self._task.check_mode and str(self._task.delegate_to or host) == host:
                remember_incident(host, self._namespace(task_vars), result.get("incident"))
            return
        failed = bool(result.get("failed"))
        judged = result.get("error") == "verdict"  # the step did its work; what it found is not a pass
        step = {
            "name": name,
            "namespace": self._namespace(task_vars),
            "verdict": result.get("verdict") or ("fail" if failed else "pass"),
            "failed": failed,
            "changed": bool(result.get("changed")),
            "started": _rfc3339(started),
            "seconds": round(time.time() - started, 3),
            "host": str(self._task.delegate_to or task_vars.get("inventory_hostname", "")),
            "attempt": attempt(task_vars.get("awx_workflow_job_id")),
            "check": bool(self._task.check_mode),
            "detail": "; ".join(map(str, result.get("reasons") or ()))
            if judged
            else str(result.get("msg") or result.get("detail") or ""),
            "result": {
                k: v
                for k, v in result.items()
                if not k.startswith("_ansible") and k not in NOT_KEPT and not (judged and k == "failed")
            },
        }
        remember(host, step)
        if not self._task.check_mode:
            try:
                save(
                    report_dir(self._value(task_vars, "memory_report_dir")),
                    host,
                    step["namespace"],
                    named=self._value(task_vars, "memory_incident"),
                    cluster=self._value(task_vars, "memory_cluster"),
                )
            except OSError as exc:
                result.setdefault("warnings", []).append(f"The steps cannot be kept for the report: {exc}")

    def _trace(
        self, arguments: dict[str, t.Any], result: dict[str, t.Any], task_vars: dict[str, t.Any], started: float
    ) -> None:
        """Export the spans of this call where a receiver is set."""
        endpoint = self._value(task_vars, "memory_otlp_endpoint")
        if not endpoint or self._task.check_mode:
            return
        host, namespace = str(task_vars.get("inventory_hostname", "")), self._namespace(task_vars)
        step = self._value(task_vars, "memory_step") or ""
        at = str(self._task.delegate_to or host)
        traces = Traces(endpoint, host, namespace)
        spans = of_module(traces, self._task.action.rpartition(".")[2], step, arguments, result, started, at)
        incident = incident_of(
            report_dir(self._value(task_vars, "memory_report_dir")),
            host,
            namespace,
            named=self._value(task_vars, "memory_incident"),
            cluster=self._value(task_vars, "memory_cluster"),
        )
        problem = traces.add(spans, incident, last=not namespace)
        if problem:
            result.setdefault("warnings", []).append(problem)

    def _value(self, task_vars: dict[str, t.Any], name: str) -> str | None:
        value = self._templar.template(task_vars.get(name))
        return str(value) if value else None

    def _namespace(self, task_vars: dict[str, t.Any]) -> str:
        # the task's own are evaluated already, and once is enough: a namespace may look like a template
        named = self._task.args.get("namespace") or self._task.args.get("namespaces")
        if not named:
            named = self._templar.template(task_vars.get("memory_target"))
        if isinstance(named, (list, tuple)):
            named = named[0] if len(named) == 1 else ""
        return str(named or "")


def _invalid(said: str) -> dict[str, t.Any]:
    return _hosts.failed("invalid-input", said)


def _mistaken(arguments: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    """Refuse options that a store, a repository or a keyring does not have, with what was probably meant."""
    for name in ("store", "repository", "keyring"):
        wrong = wrong_options(f"memory_{name}", arguments.get(name))
        if wrong:
            return _invalid(wrong[0])
    return None


def _lease_end(result: dict[str, t.Any]) -> str | None:
    """When the lease that stopped a module ends, as it was told; None when no lease did."""
    if result.get("error") != "lease-held":
        return None
    return str((result.get("holder") or {}).get("until") or "") or None


def _payload(module: str, task_vars: dict[str, t.Any], local: bool) -> str:
    """What is sent for ``module``. Over a network a step by itself is sooner done without the code of the others."""
    if local:
        return SHARED
    role = str(task_vars.get("ansible_role_name") or "")
    step = role.startswith(COLLECTION) and role[len(COLLECTION) :] not in SEVERAL
    return module if step and not task_vars.get("ansible_parent_role_names") else SHARED


def _brief(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """A failure for a person, without what Ansible would print beside its sentence: that in parts once more, and long
    lists, which the report has."""
    judged = result.get("error") == "verdict"
    said = str(result.get("msg"))
    return {
        name: value
        for name, value in result.items()
        if name in SHORT or not (_repeats(value, said) or (judged and name != "reasons" and len(str(value)) > 200))
    }


def _repeats(value: t.Any, said: str) -> bool:
    parts = value if isinstance(value, list) else [value]
    return all(isinstance(part, str) and len(part) > 20 and part.rstrip(".") in said for part in parts)


SHORT = ("msg", "error", "exception")
NOT_KEPT = ("diff", "invocation", "deprecations", "warnings", "exception")


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}Z"

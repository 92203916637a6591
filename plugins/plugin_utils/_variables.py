# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the collection, so that a misspelt one is not silently without effect.

PRIVATE to the collection.
"""

from __future__ import annotations

import difflib
import typing as t

#: Variables that no role lists among its options: of the playbooks, of the inventory, and those that roles set.
INTERNAL = frozenset(
    {
        "memory_hosts",
        "memory_new_application_key",  # a secret: no role writes it down
        "memory_only_cluster",
        "memory_results",
        "memory_role",
        "memory_route_direction",
        "memory_route_namespace",
        "memory_route_store",
        "memory_route_to",
        "memory_schedule_hosts",
        "memory_secondary_writes",
        "memory_serial",
        "memory_step",
    }
)
#: Variables that the action plugins read on the controller, beside any role.
OF_ACTIONS = frozenset({"memory_progress_seconds"})
#: All of them; a unit test compares them with the roles' argument specifications.
KNOWN = INTERNAL | OF_ACTIONS | frozenset(
    {
        "memory_absent",
        "memory_accept_loss",
        "memory_accept_reason",
        "memory_again",
        "memory_awx_approval_seconds",
        "memory_awx_credentials",
        "memory_awx_image",
        "memory_awx_image_credential",
        "memory_awx_inventory",
        "memory_awx_inventory_branch",
        "memory_awx_inventory_credential",
        "memory_awx_inventory_path",
        "memory_awx_inventory_url",
        "memory_awx_notifications",
        "memory_awx_organization",
        "memory_awx_playbook_dir",
        "memory_awx_prefix",
        "memory_awx_project_branch",
        "memory_awx_project_credential",
        "memory_awx_project_url",
        "memory_awx_report_dir",
        "memory_awx_schedules",
        "memory_awx_update_secrets",
        "memory_benchmark",
        "memory_cluster",
        "memory_create",
        "memory_depth",
        "memory_doctor",
        "memory_doctor_checks",
        "memory_doctor_fail",
        "memory_doctor_probe",
        "memory_dr_host",
        "memory_dr_store",
        "memory_dr_switch",
        "memory_export_dir",
        "memory_failback",
        "memory_failover",
        "memory_failover_min_interval",
        "memory_failover_required",
        "memory_failover_scope",
        "memory_force",
        "memory_group",
        "memory_hit_rate_source",
        "memory_hold",
        "memory_hold_reason",
        "memory_hold_state",
        "memory_incident",
        "memory_keep",
        "memory_keep_forensic",
        "memory_keep_grace",
        "memory_keep_incidents",
        "memory_keep_last",
        "memory_keep_read_log",
        "memory_keep_tombstones",
        "memory_keep_within",
        "memory_keep_write_log",
        "memory_key_age",
        "memory_keyring",
        "memory_keys",
        "memory_last_good_before",
        "memory_logs",
        "memory_metrics_dir",
        "memory_metrics_scan",
        "memory_metrics_show",
        "memory_metrics_window",
        "memory_min_interval",
        "memory_monitor_interval",
        "memory_monitor_seconds",
        "memory_namespace",
        "memory_namespaces",
        "memory_new_application_key_file",
        "memory_new_master_key",
        "memory_new_repository",
        "memory_notify",
        "memory_onset",
        "memory_otlp_endpoint",
        "memory_outside_fence",
        "memory_owner",
        "memory_owners",
        "memory_pattern",
        "memory_pip_index",
        "memory_prepare_user",
        "memory_purpose",
        "memory_python",
        "memory_recent",
        "memory_report_dir",
        "memory_repository",
        "memory_respond",
        "memory_retire",
        "memory_restore_expiry",
        "memory_route",
        "memory_schedule",
        "memory_schedule_arguments",
        "memory_schedule_collections",
        "memory_schedule_command",
        "memory_schedule_dir",
        "memory_schedule_enable",
        "memory_schedule_every",
        "memory_schedule_inventory",
        "memory_schedule_jitter",
        "memory_schedule_jobs",
        "memory_schedule_limit",
        "memory_schedule_metrics_dir",
        "memory_schedule_name",
        "memory_schedule_python",
        "memory_schedule_scope",
        "memory_schedule_state",
        "memory_schedule_state_dir",
        "memory_scrub_seconds",
        "memory_search",
        "memory_since",
        "memory_slo",
        "memory_snapshot",
        "memory_spool",
        "memory_store",
        "memory_strategy",
        "memory_target",
        "memory_to_namespace",
        "memory_until",
        "memory_venv",
        "memory_verdict",
        "memory_webhook",
        "memory_wheels",
        "memory_work_dir",
    }
)
#: What a person may choose records by, and the steps that would pass over some of it and work on more than was meant.
CHOOSING = ("memory_keys", "memory_pattern", "memory_since", "memory_until")
CHOOSES: t.Dict[str, t.Tuple[str, ...]] = {"restore": ("memory_keys", "memory_pattern"), "export": (), "undo": ()}
#: How alike two names have to be for the one to be a slip of the pen for the other.
ALIKE = 0.84


def sentence(name: str, meant: str) -> str:
    return f"There is no variable {name}; nothing was changed. Next: did you mean {meant}?"


def passed_over(step: str, given: t.Mapping[str, t.Any]) -> t.Optional[str]:
    """A sentence when the step would take no notice of what is to choose its records."""
    chooses = CHOOSES.get(step)
    for name in CHOOSING if chooses is not None else ():
        if name not in chooses and given.get(name) not in (None, "", []):
            told = f"choose by {' or '.join(chooses)}" if chooses else "leave it out: it is of whole namespaces"
            return f"{step} takes no notice of {name}; nothing was changed. Next: {told}."
    return None


def unknown(names: t.Iterable[t.Any]) -> t.Tuple[t.List[t.Tuple[str, str]], t.List[str]]:
    """Names that begin as the collection's do but are none of its: (name, meant) where one is close, the rest."""
    misspelt: t.List[t.Tuple[str, str]] = []
    others: t.List[str] = []
    for name in sorted(n for n in names if isinstance(n, str) and n.startswith("memory_") and n not in KNOWN):
        close = difflib.get_close_matches(name, KNOWN, n=1, cutoff=ALIKE)
        if close:
            misspelt.append((name, close[0]))
        else:
            others.append(name)
    return misspelt, others

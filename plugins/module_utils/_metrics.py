# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics in Prometheus' conventions: a file for node_exporter's textfile collector, and OTLP as JSON over HTTP.

PRIVATE to the collection. Standard library only. All metrics are gauges: what is, when it was asked.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import typing as t
import urllib.parse

from ._deadline import within
from ._errors import InvalidInput, StoreUnavailable
from ._files import replace_file

#: Each metric that the collection has, and what it says.
HELP: t.Final = {
    "memops_backup_locked_until_timestamp_seconds": "Until when a lock keeps the newest good snapshot; 0: none does.",
    "memops_backup_last_success_timestamp_seconds": "When the newest good snapshot of everything was taken; 0: never.",
    "memops_backup_suspect": "1 while the newest snapshot is suspect: retention stands still until it is accepted.",
    "memops_drill_last_success_timestamp_seconds": "When a snapshot last was restored and passed; 0: never.",
    "memops_fence_standing": "1 while a namespace is quarantined: no application reads or writes it.",
    "memops_hit_rate": "Share of the applications' reads that came back whole, in the last minutes.",
    "memops_integrity_findings": "Damaged records of a namespace.",
    "memops_job_last_exit_code": "Exit status of the last run of a scheduled job.",
    "memops_key_age_seconds": "Age of the record key that seals new records.",
    "memops_metrics_timestamp_seconds": "When these metrics were gathered.",
    "memops_records": "Rows of a namespace's active generation, tombstones included.",
    "memops_replication_lag_seconds": "How far a copy is behind: the age of the newest state that it holds.",
    "memops_repository_up": "1 when the snapshot repository could be read.",
    "memops_scrub_last_success_timestamp_seconds": "When every record was last read and checked; 0: never.",
    "memops_snapshots": "Snapshots in the repository.",
    "memops_snapshots_held": "Snapshots that a hold keeps from being removed.",
    "memops_standby": "1 for a copy that no application uses: a secondary's, or a replica's.",
}
LABEL = re.compile(r"\A[a-zA-Z_][a-zA-Z0-9_]*\Z")


class Sample(t.NamedTuple):
    """One value of one metric."""

    name: str
    labels: t.Mapping[str, str]
    value: float


def write_textfile(path: str, samples: t.Sequence[Sample]) -> bool:
    """Replace ``path`` (its folder exists) as a whole, so that no reader sees half of it; whether it differs now.

    Errors: InvalidInput when the name does not end in .prom, which the collector wants, or for a metric that nobody
    knows; OSError.
    """
    if not path.endswith(".prom"):
        name = os.path.basename(path)
        raise InvalidInput(f"The textfile collector reads no {name!r:.80}.", "let its name end in .prom")
    data = render(samples).encode()
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return False
    except FileNotFoundError:
        pass
    replace_file(path, data)
    return True


def render(samples: t.Sequence[Sample]) -> str:
    """Prometheus' text format: the samples of a metric together, with its help and type."""
    lines = []
    for name, group in _by_name(samples).items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        for sample in group:
            pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in sorted(sample.labels.items()))
            lines.append(f"{name}{{{pairs}}} {shown(sample.value)}" if pairs else f"{name} {shown(sample.value)}")
    return "".join(line + "\n" for line in lines)


def shown(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(float(value), 6))


def otlp(samples: t.Sequence[Sample]) -> dict[str, t.Any]:
    """The samples as an OTLP ExportMetricsServiceRequest in JSON, of now.

    OTLP's own names are those of Prometheus here, so that a dashboard reads both.
    """
    nanoseconds = str(int(time.time() * 1e9))
    metrics = []
    for name, group in _by_name(samples).items():
        points = [
            {
                "timeUnixNano": nanoseconds,
                "asDouble": float(sample.value),
                "attributes": [
                    {"key": label, "value": {"stringValue": text}} for label, text in sorted(sample.labels.items())
                ],
            }
            for sample in group
        ]
        unit = "s" if name.endswith("_seconds") else "1"
        metrics.append({"name": name, "description": HELP[name], "unit": unit, "gauge": {"dataPoints": points}})
    service = {"key": "service.name", "value": {"stringValue": "memops.agent_memory"}}
    scope = {"scope": {"name": "memops.agent_memory"}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": {"attributes": [service]}, "scopeMetrics": [scope]}]}


def send(url: str, samples: t.Sequence[Sample], timeout: float = 10.0) -> None:
    """POST the samples to an OTLP receiver: its base (http://collector:4318) or the whole address of its metrics.

    Errors: InvalidInput for an address that is none, StoreUnavailable when the receiver cannot be reached or refuses.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        port = parts.port
    except ValueError:
        usable, port = False, None
    if not usable:
        raise InvalidInput(
            "The OTLP endpoint is no http:// or https:// address without a login.", "correct memory_otlp_endpoint"
        )
    path = parts.path.rstrip("/")
    path = path if path.endswith("/v1/metrics") else path + "/v1/metrics"
    body = json.dumps(otlp(samples), separators=(",", ":")).encode()
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", port, timeout=timeout)
    try:
        with within(connection, timeout):  # what it says beside the status is nothing to us
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
        why = "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    except (OSError, http.client.HTTPException) as exc:
        why = str(exc) or type(exc).__name__
    finally:
        connection.close()
    if why:
        raise StoreUnavailable(
            f"The OTLP receiver at {parts.netloc}{path} took no metrics: {why:.200}.", "look at the receiver"
        )


def _by_name(samples: t.Sequence[Sample]) -> dict[str, list[Sample]]:
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.name not in HELP or not all(map(LABEL.match, sample.labels)):
            raise InvalidInput(f"There is no metric {sample.name!r:.80} with these labels.", "use one of _metrics.HELP")
        grouped.setdefault(sample.name, []).append(sample)
    return dict(sorted(grouped.items()))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

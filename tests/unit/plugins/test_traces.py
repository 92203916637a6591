# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a run waits for the receiver of its spans."""
from __future__ import annotations

import socket

import pytest

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _traces


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("150", 0.15), ("300000", 300.0), ("", 0.8), ("0", 0.8), ("soon", 0.8), ("1e3", 0.8), ("9" * 99, 0.8)],
)
def test_the_time_out_is_that_of_opentelemetry(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", given)
    assert _traces._longest() == seconds


def test_a_receiver_that_never_answers_is_left_after_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "150")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = _traces._post(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", b"{}")
    assert said in ("no answer within 0.15 s", "timed out")

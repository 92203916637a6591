# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How these tests are handed out to processes: one by one, but for files whose tests go on from each other."""
from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

IN_ORDER = ("test_lab.py", "test_ssh_hosts.py")


class Scheduling(LoadScopeScheduling):
    """``--dist loadgroup`` would do, but its marks are lost on pytest 9.2, which keeps no node id that was set."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(IN_ORDER) else nodeid

    def _reschedule(self, node: WorkerController) -> None:
        """A process needs to know the test after the present one, and no more: those that wait behind a test of minutes
        are somebody else's to run."""
        if self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)

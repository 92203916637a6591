# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks on the records of an application that knows nothing of this collection."""

from __future__ import annotations

import pathlib
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from playbooks import Outcome, Site


class ApplicationPlays(Site):
    """One memory host and its store; no route, since nobody follows one.

    ``site`` has ``store``, ``repository`` and ``keyring``, as the modules take them, and ``server`` where there is one.
    """

    def __init__(self, folder: pathlib.Path, site: t.Any) -> None:
        self.folder, self.stores, self.bench = folder, {"primary": site.store}, getattr(site, "server", None)
        self.reports, self.inventory = folder / "reports", folder / "inventory.json"
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "memory_cluster": "site",
            "memory_repository": site.repository,
            "memory_keyring": {**site.keyring, "path": str(folder / "no-keyring.json")},
            "memory_route": {"kind": "none"},
            "memory_report_dir": str(self.reports),
            "memory_monitor_seconds": 1,
            "memory_monitor_interval": "0.5",
        }
        self.write_inventory()

    def told(self, playbook: str, *arguments: str, changed: bool, status: int = 0, **variables: t.Any) -> Outcome:
        outcome = self.play(playbook, *arguments, **variables)
        assert outcome.status == status, outcome.text[-6000:]
        assert (outcome.changed > 0) is changed, outcome.text[-6000:]
        assert "Traceback" not in outcome.text
        return outcome


def next_second() -> str:
    """Waits until the next second begins, and returns it as ``memory_since`` takes it."""
    since = _utc(time.time() + 1)
    while _utc(time.time()) < since:
        time.sleep(0.05)
    return since


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))

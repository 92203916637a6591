# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks on the records of an application that knows nothing of this collection."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import signal
import sys
import threading
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from playbooks import Outcome, Site


class ApplicationPlays(Site):
    """One memory host and its store; no route, since nobody follows one.

    ``site`` has ``store``, ``repository`` and ``keyring``, as the modules take them.
    """

    def __init__(self, folder: pathlib.Path, site: t.Any, bench: t.Any = None, **variables: t.Any) -> None:
        self.folder, self.stores, self.bench = folder, {"primary": site.store}, bench
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
            **variables,
        }
        self.write_inventory()

    def told(self, playbook: str, *arguments: str, changed: bool, status: int = 0, **variables: t.Any) -> Outcome:
        outcome = self.play(playbook, *arguments, **variables)
        assert outcome.status == status, outcome.text[-6000:]
        assert (outcome.changed > 0) is changed, outcome.text[-6000:]
        assert "Traceback" not in outcome.text
        return outcome

    def killed_in_apply(self, holds: t.Callable[[str], bool], **variables: t.Any) -> Outcome:
        """A rebuild whose module process is killed (SIGKILL) in the middle of apply.

        ``holds`` is told again and again what the journal noted last, such as ``plan result`` and ``apply intent``; it
        says True when it keeps what apply needs next, so that it waits. It lets go of that when it is told ``killed``.
        """
        process = self.start("rebuild", **variables)
        said: list[str] = []
        reading = threading.Thread(target=lambda: said.append(t.cast(t.IO[str], process.stdout).read()))
        reading.start()
        try:
            while not (holds(self._noted()) and self._noted() == "apply intent"):
                assert process.poll() is None, said
                time.sleep(0.005 if self._noted() in ("plan result", "apply intent") else 0.1)  # the machine has others
            for pid in _modules(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            holds("killed")
            assert self._noted() == "apply intent"
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            reading.join()
        return Outcome(process.returncode, 0, said[0])

    def _noted(self) -> str:
        """What the newest journal of an incident noted last: a step and its phase."""
        found = glob.glob(f"{self.folder}/**/journal.jsonl", recursive=True)  # which minds no folder that vanishes
        newest = max(found, key=os.path.getmtime, default=None)
        lines = pathlib.Path(newest).read_bytes().splitlines() if newest else []
        whole = [json.loads(line) for line in lines if line.endswith(b"}")]
        return f"{whole[-1]['step']} {whole[-1]['phase']}" if whole else ""


def _modules(play: int) -> list[int]:
    """The processes of modules that this ansible-playbook runs on this machine."""
    parents, modules = {}, []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes().split(b"\0")
            if len(words) > 1 and b"AnsiballZ_" in words[1]:
                modules.append(int(path.name))
    return [pid for pid in modules if play in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> t.Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def next_second() -> str:
    """Waits until the next second begins, and returns it as ``memory_since`` takes it."""
    since = _utc(time.time() + 1)
    while _utc(time.time()) < since:
        time.sleep(0.05)
    return since


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))

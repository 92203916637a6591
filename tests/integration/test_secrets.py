# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted secrets and plain text are searched for in everything that a whole rebuild leaves, says and runs."""

from __future__ import annotations

import pathlib
import sys
import threading
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decoded import agreed
from s3_server import S3Server

from playbooks import Site

PLAIN = "the-plain-text-of-a-memory"


class Processes:
    """Looks at every command line on the machine until it is stopped."""

    def __init__(self, words: t.Sequence[str]) -> None:
        self.words = [word.encode() for word in words]
        self.seen: set[str] = set()
        self.looks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.looks += 1
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                self.seen.update(word.decode() for word in self.words if word in line)

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def search(folder: pathlib.Path, words: t.Sequence[str], besides: t.Collection[pathlib.Path]) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in besides:
            data = path.read_bytes()
            found += [f"{path}: {word}" for word in words if word.encode() in data]
    return found


def test_a_rebuild_leaves_no_secret_and_no_plain_text(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "site"
    home.mkdir()
    with S3Server(str(tmp_path / "s3")) as server:
        site = Site(home, memory_repository=server.repository("site"))
        master = pathlib.Path(site.keyring["master_key_file"])
        secrets = [server.secret_key, master.read_text().strip()]
        site.fill("agent-7", 200)
        memory = site.memory()
        memory.write_many("agent-7", {f"plain-{n}": {"fact": f"{PLAIN} {n}"} for n in range(50)})
        memory.close()
        site.read("agent-7", 150)
        said = ""
        with Processes([*secrets, PLAIN]) as processes:
            outcome = site.play("backup", "-vvv")
            assert outcome.status == 0, outcome.text[-3000:]
            said += outcome.text
            site.flip("agent-7", ["key-00003", "plain-7"])
            with site.working("agent-7"):
                outcome = site.play("rebuild", "-vvv", "--diff", memory_namespace="agent-7")
            assert outcome.status == 0, outcome.text[-3000:]
            said += outcome.text
            with site.memory() as memory:
                live = site.stores["primary"]["path"]
                agreed(site.reports, memory, site.variables["memory_repository"], str(master), live)
            site.variables["memory_repository"]["endpoint_url"] = "http://127.0.0.1:1"
            site.write_inventory()
            outcome = site.play("backup", "-vvv")  # an error must not tell either
            assert outcome.status != 0
            assert "Next:" in outcome.text
            said += outcome.text
        assert processes.looks > 20
        assert processes.seen == set()
        words = [*secrets, PLAIN]
        assert [word for word in words if word in said] == []
        assert search(home, words, {site.inventory, master}) == []
        assert search(tmp_path / "s3", words, {tmp_path / "s3" / "s3.json"}) == []
        # the search itself finds what is there
        assert search(home, secrets, set()) != []
        assert b"agent-7" in (site.reports / next(p.name for p in site.reports.iterdir()) / "report.json").read_bytes()

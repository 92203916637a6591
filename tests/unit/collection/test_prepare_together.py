# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several memory hosts of an inventory may be one machine, and are prepared at the same time."""
from __future__ import annotations

import pathlib
import subprocess
import sys

import jinja2
import yaml

TASKS = pathlib.Path(__file__).resolve().parents[3] / "roles" / "prepare" / "tasks" / "install.yml"


def test_hosts_that_are_one_machine_make_its_environment_once(tmp_path: pathlib.Path) -> None:
    given = yaml.safe_load(TASKS.read_text(encoding="utf-8"))[0]["vars"]
    place = tmp_path / "venv"
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    values = {"prepare_python": sys.executable, "prepare_venv": str(place), "prepare_found": found}
    command = [jinja2.Template(one).render(values) for one in given["prepare_open"] + given["prepare_make"]]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _one in range(2)]
    ended = [(one.communicate(timeout=900), one.returncode) for one in both]
    assert [code for _said, code in ended] == [0, 0], ended
    assert sorted(said[0].strip() for said, _code in ended) == ["", "made"]
    assert subprocess.run([place / "bin" / "python", "-c", "import pip"], check=False).returncode == 0
    assert place.stat().st_mode & 0o777 == 0o755

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In place of the get-pip script that ansible-test would download: pip comes with Python."""
from __future__ import annotations

import os
import subprocess
import sys

env = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
args = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
# In a process of its own: ensurepip switches pip's configuration off for the process that calls it.
subprocess.check_call([sys.executable, "-m", "ensurepip"], env=env, stdout=subprocess.DEVNULL)
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "-q", "--upgrade", *args], env=env))

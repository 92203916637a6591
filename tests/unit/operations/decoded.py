# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the independent decoder says of a site's newest snapshot; it shares no code with the collection."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from tests.unit.operations.runbook import NAME

DECODER = pathlib.Path(__file__).parents[2] / "decoder" / "decode_snapshot.py"


def decoded(site):
    repository = os.path.join(site.folder, "repository")
    command = [sys.executable, str(DECODER), repository, NAME, site.keyring["master_key_file"]]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

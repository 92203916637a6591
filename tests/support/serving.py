# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The end of a program that FrameworkProcess runs: each line of its input names a method and its arguments."""
from __future__ import annotations

import io
import json
import os
import sys
import typing as t


def serve(make: t.Callable[[], t.Any]) -> None:
    """Call what is asked of the application that ``make`` makes, and answer each line by one."""
    out, sys.stdout = sys.stdout, io.StringIO()  # frameworks print what happens
    application = make()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = {"answer": getattr(application, asked["do"])(*asked["arguments"])}
        except Exception as exc:
            said = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(said), file=out, flush=True)
    os._exit(0)  # what the frameworks do at the end takes seconds

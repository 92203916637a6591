# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""A program that uses an agent framework, in a process of its own: its methods are called from here.

    app = FrameworkProcess("langgraph_application.py")
    app.open(path)                                       # RuntimeError: what the framework raised there
"""
from __future__ import annotations

import typing as t

from .applications import Application


class FrameworkProcess(Application):
    """``app.put(…)`` calls ``put`` of the program's application, which ``serving.serve`` answers for."""

    def __getattr__(self, method: str) -> t.Callable[..., t.Any]:
        return lambda *arguments: self.ask(method, arguments=arguments)

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The first change of an operator makes the collection's own tables beside those of an application."""
from __future__ import annotations

import contextlib
import os
import signal

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._engines.postgresql_session import Session
from tests.unit.operations.runbook import attempt
from tests.unit.tables.test_custom_tables import FILL, PLAIN, made

__all__ = ["made"]


@pytest.mark.parametrize("which", [1, 2, 3])
def test_who_is_killed_after_any_of_its_first_commits_leaves_what_the_same_command_goes_on_with(made, which):
    site = made(PLAIN, FILL)
    commit, commits = Session.commit, []

    def cut(session):
        commit(session)
        commits.append(session)
        if len(commits) == which:
            os.kill(os.getpid(), signal.SIGKILL)

    killed = attempt()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "commit", cut)
            site.step("isolate", killed, "ann")
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    run = attempt(takeover=killed.attempt)
    site.step("isolate", run, "ann")
    assert site.ask("SELECT count(*) FROM \"Memories\"") == [(16,)]
    site.step("release", run, "ann", force=True)
    assert site.ask("SELECT count(*) FROM \"Memories\"") == [(24,)]

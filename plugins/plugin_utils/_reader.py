# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether anybody reads what the playbook prints.

PRIVATE to the collection. Ansible takes the results of its workers in a thread that ends for good when a line of theirs
(an item of a loop, how far a step is) goes into a pipe that nobody reads any more, and then waits for them for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat


def gone(pid: int) -> bool:
    """Whether the standard output of process ``pid`` is a pipe without a reader; False where that cannot be seen."""
    path = f"/proc/{pid}/fd/1"
    with contextlib.suppress(OSError):
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            return False
        end = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            poll = select.poll()
            poll.register(end, 0)
            return any(event & select.POLLERR for _end, event in poll.poll(0))
        finally:
            os.close(end)
    return False


def end_unread() -> None:
    """In a worker: end its playbook, as a signal ends any other program whose output nobody reads."""
    playbook = os.getppid()
    if gone(playbook):
        with contextlib.suppress(OSError):
            os.kill(playbook, signal.SIGTERM)

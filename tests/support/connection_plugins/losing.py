# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local connection, lost at a chosen module: the module still runs, its result never comes back.

A stand-in for a host that is cut off in the middle of a step. MEMOPS_LOSE names the module, and the file
MEMOPS_LOST is made when it was lost, so that the next run finds the host again.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: losing
short_description: Lose the connection at a chosen module
description: For tests.
author: The memops.agent_memory maintainers (@memops)
extends_documentation_fragment: [connection_pipelining]
"""

import os
import re
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    transport = "losing"
    has_pipelining = False

    def exec_command(self, cmd: str, *args: t.Any, **more: t.Any) -> t.Any:
        marker = os.environ["MEMOPS_LOST"]
        if os.path.exists(marker + ".gone"):
            raise AnsibleConnectionFailure("the test cut this host off")
        runs = self._runs(os.environ["MEMOPS_LOSE"], cmd)
        result = super().exec_command(cmd, *args, **more)
        if runs and not os.path.exists(marker):
            for path in (marker, marker + ".gone"):
                with open(path, "w", encoding="ascii"):
                    pass
            raise AnsibleConnectionFailure("the test cut this host off")
        return result

    @staticmethod
    def _runs(module: str, cmd: str) -> bool:
        """Whether the command runs this module: its arguments name it, whatever it is sent as."""
        script = re.search(r"/\S*/AnsiballZ_\w+\.py", cmd)
        if script is None or "chmod" in cmd:
            return False
        with open(script.group(), encoding="utf-8") as stream:
            return f'"module": "{module}"' in stream.read()

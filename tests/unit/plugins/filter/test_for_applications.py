# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A route tells applications where a store is, and never the operator's login."""
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.memops.agent_memory.plugins.filter.memory_for_applications import memory_for_applications

PLACE = {"engine": "postgresql", "url": "postgresql://db/memory", "schema": "one"}


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ({}, {}),
        ({"server": {"data_directory": "/data", "replication_password_file": "/of/the/server"}}, {}),
        ({"user": "u", "password": "secret"}, {"user": "u"}),
        ({"user": "u", "password_file": "/of/the/operator"}, {"user": "u", "password_file": "/of/the/operator"}),
        (
            {"user": "u", "password_file": "/of/the/operator", "tls_key": "/k", "application_user": "agent"},
            {"user": "agent"},
        ),
        (
            {"user": "u", "password": "secret", "application_user": "agent", "application_password_file": "/theirs"},
            {"user": "agent", "password_file": "/theirs"},
        ),
    ],
)
def test_the_login_in_a_route_is_the_applications(login, told):
    found = memory_for_applications({**PLACE, **login})
    assert found == {**PLACE, **told}
    assert memory_for_applications(found) == found


def test_a_store_that_is_no_mapping_is_said():
    with pytest.raises(AnsibleFilterError, match="Next: "):
        memory_for_applications("memory.db")

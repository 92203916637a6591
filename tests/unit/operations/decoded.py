# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What the independent decoder says of a site's newest snapshot."""

from __future__ import annotations

import json

from tests.support import decoded as support
from tests.unit.operations.runbook import NAME, NS


def decoded(site):
    return support.decoded(site.repository, NAME, site.keyring["master_key_file"])[0]


def agrees(site, served, lost_file=None):
    """A snapshot of the site as it is now holds what the store does, what is ``served`` and nothing else, and nothing
    of what a plan calls lost without an older copy."""
    taken = site.backup()["snapshot"]
    live = site.path if site.store["engine"] == "sqlite" else None
    said, values = support.decoded(site.repository, NAME, site.keyring["master_key_file"], taken, live)
    assert said["snapshot"] == taken and said["agrees"], said
    found = said["namespaces"][NS]
    assert (found["damaged"], found["unopenable"]) == (0, 0), found
    assert values[NS] == support.plain(served)
    if lost_file is not None:
        with open(lost_file, encoding="utf-8") as lines:
            lost = {line["key"] for line in map(json.loads, lines) if line["older_copy"] is None}
        assert not lost & set(values[NS])

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of an application (CREATE RULE) on its tables, by which PostgreSQL makes something else of a statement."""
from __future__ import annotations

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._errors import CannotProceed
from tests.unit.operations.runbook import attempt
from tests.unit.tables.test_application_triggers import WAYS, Lost
from tests.unit.tables.test_custom_tables import FILL, PLAIN, made

__all__ = ["made"]
NOTED = "CREATE TABLE noted (key text);"
RULES = {
    "more with each row": 'ON INSERT TO "Memories" DO ALSO INSERT INTO noted VALUES (NEW."Key")',
    "no update": 'ON UPDATE TO "Memories" DO INSTEAD NOTHING',
    "no removal": 'ON DELETE TO "Memories" DO INSTEAD NOTHING',
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("way", WAYS)
def test_a_rule_is_named_and_what_is_said_to_do_lets_the_same_command_finish(made, way, rule):
    site = made(PLAIN, FILL, NOTED)
    lost = Lost(site, way)
    site.application.execute(f"CREATE RULE rewrites AS {RULES[rule]}")
    with site.open() as store:
        assert any("the rule rewrites of" in line and "RULE rewrites" in line for line in store.warnings())
    with pytest.raises(CannotProceed, match=r"A rule of the application rewrites .*: rewrites on .* \(ON ") as caught:
        lost.bring_back()
    assert lost.rows() == lost.left
    said = caught.value.next_step.partition(" say ")[2].partition(";")[0]
    site.application.execute(said.partition(", and keep")[0])
    lost.bring_back()
    assert lost.rows() == lost.before and site.ask("SELECT count(*) FROM noted") == [(0,)]


def test_a_rule_that_does_more_with_what_is_removed_is_in_nobodys_way(made):
    rule = 'CREATE RULE more AS ON DELETE TO "Memories" DO ALSO INSERT INTO noted VALUES (OLD."Key");'
    site = made(PLAIN, FILL, NOTED, rule)
    lost = Lost(site, "hard")
    lost.bring_back()
    assert lost.rows() == lost.before


@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
def test_what_a_rule_does_in_place_of_a_write_is_no_hole_in_the_fence(made, event):
    site = made(PLAIN, FILL)
    site.application.execute(f'CREATE RULE nothing AS ON {event} TO "Memories" DO INSTEAD NOTHING')
    proof = site.step("isolate", attempt(), "ann")["proof"]
    assert proof["writes_refused"] and proof["reads_refused"]
    assert f"raw {event} on Memories: not tried, as its rule nothing does something else" in proof["detail"]
    assert any("the rule nothing" in line and line.endswith(f"in place of {event}") for line in proof["not_fenced"])
    before = site.dump("true", ['"Memories"'])
    text = 'UPDATE "Memories" SET text = NULL' if event == "UPDATE" else 'DELETE FROM "Memories"'
    done = site.application.execute(text)
    assert done.rowcount == 0 and site.dump("true", ['"Memories"']) == before
    site.close_by_release("ann")

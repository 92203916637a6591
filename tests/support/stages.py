# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test`: runs every stage also when one fails, then prints a table; exits non-zero when any failed.

Arguments are the names of the stages to run (default: all, in order). ``--list`` names them.
"""
from __future__ import annotations

import sys
import time
import traceback

import checks


def run_stage(stage: checks.Stage, number: int, total: int) -> tuple[str, str, float]:
    """(verdict, reason, seconds) of one stage; its output goes to the terminal as it comes."""
    print(f"\n=== [{number}/{total}] {stage.name}: {stage.title}", flush=True)
    started = time.monotonic()
    try:
        stage.check()
        verdict, reason = "passed", ""
    except checks.NotRun as why:
        verdict, reason = "not run", str(why)
    except checks.Failed as why:
        verdict, reason = "FAILED", str(why)
    except Exception as error:
        traceback.print_exc()
        verdict, reason = "FAILED", f"the stage itself broke: {error!r}"
    seconds = time.monotonic() - started
    print(f"--- {stage.name}: {verdict} in {seconds:.0f} s{': ' + reason if reason else ''}", flush=True)
    return verdict, reason, seconds


def main(names: list[str]) -> int:
    if names == ["--list"]:
        for stage in checks.STAGES:
            print(f"{stage.name:12} {stage.title}")
        return 0
    unknown = sorted(set(names) - {stage.name for stage in checks.STAGES})
    if unknown:
        print(f"Unknown stage: {', '.join(unknown)}. Next: choose from `make stages`.", file=sys.stderr)
        return 2
    chosen = [stage for stage in checks.STAGES if not names or stage.name in names]
    results = [(stage, *run_stage(stage, i, len(chosen))) for i, stage in enumerate(chosen, 1)]

    print(f"\n{'stage':12} {'result':8} {'seconds':>7}")
    for stage, verdict, reason, seconds in results:
        print(f"{stage.name:12} {verdict:8} {seconds:7.0f}  {reason}".rstrip())
    print(f"{'':12} {'':8} {sum(result[3] for result in results):7.0f}")
    count = {word: sum(result[1] == word for result in results) for word in ("passed", "FAILED", "not run")}
    rest = f", {count['not run']} skipped" if count["not run"] else ""
    print(f"\nstages: {count['passed']} passed, {count['FAILED']} failed{rest}", flush=True)
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

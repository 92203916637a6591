# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test`: runs every stage also when one fails, then prints a table; exits non-zero when any failed.

Arguments are the names of the stages to run (default: all). ``--list`` names them. Stages that use both cores run one
after the other; then the lanes of those that use one run side by side, and what they said is shown lane by lane. Lanes
that nothing hurries begin beside the last of those before, with what that leaves of the cores while it waits.
"""
from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import time
import traceback
import typing as t

import checks

Result = t.Tuple[str, str, str, float, str]  # name, verdict, reason, seconds, the lines that tell why
TELLING = re.compile(r"FAILED|ERROR|CRITICAL|fatal:|Error:|error:")


def run_stage(stage: checks.Stage, progress: str) -> Result:
    """One stage; its output goes to the terminal as it comes."""
    print(f"\n=== [{progress}] {stage.name}: {stage.title}", flush=True)
    started, lines = time.monotonic(), ""
    try:
        stage.check()
        verdict, reason = "passed", ""
    except checks.NotRun as why:
        verdict, reason = "not run", str(why)
    except checks.Failed as why:
        verdict, reason, lines = "FAILED", str(why), telling(why.last)
    except Exception as error:
        traceback.print_exc()
        verdict, reason = "FAILED", f"the stage itself broke: {error!r}"
    seconds = time.monotonic() - started
    print(f"--- {stage.name}: {verdict} in {seconds:.0f} s{': ' + reason if reason else ''}", flush=True)
    return stage.name, verdict, reason, seconds, lines


def telling(output: str, most: int = 8) -> str:
    """The last lines of an output that name a failure, or its last ones where none does."""
    lines = [line.rstrip()[:400] for line in output.splitlines() if line.strip()]
    return "\n".join(([line for line in lines if TELLING.search(line)] or lines)[-most:])


class Lane(t.NamedTuple):
    """One that runs: its stages, the file of their results, that of what they say, and the process."""

    names: list[str]
    told: pathlib.Path
    said: pathlib.Path
    process: subprocess.Popen[bytes]


def start(lanes: t.Sequence[t.Sequence[checks.Stage]], niceness: int = 0) -> list[Lane]:
    """Each lane in a process of its own, side by side."""
    folder = checks.WORK / "lanes"
    folder.mkdir(parents=True, exist_ok=True)
    started = []
    for lane in lanes:
        names = [stage.name for stage in lane]
        print(f"\n=== side by side: {', '.join(names)}", flush=True)
        told, said = folder / f"{lane[0].lane}.jsonl", folder / f"{lane[0].lane}.log"
        told.write_text("", encoding="utf-8")
        with open(said, "w", encoding="utf-8") as stream:
            command = ["nice", "-n", str(niceness), sys.executable, __file__, "--lane", str(told), *names]
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        started.append(Lane(names, told, said, process))
    return started


def finish(started: t.Sequence[Lane]) -> list[Result]:
    results: list[Result] = []
    for names, told, said, process in started:
        process.wait()
        print(said.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
        done = [t.cast("Result", tuple(json.loads(line))) for line in told.read_text(encoding="utf-8").splitlines()]
        results += done + [(name, "FAILED", "its lane ended before it", 0.0, "") for name in names[len(done) :]]
    return results


def run_lane(told: str, names: t.Sequence[str]) -> int:
    """The stages of a lane, one after the other; a line of ``told`` for each."""
    for name in names:
        result = run_stage(next(stage for stage in checks.STAGES if stage.name == name), "beside others")
        with open(told, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(result) + "\n")
    return 0


def main(names: list[str]) -> int:
    if names == ["--list"]:
        for stage in checks.STAGES:
            print(f"{stage.name:12} {stage.title}")
        return 0
    if names[:1] == ["--lane"]:
        return run_lane(names[1], names[2:])
    unknown = sorted(set(names) - {stage.name for stage in checks.STAGES})
    if unknown:
        print(f"Unknown stage: {', '.join(unknown)}. Next: choose from `make stages`.", file=sys.stderr)
        return 2
    started = time.monotonic()
    chosen = [stage for stage in checks.STAGES if not names or stage.name in names]
    lanes = [[stage for stage in chosen if stage.lane == lane] for lane in checks.LANES]
    lanes = [lane for lane in lanes if lane]
    if len(lanes) == 1:
        alone, lanes = chosen, []
    else:
        alone = [stage for stage in chosen if not stage.lane]
    unhurried = [lane for lane in lanes if lane[0].lane in checks.UNHURRIED]
    results: list[Result] = []
    running: list[Lane] = []
    for number, stage in enumerate(alone, 1):
        if stage is alone[-1]:
            running = start(unhurried, niceness=19)
        results.append(run_stage(stage, f"{number}/{len(chosen)}"))
    running = start([lane for lane in lanes if lane not in unhurried or not alone]) + running
    results += finish(running)

    print(f"\n{'stage':12} {'result':8} {'seconds':>7}")
    for name, verdict, reason, seconds, _lines in results:
        print(f"{name:12} {verdict:8} {seconds:7.0f}  {reason}".rstrip())
    print(f"{'':12} {'':8} {time.monotonic() - started:7.0f}")
    for name, _verdict, _reason, _seconds, lines in results:
        if lines:
            print(f"\n{name} said:\n{lines}")
    count = {word: sum(result[1] == word for result in results) for word in ("passed", "FAILED", "not run")}
    rest = f", {count['not run']} skipped" if count["not run"] else ""
    print(f"\nstages: {count['passed']} passed, {count['FAILED']} failed{rest}", flush=True)
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

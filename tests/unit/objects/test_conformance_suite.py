# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""The conformance suite: an object that keeps every rule passes, and for each rule there is one that breaks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils import conformance
from ansible_collections.memops.agent_memory.plugins.module_utils._conformance import RULES
from tests.support.notebook import FencedNotebook
from tests.unit.objects.objects_help import NOTEBOOK, ROOT, written

CLASS = "import time\nfrom tests.support.notebook import FencedNotebook, Quarantined\nclass Mine(FencedNotebook):\n"
WRITE, READ = "def write(self, namespace, key, data, reason=None):", "def read(self, namespace, key):"
DELETE, LIST = "def delete(self, namespace, key, soft=True):", "def list_keys(self, namespace):"
WRITTEN = "super().write(namespace, key, data, reason)"
#: rule → [(what breaks it, what is said then)]
BROKEN = {
    "values": [
        (f"{READ}\n  data = super().read(namespace, key)\n  return tuple(data) if isinstance(data, list) else data",
         "something of the type tuple is in it"),
        (f"{READ}\n  data = super().read(namespace, key)\n  return 'x' if data == '' else data",
         "gives 'x' and not ''"),
        ("async def read(self, namespace, key):\n  return 1", "something of the type coroutine is in it"),
        ("def write(self, namespace, key, data):\n  pass", "unexpected keyword argument 'reason'"),
    ],
    "replaced": [(f"{WRITE}\n  if super().read(namespace, key) is None: {WRITTEN}", "gives 'first' and not")],
    "keys apart": [
        (f"{WRITE}\n  super().write(namespace, key.lower(), data, reason)\n{READ}\n"
         "  return super().read(namespace, key.lower())", "read('plain') gives 1 and not 0"),
    ],
    "absent": [(f"{READ}\n  return super().read(namespace, key) or False", "gives False: it has to give None")],
    "spaces apart": [
        (f"{WRITE}\n  super().write('one', key, data, reason)\n{READ}\n  return super().read('one', key)",
         "in another namespace, read('shared') gives 'here'"),
    ],
    "kept": [
        (f"kept = dict()\n{WRITE}\n  self.kept[namespace, key] = data\n{READ}\n"
         "  return self.kept.get((namespace, key))",
         "in another process, read('kept') gives nothing"),
    ],
    "reading": [
        (f"{READ}\n  data = super().read(namespace, key)\n  super().delete(namespace, key)\n  return data",
         "after it was read before, read('read often') gives nothing"),
    ],
    "listed": [
        (f"{LIST}\n  for key in super().list_keys(namespace):\n    yield key\n    yield key", "names keys twice"),
        (f"{LIST}\n  yield from list(super().list_keys(namespace))[:10]", "does not name 'listed 1"),
        (f"{LIST}\n  yield from super().list_keys(namespace)\n  yield 'ghost'", "names 'ghost', for which read gives"),
        (f"{LIST}\n  yield from super().list_keys(namespace)\n  yield 5", "names 5, which is no key"),
    ],
    "nothing listed": [
        (f"{LIST}\n  return ['x']", "namespace without records names 'x'"),
        (f"{LIST}\n  raise KeyError(namespace)", "raised KeyError"),
    ],
    "deleted softly": [
        (f"{DELETE}\n  soft or super().delete(namespace, key, soft)", "after delete(soft=True), read('doomed') gives"),
        (f"{LIST}\n  with self._file() as con:\n"
         "    return [k for (k,) in con.execute('SELECT key FROM notes WHERE space = ?', (namespace,))]",
         "list_keys still names 'doomed'"),
    ],
    "deleted hard": [
        (f"{DELETE}\n  soft and super().delete(namespace, key, soft)",
         "after delete(soft=False), read('doomed') gives"),
        (f"{DELETE}\n  with self._file() as con: con.execute('DELETE FROM notes WHERE space = ?', (namespace,))",
         "after another key was deleted, read('neighbour') gives nothing"),
        (f"{DELETE}\n  with self._file() as con: con.execute('DELETE FROM notes WHERE key = ?', (key,))",
         "after the key was deleted in another namespace"),
    ],
    "deleted twice": [
        (f"{DELETE}\n  if super().read(namespace, key) is None: raise KeyError(key)\n"
         "  super().delete(namespace, key, soft)", "delete of a key that is not there is an error"),
    ],
    "logged": [
        ("def get_access_logs(self, namespace):\n  return []", "has no entry of a write"),
        ("def get_access_logs(self, namespace):\n  return None", "get_access_logs gave NoneType"),
    ],
    "rotated": [
        ("def rotate_keys(self):\n  with self._file() as con: con.execute('DELETE FROM notes')",
         "after rotate_keys, read('sealed before') gives nothing"),
    ],
    "rated": [("def evaluate_benchmark(self, namespace):\n  return 7", "7, which is no share from 0 to 1")],
    "living": [("def ttl(self, namespace):\n  return None", "after set_ttl(3600.0) ttl gives None")],
    "spaces listed": [("def list_namespaces(self):\n  return []", "does not name a namespace that has records")],
    "fenced": [
        ("def quarantine(self, namespace):\n  pass", "the application of the same process reads"),
        ("def release(self, namespace):\n  pass", "after release the application does not read"),
        (f"{WRITE}\n  try: {WRITTEN}\n  except Quarantined: pass", "writes: write has to raise"),
        (f"{WRITE}\n  FencedNotebook(self._path, True).write(namespace, key, data)\n  {WRITTEN}",
         "raises, and is stored"),
        ("def __init__(self, path, operator=False):\n  super().__init__(path)",
         "in quarantine, for the operator, read("),
        ("closed = set()\ndef quarantine(self, namespace):\n  self.closed.add(namespace)\n"
         "def release(self, namespace):\n  self.closed.discard(namespace)\n"
         "def _refuse(self, con, namespace):\n"
         "  if not self._operator and namespace in self.closed: raise Quarantined(namespace)",
         "the application of another process reads"),
        ("def quarantine(self, namespace):\n  super().quarantine(namespace)\n"
         "  super().quarantine(namespace + '-other')\n"
         "def release(self, namespace):\n  super().release(namespace)\n  super().release(namespace + '-other')",
         "keeps the application from another one"),
    ],
}  # fmt: skip


def tried(folder, body, rule, **more):
    written(folder, CLASS + "".join(f"    {line}\n" for line in body.splitlines()))
    found = conformance.check(
        "mine:Mine", {"path": os.path.join(folder, "notes.db")}, {"operator": True}, rules=[rule], rotate=True,
        python_path=[str(folder), str(ROOT)], **more,
    )  # fmt: skip
    return {one.rule: one for one in found}


def test_every_rule_has_an_object_that_breaks_it():
    assert list(BROKEN) == [rule.__name__.replace("_", " ") for _methods, rule in RULES]


@pytest.mark.parametrize(("rule", "number"), [(rule, n) for rule, cases in BROKEN.items() for n in range(len(cases))])
def test_an_object_that_breaks_a_rule_fails_it(tmp_path, rule, number):
    body, said = BROKEN[rule][number]
    found = tried(tmp_path, body, rule)[rule]
    assert found.verdict == "fail" and said in found.why, found


def test_an_object_that_keeps_every_rule_passes_with_one_command(tmp_path):
    notes = tmp_path / "notes.db"
    app = FencedNotebook(str(notes))
    app.write("agent-7", "mine", "stays")
    command = [
        sys.executable, "-m", "ansible_collections.memops.agent_memory.plugins.module_utils.conformance", NOTEBOOK,
        "--argument", f"path={notes}", "--operator-argument", "operator=true", "--python-path", str(ROOT),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["rule"]: one for one in json.loads(done.stdout)}
    assert len(found) == len(RULES) + 2
    assert {one["rule"] for one in found.values() if one["verdict"] != "pass"} == {"rotated"}
    assert found["rotated"]["verdict"] == "not-asked" and "--rotate" in found["rotated"]["why"]
    with app._file() as con:  # nothing but what was there
        assert con.execute("SELECT space, key FROM notes").fetchall() == [("agent-7", "mine")]
    done = subprocess.run([*command, "--rule", "values"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0 and "pass              write, values: every kind of value comes back" in done.stdout


def test_what_cannot_be_verified_is_no_pass(tmp_path):
    body = "def get_access_logs(self, namespace):\n  return [str(one) for one in super().get_access_logs(namespace)]"
    found = tried(tmp_path, body, "logged")["logged"]
    assert found.verdict == "could-not-verify" and "no mappings" in found.why
    results = conformance.check(
        NOTEBOOK, {"path": str(tmp_path / "notes.db")}, python_path=[str(ROOT)], rules=["fenced", "clean up"]
    )
    assert [(one.rule, one.verdict) for one in results] == [
        ("made", "pass"), ("fenced", "could-not-verify"), ("clean up", "pass")
    ]  # fmt: skip
    words = ["--argument", f"path={tmp_path / 'notes.db'}", "--python-path", str(ROOT), "--rule", "fenced"]
    assert conformance.main([NOTEBOOK, *words]) == 2


def test_what_is_missing_is_named(tmp_path, capsys):
    found = tried(tmp_path, "delete = get_access_logs = None", "logged")
    assert found["there"].verdict == "fail" and found["there"].method == "delete"
    assert found["logged"].verdict == "not-asked" and "a diagnosis has no log" in found["logged"].why
    assert found["clean up"].verdict == "pass"  # nothing was written
    hard = tried(tmp_path, "delete = get_access_logs = None", "deleted hard")["deleted hard"]
    assert hard.verdict == "could-not-verify"
    made = conformance.check("mine:Nobody", python_path=[str(tmp_path), str(ROOT)])
    assert [(one.rule, one.verdict) for one in made] == [("made", "fail")] and conformance.failures(made) == made
    with pytest.raises(SystemExit):
        conformance.main(["no factory"])
    assert "not package.module:factory" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        conformance.main([NOTEBOOK, "--rule", "nosuch"])
    assert ended.value.code == 2 and "There is no rule 'nosuch'" in capsys.readouterr().err


def test_an_object_that_hangs_fails_and_what_is_left_is_told(tmp_path):
    hanging = tried(tmp_path, f"{READ}\n  time.sleep(600)", "values", timeout=3.0)["values"]
    assert hanging.verdict == "fail" and "something" not in hanging.why and "did not answer" in hanging.why
    for body in (
        f"{DELETE}\n  pass",
        f"{DELETE}\n  raise OSError('no')",
        f"{DELETE}\n  pass\n{LIST}\n  return []",
        "delete = None",
    ):
        left = tried(tmp_path, body, "spaces apart")["clean up"]
        named = re.search(r"1 record in the namespace (memops-conf\w+-\w+).* and 1 record in .* \1-other", left.why)
        assert left.verdict == "fail" and named and "by its own means" in left.why, left
    unlisted = tried(tmp_path, f"{LIST}\n  raise OSError('no')", "replaced")["clean up"]
    assert unlisted.verdict == "fail" and "1 record in the namespace memops-conformance-" in unlisted.why
    hidden = tried(tmp_path, f"{LIST}\n  return []", "values")["clean up"]
    assert hidden.verdict == "pass"  # what list_keys does not name is taken away all the same

# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: Apache-2.0
"""What a line is: JavaScript itself, which the server is written in, says whether it can be read."""
from __future__ import annotations

import json
import os
import random
import subprocess

import pytest

from ansible_collections.memops.agent_memory.plugins.module_utils._layouts.mcp_memory import MCP_MEMORY
from ansible_collections.memops.agent_memory.plugins.module_utils._line_records import Lines, escape
from tests.support.mcp_server import environment
from tests.unit.lines.lines_help import ODD, entity, relation, text

LINES = Lines(MCP_MEMORY)
ANN = text({"type": "entity", **entity("Ann", "likes tea", "é🐙")})
KNOWS = text({"type": "relation", **relation("Ann", "knows", "Bob/x")})
#: as the server reads a line; what it is to be is what its tools promise to their clients
PROGRAM = """
const lines = require('fs').readFileSync(0, 'latin1').split('\\n').map((line) => Buffer.from(line, 'latin1'));
const text = (value) => typeof value === 'string';
console.log(JSON.stringify(lines.map((raw) => {
  const line = raw.toString('utf-8');
  if (line.trim() === '') return 'blank';
  if (Buffer.compare(Buffer.from(line, 'utf-8'), raw)) return 'wrong';
  let item;
  try { item = JSON.parse(line); } catch { return 'wrong'; }
  if (item === null || typeof item !== 'object') return 'wrong';
  if (item.type === 'entity') return text(item.name) && text(item.entityType) && Array.isArray(item.observations)
    && item.observations.every(text) ? 'good' : 'wrong';
  if (item.type === 'relation') return text(item.from) && text(item.to) && text(item.relationType) ? 'good' : 'wrong';
  return 'wrong';
})));
"""
ALWAYS = (
    b"", b" \t", b"\xc2\xa0", b"\xef\xbb\xbf", b"\x1c", b"null", b"[]", b"NaN", b"1", b'"x"', b"\xef\xbb\xbf" + ANN,
    ANN + b"\r", b" " + ANN, ANN + ANN,
    ANN[:-1] + b',"n":' + b"9" * 5000 + b"}", ANN[:-1] + b',"n":Infinity}', b"[" * 5000,
    ANN[:-1] + b',"x":{"type":1}}', b'{"type":"entity","name":"\\ud800","entityType":"","observations":[]}',
    b'{"type":"entity","name":"a","name":5,"entityType":"","observations":[]}', b'{"type":"entitx"}',
)  # fmt: skip


def mutated(seed):
    chance = random.Random(seed)
    line = bytearray(chance.choice((ANN, KNOWS)))
    for _again in range(chance.randint(1, 3)):
        at = chance.randrange(len(line) + 1)
        part = bytes(chance.choice(b'"\\,:{}[]\x00\x7f\xff\xc3 antz09') for _one in range(chance.randint(0, 2)))
        line[at : at + chance.randint(0, 3)] = part
    return bytes(line)


def test_what_the_server_can_read_is_sound_and_nothing_else():
    lines = [*ALWAYS, *(mutated(seed) for seed in range(4000))]
    said = subprocess.run(
        [os.path.join(environment(), "bin", "node"), "-e", PROGRAM], input=b"\n".join(lines), capture_output=True,
        check=True,
    ).stdout  # fmt: skip
    ours = ["blank" if LINES.blank(raw) else "good" if LINES.read(raw).wrong is None else "wrong" for raw in lines]
    assert [(raw, js, one) for raw, js, one in zip(lines, json.loads(said), ours) if js != one] == []
    assert ours.count("good") > 300 < ours.count("wrong")


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (ANN[:-3], "entity/Ann"), (ANN.replace(b"tea", b"t\x00a"), "entity/Ann"),
        (ANN.replace(b"entity", b"entitx", 1), "entity/Ann"),
        (ANN.replace(b'["likes tea","\xc3\xa9', b'["\xc3'), "entity/Ann"),
        (ANN.replace(b"likes", b"\xff"), "entity/Ann"), (ANN.replace(b"Ann", b"A\xffn"), None),
        (KNOWS[:-1], "relation/Ann/knows/Bob%2Fx"), (KNOWS[:-20], None), (ANN[:-5] + KNOWS, None), (b"garbage", None),
        (ANN[:-5] + b"\0\0\0", None), (b"{}", None), (b'{"type":"entity","name":5}', None),
    ],
)  # fmt: skip
def test_a_damaged_line_is_recognised_where_its_name_is_left(raw, key):
    found = LINES.read(raw)
    assert found.wrong and found.key == key


def test_a_cut_last_line_has_no_name_and_says_that_it_is_cut():
    for cut in (ANN[:-1], ANN[:-4], ANN[:30]):
        found = LINES.read(cut, last=True)
        assert found.key is None and found.wrong == "cut off, as by a write that did not end"


def test_no_two_names_have_the_same_key():
    names = [*ODD, "%-", "%u", "\ud800", "\udfff", "%uD800", "a%2Fb", "y" * (1 << 20), "y" * (1 << 20) + "z", "%#"]
    assert len({escape(name) for name in names}) == len(names)
    for name in names:
        escape(name).encode()
        assert "/" not in escape(name)
    assert LINES.read(text({"type": "relation", **relation("a/b", "c", "")})).key == "relation/a%2Fb/c/%-"

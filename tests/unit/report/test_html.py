# Copyright (c) 2026 memops.agent_memory contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: whole, self-contained, escaped, readable without colour."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.memops.agent_memory.plugins.plugin_utils import (
    _report,
    _report_html,
    _report_text,
    _report_view,
    _report_words,
)
from tests.unit.report.report_help import VALIDATOR, at, extra, find, good

EXAMPLES = int(os.environ.get("MEMOPS_REPORT_EXAMPLES", "25"))  # reports of steps that nobody took
EVIL = "<script>alert(1)</script>\"'&{{ 7*7 }}\n\0\u202e\ud800"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Every element with its attributes and text; complains about tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: t.List[t.Tuple[str, t.Dict[str, t.Optional[str]]]] = []
        self.open: t.List[str] = []
        self.texts: t.List[t.Tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: t.Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: t.Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag]
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def text(self) -> str:
        return "".join(d for tag, d in self.texts if tag not in ("style", "script"))

    def count(self, tag: str) -> int:
        return sum(1 for name, _attributes in self.elements if name == tag)


def hostile() -> t.List[t.Dict[str, t.Any]]:
    steps = good()
    find(steps, "preflight")["result"].update(
        namespace=EVIL, incident=EVIL, cluster=EVIL, store={"path": EVIL, "host": EVIL}
    )
    find(steps, "isolate")["result"]["proof"].update(detail=EVIL, not_fenced=[EVIL])
    find(steps, "snapshot")["result"]["snapshot"] = EVIL
    find(steps, "diagnose")["result"].update(
        causes=[{"cause": EVIL, "confidence": 1, "evidence": [EVIL]}],
        findings={EVIL: 3},
        errors_seen=[EVIL, {"line": EVIL}],
        strategy=EVIL,
        damage_map=[{"first_key": EVIL, "last_key": EVIL, "rows": 1, "damaged": 1, "suspect": 1}],
    )
    find(steps, "plan")["result"].update(
        lost_keys=[EVIL, "k" * 1_000_000],
        suspect_keys=[EVIL],
        conflict_keys=[EVIL],
        sources=[{"snapshot": EVIL, "records": 1}],
        could_not_verify=[EVIL],
    )
    find(steps, "apply")["result"]["method"] = EVIL
    find(steps, "monitor").update(verdict="fail", detail=EVIL)
    find(steps, "monitor")["result"].update(breaches=[EVIL], next_step=EVIL)
    return steps + [
        extra("failover", performed=True, to=EVIL, reason=EVIL),
        extra("notify", sent=False, to=EVIL, status=EVIL),
        extra(EVIL),
    ]


CASES: t.Dict[str, t.List[t.Dict[str, t.Any]]] = {
    "good": good(),
    "empty": [],
    "preflight failed": [extra("preflight", "fail", next_step="mend the file")],
    "unreachable": [*good("snapshot"), extra("diagnose", "fail", unreachable=True)],
    "could not verify": [*good("baseline"), extra("monitor", "could-not-verify")],
    "hostile": hostile(),
    "resumed": good("plan") + [extra("apply", "fail", attempt="b")] + [dict(s, attempt="c") for s in good()[5:]],
    "untimed": [dict(s, started=None, seconds=None) for s in good()],
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_needs_nothing_but_itself(name: str) -> None:
    page = _report_html.render(_report.build_report(CASES[name]))
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        assert tag not in (
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "foreignobject",
            "use",
            "image",
        ), tag
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), attribute
            assert attribute not in ("src", "srcset", "action", "xlink:href", "data", "poster"), attribute
            if attribute == "href":
                assert value in ("#main", "lost_keys.jsonl", "report.json")
            if "url(" in (value or "") and attribute != "title":
                assert re.fullmatch(r"url\(#\w+\)", t.cast(str, value))
    style = "".join(d for tag, d in parsed.texts if tag == "style")
    assert "@import" not in style
    assert "url(" not in style
    policy = next(a["content"] for tag, a in parsed.elements if tag == "meta" and "http-equiv" in a)
    scripts = [d for tag, d in parsed.texts if tag == "script"]
    assert len(scripts) == parsed.count("script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert t.cast(str, policy).startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}';" in t.cast(str, policy)


@pytest.mark.parametrize("name", CASES)
def test_the_page_can_be_read_by_everybody(name: str) -> None:
    report = _report.build_report(CASES[name])
    parsed = Page(_report_html.render(report))
    tags = [tag for tag, _attributes in parsed.elements]
    assert {"header", "main", "footer", "h1", "title"} <= set(tags)
    assert dict(parsed.elements[0][1])["lang"] == "en"
    ids = [a["id"] for _tag, a in parsed.elements if "id" in a]
    for tag, attributes in parsed.elements:
        if tag == "section":
            assert attributes["aria-labelledby"] in ids
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert parsed.count("table") == parsed.count("thead")
    text = parsed.text()
    for wanted in (_report_words.VERDICTS[report["verdict"]], report["state"]):
        assert wanted in text
    if report["next_command"]:
        assert _report_words.shown(report["next_command"], 2000) in text


def test_everything_is_escaped_visible_and_short() -> None:
    page = _report_html.render(_report.build_report(hostile()))
    parsed = Page(page)
    assert parsed.count("script") == 1
    assert not set(page) & {"\0", "\u202e", "\ud800"}
    assert "{{ 7*7 }}" in parsed.text()
    assert "\\n\\0\\u{202e}\\u{d800}" in parsed.text()
    assert "1,000,000 characters" in parsed.text()
    assert len(page) < 400_000
    assert max(map(len, re.findall(r"k+", page))) <= 160


def test_a_full_damage_map_has_a_cell_and_words_for_each_part() -> None:
    report = _report.build_report(good())
    page = Page(_report_html.render(report))
    view = _report_view.damage(report)
    assert view is not None
    assert len(view["cells"]) == 100
    assert [i for i, c in enumerate(view["cells"]) if c["lost"]] == [0, 50]
    assert sum("rows," in d for tag, d in page.texts if tag == "title") == 100


def test_what_is_gone_is_seen_in_the_damage_map() -> None:
    steps = good()
    cells = find(steps, "diagnose")["result"]["damage_map"]
    for cell in cells:
        cell["damaged"] = 0
    cells[3].update(rows=8, damaged=1, absent=2)
    view = _report_view.damage(_report.build_report(steps))
    assert view is not None and view["touched"] - 2 == 1  # two are lost
    assert (view["cells"][3]["rows"], view["cells"][3]["damaged"]) == (10, 3) and view["cells"][3]["h"] > 9


def test_a_map_that_knows_its_lost_keys_is_believed() -> None:
    steps = good()
    for i, cell in enumerate(find(steps, "diagnose")["result"]["damage_map"]):
        cell["lost"] = int(i == 99)
    view = _report_view.damage(_report.build_report(steps))
    assert view is not None
    assert [i for i, c in enumerate(view["cells"]) if c["lost"]] == [99]


def test_the_scale_keeps_order_and_shows_short_steps() -> None:
    scale = _report_view.Scale([0, 0.5, 1, 900, 90000], [(0, 1), (1, 900)])
    places = [scale(x) for x in (0, 0.5, 1, 450, 900, 90000)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0.0, pytest.approx(100.0))
    assert places[1] > 1.0
    assert scale.breaks == [(900, 90000)]


def test_a_template_of_ones_own_takes_its_place_and_is_escaped_too(tmp_path: t.Any) -> None:
    (tmp_path / "part.txt").write_text("{{ report.namespace }}", encoding="utf-8")
    own = tmp_path / "own.html"
    own.write_text("<b>{% include 'part.txt' %}</b>{{ loss_sentence }}", encoding="utf-8")
    page = _report_html.render(_report.build_report([], namespace="<i>"), str(own))
    assert page == "<b>&lt;i&gt;</b>How much was lost is not known: no plan says it."


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, "not known"),
        (0, "0 %"),
        (1, "100 %"),
        (0.99999, "99.9 %"),
        (0.00045, "0.045 %"),
        (0.5, "50 %"),
        (0.955, "95.5 %"),
    ],
)
def test_shares_never_read_as_none_or_all(value: t.Any, wanted: str) -> None:
    assert _report_words.percent(value) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, "not known"), (0.42, "0.42 s"), (59.7, "1 min"), (252, "4 min 12 s"), (3600, "1 h"), (9e5, "10 d 10 h")],
)
def test_spans(value: t.Any, wanted: str) -> None:
    assert _report_words.span(value) == wanted


# --- whatever the steps hold -----------------------------------------------------------------------------------------

_words = st.sampled_from(["pass", "fail", "could-not-verify", "", "x", EVIL]) | st.text(max_size=8)
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | _words | st.sampled_from([at(0), at(5), at(1e6), 10**15])
)
_names = st.sampled_from([*_report.NEEDED, "failover", "failback", "notify", "dr"])
_keys = st.sampled_from(
    [
        "verdict",
        "records",
        "lost",
        "expected",
        "damaged",
        "lost_keys",
        "lost_total",
        "causes",
        "cause",
        "confidence",
        "evidence",
        "proof",
        "writes_refused",
        "fenced_at",
        "released_at",
        "first_write_at",
        "samples",
        "at",
        "hits",
        "misses",
        "corrupt",
        "performed",
        "to",
        "from",
        "store",
        "onset",
        "hit_rate",
        "series",
        "before",
        "damage_map",
        "first_key",
        "last_key",
        "rows",
        "suspect",
        "generation",
        "benchmark",
        "after",
        "sources",
        "snapshot",
        "findings",
        "escalate",
        "purpose",
        "bytes",
        "namespaces",
        "sent",
        "breaches",
        "fenced",
        "probes",
        "canary",
        "newest_recovered_at",
    ]
)
_any = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=6), max_leaves=12
)
_wild = st.fixed_dictionaries(
    {},
    optional={
        "name": _names | _scalars,
        "verdict": _scalars,
        "changed": _scalars,
        "started": _scalars,
        "seconds": _scalars,
        "host": _scalars,
        "attempt": _scalars,
        "detail": _scalars,
        "result": st.dictionaries(_keys, _any, max_size=6) | _any,
    },
)
_spoiled = st.builds(
    lambda picks: [
        dict(good()[i], verdict=v, attempt=a, result={**good()[i]["result"], **more}) for i, v, a, more in picks
    ],
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.sampled_from(["pass", "pass", "pass", "fail", "could-not-verify"]),
            st.sampled_from("ab"),
            st.dictionaries(_keys, _any, max_size=2),
        ),
        max_size=24,
    ),
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(_wild | _any, max_size=8) | _spoiled | _spoiled.map(lambda more: good() + more),
    st.none() | st.dictionaries(st.sampled_from(["max_loss", "rto", "rpo", "hit_rate"]), _scalars),
)
def test_no_steps_break_the_report(steps: t.Any, slo: t.Any) -> None:
    report = _report.build_report(steps, slo=slo)
    VALIDATOR.validate(json.loads(json.dumps(report, allow_nan=False)))
    Page(_report_html.render(report))
    _report_text.render(report, "/r/report.html")
    if report["verdict"] == "pass":
        newest = {s["name"]: s["verdict"] for s in steps if isinstance(s, dict) and isinstance(s.get("name"), str)}
        assert set(_report.NEEDED) <= set(newest)
        assert set(newest.values()) == {"pass"}
        assert report["records"]["lost"] <= report["details"]["lost_listed"]

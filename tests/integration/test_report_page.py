# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""report.html in a real browser: light, dark, on a phone, on paper, by keyboard, for a screen reader, and alone."""

from __future__ import annotations

import pathlib
import re
import subprocess
import typing as t

import pytest
from axe_playwright_python.sync_playwright import Axe

from ansible_collections.memops.agent_memory.plugins.plugin_utils import _report, _report_html
from tests.support.browser import MILLISECONDS, chromium
from tests.support.debian import need
from tests.unit.report.report_help import find, good
from tests.unit.report.test_html import hostile
from tests.unit.report.test_store import PROVEN, made


def wordy() -> list[dict[str, t.Any]]:
    """A full rebuild in which every step has much to say: its first and its last word are marked."""
    steps = good()
    for number, step in enumerate(steps):
        step["detail"] = f"first{number}. " + "much to say " * 25 + f"last{number}."
    find(steps, "isolate")["result"]["proof"]["not_fenced"] = [f"raw readers, kind {n}" for n in range(12)]
    return steps


def spoiled() -> list[dict[str, t.Any]]:
    steps = hostile()
    plan = find(steps, "plan")["result"]
    plan["lost_keys"] += [f"lost \u202e{n} </ul>" for n in range(80)]
    plan["records"]["lost"] = plan["lost_total"] = len(plan["lost_keys"])
    return steps


REPORTS: dict[str, t.Callable[[], dict[str, t.Any]]] = {
    "rebuild": lambda: _report.build_report(wordy(), incident="INC-1", inventory="hosts.yml"),
    "hostile": lambda: _report.build_report(spoiled()),
    "store": lambda: made(("failover", "pass", PROVEN)),
}
NAMES = sorted(REPORTS)
SIZES = {"desk": (1280, 900), "phone": (390, 844), "small phone": (320, 568)}


@pytest.fixture(scope="module")
def browser() -> t.Iterator[t.Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Each report as a file in a folder of its own."""
    made_files = {}
    for name, report in REPORTS.items():
        path = tmp_path_factory.mktemp(name) / "report.html"
        path.write_text(_report_html.render(report()), encoding="utf-8")
        made_files[name] = path
    return made_files


@pytest.fixture
def visit(browser: t.Any, files: dict[str, pathlib.Path]) -> t.Iterator[t.Callable[..., t.Any]]:
    """Opens a report; ``said`` of the page is what a browser had to say about it, ``asked`` what it asked for."""
    opened = []

    def go(name: str, width: int = 1280, height: int = 900, **settings: t.Any) -> t.Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        opened.append(context)
        context.set_default_timeout(MILLISECONDS)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield go
    for context in opened:
        context.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_for_nothing_and_complains_of_nothing(
    visit: t.Callable[..., t.Any], files: dict[str, pathlib.Path], name: str
) -> None:
    page = visit(name)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_load_state("networkidle")
    assert page.asked == [files[name].as_uri()]
    assert page.said == []
    assert page.locator("script").count() == 1  # the page's own, though keys and causes hold others
    assert page.evaluate("document.characterSet") == "UTF-8"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_in_either_scheme(visit: t.Callable[..., t.Any], name: str, scheme: str) -> None:
    # axe is put into the page, which the page's policy forbids: the test of the policy is the one above
    page = visit(name, color_scheme=scheme, bypass_csp=True)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red + green + blue > 600) is (scheme == "light")
    found = Axe().run(page).response
    assert [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found["violations"]] == []
    checked = {one["id"] for one in found["passes"]}
    assert {"color-contrast", "landmark-one-main", "region", "heading-order", "svg-img-alt"} <= checked


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_sticks_out_sideways(visit: t.Callable[..., t.Any], name: str, size: str) -> None:
    page = visit(name, *SIZES[size])
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    out = page.evaluate(
        """() => [...document.body.querySelectorAll('*')].filter(one => !one.closest('.scroll, .skip, pre, title, svg')
             && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 120))"""
    )
    assert out == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_everything_can_be_reached_by_keyboard(visit: t.Callable[..., t.Any]) -> None:
    page = visit("hostile")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def step() -> dict[str, t.Any]:
        page.keyboard.press("Tab")
        return t.cast(
            "dict[str, t.Any]",
            page.evaluate(
                """() => { const one = document.activeElement, box = one.getBoundingClientRect();
                const style = getComputedStyle(one), outlined = parseFloat(style.outlineWidth) >= 2;
                return {tag: one.tagName, text: one.textContent.slice(0, 40), shown: box.width > 0 && box.left >= 0,
                        outline: style.outlineStyle != 'none' && outlined} }"""
            ),
        )

    first = step()
    assert first["tag"] == "A" and first["text"] == "To the report" and first["shown"]  # hidden until it is focused
    assert step()["text"] == "Copy"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#next").text_content()
    reached = []
    while (now := step())["tag"] != "BODY":
        assert now["shown"] and now["outline"], now
        reached.append(now["tag"])
        assert len(reached) < 60
    assert reached.count("SUMMARY") == page.locator("summary").count()
    assert reached.count("A") == page.locator("main a").count()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.evaluate("one => one.open")


@pytest.mark.parametrize("name", NAMES)
def test_on_paper_every_page_has_a_head_and_no_row_is_cut(
    visit: t.Callable[..., t.Any], tmp_path: pathlib.Path, name: str
) -> None:
    page = visit(name)
    paper = tmp_path / "report.pdf"
    page.pdf(path=str(paper), format="A4", prefer_css_page_size=True)
    command = [need("poppler-utils", "pdftotext"), "-layout", str(paper), "-"]
    sheets = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\f")[:-1]
    heads = {"rebuild": "Pass - agent-7 - INC-1", "store": "Pass - the whole store - INC-9", "hostile": "Fail - _s"}
    for number, sheet in enumerate(sheets, 1):
        assert sheet.lstrip().startswith(heads[name]), sheet[:300]
        assert sheet.replace(" ", "").rstrip().endswith(f"\n{number}/{len(sheets)}"), sheet[-300:]
    if name != "rebuild":
        return
    where = {word: n for n, sheet in enumerate(sheets) for word in re.findall(r"(?:first|last)\d\b", sheet)}
    assert len(where) == 20
    for number in range(10):
        assert where[f"first{number}"] == where[f"last{number}"], f"row {number} lies on two sheets"
    assert len({where[f"first{number}"] for number in range(10)}) > 1  # they do not all fit on one
    for title in ("Timeline", "Causes", "Evidence", "Steps"):
        sheet = next(sheet for sheet in sheets if re.search(rf"^\s*{title}\s*$", sheet, re.MULTILINE))
        rest = sheet.rstrip().rsplit("\n", 1)[0]
        assert not rest.rstrip().endswith(title), f"{title} stands alone at the end of a sheet"
    assert "Copy" not in "".join(sheets)
    assert "The 2 cells with the most damage" in "".join(sheets) and "k0500" in "".join(sheets)  # nobody can open it

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""report.html: one page that needs nothing but itself, rendered from report.json by a Jinja2 template.

PRIVATE to the collection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import typing as t

import jinja2

from ansible_collections.memops.agent_memory.plugins.module_utils._words import counted

from . import _report_input as given
from . import _report_view as view
from . import _report_words as words

# The one script of the page. The policy in the page's head allows it by its hash and nothing else.
_SCRIPT = """
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try { await navigator.clipboard.writeText(source.textContent); }
    catch (error) { getSelection().selectAllChildren(source); document.execCommand("copy"); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
"""


def default_template() -> str:
    """The page that the collection ships: it belongs to the role report and is found from this file."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.normpath(os.path.join(here, "..", "..", "roles", "report", "templates", "report.html.j2"))


def render(report: t.Mapping[str, t.Any], template: t.Optional[str] = None) -> str:
    """The page of a report.json. ``template`` is the path of a Jinja2 file that takes the place of the shipped one.

    A template sees ``report``, the drawings ``timeline``, ``damage``, ``curve`` and ``plan``, the sentences
    ``headline``, ``state_sentence``, ``loss_sentence`` and ``absent_sentence`` (of what was left away, where the one
    before does not say it), ``state_known`` and ``under_way`` (bools; the latter: what
    ran went well and the runbook goes on), ``next_step`` (name and command of its next step then, else none), ``whole``
    (whether it is about a whole store), ``without_writes`` (how many seconds nobody could write to that, or none),
    ``running`` (the line above each printed page, safe inside a CSS string), and the filters shown, amount, percent,
    span, size, clock, label, refusal and counted. All values are escaped. Raises jinja2.TemplateError and OSError.
    """
    path = os.path.abspath(template or default_template())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(path)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("shown", "amount", "percent", "span", "size", "clock", "label", "refusal"):
        environment.filters[name] = getattr(words, name)
    environment.filters["counted"] = counted
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    step, alone = words.next_step(report) if words.under_way(report) else (None, "")
    page = environment.get_template(os.path.basename(path)).render(
        report=report,
        details=report["details"],
        # no badge of a step says could-not-verify when the run is under way, so the word stands for the head alone
        verdicts={**words.VERDICTS, report["verdict"]: words.title(report)},
        headline=words.headline(report),
        next_step={"name": step, "command": alone} if alone else None,
        state_known=words.state_known(report),
        under_way=words.under_way(report),
        state_sentence=words.state_sentence(report),
        loss_sentence=words.loss_sentence(report),
        kept_sentence=words.kept_sentence(report),
        absent_sentence=words.absent_sentence(report) if report["records"]["lost"] else "",
        whole=words.whole(report),
        running=words.running(report),
        without_writes=given.between(report["details"]["fence"]["fenced_at"], report["details"]["released_at"]),
        timeline=view.timeline(report),
        damage=view.damage(report),
        curve=view.curve(report),
        plan=view.plan_bar(report),
        raw=json.dumps(words.shortened(dict(report), items=60), indent=2, ensure_ascii=False),
        script=_SCRIPT,
        script_hash=digest,
    )
    # a template of one's own may show a key unshortened: what UTF-8 cannot hold must not lose the page
    return page.encode("utf-8", "replace").decode("utf-8")

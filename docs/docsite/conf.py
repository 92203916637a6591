# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of Sphinx for the documentation site. `make docs` lays out what it reads: see tests/support/docs_site.py."""

import re

project = "memops.agent_memory"
author = "memops.agent_memory contributors"
copyright = "2026, memops.agent_memory contributors"  # noqa: A001  # Sphinx wants this name

extensions = ["myst_parser", "sphinx_antsibull_ext"]
root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = True
# Labels and variables of ansible-core's own site, which the plugins' pages name.
nitpick_ignore = [
    ("std:ref", name)
    for name in (
        "action_plugins", "ansible_collections.ansible.builtin.default_callback", "ansible_configuration_settings",
        "callback_plugins", "common_return_values",
    )
]  # fmt: skip
nitpick_ignore_regex = [("(std:)?envvar", "ANSIBLE_.*"), ("(std:)?ref", "ansible_collections[.]ansible[.]builtin[.].*")]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = "Agent memory"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]


def setup(app):
    """The theme shows the contents of a page beside it, and complains of a second list, as antsibull-docs makes one."""

    def without_contents(_app, _name, source):
        source[0] = re.sub(r"^\.\. contents::\n(?: {3}:.*\n)*", "", source[0], flags=re.MULTILINE)

    app.connect("source-read", without_contents)

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make docs`: the documentation as a site, in build/site, from the pages as they are and from what ansible-doc knows.

The source is laid out as the repository is, so that every link of a page means the same in both. A warning fails it.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = "memops.agent_memory"
#: Beside the pages: what they link to.
LINKED = ("README.md", "CONTRIBUTING.md", "COPYING", "LICENSES", "changelogs/changelog.yaml")


def lay_out(source: pathlib.Path) -> None:
    """Only what changed is written anew, so that Sphinx reads only that again."""
    copies = {ROOT / name: source / name for name in LINKED}
    copies |= {path: source / "docs" / path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    copies |= {path: source / path.name for path in sorted((ROOT / "docs" / "docsite").glob("[!_]*.*"))}
    for old in source.glob("docs/*.md"):
        if old not in copies.values():
            old.unlink()
    for path, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif not target.is_file() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)


def main() -> int:
    work, site = ROOT / ".ansible" / "site", ROOT / "build" / "site"
    source = work / "source"
    lay_out(source)
    programs = pathlib.Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",  # antsibull-docs looks for ansible-doc there
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
    }
    plugins = [programs / "antsibull-docs", "collection", "--use-current", "--fail-on-error", "--dest-dir", source]
    sphinx = [programs / "sphinx-build", "-W", "--keep-going", "-n", "-q", "-j", "2", "-d", work / "read"]
    for command in ([*plugins, "--cleanup", "similar-files", COLLECTION], [*sphinx, "-b", "html", source, site]):
        status = subprocess.run([str(word) for word in command], env=env, cwd=ROOT, check=False).returncode
        if status:
            print(f"{command[0].name} found something wrong, so the site is not made.", file=sys.stderr)
            return 1
    print(f"The documentation: {site / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports every file of plugins/, to see that this Python and this ansible-core can; exits non-zero when one cannot be.

Arguments are the folders of plugins/ that are wanted (default: all). The test "import" of ansible-test imports for each
file all that it needs anew, which takes forty times as long. Beside what this does it looks whether a file imports what
it may not, which is the same for all Pythons and releases: the stage "sanity" runs it under one.
"""
from __future__ import annotations

import importlib
import pathlib
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(folders: list[str]) -> int:
    found = [path for folder in folders or ["."] for path in sorted((ROOT / "plugins" / folder).rglob("*.py"))]
    files = [path.relative_to(ROOT).with_suffix("") for path in found]
    broken = 0
    for file in files:
        parts = [part for part in file.parts if part != "__init__"]
        try:
            importlib.import_module(".".join(("ansible_collections.memops.agent_memory", *parts)))
        except Exception:
            broken += 1
            print(f"ERROR: {file}.py cannot be imported", file=sys.stderr)
            traceback.print_exc()
    print(f"{len(files) - broken} of {len(files)} files were imported by Python {sys.version.split()[0]}")
    return 1 if broken or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

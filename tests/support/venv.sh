#!/bin/sh
# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# venv.sh NAME REQUIREMENTS-FILE [CONSTRAINTS-FILE]
#
# Makes or renews the virtual environment .venv/NAME and the link by which Ansible finds this checkout as the
# collection memops.agent_memory. Does nothing when the requirements did not change since.
# PYTHON=/path/to/python chooses the interpreter; otherwise the first of python3, python3.14 … python3.11 that serves.
set -eu

name=$1
requirements=$2
constraints=${3:-constraints.txt}
venv=.venv/$name

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# A name on PATH proves nothing (a version manager may put a stub there), so every candidate has to run.
serves() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        serves "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is older than Python 3.11." \
            "Next: name another interpreter, as in: make PYTHON=/usr/bin/python3.12 …"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if serves "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>&1) || found="no python3 that runs"
    fail "Python 3.11 or newer is missing (found: $found)." \
        "Next: install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3;" \
        "macOS: brew install python), or name it: make PYTHON=/path/to/python3.12 …"
}

link_collection() {
    # Ansible wants ansible_collections/memops/agent_memory above the files; the link gives any checkout that path.
    mkdir -p .ansible/collections/ansible_collections/memops
    link=.ansible/collections/ansible_collections/memops/agent_memory
    [ "$(readlink "$link" 2>/dev/null || true)" = ../../../.. ] || ln -sfn ../../../.. "$link"
}

link_collection
if [ -x "$venv/bin/python" ] && [ -z "${PYTHON:-}" ]; then
    version=$("$venv/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null || echo broken)
else
    python=$(find_python)
    version=$("$python" -c 'import sys; print(sys.version)')
fi
stamp=$(printf '%s\n' "$version" && cat requirements*.txt constraints.txt | cksum)
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null || true)" = "$stamp" ]; then
    exit 0
fi

python=${python:-$(find_python)}
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
    "$python has no working venv module." \
    "Next: install it (Debian, Ubuntu: apt install python3-venv) and run the same command again."
shown=$("$python" -c 'import platform; print(platform.python_version())')
echo "Setting up $venv with Python $shown from $requirements (once; on a new machine about a minute) …"
"$python" -m venv --clear "$venv" || fail "$python could not make a virtual environment in $venv." \
    "Next: check the free space and the rights there (Debian, Ubuntu: is python3-venv installed?), then try again."
# Bytecode is compiled where it is first used: much of what the tools bring is never imported.
"$venv/bin/python" -m pip install -qq --no-compile --disable-pip-version-check \
    -r "$requirements" -c "$constraints" || fail "Installing $requirements into $venv failed (pip's reason is above)." \
    "Next: check that a Python package index can be reached (proxy, mirror: pip config), then try again."
printf '%s\n' "$("$venv/bin/python" -c 'import sys; print(sys.version)')" "$(cat requirements*.txt constraints.txt | cksum)" >"$venv/.stamp"
echo "Ready: $venv"

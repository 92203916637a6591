# Copyright (c) 2026 memops.agent_memory contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of `make test`, in order. A check returns, or raises Failed or NotRun with the reason in one line."""
from __future__ import annotations

import collections
import configparser
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import typing as t

import awx_collection
import pythons

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / ".ansible"
VENV = pathlib.Path(sys.prefix)
NAMESPACE, NAME = "memops", "agent_memory"
COLLECTION = f"{NAMESPACE}.{NAME}"
PATIENCE = 7200  # seconds for one command: it ends what hangs, and no slow machine
ON_CONTROLLERS = ("action", "callback", "doc_fragments", "filter", "plugin_utils")  # folders of plugins/
MAIN_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
# ansible-core release -> the controller Pythons it runs on.
CORES = {
    "2.17.14": ("3.10", "3.11", "3.12"),
    "2.19.14": ("3.11", "3.12", "3.13"),
    "2.21.5": ("3.12", "3.13", "3.14"),
}


class Failed(Exception):
    """The stage found something wrong; ``last`` is what its command said last."""

    def __init__(self, reason: str, last: str = "") -> None:
        super().__init__(reason)
        self.last = last


class NotRun(Exception):
    """The stage cannot run on this machine; the reason says what is missing."""


@dataclasses.dataclass(frozen=True)
class Stage:
    name: str
    title: str
    check: t.Callable[[], None]
    lane: str = ""  # "": it uses both cores, or is over at once; else it runs beside those of the other lanes


def environment(venv: pathlib.Path = VENV, **extra: str) -> dict[str, str]:
    """The caller's environment without what could change a result: Ansible, cloud, pytest and molecule settings."""
    drop = ("ANSIBLE_", "AWS_", "PYTEST_", "MOLECULE_", "GALAXY_IMPORTER")
    env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONSTARTUP", "PYENV_VERSION", "MAKEFLAGS", "MAKELEVEL"):
        env.pop(name, None)
    env.update(
        PATH=f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        LC_ALL="en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8",
        PYTHONPATH=f"{ROOT}{os.pathsep}{WORK / 'collections'}",
        ANSIBLE_HOME=str(WORK),
        ANSIBLE_COLLECTIONS_PATH=str(WORK / "collections"),
        ANSIBLE_REMOTE_TMP=str(WORK / "tmp" / "remote"),
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_DEVEL_WARNING="0",
        NO_COLOR="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    env.update(extra)
    return env


def run(*command: t.Any, env: dict[str, str] | None = None, cwd: pathlib.Path = ROOT) -> None:
    """Run a command with its output shown; Failed when it exits non-zero or takes longer than PATIENCE."""
    _execute(command, env, cwd, capture=False)


def output(*command: t.Any, env: dict[str, str] | None = None, cwd: pathlib.Path = ROOT) -> str:
    """Run a command and return what it wrote to standard output."""
    return _execute(command, env, cwd, capture=True)


def _execute(command: tuple[t.Any, ...], env: dict[str, str] | None, cwd: pathlib.Path, *, capture: bool) -> str:
    words = [str(word) for word in command]
    shown = " ".join(words).replace(f"{ROOT}/", "")
    print(f"$ {shown if len(shown) < 200 else shown[:200] + ' …'}", flush=True)
    # A session of its own, so that a time-out ends whatever the command started, too.
    if shutil.which(words[0]) is None:
        raise Failed(f"{words[0]} is missing on this machine; install it and run the same command again")
    with subprocess.Popen(
        words,
        env=env or environment(),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if capture else subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        said: collections.deque[bytes] = collections.deque(maxlen=None if capture else 1000)
        reader = threading.Thread(target=_read, args=(process.stdout, said, not capture), daemon=True)
        reader.start()
        try:
            process.wait(timeout=PATIENCE)
            reader.join(timeout=10)  # a server that the command left behind may hold the pipe
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                why = f"{pathlib.Path(words[0]).name} took longer than {PATIENCE} s"
                raise Failed(why, _text(said)) from None
            raise
    out = _text(said)
    if process.returncode != 0:
        if capture and out:
            print(out, flush=True)
        raise Failed(f"{pathlib.Path(words[0]).name} exited with {process.returncode}", out)
    return out


def _read(stream: t.IO[bytes], said: collections.deque[bytes], show: bool) -> None:
    while chunk := os.read(stream.fileno(), 65536):
        said.append(chunk)
        if show:
            sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()


def _text(said: t.Iterable[bytes]) -> str:
    return b"".join(said).decode("utf-8", "replace")


def tool(name: str) -> pathlib.Path:
    return VENV / "bin" / name


def tree(target: pathlib.Path) -> pathlib.Path:
    """A fresh copy of what git tracks or would track, under ``target`` at the path that ansible-test wants."""
    target = target / "ansible_collections" / NAMESPACE / NAME
    shutil.rmtree(target, ignore_errors=True)
    listed = output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    # The golden snapshots are encrypted bytes under names without an ending: ansible-test would read them as text.
    listed = [name for name in listed if not name.startswith("tests/golden/format_")]
    for name in sorted(set(filter(None, listed))):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    # ansible-test looks for the nearest repository, and in ours the copy is ignored.
    run("git", "init", "-q", target)
    return target


def playbooks() -> list[pathlib.Path]:
    return sorted(path for path in (ROOT / "playbooks").glob("*.yml") if not path.name.startswith("_"))


# --- stages -----------------------------------------------------------------------------------------------------------


def ruff() -> None:
    run(tool("ruff"), "check", ".")


def mypy() -> None:
    run(tool("mypy"))


def unit() -> None:
    _pytest("--durations=10", "tests/unit")


def integration() -> None:
    _pytest("--dist", "loadscope", "--durations=30", "tests/integration")


def _pytest(*arguments: str) -> None:
    """Stores and servers lie in memory, where there is room: on a disk half of the time goes by in waiting for it."""
    memory = "/dev/shm"
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="m", dir=memory if roomy else None, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o1777)  # some servers run as another user
        # Four on two cores: each waits half of its time, for servers, for leases and for what it killed or cut off.
        command = (tool("python"), "-m", "pytest", "-q", "-n", "4", f"--basetemp={folder}/t", *arguments)
        run(*command, env=environment(TMPDIR=folder))


def lint() -> None:
    awx_collection.bring()  # the role awx_setup is judged with its modules
    run(tool("ansible-lint"), "--offline", "--profile", "production", "--nocolor")


def changelog() -> None:
    run(tool("antsibull-changelog"), "lint")


def documentation(bin_dir: pathlib.Path = VENV / "bin", env: dict[str, str] | None = None) -> None:
    """ansible-doc loads every plugin and every role's argument specification."""
    missing = []
    for folder in ("modules", "callback", "filter", "lookup", "test"):
        kind = folder.rstrip("s")
        names = [path.stem for path in sorted((ROOT / "plugins" / folder).glob("[!_]*.py"))]
        missing += _undocumented(bin_dir, kind, names, env)
    roles = [path.parent.name for path in sorted((ROOT / "roles").glob("[!_]*/tasks"))]
    missing += _undocumented(bin_dir, "role", roles, env)
    if missing:
        raise Failed(f"ansible-doc shows nothing for {', '.join(missing)}")


def _undocumented(bin_dir: pathlib.Path, kind: str, names: list[str], env: dict[str, str] | None) -> list[str]:
    if not names:
        return []
    full = [f"{COLLECTION}.{name}" for name in names]
    shown = json.loads(output(bin_dir / "ansible-doc", "-j", "-t", kind, *full, env=env))
    return [f"{kind} {name}" for name in full if not shown.get(name)]


def site() -> None:
    """The documentation as a site: a page that cannot be read, or a link that leads nowhere, fails it."""
    run("sh", "tests/support/venv.sh", "docs", "requirements-docs.txt", "requirements-docs.txt")
    run(ROOT / ".venv" / "docs" / "bin" / "python", "tests/support/docs_site.py")


def sanity() -> None:
    """ansible-test in a copy of the tree; its own environments and cache stay inside this checkout."""
    where = tree(WORK / "sanity")
    env, home = _ansible_test_home()
    command = (tool("ansible-test"), "sanity", "--local", "--color", "no", "--python")
    # What runs on memory hosts must import under every Python there. The unit tests do so under this one.
    code = "from ansible_test._util.target.common.constants import REMOTE_ONLY_PYTHON_VERSIONS as r, "
    code += "CONTROLLER_PYTHON_VERSIONS as c; import ansible; print(*r); print(*c); print(*ansible.__path__)"
    hosts, controllers, ansible = output(tool("python"), "-c", code).splitlines()
    supported = f"{hosts} {controllers}".split()
    others = [v for v in pythons.VERSIONS if v != MAIN_PYTHON and v in supported and pythons.find(v)]
    skipped = ("--skip-test", "pylint", *(("--skip-test", "import") if others else ()))
    failures = _try(*command, MAIN_PYTHON, *skipped, env=env, cwd=where)
    # Pylint takes as long as half of the rest, so it judges what is published. Ruff has its rules for the tests, too.
    failures += _try(*command, MAIN_PYTHON, "--test", "pylint", "--exclude", "tests/", env=env, cwd=where)
    for version in sorted({*others[:1], *others[-1:]}):
        first = home / f"python{version}"
        first.mkdir(exist_ok=True)
        link = first / f"python{version}"
        link.unlink(missing_ok=True)
        link.symlink_to(str(pythons.find(version)))
        path = f"{tool('').parent}{os.pathsep}{first}{os.pathsep}{env['PATH']}"
        settings: dict[str, t.Any] = {"env": {**env, "PATH": path}, "cwd": where}
        failures += _try(*command, version, "--test", "compile", **settings)
        # It imports all that a file needs anew for each file. What none may import is the same for all versions, so all
        # files are judged under the oldest one, and under the newest one those that the oldest one does not run.
        judged = () if version == others[0] else sorted(f"plugins/{name}/" for name in ON_CONTROLLERS)
        if not judged or version in controllers.split():
            failures += _try(*command, version, "--test", "import", *judged, **settings)
    bare = home / "ansible-alone"  # as a package for a memory host has it, without what lies beside it here
    bare.mkdir(exist_ok=True)
    (bare / "ansible").unlink(missing_ok=True)
    (bare / "ansible").symlink_to(ansible)
    alone = environment(PYTHONPATH=f"{WORK / 'collections'}{os.pathsep}{bare}")
    for version in others:
        failures += _try(pythons.find(version), "tests/support/import_all.py", "modules", "module_utils", env=alone)
    if not others:
        print(f"Compiled and imported under Python {MAIN_PYTHON} alone: no other one is at hand.", flush=True)
    if failures:
        raise failures[0]


def _try(*command: t.Any, **settings: t.Any) -> list[Failed]:
    """The failure in a list when the command fails, so that those after it still run."""
    try:
        run(*command, **settings)
    except Failed as why:
        return [why]
    return []


def _ansible_test_home(venv: pathlib.Path = VENV) -> tuple[dict[str, str], pathlib.Path]:
    home = WORK / "ansible-test-home" / venv.name  # one for each: they run side by side
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for release in ("get_pip_23_1_2.py", "get_pip_24_2.py", "get_pip_25_2.py"):
        shutil.copy(ROOT / "tests" / "support" / "get_pip.py", cache / release)
    # A person's own pip settings (a mirror, a proxy) stay in force though HOME moves; only pip's chatter goes, and that
    # it compiles what is never imported.
    settings = configparser.RawConfigParser()
    settings.read([pathlib.Path.home() / ".pip" / "pip.conf", pathlib.Path.home() / ".config" / "pip" / "pip.conf"])
    if not settings.has_section("install"):
        settings.add_section("install")
    settings.set("install", "quiet", "2")
    settings.set("install", "no-compile", "false")  # pip's way to switch it on
    (home / ".config" / "pip").mkdir(parents=True, exist_ok=True)
    with open(home / ".config" / "pip" / "pip.conf", "w", encoding="utf-8") as file:
        settings.write(file)
    env = environment(venv, HOME=str(home))
    for name in ("PYTHONPATH", "ANSIBLE_HOME", "ANSIBLE_COLLECTIONS_PATH", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        env.pop(name, None)
    return env, home


def molecule() -> None:
    env = environment(ANSIBLE_PYTHON_INTERPRETER=str(tool("python")))
    run(tool("molecule"), "reset", "--all", env=env)  # it remembers that it prepared what its clean-up took away
    run(tool("molecule"), "test", "--all", env=env)


def build() -> None:
    """Build the collection, install it elsewhere, and use it with nothing but what a user gets."""
    out = WORK / "build"
    shutil.rmtree(out, ignore_errors=True)
    installed = out / "installed"
    run(tool("ansible-galaxy"), "collection", "build", "--force", "--output-path", out)
    env = environment(ANSIBLE_COLLECTIONS_PATH=str(installed))
    del env["PYTHONPATH"]  # Ansible would find the checkout by it
    run(tool("ansible-galaxy"), "collection", "install", "--offline", "-p", installed, _tarball(), env=env)
    content = installed / "ansible_collections" / NAMESPACE / NAME
    for path in content.iterdir():
        if path.name not in ("meta", "plugins", "roles", "playbooks", "MANIFEST.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    documentation(env=env)
    run(*_syntax_check(VENV / "bin"), env=env, cwd=WORK)


def demo() -> None:
    """In a copy, with an environment of its own, as whoever comes anew runs it; a person's own demo stays."""
    run("make", "demo", cwd=tree(WORK / "demo"))


def _tarball() -> pathlib.Path:
    found = sorted((WORK / "build").glob(f"{NAMESPACE}-{NAME}-*.tar.gz"))
    if not found:
        raise Failed("there is no built collection (stage build)")
    return found[-1]


def _syntax_check(bin_dir: pathlib.Path) -> tuple[t.Any, ...]:
    names = [f"{COLLECTION}.{path.stem}" for path in playbooks()]
    if not names:
        raise Failed("there is no playbook to check")
    return (bin_dir / "ansible-playbook", "-i", "localhost,", "--syntax-check", *names)


def importer() -> None:
    config = WORK / "galaxy-importer.cfg"
    config.write_text("[galaxy-importer]\nCHECK_REQUIRED_TAGS = True\nRUN_ANSIBLE_LINT = False\n", encoding="utf-8")
    env = environment(GALAXY_IMPORTER_CONFIG=str(config))
    run(tool("python"), "-m", "galaxy_importer.main", _tarball(), env=env, cwd=WORK / "build")


def core(release: str) -> t.Callable[[], None]:
    """A stage: syntax, documentation and the tests that meet Ansible, under another release of ansible-core."""

    def check() -> None:
        versions = CORES[release]
        found = next(((v, p) for v in versions if (p := pythons.find(v))), None)
        if found is None:
            raise NotRun(f"ansible-core {release} needs Python {' or '.join(versions)}; none is at hand")
        venv = _core_venv(release, *found)
        env = environment(venv)
        documentation(venv / "bin", env)
        pytest = (venv / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
        failures = _try(*pytest, "tests/unit/plugins", env=env)  # these tests meet ansible-core itself
        failures += _try(*_syntax_check(venv / "bin"), env=env)
        failures += _try(venv / "bin" / "python", "tests/support/import_all.py", env=env)
        # What a release can judge otherwise than the one of the stage "sanity"; style and files are the same for all.
        only = ("ansible-doc", "compile", "runtime-metadata", "validate-modules")
        test_env, _home = _ansible_test_home(venv)
        command = (venv / "bin" / "ansible-test", "sanity", "--local", "--color", "no", "--python", found[0])
        where = tree(WORK / f"sanity-{release}")
        failures += _try(*command, *(f"--test={name}" for name in only), env=test_env, cwd=where)
        if failures:
            raise failures[0]

    return check


def _core_venv(release: str, version: str, python: str) -> pathlib.Path:
    venv = ROOT / ".venv" / f"core-{release}"
    requirements = (ROOT / "requirements-compat.txt").read_text(encoding="utf-8")
    wanted = hashlib.sha256(f"{requirements} {release} {version}".encode()).hexdigest()
    stamp = venv / ".stamp"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"Setting up {venv.relative_to(ROOT)} with Python {version} …", flush=True)
        run(python, "-m", "venv", "--clear", "--without-pip", venv)
        pip = (tool("python"), "-m", "pip", "--python", venv / "bin" / "python", "install", "-qq", "--no-compile")
        run(*pip, f"ansible-core=={release}", "-r", "requirements-compat.txt")
        stamp.write_text(wanted)
    return venv


def _main_core() -> str:
    return "2.21.5" if sys.version_info >= (3, 12) else "2.19.14"


LANES = ("a", "b", "c", "d")  # b and d come last and take as long as each other
UNHURRIED = ("a", "c")  # what they find does not depend on how fast they are
STAGES = [
    Stage("ruff", "style and likely mistakes of all Python", ruff),
    Stage("unit", "unit and property tests", unit),
    Stage("integration", "playbooks against real stores and servers", integration),
    Stage("sanity", "ansible-test sanity", sanity, "a"),
    Stage("lint", "ansible-lint, production profile", lint, "a"),
    Stage("mypy", "types of the core, the demo and the benchmark, strict", mypy, "b"),
    Stage("build", "build, install, use without the repository", build, "b"),
    Stage("importer", "galaxy-importer", importer, "b"),  # of what "build" made
    Stage("demo", "the demo, from a copy without any environment", demo, "b"),
    Stage("molecule", "molecule: one host, and the hosts of the lab by SSH", molecule, "d"),
    Stage("doc", "documentation of every plugin and role", documentation, "b"),
    Stage("site", "documentation site, without a warning", site, "b"),
    Stage("changelog", "changelog fragments", changelog, "c"),
    *(
        Stage(f"core-{release[:4]}", f"the Ansible surface under ansible-core {release}", core(release), "c")
        for release in CORES
        if release != _main_core()
    ),
]

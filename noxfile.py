# SPDX-License-Identifier: AGPL-3.0-only
"""
How this project is checked: C{nox} runs all of it, C{nox -s types} one session.

CI runs the same sessions (C{.ci/run}).
"""

from __future__ import annotations

import configparser
import re
import sys
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "e2e", "init", "docs"]
nox.options.error_on_missing_interpreters = True

HERE = Path(__file__).resolve().parent
TOOLS = ("ruff", "towncrier")
TYPED = (
    "ctrlexec",
    "tests",
    "interop",
    "benchmarks/runs.py",
    "twisted/plugins/ctrlexec_plugins.py",
    "noxfile.py",
    "init/check.py",
)
# An async test in a SynchronousTestCase would pass without running; with these
# flags its forgotten coroutine is an error.
TRIAL = (
    *("python", "-b", "-W", "error::RuntimeWarning", "-m", "twisted.trial"),
    "--force-gc",
)
TWISTED_DOCS = "https://docs.twisted.org/en/stable/api/"
PLUGIN = "twisted/plugins/ctrlexec_plugins.py"


@nox.session
def lint(session: nox.Session) -> None:
    """
    The form of the code, and of the news fragments.
    """
    session.install(*TOOLS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def types(session: nox.Session) -> None:
    """
    The types, strictly.
    """
    session.install(".[test]", "mypy", "mypy-zope", "nox")
    session.run("mypy", *TYPED)


@nox.session
def tests(session: nox.Session) -> None:
    """
    Every Trial test but the end-to-end ones, with the newest dependencies.
    """
    session.install(".[test]")
    _trial(session, *session.posargs or _test_modules())


@nox.session
def lowest(session: nox.Session) -> None:
    """
    The same tests with the lowest versions that C{setup.cfg} allows.
    """
    constraints = _scratch(session) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions()) + "\n")
    session.install("-c", str(constraints), ".[test]")
    session.run("python", "-m", "pip", "list")
    _trial(session, *session.posargs or _test_modules())


@nox.session
def e2e(session: nox.Session) -> None:
    """
    The built wheel, installed into an environment of its own, as an operator
    would meet it. The tests find its programs through C{CTRL_EXEC_BIN}.
    """
    _trial_installed(session, *session.posargs or ("tests.e2e",))


@nox.session
def interop(session: nox.Session) -> None:
    """
    The same, against peers on Perl's libraries and against real system logs:
    C{interop/peers/README} says what must be installed.
    """
    _trial_installed(session, *session.posargs or ("interop",))


@nox.session(venv_backend="none")
def init(session: nox.Session) -> None:
    """
    The units and scripts in C{init/}, as systemd and a shell read them.
    """
    session.run(sys.executable, "init/check.py")


@nox.session
def docs(session: nox.Session) -> None:
    """
    The documentation of the code; a link that leads nowhere is an error.
    """
    session.install(".", "pydoctor")
    inventory = _twisted_inventory(session)
    session.run(
        "pydoctor", "--quiet", "--warnings-as-errors",
        f"--intersphinx-file={inventory}::{TWISTED_DOCS}",
        "ctrlexec",
    )  # fmt: skip


def lowest_versions() -> list[str]:
    """
    @return: the dependencies in C{setup.cfg}, those of the tests included, each
        pinned to its lower bound.
    """
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(HERE / "setup.cfg", encoding="utf-8")
    needed = (
        setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    )
    pinned = []
    for line in filter(None, map(str.strip, needed.splitlines())):
        found = re.fullmatch(r"([A-Za-z0-9-]+) *>=([0-9.]+)", line)
        if found is None:
            raise ValueError(f"setup.cfg: {line!r} is not of the form NAME >=VERSION")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def _test_modules() -> list[str]:
    return sorted(f"tests.{path.stem}" for path in (HERE / "tests").glob("test_*.py"))


def _scratch(session: nox.Session) -> Path:
    """
    @return: a directory for what a session makes, as an absolute path: Trial
        changes the working directory. (The one that nox offers would become
        TMPDIR, and is too deep in the tree for a unix socket.)
    """
    path = Path(session.virtualenv.location).resolve() / "scratch"
    path.mkdir(exist_ok=True)
    return path


def _trial(session: nox.Session, *what: str, **env: str) -> None:
    scratch = _scratch(session) / "trial"
    session.run(*TRIAL, f"--temp-directory={scratch}", *what, env=env)


def _trial_installed(session: nox.Session, *what: str) -> None:
    scratch = _scratch(session)
    built, installed = scratch / "dist", scratch / "installed"
    session.install("build", ".[test]")
    session.run("python", "-m", "build", "--outdir", str(built), ".", silent=True)
    wheel = max(built.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    _check_contents(session, wheel)
    session.run("python", "-m", "venv", "--clear", str(installed))
    programs = installed / "bin"
    session.run(
        str(programs / "python"), "-m", "pip", "install", "-q", str(wheel),
        external=True,
    )  # fmt: skip
    _trial(session, *what, CTRL_EXEC_BIN=str(programs))


def _check_contents(session: nox.Session, wheel: Path) -> None:
    """
    A wheel with an C{__init__.py} in C{twisted/} would break every Twisted that
    it is installed beside; one without the plugin has no daemons.
    """
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {name for name in names if name.startswith("twisted/")}
    if ours != {PLUGIN}:
        session.error(f"{wheel.name} holds {sorted(ours)}, not just {PLUGIN}")
    packages = {name.split("/")[0] for name in names} - {"ctrlexec", "twisted"}
    if any(not name.endswith(".dist-info") for name in packages):
        session.error(f"{wheel.name} installs {sorted(packages)}, too")
    if "ctrlexec/py.typed" not in names:
        session.error(f"{wheel.name} holds no ctrlexec/py.typed")


def _twisted_inventory(session: nox.Session) -> Path:
    """
    @return: the list of everything in Twisted that a docstring can link to,
        made from the installed one, so that no network is needed.
    """
    where = session.run(
        "python", "-c",
        "import os, twisted; print(os.path.dirname(twisted.__file__))",
        silent=True,
    )  # fmt: skip
    target = _scratch(session) / "twisted"
    session.run(
        "pydoctor", "--quiet", "--make-intersphinx", f"--html-output={target}",
        str(where).strip(),
        success_codes=[0, 2, 3], silent=True,
    )  # fmt: skip
    return target / "objects.inv"

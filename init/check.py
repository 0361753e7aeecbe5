# SPDX-License-Identifier: AGPL-3.0-only
"""
Whether systemd understands the units, and a shell the scripts: the nox session
C{init}. Needs C{systemd-analyze} and C{shellcheck}.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNITS = HERE / "systemd"
SCRIPTS = (HERE / "openwrt" / "ctrl-exec-agent", HERE / "alpine" / "ctrl-exec-agent")
#: What drop-ins each service can have.
FITS = {
    "ctrl-exec-agent.service": ("older-systemd.conf", "confined.conf"),
    "ctrl-exec-api.service": ("older-systemd.conf",),
    "ctrl-exec-maintenance.service": (),
    "ctrl-exec-pairing.service": (),
}
#: What drop-ins the services are looked at with.
DROP_INS: tuple[tuple[str, ...], ...] = (
    (),
    ("older-systemd.conf",),
    ("confined.conf",),
    ("older-systemd.conf", "confined.conf"),
)
#: The first systemd that knows C{Type=notify-reload}, and what others say of it.
NOTIFY_RELOAD = 253
UNKNOWN_TYPE = "Failed to parse service type, ignoring: notify-reload"


def main() -> int:
    """
    @return: 0 if there is nothing to complain about.
    """
    complaints = [*unit_complaints(), *script_complaints()]
    for complaint in complaints:
        sys.stderr.write(f"{complaint}\n")
    return 1 if complaints else 0


def unit_complaints() -> Iterator[str]:
    """
    What systemd says of the units. It ends with 0 whatever it ignores, so
    every line is a complaint; but one that an old systemd must make.
    """
    expected = UNKNOWN_TYPE if systemd_version() < NOTIFY_RELOAD else None
    for names in DROP_INS:
        with tempfile.TemporaryDirectory() as scratch:
            done = _run(
                *("systemd-analyze", "--man=no", "verify"),
                *map(str, _installed(Path(scratch), names)),
            )
            for line in done.stdout.splitlines():
                if expected is None or not line.endswith(expected):
                    yield f"with {list(names)}: {line.replace(scratch, str(UNITS))}"
            if done.returncode:
                yield f"with {list(names)}: it ended with {done.returncode}"


def script_complaints() -> Iterator[str]:
    """
    What C{shellcheck} says of the scripts.
    """
    for script in SCRIPTS:
        done = _run("shellcheck", "-s", "sh", str(script))
        if done.returncode:
            yield done.stdout or f"{script}: shellcheck ended with {done.returncode}"


def systemd_version() -> int:
    """
    The number of the systemd at hand.
    """
    found = re.match(r"systemd (\d+)", _run("systemd-analyze", "--version").stdout)
    if found is None:
        raise SystemExit("error: systemd-analyze does not say its version")
    return int(found[1])


def _installed(scratch: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """
    The units as an administrator puts them in place, with a program that this
    machine has.
    """
    for path in sorted(UNITS.glob("ctrl-exec-*.*")):
        text = re.sub(r"/usr/bin/[a-z-]+", "/bin/true", path.read_text("utf-8"))
        (scratch / path.name).write_text(text, "utf-8")
        yield scratch / path.name
    for service, fitting in FITS.items():
        (scratch / f"{service}.d").mkdir()
        for name in set(names).intersection(fitting):
            shutil.copy(UNITS / "drop-ins" / name, scratch / f"{service}.d" / name)


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    raise SystemExit(main())

# SPDX-License-Identifier: AGPL-3.0-only
"""
The place of the HTTP API: C{twistd ctrl-exec-api} and C{ctrl-exec-api}.

This release has no API yet. Its name is taken already, so that whoever starts
it is told so, and what to use meanwhile, instead of being told nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from twisted.python import usage

from ctrlexec import __version__

NOT_YET = (
    "error: the HTTP API comes in a later release of ctrl-exec; "
    "until then use the command line, with --json for programs: "
    "ctrl-exec --json run HOST SCRIPT"
)


class Options(usage.Options):
    """
    What stands behind C{ctrl-exec-api} on a command line: nothing yet.
    """

    synopsis = "[options]"
    longdesc = (
        "The HTTP API of the ctrl-exec dispatcher. It comes in a later release; "
        "until then use the command line, ctrl-exec."
    )

    def opt_version(self) -> NoReturn:
        """
        Show the version and exit.
        """
        sys.stdout.write(f"ctrl-exec-api {__version__}\n")
        raise SystemExit(0)


def makeService(options: Options) -> NoReturn:
    """
    @raise SystemExit: always, with the sentence that says why. C{twistd} calls
        this before it leaves the terminal, so the operator sees it; and after
        a C{UsageError} a C{twistd} before 26.10 would end with exit code 0.
    """
    raise SystemExit(NOT_YET)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """
    The C{ctrl-exec-api} command.

    @param arguments: what stands behind the command's name; by default what
        this process was started with.
    """
    options = Options()
    try:
        options.parseOptions(sys.argv[1:] if arguments is None else arguments)
    except usage.UsageError as problem:
        raise SystemExit(f"error: {problem}\nhint: see ctrl-exec-api --help") from None
    makeService(options)

# SPDX-License-Identifier: AGPL-3.0-only
"""
The HTTP API as a service: C{twistd ctrl-exec-api} and C{ctrl-exec-api}.

Klein installs the reactor as soon as it is loaded, so nothing here loads it
before there is a service to make.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.application.service import IService
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from ctrlexec import __version__
from ctrlexec.api.source import Overrides
from ctrlexec.dispatcher.settings import BINDS, DEFAULT_FILE
from ctrlexec.errors import CtrlExecError, InvalidValue, ListenError
from ctrlexec.values import port_number

PROGRAM = "ctrl-exec-api"
#: The exit status that says: to start again is of no use before somebody has
#: mended the configuration (C{EX_CONFIG}).
CONFIGURATION = 78


class Options(BaseOptions):
    """
    What C{ctrl-exec-api} takes, and C{twistd ctrl-exec-api}.
    """

    synopsis = "[options]"
    longdesc = "Offers the dispatcher's operations over HTTP."
    optParameters: ClassVar[list[list[str | None]]] = [
        ["config", "c", None, "The settings, in place of $CTRL_EXEC_CONFIG."],
        ["port", "p", None, "The port to listen on, in place of the setting."],
        ["bind", "b", None, "Addresses and unix:/path, in place of the setting."],
    ]

    def opt_version(self) -> NoReturn:
        """
        Show the version and exit.
        """
        sys.stdout.write(f"ctrl-exec-api {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """
        @raise UsageError: an option is not what it should be.
        """
        named = self["config"] or os.environ.get("CTRL_EXEC_CONFIG")
        self["config"] = named or str(DEFAULT_FILE)
        given, bind = self["port"], self["bind"]
        try:
            port = None if given is None else port_number(given)
        except InvalidValue as error:
            raise UsageError(str(error)) from None
        try:
            binds: Any = None if bind is None else BINDS.read(bind)
        except InvalidValue as error:
            raise UsageError(f"--bind takes {error.expected}") from None
        self.overrides = Overrides(port, binds)


def makeService(options: Options) -> IService:
    """
    For C{twistd}: a service on the global reactor.

    @raise SystemExit: with status 78 and a line that says why.
    """
    from twisted.internet import reactor

    from ctrlexec.api.running import api_service
    from ctrlexec.foreground import end_in_words, leave

    end_in_words()
    try:
        return api_service(reactor, Path(options["config"]), options.overrides)
    except CtrlExecError as error:
        leave(error, CONFIGURATION)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    The C{ctrl-exec-api} command: the API in the foreground.

    @param arguments: what stands behind the command's name; by default what
        this process was started with.
    """
    options = Options()
    try:
        options.parseOptions(sys.argv[1:] if arguments is None else arguments)
    except UsageError as problem:
        raise SystemExit(f"error: {problem}\nhint: see ctrl-exec-api --help") from None
    service = makeService(options)
    from twisted.internet import reactor

    from ctrlexec.foreground import leave, run_service

    try:
        run_service(service, reactor)
    except ListenError as error:
        leave(error, 1)

# SPDX-License-Identifier: AGPL-3.0-only
"""
C{ctrl-exec-agent}: PROTOCOL.md section 7, NEWER-LINE.md section 12.1.

A mode loads what it uses and no more.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ctrlexec import __version__
from ctrlexec.errors import CtrlExecError, InvalidValue, explained
from ctrlexec.values import HostPort, port_number

#: C{EX_CONFIG}: to try again is of no use before somebody mends something.
CONFIGURATION = 78
_SETTINGS = "/etc/ctrl-exec-agent/agent.conf"
_LONGEST_SECONDS = 600
_MODES = """\
modes:
  serve             answer trusted dispatchers (when no mode is given)
  request-pairing   ask a dispatcher for an identity
  join              the same with a join TOKEN, where no person is
  pairing-status    say whether there is one; exit status 0 paired, 1 not
  self-check        look at all that the agent needs; 0 if nothing has failed
  self-ping         ask the agent that runs here whether it answers
for init scripts, silent:
  paired            0 if key, certificate and CA are there, else 1
  cert-staged       0 if a renewed certificate waits, else 1
  promote-cert      put it in its place; 0 in any case
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    @param argv: the arguments, without the program's name.
    @return: the exit status.
    """
    parser = _parser()
    # The token may stand behind options.
    options = parser.parse_intermixed_args(argv)
    if options.token is not None and options.mode != "join":
        # It may be a token, so it is not repeated.
        parser.error(f"unrecognized arguments: {options.mode} takes none")
    try:
        return _MODE[options.mode](options)
    except CtrlExecError as error:
        sys.stderr.write(explained(error))
        return CONFIGURATION if options.mode == "serve" else 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; 'pairing-status' says whether anything was stored\n")
        return 130


class _Parser(argparse.ArgumentParser):
    """
    Says what is wrong as the rest of the program does.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\nhint: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ctrl-exec-agent",
        description="Lets trusted dispatchers run the scripts that this host allows.",
        epilog=_MODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"ctrl-exec-agent {__version__}")
    add("mode", nargs="?", choices=sorted(_MODE), default="serve", metavar="MODE")
    add("token", nargs="?", metavar="TOKEN", help=argparse.SUPPRESS)
    add("--config", type=Path, metavar="FILE", help=f"default {_SETTINGS}")
    add("--allowlist", type=Path, metavar="FILE", help="in place of scripts.conf")
    add(
        "--port",
        type=_option(port_number),
        metavar="N",
        help="to listen on; in request-pairing and join, the dispatcher's pairing port",
    )
    pairing = parser.add_argument_group("request-pairing")
    add = pairing.add_argument
    add(
        "--dispatcher",
        "--ctrl-exec",
        type=_option(HostPort.parse),
        metavar="HOST[:PORT]",
        help="whom to ask",
    )
    add(
        "--background",
        action="store_true",
        help="print the request's id and wait in the background, which then "
        "ends with 0 stored, 2 time is up, 3 denied",
    )
    add(
        "--timeout",
        type=_option(_seconds),
        metavar="SECONDS",
        help="how long to wait for a decision, up to 600; default 30 in the "
        "background, else 600",
    )
    add(
        "--ca-fingerprint",
        type=_option(_fingerprint),
        metavar="sha256:HEX",
        help="the CA that the dispatcher must have, as ctrl-exec ca-fingerprint "
        "prints it there; then nobody is asked here",
    )
    add(
        "--legacy",
        action="store_true",
        help="let the pairing of the original do, whose code says nothing of the "
        "dispatcher: who sits in between can pass it",
    )
    add("--lookup-by", choices=("ip", "hostname"), default="", metavar="ip|hostname")
    joining = parser.add_argument_group(
        "join", "also --dispatcher, --timeout (default 60) and --lookup-by"
    )
    joining.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a file with nothing but the token; other users can read a command "
        "line, and $CTRL_EXEC_JOIN_TOKEN is used where neither is given",
    )
    parser.set_defaults(config=Path(_SETTINGS))
    return parser


def _option(parse: Callable[[str], object]) -> Callable[[str], object]:
    def parsed(text: str) -> object:
        try:
            return parse(text)
        except InvalidValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _seconds(text: str) -> int:
    if re.fullmatch("[1-9][0-9]{0,3}", text) and int(text) <= _LONGEST_SECONDS:
        return int(text)
    raise InvalidValue(
        "timeout",
        text,
        f"1 to {_LONGEST_SECONDS} seconds: the dispatcher ends a request after that",
    )


def _fingerprint(text: str) -> str:
    if re.fullmatch("sha256:[0-9A-Fa-f]{64}", text):
        return text.lower()
    raise InvalidValue("fingerprint", text, "sha256: and 64 hex digits")


def _serve(options: argparse.Namespace) -> int:
    from ctrlexec.agent.policy import Overrides
    from ctrlexec.agent.service import agent_service, global_reactor
    from ctrlexec.errors import ListenError
    from ctrlexec.foreground import run_service

    reactor = global_reactor()
    overrides = Overrides(options.port, options.allowlist)
    service = agent_service(reactor, options.config, overrides)
    try:
        run_service(service, reactor)
    except ListenError as error:
        sys.stderr.write(explained(error))
        return 1
    return 0


def _request_pairing(options: argparse.Namespace) -> int:
    from ctrlexec.agent.applying import apply_for_pairing

    if options.dispatcher is None:
        raise CtrlExecError(
            "request-pairing needs to know whom to ask",
            hint="ctrl-exec-agent request-pairing --dispatcher HOST",
        )
    if options.background and not (options.ca_fingerprint or options.legacy):
        _parser().error(
            "--background has nobody to ask whether both show the same code: it "
            "needs --ca-fingerprint or --legacy"
        )
    return apply_for_pairing(options)


def _join(options: argparse.Namespace) -> int:
    from ctrlexec.agent.joining import join

    for option in ("background", "ca_fingerprint", "legacy"):
        if getattr(options, option):
            shown = option.replace("_", "-")
            _parser().error(f"join has no option --{shown}: the token says it all")
    if options.token is not None and options.token_file is not None:
        _parser().error("either TOKEN or --token-file")
    if options.dispatcher is None:
        raise CtrlExecError(
            "join needs to know whom to ask",
            hint="ctrl-exec-agent join TOKEN --dispatcher HOST",
        )
    return join(options)


def _pairing_status(options: argparse.Namespace) -> int:
    from ctrlexec.agent.applying import pairing_status

    return pairing_status(options.config)


def _upkeep(mode: str) -> Callable[[argparse.Namespace], int]:
    def carry_out(options: argparse.Namespace) -> int:
        from ctrlexec.agent import upkeep

        status: int = getattr(upkeep, mode)(options)
        return status

    return carry_out


_MODE: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "request-pairing": _request_pairing,
    "join": _join,
    "pairing-status": _pairing_status,
    "self-check": _upkeep("self_check"),
    "self-ping": _upkeep("self_ping"),
    "paired": _upkeep("paired"),
    "cert-staged": _upkeep("cert_staged"),
    "promote-cert": _upkeep("promote_cert"),
}

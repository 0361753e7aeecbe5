# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that are about this dispatcher, and this program.
"""

from __future__ import annotations

import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.grammar import mode

FAILED = 1


@mode("setup-ca")
def setup_ca(line: CommandLine) -> None:
    """
    Make the private CA. One that is there is never overwritten.
    """
    settings = line.settings
    info = line.carry_out(lambda ours: ours.setup_ca(line.caller))
    fingerprint = line.dispatcher.trust(line.caller).ca_fingerprint()
    paths = settings.ca_key, settings.ca
    text = render.created_text("the CA", *paths, info, fingerprint)
    line.show(text, render.created_json(info, fingerprint))
    line.note("next: ctrl-exec setup-ctrl-exec")


@mode("ca-fingerprint")
def ca_fingerprint(line: CommandLine) -> None:
    """
    Print what names the CA.

    An agent that is given it pins it, so that nobody has to compare codes there:
    ctrl-exec-agent request-pairing --ca-fingerprint sha256:HEX
    """
    fingerprint = line.carry_out(lambda ours: ours.ca_fingerprint(line.caller))
    document = render.to_json({"ok": True, "fingerprint": fingerprint})
    line.show(f"{fingerprint}\n", document)


@mode("setup-ctrl-exec")
@click.option("--yes", is_flag=True, help="Do not ask, even if agents are paired.")
def setup_ctrl_exec(line: CommandLine, yes: bool) -> int:
    """
    Make the dispatcher's own key and certificate.

    Agents of the original implementation trust one certificate of the
    dispatcher by its serial, so replacing it can lose them: that is asked
    first.
    """
    settings = line.settings
    stake = line.dispatcher.agents_at_stake(line.caller)
    if stake and not yes and line.terminal.attended:
        yes = line.terminal.asks(
            f"{stake} paired agents may not trust a new certificate. Replace it?"
        )
        if not yes:
            line.note("nothing was changed")
            return FAILED
    info = line.carry_out(lambda ours: ours.setup_identity(line.caller, confirmed=yes))
    what = f"the identity of the dispatcher {settings.dispatcher_id}"
    text = render.created_text(what, settings.key, settings.cert, info)
    line.show(text, render.created_json(info))
    line.note(
        "next: ctrl-exec pairing-mode here, and on each host "
        "ctrl-exec-agent request-pairing --dispatcher THIS-HOST"
    )
    return 0


@mode("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(line: CommandLine, shell: str) -> None:
    """
    Print what lets a shell complete a command line.

    It completes modes, options, registered hosts and known scripts.

    \b
    bash  eval "$(ctrl-exec completion bash)"
    zsh   eval "$(ctrl-exec completion zsh)"
    fish  ctrl-exec completion fish | source
    """
    from ctrlexec.dispatcher.completion import shell_script

    line.terminal.show(shell_script(shell))


@mode("demo")
@click.option("--keep", is_flag=True, help="Leave it running to play with.")
def demo(line: CommandLine, keep: bool) -> int:
    """
    Show it all at work on this machine.

    It takes a few seconds, needs no settings, and cleans up behind itself.
    """
    from ctrlexec.demo import main as show

    return show(keep=keep, colour=line.terminal.look.colour)

# SPDX-License-Identifier: AGPL-3.0-only
"""
What C{twistd} can run of ctrl-exec.

Every C{twistd} on the machine imports this file, whatever it was asked to run:
so the service modules are named here, and loaded only when they are wanted.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

agent = ServiceMaker(
    "ctrl-exec agent",
    "ctrlexec.agent.service",
    "Runs allowlisted scripts for its dispatchers, over mutual TLS.",
    "ctrl-exec-agent",
)

pairing = ServiceMaker(
    "ctrl-exec pairing listener",
    "ctrlexec.dispatcher.service",
    "Takes the requests of new agents and waits for a person's decision.",
    "ctrl-exec-pairing",
)

api = ServiceMaker(
    "ctrl-exec HTTP API",
    "ctrlexec.api.service",
    "Offers the dispatcher's operations over HTTP.",
    "ctrl-exec-api",
)

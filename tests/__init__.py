# SPDX-License-Identifier: AGPL-3.0-only
"""
The tests of ctrl-exec. Those under C{tests/e2e} need an installed wheel.

Trial is told to collect garbage before and after each test, so that a coroutine
that nobody has waited for is seen (C{--force-gc}). What the libraries hold is
never garbage, and most of what there is to look through: it is put aside, which
makes the whole suite several times as fast.
"""

import gc
import importlib

for name in (
    "ClusterShell.NodeSet",
    "ctrlexec.agent.service",
    "ctrlexec.api.service",
    "ctrlexec.dispatcher.cli",
    "ctrlexec.dispatcher.service",
    "hypothesis.strategies",
    "openapi_spec_validator",
    "prometheus_client",
    "treq.testing",
    "twisted.test.iosim",
    "twisted.trial.unittest",
):
    importlib.import_module(name)
gc.collect()
gc.freeze()

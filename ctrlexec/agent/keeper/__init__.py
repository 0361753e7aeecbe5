# SPDX-License-Identifier: AGPL-3.0-only
"""
The keeper: the small parent of each script, which outlives the agent.

It is a program of its own (L{ctrlexec.agent.keeper.zygote}), with nothing of
the agent's in its memory: it imports the standard library and this package
alone, and as little of either as it can. It reads what the script writes,
keeps it in files, ends the script when its time is over or when somebody wants
it, and writes down how it has ended. The agent starts it and talks to it:
L{ctrlexec.agent.keeping}.
"""

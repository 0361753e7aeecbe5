# SPDX-License-Identifier: AGPL-3.0-only
"""
The tests of ctrl-exec. Those under C{tests/e2e} need an installed wheel.
"""

# SPDX-License-Identifier: AGPL-3.0-only
"""
The installed programs, as processes of their own, on real files and ports.

They are those in the directory that C{CTRL_EXEC_BIN} names; by default those
installed beside the Python that runs the tests.
"""

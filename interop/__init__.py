# SPDX-License-Identifier: AGPL-3.0-only
"""
The installed programs against peers that are not in Python; C{nox -s interop}.

They need what a machine with Python alone does not have (C{peers/README}), so
they are apart from C{tests}.
"""

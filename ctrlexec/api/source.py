# SPDX-License-Identifier: AGPL-3.0-only
"""
The settings of the API, and what is wrong with them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import attrs

from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import SettingsError
from ctrlexec.settings import SettingsWarning, load_settings


@attrs.frozen
class Overrides:
    """
    What the command line says in place of the settings; C{None} where it says
    nothing.
    """

    api_port: int | None = None
    api_bind: tuple[str | Path, ...] | None = None


@attrs.frozen
class Source:
    """
    Where the settings come from.
    """

    file: Path
    overrides: Overrides

    def read(self) -> tuple[DispatcherSettings, Sequence[SettingsWarning | str]]:
        """
        @return: the settings, and what the operator should hear about them.
        @raise SettingsError: they can not be used.
        """
        settings, warnings = load_settings(DispatcherSettings, self.file)
        given = attrs.asdict(self.overrides)
        settings = attrs.evolve(
            settings,
            **{key: value for key, value in given.items() if value is not None},
        )
        if (settings.api_cert is None) != (settings.api_key is None):
            missing = "api_key" if settings.api_key is None else "api_cert"
            problem = "must be given where the other of the pair is"
            raise SettingsError(str(self.file), 0, missing, problem)
        return settings, (*warnings, *_in_the_clear(settings))

    def is_ready(self, settings: DispatcherSettings) -> bool:
        """
        Whether a request could be carried out now; it may block.
        """
        mine = (settings.key, settings.cert, settings.ca, self.file)
        writing = os.R_OK | os.W_OK | os.X_OK
        return all(os.access(path, os.R_OK) for path in mine) and os.access(
            settings.state_dir, writing
        )


def _in_the_clear(settings: DispatcherSettings) -> tuple[str, ...]:
    if settings.api_cert is not None:
        return ()
    return tuple(
        f"api_bind: without api_cert and api_key, tokens and results are read by "
        f"whoever is between a client and {bind or 'this host'}"
        for bind in settings.api_bind
        if isinstance(bind, str) and not (bind and ip_address(bind).is_loopback)
    )

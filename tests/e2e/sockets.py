# SPDX-License-Identifier: AGPL-3.0-only
"""
A dispatcher whose API listens at a unix socket.
"""

from __future__ import annotations

import grp
import os
import select
import subprocess
from typing import ClassVar

from tests.e2e.installation import PATIENCE_SECONDS, Done, EndToEndCase

#: Says when it has begun, and goes on when it is told to.
WAITS = """\
#!/bin/sh
echo begun >"$1/begun"
read line <"$1/go"
echo "$line"
"""
QUIET = """\
#!/bin/sh
cat >/dev/null
echo "output of $# arguments: $*"
echo "complaint of $(basename "$0")" >&2
"""


class SocketCase(EndToEndCase):
    """
    A dispatcher with an API at a unix socket, and two agents.
    """

    more: ClassVar[dict[str, object]] = {}
    #: What agents allow beside those that all tests here need.
    scripts: ClassVar[dict[str, str]] = {}

    def setUp(self) -> None:
        super().setUp()
        # Others than we pass through it on their way to the socket.
        self.root.chmod(0o711)
        self.socket = self.root / "api.sock"
        self.group = some_group()
        self.configure(
            api_bind=f"unix:{self.socket}",
            api_group=self.group.gr_name,
            max_parallel=1,
            **self.more,
        )
        self.agents = self.paired("web-1", "web-2")
        for agent in self.agents:
            agent.allow("quiet", QUIET)
            agent.allow("waits", WAITS)
            for name, text in self.scripts.items():
                agent.allow(name, text)
            agent.serve()
        self.api = self.start_api()

    def start_api(self) -> subprocess.Popen[str]:
        """
        The API, under C{twistd}, once it listens.
        """
        words = ["-n", "--pidfile=", "ctrl-exec-api", "--config", self.settings]
        api = self.start("twistd", *words)
        self.await_line(self.log, "ACTION=api-start ", api)
        return api

    def through_socket(self, *words: object) -> Done:
        """
        One command of an operator who does not know the settings.
        """
        return self.end(self.start("ctrl-exec", "--socket", self.socket, *words))

    def pipe(self, name: str) -> int:
        """
        A pipe for the scripts that wait, of which we hold both ends: nobody
        waits for us to open it.
        """
        os.mkfifo(self.root / name)
        pipe = os.open(self.root / name, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, pipe)
        return pipe

    def await_pipe(self, pipe: int) -> None:
        """
        Wait until something is written.
        """
        ready, _, _ = select.select([pipe], [], [], PATIENCE_SECONDS)
        self.assertTrue(ready, "nothing is written")
        os.read(pipe, 100)


def some_group() -> grp.struct_group:
    """
    A group that we can give a file to: root's any, but not root's own.
    """
    if os.geteuid():
        return grp.getgrgid(os.getegid())
    return next(each for each in grp.getgrall() if each.gr_gid)

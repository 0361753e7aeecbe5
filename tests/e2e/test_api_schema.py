# SPDX-License-Identifier: AGPL-3.0-only
"""
End to end: the API is held against its own description, by a stranger who knows
nothing else of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from openapi_spec_validator import validate

from tests.e2e.installation import EndToEndCase, free_port

# What an answer may never be, whatever was asked. Which requests are good is
# more than a schema can say of the names of hosts, so that alone is not held
# against it: all of them may be answered with 404.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
# Too much to be looked at is a refusal as well.
CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 403, 404, 405, 409, 413]
"""
SECONDS = 180


class DescriptionTests(EndToEndCase):
    """
    A dispatcher with an agent, and its API.
    """

    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        self.configure(api_port=self.port, api_auth_default="allow")
        (self.agent,) = self.paired("agent-one")
        (self.agent.home / "show.schema.json").write_text('{"version": "1"}')
        self.agent.serve()
        api = self.start("ctrl-exec-api", "--config", self.settings)
        self.await_line(self.log, "ACTION=api-start ", api)

    def fetch(self, path: str) -> Any:
        """
        What the API answers to a C{GET}.
        """
        with urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return json.load(answer)

    def test_documents(self) -> None:
        """
        Both documents are valid; the live one knows the agent and its scripts.
        """
        validate(self.fetch("/openapi.json"))
        live = self.fetch("/openapi-live.json")
        validate(live)
        schemas = live["components"]["schemas"]
        self.assertEqual(schemas["Host"]["enum"], ["agent-one"])
        self.assertEqual(schemas["Script"]["enum"], ["show"])
        (version,) = live["x-ctrl-exec-scripts"]["show"]
        self.assertEqual(version["hosts"], ["agent-one"])
        self.assertEqual(version["schema_version"], "1")

    def test_conformance(self) -> None:
        """
        Whatever is asked, no answer is a fault of the server's, and none is
        one that the document does not know. The live document's names make
        sure that scripts do run.
        """
        configuration = self.root / "schemathesis.toml"
        configuration.write_text(CONFIGURATION)
        # What the live one enumerates are proposals: a pattern is as good.
        for document, mode in (
            ("/openapi.json", "all"),
            ("/openapi-live.json", "positive"),
        ):
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli"),
                    f"--config-file={configuration}",
                    "run",
                    f"http://127.0.0.1:{self.port}{document}",
                    f"--checks={','.join(CHECKS)}",
                    "--phases=examples,coverage,fuzzing",
                    f"--mode={mode}",
                    "--max-examples=25",
                    "--suppress-health-check=all",
                    "--seed=1",
                    "--no-color",
                    "--continue-on-failure",
                    "--generation-database=none",
                ],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                cwd=self.root,
            )
            self.assertEqual(done.returncode, 0, done.stdout[-20_000:] + done.stderr)
        self.assertIn("ACTION=run ", Path(self.agent.log).read_text())

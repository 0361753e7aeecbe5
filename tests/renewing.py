# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of the renewal share: an agent with its identity on disk.
"""

from __future__ import annotations

from typing import Any

from ctrlexec.agent import identity as identity_module
from ctrlexec.certificates import AgentRole, DispatcherRole, Role
from ctrlexec.pki import issue, read_csr
from tests.agents import SHOWN, ResourceTestCase, holder, tree
from tests.authority import CA, CA_KEY, NOW

REQID = "9f21f7eabc06ba23"
LASTING = holder(DispatcherRole("hq"), days=999)


class RenewalTestCase(ResourceTestCase):
    """
    An agent with its identity on disk.
    """

    def setUp(self) -> None:
        super().setUp()
        self.settings = self.agent.policy.settings
        self.settings.key.write_bytes(SHOWN.key)
        self.settings.key.chmod(0o600)
        self.settings.cert.write_bytes(SHOWN.cert)
        self.settings.ca.write_bytes(SHOWN.ca)
        self.shown = self.agent.renewals.shown

    def answer(self, *request: Any, **who: Any) -> tuple[int, Any]:
        """
        Send a request, of a dispatcher whose certificate outlasts all of this.
        """
        return super().answer(*request, **{"certificate": LASTING, **who})

    def files(self) -> dict[str, bytes]:
        """
        All that the agent has, but for its lock.
        """
        found = tree(self.directory)
        found.pop(".agent.crt.lock", None)
        return found

    def csr(self, body: object = None, **who: Any) -> bytes:
        """
        Have the agent ask for its next certificate.
        """
        body = {"reqid": REQID, "new_key": True} if body is None else body
        code, fields = self.answer("POST", "/renew", body, **who)
        self.assertEqual((code, fields["status"]), (200, "ok"))
        return str(fields["csr"]).encode()

    def signed(self, csr: bytes, role: Role | None = None, days: int = 20) -> str:
        """
        The certificate that a dispatcher of ours makes of that.
        """
        return issue(
            read_csr(csr),
            ca_cert=CA,
            ca_key=CA_KEY,
            role=role or AgentRole("agent-one"),
            common_name="agent-one",
            days=days,
            now=NOW,
        ).decode()

    def complete(self, cert: object, **who: Any) -> tuple[int, Any]:
        """
        Give the agent a certificate.
        """
        body = {"cert": cert, "ca": CA.decode(), "reqid": REQID}
        return self.answer("POST", "/renew-complete", body, **who)

    def unwritable(self) -> None:
        """
        From now on the agent can not write its own files. Root always could.
        """
        self.patch(identity_module, "can_replace", lambda settings: False)

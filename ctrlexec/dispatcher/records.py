# SPDX-License-Identifier: AGPL-3.0-only
"""
What a dispatcher writes down about an agent: while it asks to be paired, and
afterwards.

Values and their JSON, as the original writes it: PROTOCOL.md sections 3 and 4,
NEWER-LINE.md sections 5 and 14. The older line leaves fields out; what a later
one adds is kept when a record is written again. Numbers may be texts, and
booleans 1 or 0. A record that is cut off or not ours is a L{StoreError} that
names its file.

It is over 400 lines, since both kinds of file are read by the one reader that
trusts neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.errors import InvalidValue, ProtocolError, StoreError
from ctrlexec.protocol.fields import from_json, to_json
from ctrlexec.values import (
    LOOKUPS,
    agent_name,
    from_iso_time,
    is_ip_address,
    port_number,
    request_id,
    script_name,
    serial_from_hex,
)

#: How long a record may be, in bytes.
RECORD_BYTES = 65_536
#: Where an agent listens that did not say.
AGENT_PORT = 7443

#: The exchange of C{docs/pairing.md}; in a request of the original there is none.
_EXCHANGE = 2

#: How many certificates of an agent are remembered beside its last one.
_FORMER_SERIALS = 32

_SERIAL_STATES = ("unknown", "pending", "current", "stale")
# Fields that an original does not know are left out where they say nothing.
_OURS = (
    "scripts",
    "idempotent",
    "identity",
    "cert_serial",
    "former_serials",
    "revoked",
    "revocations",
)
_DNS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


def _dns_name(text: str) -> str:
    """
    Whoever owns an address chooses what it resolves to, and people read it.
    """
    return text if _DNS_NAME.fullmatch(text) else ""


def _name_or_nothing(text: str) -> str:
    return text and agent_name(text)


@attrs.frozen
class AgentRecord:
    """
    An agent that has been paired.

    @ivar hostname: its name, which is also that of its file.
    @ivar ip: its address when it was paired, or the one that it was given.
    @ivar paired: when, in ISO 8601.
    @ivar expiry: when its certificate ends, in openssl's form.
    @ivar reqid: the pairing request.
    @ivar lookup_by: C{"hostname"} or C{"ip"}: which of them is connected to.
    @ivar tags: the agent's own, as it last told them.
    @ivar dispatcher_serial: the dispatcher's serial that the agent was last
        told, canonical hex.
    @ivar serial_status: C{"unknown"}, C{"pending"}, C{"current"} or
        C{"stale"}.
    @ivar serial_broadcast: when the agent was last told, in ISO 8601.
    @ivar serial_confirmed: when it last confirmed, in ISO 8601.
    @ivar scripts: the names of those that it offers, as it last told them.
    @ivar idempotent: those of them that may be run any number of times, likewise.
    @ivar identity: the name in its certificate, where it is called by another
        one here; else empty.
    @ivar cert_serial: of the certificate that was issued to it last, canonical
        hex; empty where that is not known.
    @ivar former_serials: of those before, which may not have ended yet.
    @ivar revoked: when its certificate was revoked, in ISO 8601; empty where it
        is not.
    @ivar revocations: the number of the list of revoked certificates that it
        has acknowledged last; 0 where it has none.
    @ivar extra: fields that we do not know.
    """

    hostname: str = attrs.field(converter=agent_name)
    ip: str = ""
    paired: str = ""
    expiry: str = ""
    reqid: str = ""
    lookup_by: str = "hostname"
    port: int = AGENT_PORT
    tags: Mapping[str, str] = attrs.field(factory=dict)
    dispatcher_serial: str = ""
    serial_status: str = "unknown"
    serial_broadcast: str = ""
    serial_confirmed: str = ""
    scripts: tuple[str, ...] = ()
    idempotent: tuple[str, ...] = ()
    identity: str = attrs.field(default="", converter=_name_or_nothing)
    cert_serial: str = ""
    former_serials: tuple[str, ...] = ()
    revoked: str = ""
    revocations: int = 0
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    def address(self) -> str:
        """
        @return: the host name or address to connect to: NEWER-LINE.md
            section 14.
        """
        return self.ip if self.lookup_by == "ip" and self.ip else self.hostname

    @property
    def serials(self) -> frozenset[str]:
        """
        Of all certificates that it may have, as far as they are known.
        """
        return frozenset({self.cert_serial, *self.former_serials} - {""})

    def with_issued(self, serial: str) -> AgentRecord:
        """
        The record once there is another certificate for the agent, whether or
        not it will ever say that it has it: who revokes it means that one, too.

        @param serial: canonical.
        """
        kept = dict.fromkeys((serial, *self.former_serials))
        return attrs.evolve(self, former_serials=tuple(kept)[:_FORMER_SERIALS])

    def with_certificate(self, serial: str, expiry: str) -> AgentRecord:
        """
        The record once the agent has another certificate. Whoever has the one
        before, and its key, can show it until it ends.

        @param serial: canonical.
        @param expiry: in openssl's form.
        """
        former = (self.cert_serial, *self.former_serials)
        kept = [each for each in dict.fromkeys(former) if each not in ("", serial)]
        return attrs.evolve(
            self,
            cert_serial=serial,
            expiry=expiry,
            former_serials=tuple(kept[:_FORMER_SERIALS]),
            revoked="",
        )


@attrs.frozen
class Revealed:
    """
    What an agent and a dispatcher of ours have shown each other:
    C{docs/pairing.md}.

    @ivar nonce_a: the agent's, 64 hex characters.
    @ivar nonce_d: the dispatcher's, likewise.
    @ivar ca: the certificate of the CA, PEM.
    @ivar cert: the certificate that the agent met, PEM.
    """

    nonce_a: str
    nonce_d: str
    ca: str
    cert: str


@attrs.frozen
class QueuedRequest:
    """
    An agent that waits for a person's decision.

    @ivar id: the request's, which is also the name of its files.
    @ivar ip: what the agent reports as its own address, else C{source_ip}.
    @ivar csr: PEM, exactly as it was sent.
    @ivar received: when, in ISO 8601; empty where that is not known.
    @ivar code: the six digits that both screens show.
    @ivar source_ip: the other end of the connection; empty in a file of the
        older line.
    @ivar lookup_by: how the agent wants to be found; empty where it did not
        say.
    @ivar port: where the agent listens; 0 where it did not say.
    @ivar reverse_dns: what C{source_ip} resolves to; empty where to nothing.
    @ivar reverse_confirmed: whether that name resolves back.
    @ivar revealed: what the code covers beside the agent's request; C{None} in
        the exchange of the original.
    """

    id: str = attrs.field(converter=request_id)
    hostname: str = attrs.field(converter=agent_name)
    ip: str
    csr: str
    nonce: str
    received: str
    code: str
    source_ip: str = ""
    lookup_by: str = ""
    port: int = 0
    reverse_dns: str = attrs.field(default="", converter=_dns_name)
    reverse_confirmed: bool = False
    revealed: Revealed | None = None

    @property
    def legacy(self) -> bool:
        """
        Whether the code is the original's, which says nothing of the
        dispatcher.
        """
        return self.revealed is None


# --- agents --------------------------------------------------------------


def record_fields(record: AgentRecord) -> dict[str, Any]:
    """
    @return: a record as JSON spells it. What only we know is left out where
        there is nothing to say.
    """
    fields = attrs.asdict(record, recurse=False)
    del fields["extra"]
    for name in _OURS:
        if not fields[name]:
            del fields[name]
    return {**record.extra, **fields, "tags": dict(record.tags)}


def encode_record(record: AgentRecord) -> bytes:
    """
    @return: what the record's file holds.
    """
    return to_json(record_fields(record)) + b"\n"


def decode_record(path: Path, data: bytes) -> AgentRecord:
    """
    @param path: the record's file, which is named after the agent.
    @raise StoreError: the file holds no record, or that of another agent.
    """
    fields = _Fields.of(path, data)
    if fields.text("hostname") != path.stem:
        raise StoreError(path, "is not the record of the agent that it is named after")
    known = {each.name for each in attrs.fields(AgentRecord)}
    try:
        return AgentRecord(
            hostname=path.stem,
            ip=fields.text("ip"),
            paired=fields.text("paired"),
            expiry=fields.text("expiry"),
            reqid=fields.text("reqid"),
            lookup_by=fields.one_of("lookup_by", LOOKUPS) or "hostname",
            port=fields.port() or AGENT_PORT,
            tags=fields.tags(),
            dispatcher_serial=fields.serial("dispatcher_serial"),
            serial_status=fields.serial_status(),
            serial_broadcast=fields.text("serial_broadcast"),
            serial_confirmed=fields.text("serial_confirmed"),
            scripts=fields.scripts("scripts"),
            idempotent=fields.scripts("idempotent"),
            identity=fields.text("identity"),
            cert_serial=fields.serial("cert_serial"),
            former_serials=fields.serials("former_serials"),
            revoked=fields.text("revoked"),
            revocations=fields.count("revocations"),
            extra={k: v for k, v in fields.values.items() if k not in known},
        )
    except InvalidValue as error:
        raise StoreError(path, str(error)) from None


# --- requests ------------------------------------------------------------


def encode_request(request: QueuedRequest) -> bytes:
    """
    @return: what the request's file holds. What the agent did not say is left
        out, so that an original's command line falls back as it always does.
    """
    fields = attrs.asdict(request)
    # An original reads none of it, and shows the code as it stands here.
    revealed = fields.pop("revealed")
    if revealed is not None:
        fields |= {"pair": _EXCHANGE, "revealed": revealed}
    fields["reverse_confirmed"] = int(request.reverse_confirmed)
    for name in ("lookup_by", "port"):
        if not fields[name]:
            del fields[name]
    return to_json(fields) + b"\n"


def decode_request(path: Path, data: bytes) -> QueuedRequest:
    """
    @param path: the request's file, which is named after its id.
    @raise StoreError: the file holds no request, or another one.
    """
    fields = _Fields.of(path, data)
    if fields.text("id") != path.stem:
        raise StoreError(path, "is not the request that it is named after")
    if not fields.text("csr"):
        raise StoreError(path, "holds no certificate request")
    source_ip = fields.address("source_ip")
    try:
        return QueuedRequest(
            id=path.stem,
            hostname=fields.text("hostname"),
            ip=fields.address("ip") or source_ip,
            csr=fields.text("csr"),
            nonce=fields.text("nonce"),
            received=fields.time("received"),
            code=fields.text("code"),
            source_ip=source_ip,
            lookup_by=fields.one_of("lookup_by", LOOKUPS),
            port=fields.port(),
            reverse_dns=fields.text("reverse_dns"),
            reverse_confirmed=fields.flag("reverse_confirmed"),
            revealed=fields.revealed(),
        )
    except InvalidValue as error:
        raise StoreError(path, str(error)) from None


# --- fields --------------------------------------------------------------


@attrs.frozen
class _Fields:
    """
    The fields of a file, read by those who know what each should be.
    """

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, data: bytes) -> _Fields:
        try:
            return cls(path, from_json(data))
        except ProtocolError:
            raise StoreError(path, "is cut off, or was not written by us") from None

    def text(self, name: str) -> str:
        match self.values.get(name):
            case None:
                return ""
            case bool():
                pass
            case str(text):
                return text
            case int(number):
                return str(number)
        raise StoreError(self.path, f"{name} is not a text")

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        text = self.text(name)
        return text if text in choices else ""

    def address(self, name: str) -> str:
        text = self.text(name)
        return text if is_ip_address(text) else ""

    def time(self, name: str) -> str:
        text = self.text(name)
        try:
            from_iso_time(text)
        except InvalidValue:
            return ""
        return text

    def port(self) -> int:
        text = self.text("port")
        return port_number(text) if text not in ("", "0") else 0

    def flag(self, name: str) -> bool:
        return self.values.get(name) in (True, 1, "1", "true")

    def tags(self) -> Mapping[str, str]:
        # The original can spell an empty mapping as an empty array.
        tags = self.values.get("tags") or {}
        if not isinstance(tags, dict):
            raise StoreError(self.path, "tags are not pairs of texts")
        return {str(name): str(value) for name, value in tags.items()}

    def scripts(self, name: str) -> tuple[str, ...]:
        names = self.values.get(name)
        if not isinstance(names, list):
            return ()
        return tuple(each for each in names if _is_script(each))

    def revealed(self) -> Revealed | None:
        if "pair" not in self.values:
            return None
        inside = self.values.get("revealed")
        if self.values["pair"] != _EXCHANGE or not isinstance(inside, dict):
            raise StoreError(self.path, "is of an exchange that we do not know")
        texts = _Fields(self.path, inside)
        return Revealed(*(texts.text(each.name) for each in attrs.fields(Revealed)))

    def serial(self, name: str) -> str:
        return _serial_in(self.text(name))

    def serials(self, name: str) -> tuple[str, ...]:
        found = self.values.get(name)
        if not isinstance(found, list):
            return ()
        texts = (_serial_in(each) for each in found if isinstance(each, str))
        return tuple(each for each in texts if each)

    def count(self, name: str) -> int:
        found = self.values.get(name)
        return found if type(found) is int and found > 0 else 0

    def serial_status(self) -> str:
        status = self.text("serial_status")
        if status == "confirmed":
            return "current"
        return status if status in _SERIAL_STATES else "unknown"


def _serial_in(text: str) -> str:
    try:
        return serial_from_hex(text)
    except InvalidValue:
        return ""


def _is_script(name: object) -> bool:
    try:
        return isinstance(name, str) and script_name(name) == name
    except InvalidValue:
        return False

# SPDX-License-Identifier: AGPL-3.0-only
"""
The OpenAPI 3.1 document of the API, and the live one that knows which hosts and
scripts there are (PROTOCOL.md section 8, NEWER-LINE.md sections 9 and 13).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ctrlexec import __version__
from ctrlexec.api.definitions import OPERATIONS, Answer, Operation
from ctrlexec.api.schemas import COMPONENTS
from ctrlexec.dispatcher.results import DiscoveryRow
from ctrlexec.protocol.messages import ScriptInfo

_DESCRIPTION = (
    "Runs named, allowlisted scripts on registered hosts. Every operation but the "
    "probes asks the auth hook; a token goes into the Authorization header, or into "
    "the body."
)
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_REQID: Mapping[str, Any] = {
    "name": "reqid",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}


def document(*, max_hosts: int) -> dict[str, Any]:
    """
    @param max_hosts: how many hosts one request may name.
    """
    components = copy.deepcopy(dict(COMPONENTS))
    for name in ("RunRequest", "PingRequest", "DiscoveryRequest"):
        components[name]["properties"]["hosts"]["maxItems"] = max_hosts
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(
            operation
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ctrl-exec",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "AGPL-3.0-only", "identifier": "AGPL-3.0-only"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def live_document(
    rows: Iterable[DiscoveryRow], *, max_hosts: int, now: int
) -> dict[str, Any]:
    """
    @param rows: what all hosts have answered to a discovery, silent ones
        included.
    @param now: unix seconds.
    @return: the document, with C{enum}s of the hosts and of their scripts, and
        under C{x-ctrl-exec-scripts} what each script takes where.
    """
    answers = sorted(rows, key=lambda row: row.host)
    offered = _offered(answers)
    whole = document(max_hosts=max_hosts)
    whole["info"]["version"] = f"{__version__}+{now}"
    schemas = whole["components"]["schemas"]
    # An enum of nothing would be no schema.
    for name, values in (("Host", [row.host for row in answers]), ("Script", offered)):
        if values:
            schemas[name]["enum"] = [*values]
    whole["x-ctrl-exec-scripts"] = offered
    return whole


def _offered(rows: Iterable[DiscoveryRow]) -> dict[str, list[dict[str, Any]]]:
    """
    @return: for each script, its distinct versions and the hosts that have
        them. Two that call different things the same version are two.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        for script in row.capabilities.scripts if row.capabilities else ():
            version = _version(script)
            versions = found.setdefault(script.name, {})
            key = json.dumps(version, sort_keys=True)
            entry = versions.setdefault(key, {"hosts": [], **version})
            entry["hosts"].append(row.host)
    return {name: [*versions.values()] for name, versions in sorted(found.items())}


def _version(script: ScriptInfo) -> dict[str, Any]:
    if script.schema is None:
        return {}
    return {"schema_version": script.schema_version, "schema": script.schema}


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "responses": {
            str(status): _response(answer)
            for status, answer in operation.every_answer().items()
        },
    }
    if operation.gated:
        described["security"] = [{}, {"token": []}]
    parameters = [_REQID] if "{reqid}" in operation.path else []
    parameters += [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in operation.headers.items()
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            # Where nothing must be in it, it may be left out.
            "required": "required" in COMPONENTS[operation.body],
            "content": {_JSON: {"schema": _ref(operation.body)}},
        }
    return described


def _response(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {
            name: {"required": False, "schema": schema}
            for name, schema in answer.headers.items()
        }
    if not answer.media:
        return described
    text: Mapping[str, Any] = {"type": "string"}
    schema = text if answer.schema is None else _ref(answer.schema)
    content = {answer.media: {"schema": schema}}
    if answer.schema in ("Refused", "Denied", "Locked"):
        content[_PROBLEM] = {"schema": _ref(answer.schema)}
    described["content"] = content
    return described


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}

# SPDX-License-Identifier: AGPL-3.0-only
"""
The routes of the API: a skin over L{ctrlexec.dispatcher.operations}, which holds
no rule of its own (PROTOCOL.md section 8, NEWER-LINE.md section 13).

Each is asked about twice: whether the caller may use the API at all, and by the
operation itself whether they may do that. One decorator sees to the first, so
no route can forget it; what it answers where something is amiss is the table in
L{ctrlexec.api.problems}.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ctrlexec import __version__
from ctrlexec.api import definitions, openapi
from ctrlexec.api.callers import caller_of, credentials, is_of_a_page
from ctrlexec.api.http import ApiRequest
from ctrlexec.api.metrics import CONTENT_TYPE, Metrics
from ctrlexec.api.problems import Answer, no_such_path, problem_of, wrong_method
from ctrlexec.api.work import Work
from ctrlexec.dispatcher.authorisation import Question
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller, Door, RunOrder, Selection
from ctrlexec.dispatcher.results import (
    discovery_fields,
    ping_fields,
    run_fields,
)
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    NotAuthorised,
    NotFound,
    Overload,
    ProtocolError,
)
from ctrlexec.events import ApiOverloaded
from ctrlexec.protocol.codec import from_json, to_json

Fields = dict[str, Any]
_ALL = Selection(())

A = TypeVar("A", bound="Api")


@attrs.frozen
class Unwatched:
    """
    Nobody looks on. Whoever gave the order may leave: it is carried out all the
    same, and kept.
    """

    def wanted(self) -> bool:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}.
        """
        return True

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}.
        """

    def asked(self, host: str) -> None:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}.
        """

    def arrived(self, row: object) -> None:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}.
        """


@attrs.frozen
class Call:
    """
    A request that may use the API.

    @ivar fields: of its body, as the definitions have them.
    @ivar path: what the path says.
    """

    caller: Caller
    fields: Mapping[str, Any]
    path: Mapping[str, str]

    def selection(self) -> Selection:
        """
        The hosts that it is about.
        """
        return Selection(
            tuple(self.fields.get("hosts", ())), tuple(self.fields.get("exclude", ()))
        )

    def named_selection(self) -> Selection:
        """
        The same, where no host is not every host.
        """
        selection = self.selection()
        if not selection.words:
            raise InvalidValue("hosts", "", "one host at least")
        return selection


Route = Callable[[A, Call], Awaitable[Fields | Answer]]
Rendered = Callable[..., Deferred[bytes] | bytes]


def operation(name: str) -> Callable[[Route[A]], Rendered]:
    """
    Make a route of what carries an operation out: who asks is authorised, the
    body is held against the definition, so many are worked on at once, and each
    to its end.

    @param name: the operation's id in L{ctrlexec.api.definitions}.
    """

    def decorate(carry_out: Route[A]) -> Rendered:
        @functools.wraps(carry_out)
        def route(self: A, request: ApiRequest, **path: str) -> Any:
            return self.answered(
                name, request, functools.partial(carry_out, self), path
            )

        return route

    return decorate


@attrs.define(eq=False)
class Api:
    """
    The API of a dispatcher.

    @ivar dispatcher: replaced when the settings are read again.
    @ivar ready: whether it could do what it is asked for; may block.
    """

    app = Klein()
    # A path is itself: none is corrected, nor is anybody sent elsewhere.
    app.url_map.merge_slashes = False

    dispatcher: Dispatcher
    work: Work
    metrics: Metrics
    ready: Callable[[DispatcherSettings], bool]

    # --- the routes ------------------------------------------------------

    @app.route("/", methods=["GET"])
    @operation("index")
    async def index(self, call: Call) -> Fields:
        """
        What there is.
        """
        found = [
            {"method": each.method, "path": each.path, "summary": each.summary}
            for each in definitions.OPERATIONS
        ]
        return {"ok": True, "version": __version__, "operations": found}

    @app.route("/health", methods=["GET"])
    @operation("health")
    async def health(self, call: Call) -> Fields:
        """
        That somebody answers.
        """
        return {"ok": True, "version": __version__}

    @app.route("/run", methods=["POST"])
    @operation("run")
    async def run(self, call: Call) -> Fields:
        """
        Run a script on hosts. There is nobody to say yes to many hosts: who
        asks is a program.
        """
        order = RunOrder(
            selection=call.named_selection(),
            script=call.fields["script"],
            args=tuple(call.fields.get("args", ())),
            confirmed=True,
        )
        report = await self.dispatcher.run(call.caller, order, Unwatched())
        results = [run_fields(row) for row in report.rows]
        answer = {"ok": True, "reqid": report.reqid, "results": results}
        return {**answer, **_warned(report.warnings)}

    @app.route("/ping", methods=["POST"])
    @operation("ping")
    async def ping(self, call: Call) -> Fields:
        """
        Ask hosts whether their agents are there.
        """
        selection = call.named_selection()
        report = await self.dispatcher.ping(call.caller, selection, Unwatched())
        results = [
            {**ping_fields(row), **({"staged": row.staged} if row.ok else {})}
            for row in report.rows
        ]
        return {"ok": True, "results": results, **_warned(report.warnings)}

    @app.route("/discovery", methods=["GET"])
    @operation("discoverAll")
    async def discover_all(self, call: Call) -> Fields:
        """
        Ask all hosts what they offer.
        """
        return await self._discovered(call.caller, _ALL)

    @app.route("/discovery", methods=["POST"])
    @operation("discover")
    async def discover(self, call: Call) -> Fields:
        """
        Ask hosts what they offer.
        """
        return await self._discovered(call.caller, call.selection())

    @app.route("/status/<path:reqid>", methods=["GET"])
    @operation("status")
    async def status(self, call: Call) -> Fields:
        """
        What became of a run. That there is none, or none any more, and that it
        is not for the caller, look the same.
        """
        reqid = call.path["reqid"]
        try:
            record = await self.dispatcher.status(call.caller, reqid)
        except (NotFound, InvalidValue, NotAuthorised):
            raise NotFound(f"no result for reqid {reqid}") from None
        return {"ok": True, **record.answer()}

    @app.route("/openapi.json", methods=["GET"])
    @operation("openapi")
    async def openapi(self, call: Call) -> Fields:
        """
        What there is, for programs.
        """
        return openapi.document(max_hosts=self.dispatcher.settings.max_hosts)

    @app.route("/openapi-live.json", methods=["GET"])
    @operation("openapiLive")
    async def openapi_live(self, call: Call) -> Fields:
        """
        The same, with the hosts and scripts of this moment.
        """
        report = await self.dispatcher.discover(call.caller, _ALL, Unwatched())
        return openapi.live_document(
            report.rows,
            max_hosts=self.dispatcher.settings.max_hosts,
            now=int(self.dispatcher.process.now().timestamp()),
        )

    @app.route("/metrics", methods=["GET"])
    @operation("metrics")
    async def exposed_metrics(self, call: Call) -> Answer:
        """
        Counters for Prometheus.
        """
        ours = self.dispatcher
        text = await ours.process.in_thread(
            self.metrics.exposition,
            ours.stores.registry,
            ours.settings.cert,
            len(self.work),
        )
        return Answer(200, text, CONTENT_TYPE)

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: ApiRequest) -> bytes:
        """
        For whoever restarts what hangs: it does not.
        """
        return request.begin(_probed(True))

    @app.route("/readyz", methods=["GET"])
    async def readyz(self, request: ApiRequest) -> bytes:
        """
        For whoever sends requests: whether they would be of use here.
        """
        ours = self.dispatcher
        is_ready = await ours.process.in_thread(self.ready, ours.settings)
        return request.begin(_probed(is_ready))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def unrouted(self, request: ApiRequest, failure: Failure) -> bytes:
        """
        There is no such route.
        """
        match failure.value:
            case MethodNotAllowed(valid_methods=methods):
                problem = wrong_method(", ".join(sorted(methods or ())))
            case _:
                problem = no_such_path(request.path)
        return request.begin(problem.answer(request.accept))

    # --- around each of them ---------------------------------------------

    def answered(
        self,
        name: str,
        request: ApiRequest,
        carry_out: Callable[[Call], Awaitable[Fields | Answer]],
        path: Mapping[str, str],
    ) -> Deferred[bytes] | bytes:
        """
        Do what a request asks for, even if its client leaves.

        @return: the body of the answer, when all else of it is given.
        """
        try:
            working = self.work.begin(
                lambda: self._answer(name, request, carry_out, path)
            )
        except Overload as overload:
            peer = request.peer.address
            self.dispatcher.events.emit(ApiOverloaded(peer, overload.live))
            return request.begin(problem_of(overload).answer(request.accept))
        return working.addCallback(request.begin)

    async def _answer(
        self,
        name: str,
        request: ApiRequest,
        carry_out: Callable[[Call], Awaitable[Fields | Answer]],
        path: Mapping[str, str],
    ) -> Answer:
        generic = self.dispatcher.settings.auth_deny_generic
        # Of the request itself nothing is left once its client has left.
        accept = request.accept
        try:
            caller = await self._admitted(request)
            fields = definitions.validate(name, request.body)
            outcome = await carry_out(Call(caller, fields, path))
        except CtrlExecError as error:
            problem = problem_of(error, generic=generic)
            if problem.status >= 500:
                request.site.failed(request, Failure())
            return problem.answer(accept)
        except Exception as error:
            request.site.failed(request, Failure())
            return problem_of(error).answer(accept)
        return outcome if isinstance(outcome, Answer) else Answer(200, to_json(outcome))

    async def _admitted(self, request: ApiRequest) -> Caller:
        """
        @raise NotAuthorised: they may not use the API at all.
        """
        if is_of_a_page(request.requestHeaders):
            raise NotAuthorised("not for web pages", 1)
        claimed, token = credentials(request.requestHeaders, _unchecked(request.body))
        caller = caller_of(request.peer, Door.API, claimed=claimed, token=token)
        await self.dispatcher.authorisation().require(caller, Question(action="api"))
        return caller

    async def _discovered(self, caller: Caller, selection: Selection) -> Fields:
        report = await self.dispatcher.discover(caller, selection, Unwatched())
        hosts = {row.host: discovery_fields(row) for row in report.rows}
        return {"ok": True, "hosts": hosts, **_warned(report.warnings)}


def _unchecked(body: bytes) -> Mapping[str, Any]:
    """
    What somebody says about themselves counts before it is known whether all
    that they say makes sense.
    """
    try:
        return from_json(body)
    except ProtocolError:
        return {}


def _warned(warnings: tuple[str, ...]) -> Fields:
    return {"warnings": [*warnings]} if warnings else {}


def _probed(ok: bool) -> Answer:
    return Answer(200 if ok else 503, to_json({"ok": ok}))

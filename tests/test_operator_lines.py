# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.operator_lines}: what the API tells a command
line.
"""

from __future__ import annotations

import contextlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.operator import OPERATIONS
from ctrlexec.dispatcher.operator_lines import (
    Asked,
    Ended,
    Heard,
    Planned,
    Row,
    agent_line,
    asked_line,
    ended_line,
    heard_line,
    planned_line,
    read_line,
    record_line,
    row_line,
    selected_line,
)
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import (
    CancelRow,
    DiscoveryRow,
    Outcome,
    PingRow,
    PsRow,
    RunRow,
)
from ctrlexec.dispatcher.runs import RunRecord
from ctrlexec.dispatcher.selection import Selected
from ctrlexec.errors import (
    ProtocolError,
)
from ctrlexec.protocol.messages import Capabilities, ScriptInfo
from ctrlexec.protocol.run_messages import (
    LiveRun,
    Output,
    Signalled,
    StateChanged,
)
from ctrlexec.values import HostPort, Submitter
from tests.messages import JSON
from tests.test_docs import code_in, part, rows

TEXTS = st.text(st.characters())
WORDS = st.text(max_size=20)
NUMBERS = st.integers(-(2**40), 2**40)
SECONDS = st.integers(0, 10**6) | st.floats(0, 10**6)
PERHAPS = st.none() | TEXTS
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)
#: What an agent's schema can hold: it is carried on as it came.
SCHEMAS = st.dictionaries(WORDS, st.none() | st.booleans() | st.integers() | WORDS)
SCRIPTS = st.lists(
    st.builds(
        ScriptInfo,
        name=NAMES,
        path=WORDS,
        executable=st.booleans(),
        profile=WORDS,
        schema=SCHEMAS,
        schema_version=WORDS,
    ),
    max_size=3,
    unique_by=lambda script: script.name,
).map(lambda found: tuple(sorted(found, key=lambda script: script.name)))
CAPABILITIES = st.builds(
    Capabilities,
    host=WORDS,
    version=WORDS,
    scripts=SCRIPTS,
    tags=st.dictionaries(WORDS, WORDS, max_size=3),
)
ROWS: st.SearchStrategy[Row] = st.one_of(
    st.builds(
        RunRow,
        host=TEXTS,
        script=TEXTS,
        reqid=TEXTS,
        outcome=st.sampled_from(Outcome),
        rtt_ms=NUMBERS,
        exit=NUMBERS,
        stdout=TEXTS,
        stderr=TEXTS,
        error=PERHAPS,
        reason=TEXTS,
        hint=TEXTS,
    ),
    st.builds(
        CancelRow,
        host=TEXTS,
        reqid=TEXTS,
        rtt_ms=NUMBERS,
        state=TEXTS,
        signalled=st.lists(st.builds(Signalled, NUMBERS, TEXTS, TEXTS)).map(tuple),
        error=PERHAPS,
        hint=TEXTS,
    ),
    st.builds(
        PsRow,
        host=TEXTS,
        rtt_ms=NUMBERS,
        runs=st.lists(
            st.builds(
                LiveRun,
                reqid=TEXTS,
                script=TEXTS,
                state=TEXTS,
                started=TEXTS,
                seconds=SECONDS,
                username=TEXTS,
                asynchronous=st.booleans(),
                pid=NUMBERS,
            ),
            max_size=3,
        ).map(tuple),
        others=NUMBERS,
        error=PERHAPS,
        hint=TEXTS,
    ),
    st.builds(
        PingRow,
        host=TEXTS,
        reqid=TEXTS,
        rtt_ms=NUMBERS,
        reported_hostname=TEXTS,
        version=TEXTS,
        expiry=TEXTS,
        staged=st.booleans(),
        renewal_due=st.booleans(),
        error=PERHAPS,
        hint=TEXTS,
    ),
    st.builds(
        DiscoveryRow,
        host=TEXTS,
        rtt_ms=NUMBERS,
        reported_hostname=TEXTS,
        capabilities=st.none() | CAPABILITIES,
        error=PERHAPS,
        hint=TEXTS,
    ),
)


EVENTS = st.one_of(
    st.builds(Output, SECONDS, st.sampled_from(("stdout", "stderr")), TEXTS, NUMBERS),
    st.builds(StateChanged, SECONDS, TEXTS),
)

KINDS = """
    planned asked heard ran pinged discovered cancelled ps agent unreadable selected
    record ended failed
""".split()


class LinesTests(SynchronousTestCase):
    """
    Each kind of line, on its way.
    """

    def assertCarried(self, line: bytes, expected: object) -> None:
        """
        A line is one line, and says what it was made of.
        """
        self.assertEqual(line.find(b"\n"), len(line) - 1)
        self.assertEqual(read_line(line), expected)
        self.assertEqual(read_line(line.rstrip()), expected)

    @given(ROWS)
    def test_rows(self, row: Row) -> None:
        """
        What became of a host arrives as it was.
        """
        self.assertCarried(row_line(row), row)

    @given(TEXTS, EVENTS)
    def test_heard(self, host: str, event: Output | StateChanged) -> None:
        """
        So does what a run says.
        """
        self.assertCarried(heard_line(host, event), Heard(host, event))

    @given(st.integers(0), TEXTS, st.lists(TEXTS), TEXTS, st.booleans())
    def test_progress(
        self, hosts: int, host: str, warnings: list[str], reqid: str, stopped: bool
    ) -> None:
        """
        So does to how many hosts it goes, which is asked, and how it all ended.
        """
        self.assertCarried(planned_line(hosts, reqid), Planned(hosts, reqid))
        self.assertCarried(asked_line(host), Asked(host))
        ended = Ended(tuple(warnings), reqid, stopped)
        self.assertCarried(ended_line(warnings, reqid, stopped), ended)

    @given(
        st.lists(st.builds(HostPort, WORDS, st.none() | st.integers(1, 65535))),
        st.lists(WORDS),
        st.lists(WORDS),
    )
    def test_selected(
        self, hosts: list[HostPort], repeated: list[str], unreadable: list[str]
    ) -> None:
        """
        So do the hosts that are meant.
        """
        selected = Selected(tuple(hosts), tuple(repeated), tuple(unreadable))
        self.assertCarried(selected_line(selected), selected)

    @given(
        st.builds(
            AgentRecord,
            hostname=NAMES.filter(lambda name: name[0].isalnum()),
            ip=WORDS,
            paired=WORDS,
            expiry=WORDS,
            reqid=WORDS,
            lookup_by=st.sampled_from(("ip", "hostname")),
            port=st.integers(1, 65535),
            tags=st.dictionaries(WORDS, WORDS, max_size=3),
            dispatcher_serial=st.sampled_from(("", "a1")),
            serial_status=st.sampled_from(("unknown", "pending", "current", "stale")),
            scripts=st.lists(NAMES, max_size=3, unique=True).map(tuple),
            extra=st.dictionaries(st.just("colour"), JSON),
        )
    )
    def test_agents(self, record: AgentRecord) -> None:
        """
        So does an agent's record, with what is not ours in it.
        """
        self.assertCarried(agent_line(record), record)

    def test_records(self) -> None:
        """
        So does what became of a run, and who had asked for it.
        """
        record = RunRecord.sync(
            reqid="a-1",
            script="backup",
            hosts=("web-1", "web-2"),
            results=[{"host": "web-1", "exit": 0}],
            completed=1_800_000_000,
            submitter=Submitter("ann", "192.0.2.1"),
        )
        self.assertCarried(record_line(record), record)

    def test_spelled(self) -> None:
        """
        These are the bytes.
        """
        row = PingRow(host="web-1", reqid="a1", rtt_ms=12, version="2", expiry="soon")
        self.assertEqual(asked_line("web-1"), b'{"asked":"web-1"}\n')
        self.assertEqual(
            row_line(row),
            b'{"pinged":{"host":"web-1","reqid":"a1","rtt_ms":12,'
            b'"reported_hostname":"","version":"2","expiry":"soon","staged":false,"renewal_due":false,'
            b'"error":null,"hint":""}}\n',
        )
        self.assertEqual(
            ended_line(),
            b'{"ended":{"warnings":[],"reqid":"","stopped":false}}\n',
        )
        self.assertEqual(
            heard_line("web-1", Output(1.5, "stdout", "up\n", 3)),
            b'{"heard":{"host":"web-1","t":1.5,"stdout":"up\\n","end":3}}\n',
        )
        self.assertEqual(
            heard_line("web-1", StateChanged(0, "running")),
            b'{"heard":{"host":"web-1","t":0,"state":"running"}}\n',
        )

    def test_unknown(self) -> None:
        """
        What a later API says beside what we know is passed over.
        """
        self.assertIsNone(read_line(b'{"output":{"host":"web-1","text":"x"}}'))
        self.assertEqual(
            read_line(b'{"pinged":{"host":"a","reqid":"b","colour":"red"}}'),
            PingRow(host="a", reqid="b"),
        )

    def test_refused(self) -> None:
        """
        What is no line is refused, in words that say why.
        """
        deep = '{"discovered":{"capabilities":' + "[" * 10_000
        for line, error in (
            ("", "invalid JSON"),
            ("[]", "invalid JSON"),
            ("{}", "a line must have one member"),
            ('{"asked":"a","ran":{}}', "a line must have one member"),
            (deep, "invalid JSON"),
            ('{"asked":1}', "asked must be a text"),
            ('{"ran":[]}', "an object was expected"),
            ('{"ran":{"outcome":"eaten"}}', "outcome must be one that is known"),
            ('{"ran":{}}', "outcome must be one that is known"),
            ('{"heard":{"host":"a"}}', "heard must be of stdout, stderr or a state"),
            ('{"heard":{"t":-1}}', "t must be a number of seconds"),
            ('{"heard":{"stdout":1}}', "stdout must be a text"),
            ('{"cancelled":{"signalled":[1]}}', "an object was expected"),
            ('{"ps":{"runs":{}}}', "runs must be an array"),
            ('{"ended":{"stopped":1}}', "stopped must be true or false"),
            ('{"ran":{"outcome":"ok","exit":"0"}}', "exit must be a whole number"),
            ('{"ran":{"outcome":"ok","exit":true}}', "exit must be a whole number"),
            ('{"ran":{"outcome":"ok","stdout":null}}', "stdout must be a text"),
            ('{"pinged":{"staged":0}}', "staged must be true or false"),
            ('{"discovered":{"capabilities":[]}}', "an object was expected"),
            (
                '{"discovered":{"capabilities":{}}}',
                "the answer does not say what an agent offers",
            ),
            ('{"ended":{"warnings":[1]}}', "warnings must be texts"),
            (
                '{"selected":{"hosts":["a"]}}',
                "hosts must be pairs of a text and a number",
            ),
            (
                '{"selected":{"hosts":[["a",true]]}}',
                "hosts must be pairs of a text and a number",
            ),
            (
                '{"agent":{"hostname":"../x"}}',
                "agent: ../x.json: is not the record of the agent that it is named "
                "after",
            ),
            (
                '{"agent":{"hostname":"-x"}}',
                "agent: -x.json: invalid host name '-x': expected a letter or digit, "
                "then letters, digits, '.', '_' and '-', 253 characters at most",
            ),
            (
                '{"record":{"reqid":"r"}}',
                "record: r.json: does not say which script ran where",
            ),
            ('{"failed":1}', "an object was expected"),
            (
                '{"failed":{"kind":"Locked","conflicts":1}}',
                "conflicts must be an array",
            ),
            ('{"unreadable":{"kind":"Locked"}}', "unreadable must be about a file"),
        ):
            with self.assertRaises(ProtocolError, msg=line[:80]) as caught:
                read_line(line.encode())
            self.assertEqual(str(caught.exception), error)

    @given(
        st.sampled_from(KINDS),
        JSON
        | st.dictionaries(
            st.sampled_from(["host", "hosts", "reqid", "error", "capabilities"]), JSON
        ),
    )
    def test_anything(self, name: str, content: object) -> None:
        """
        A line of ours about anything at all is one or a L{ProtocolError}.
        """
        with contextlib.suppress(ProtocolError):
            read_line(json.dumps({name: content}).encode())

    @given(st.binary())
    def test_anyBytes(self, line: bytes) -> None:
        """
        So are any bytes.
        """
        with contextlib.suppress(ProtocolError):
            read_line(line)


class PageTests(SynchronousTestCase):
    """
    C{docs/dispatcher.md}
    """

    def test_page(self) -> None:
        """
        The page names each operation and each line, and no other.
        """
        section = part("dispatcher.md", "Through the API's socket")
        named = {name for row in rows(section) for name in code_in(row[0])}
        self.assertEqual(named, {*KINDS})
        for name in KINDS:
            # Something known says something, or that it is nonsense.
            with contextlib.suppress(ProtocolError):
                self.assertIsNotNone(read_line(json.dumps({name: {}}).encode()))
        sentence = section.partition("POST\n/operator/")[2].partition(", with")[0]
        named_there = [word for word in re.findall("[a-z-]+", sentence) if word != "or"]
        self.assertEqual(named_there, [*OPERATIONS])

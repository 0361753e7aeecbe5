# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the project's own structure (L{tests.structure}), and of the checkers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.structure import (
    LONG_LINES,
    MOST_LINES,
    PLUGIN,
    PURE,
    ROOT,
    SPDX,
    impurities,
    licence_missing,
    loaded_after,
    modules,
    plugin_faults,
    reactor_uses,
    source_files,
    strangers,
    too_long,
    unlisted,
    wrong_directions,
)


class StructureTests(SynchronousTestCase):
    """
    The rules, held against the project as it is.
    """

    def test_directions(self) -> None:
        """
        Imports point the way that the design says.
        """
        found = [
            fault for item in modules().items() for fault in wrong_directions(*item)
        ]
        self.assertEqual(found, [])

    def test_keeperIsAlone(self) -> None:
        """
        The program that outlives the agent has nothing of it.
        """
        found = [fault for item in modules().items() for fault in strangers(*item)]
        self.assertEqual(found, [])
        unwanted = ("attr", "attrs", "cryptography", "json", "re", "typing", "zope")
        self.assertEqual(loaded_after("ctrlexec.agent.keeper.zygote", unwanted), "")

    def test_reactor(self) -> None:
        """
        Nobody but services, command lines and the demo knows the reactor.
        """
        found = [fault for item in modules().items() for fault in reactor_uses(*item)]
        self.assertEqual(found, [])

    def test_pure(self) -> None:
        """
        Each pure module is there, and imports only what is pure.
        """
        sources = modules()
        self.assertEqual([name for name in PURE if name not in sources], [])
        found = [fault for name in PURE for fault in impurities(name, sources[name])]
        self.assertEqual(found, [])

    def test_pureListed(self) -> None:
        """
        Whatever is pure now is listed, so that it stays so.
        """
        found = [fault for item in modules().items() for fault in unlisted(*item)]
        self.assertEqual(found, [])

    def test_pureWhenRun(self) -> None:
        """
        Each pure module leaves Twisted unloaded in a fresh interpreter.
        """
        found = [loaded_after(module, ("twisted",)) for module in PURE]
        self.assertEqual(list(filter(None, found)), [])

    def test_agentIsSmall(self) -> None:
        """
        An agent does not load what only command lines and the API use.
        """
        unwanted = ("click", "klein", "rich", "treq", "ctrlexec.dispatcher")
        self.assertEqual(loaded_after("ctrlexec.agent.service", unwanted), "")

    def test_importInstallsNoReactor(self) -> None:
        """
        No module that C{twistd} loads decides which reactor there is, so
        C{twistd --reactor} works.
        """
        found = [
            loaded_after(module, ("twisted.internet.reactor",))
            for module in (
                "twisted.plugins.ctrlexec_plugins",
                "ctrlexec.agent.service",
                "ctrlexec.dispatcher.service",
                "ctrlexec.api.service",
            )
        ]
        self.assertEqual(list(filter(None, found)), [])

    def test_licence(self) -> None:
        """
        Each source file says first under which licence it stands.
        """
        files = source_files()
        files[".ci/run"] = (ROOT / ".ci/run").read_text("utf-8")
        found = [fault for item in files.items() for fault in licence_missing(*item)]
        self.assertEqual(found, [])

    def test_length(self) -> None:
        """
        No module is long without a reason.
        """
        found = [fault for item in source_files().items() for fault in too_long(*item)]
        self.assertEqual(found, [])

    def test_plugin(self) -> None:
        """
        The plugin file names its services and imports none of them.
        """
        self.assertEqual(plugin_faults((ROOT / PLUGIN).read_text("utf-8")), [])

    def test_noPackageInTwisted(self) -> None:
        """
        Our part of C{twisted} has no C{__init__.py}: it would hide the real one.
        """
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])


class CheckersTests(SynchronousTestCase):
    """
    Each rule complains about a source that breaks it.
    """

    def test_directions(self) -> None:
        """
        Every forbidden direction is found, in each form of an import.
        """
        wrong = [
            ("ctrlexec.agent.cli", "import ctrlexec.dispatcher.queue"),
            ("ctrlexec.dispatcher.cli", "from ctrlexec import agent"),
            ("ctrlexec.dispatcher.service", "from ctrlexec.agent.runs import X"),
            ("ctrlexec.values", "def f():\n    from ctrlexec.agent import runs"),
            ("ctrlexec.protocol.codec", "import ctrlexec.dispatcher"),
            ("ctrlexec.dispatcher.cli", "from ctrlexec.dispatcher import registry"),
            ("ctrlexec.api.app", "from ctrlexec.dispatcher.locks import Locks"),
            ("ctrlexec.dispatcher.operations", "import ctrlexec.api.app"),
            ("ctrlexec.dispatcher.queue", "import ctrlexec.dispatcher.operations"),
            ("ctrlexec.tls", "from . import pki"),
        ]
        quiet = [case for case in wrong if not wrong_directions(*case)]
        self.assertEqual(quiet, [])

    def test_directionsAllowed(self) -> None:
        """
        What the design allows is left alone, names that begin alike included.
        """
        right = [
            ("ctrlexec.agent.cli", "from ctrlexec.agent import service, runs"),
            ("ctrlexec.dispatcher.cli", "import ctrlexec.dispatcher.operations"),
            ("ctrlexec.dispatcher.operations", "import ctrlexec.dispatcher.locks"),
            ("ctrlexec.demo", "import ctrlexec.agent.cli, ctrlexec.dispatcher.cli"),
            ("ctrlexec.agent.runs", "from ctrlexec import dispatchers"),
        ]
        for case in right:
            self.assertEqual(wrong_directions(*case), [])

    def test_reactor(self) -> None:
        """
        The reactor is found under each of its names, and its owners may have it.
        """
        wrong = [
            "from twisted.internet import reactor",
            "import twisted.internet.reactor as r",
            "from twisted.internet.reactor import callLater",
            "from twisted.internet.task import react",
            "x = __import__('twisted.internet.reactor')",
        ]
        for source in wrong:
            self.assertNotEqual(reactor_uses("ctrlexec.tls", source), [], source)
            self.assertEqual(reactor_uses("ctrlexec.agent.service", source), [])
        self.assertEqual(
            reactor_uses("ctrlexec.tls", "from twisted.internet import defer"), []
        )

    def test_strangers(self) -> None:
        """
        Whatever is not in the standard library is a stranger to the keeper, also
        what is ours; others may know it.
        """
        source = (
            "import os, attrs\n"
            "from ctrlexec.agent.keeper import frames\n"
            "from ctrlexec.errors import NotStarted\n"
            "def f():\n    from twisted.internet import reactor\n"
        )
        faults = strangers("ctrlexec.agent.keeper.keep", source)
        self.assertEqual(
            sorted({fault.split()[-1].partition(".")[0] for fault in faults}),
            ["attrs", "ctrlexec", "twisted"],
        )
        self.assertFalse([each for each in faults if "keeper.frames" in each])
        self.assertEqual(strangers("ctrlexec.agent.keeping", source), [])

    def test_seams(self) -> None:
        """
        The seams may name the values of a room in annotations, and no more
        than that; nobody else may.
        """
        typed = "if TYPE_CHECKING:\n    from ctrlexec.agent.runs import X"
        run = typed + "\nelse:\n    import ctrlexec.agent"
        self.assertEqual(wrong_directions("ctrlexec.interfaces", typed), [])
        self.assertEqual(len(wrong_directions("ctrlexec.interfaces", run)), 1)
        self.assertNotEqual(wrong_directions("ctrlexec.tls", typed), [])

    def test_impurities(self) -> None:
        """
        Twisted is found however late it is imported, and so is one of our own
        modules that is not pure.
        """
        late = "def f():\n    from twisted.internet import defer"
        self.assertNotEqual(impurities("ctrlexec.values", late), [])
        ours = "from ctrlexec.api import service"
        self.assertNotEqual(impurities("ctrlexec.values", ours), [])
        fine = "from ctrlexec.errors import InvalidValue\nimport ctrlexec"
        self.assertEqual(impurities("ctrlexec.values", fine), [])

    def test_unlisted(self) -> None:
        """
        A pure module that nobody has listed is found; one with Twisted in it
        need not be listed, nor need a package.
        """
        self.assertEqual(len(unlisted("ctrlexec.new", "import re")), 1)
        self.assertEqual(unlisted("ctrlexec.new", "import twisted.web"), [])
        self.assertEqual(unlisted("ctrlexec.values", "import re"), [])
        self.assertEqual(unlisted("ctrlexec.protocol", "import re"), [])

    def test_loaded(self) -> None:
        """
        A module that does load Twisted is found out, and so is one that is
        not there.
        """
        self.assertIn("loads twisted", loaded_after("twisted.python", ("twisted",)))
        self.assertIn("No module", loaded_after("ctrlexec.nothing", ("twisted",)))

    def test_licence(self) -> None:
        """
        An empty file, and a line that is near the top but not on it, are found.
        """
        self.assertEqual(len(licence_missing("a.py", "")), 1)
        self.assertEqual(len(licence_missing("a.py", f"import os\n{SPDX}\n")), 1)
        self.assertEqual(licence_missing("a.py", f"{SPDX}\n"), [])
        self.assertEqual(licence_missing("a", f"#!/bin/sh\n{SPDX}\n"), [])

    def test_length(self) -> None:
        """
        One line too many is found, unless the docstring defends it; far too
        many are found anyhow.
        """
        long, defence = "pass\n" * LONG_LINES, '"""Its lines are one table."""\n'
        self.assertEqual(too_long("a.py", long), [])
        self.assertEqual(len(too_long("a.py", long + "pass\n")), 1)
        self.assertEqual(too_long("a.py", defence + long), [])
        self.assertEqual(len(too_long("a.py", defence + "pass\n" * MOST_LINES)), 1)

    def test_plugin(self) -> None:
        """
        A plugin file that computes, imports or names objects is found.
        """
        head = "from twisted.application.service import ServiceMaker\n"
        wrong = [
            "import klein",
            "from ctrlexec.agent import service",
            "x = ServiceMaker('a', name, 'c', 'd')",
            "x = ServiceMaker('a', f'{b}', 'c', 'd')",
            "x = Other('a')",
            "def f(): pass",
        ]
        for source in wrong:
            self.assertNotEqual(plugin_faults(head + source), [], source)
        self.assertEqual(plugin_faults(head + "x = ServiceMaker('a', 'b')"), [])

# SPDX-License-Identifier: AGPL-3.0-only
"""
The rules of the house that a machine can check: which way imports point, which
modules know nothing of Twisted, who may touch the global reactor.

Each rule is a function from source to complaints. The project as it is, and
made-up sources that must be complained about, are held against them in
L{tests.test_structure}. The list of pure modules has many lines.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "twisted/plugins/ctrlexec_plugins.py"
SPDX = "# SPDX-License-Identifier: AGPL-3.0-only"
LONG_LINES = 400
MOST_LINES = 600

# Decisions, values and formats: they can be used without Twisted.
PURE = """
    ctrlexec.api.definitions
    ctrlexec.api.marks
    ctrlexec.api.metrics
    ctrlexec.api.openapi
    ctrlexec.api.problems
    ctrlexec.api.schemas
    ctrlexec.api.source
    ctrlexec.certificates
    ctrlexec.codes
    ctrlexec.datagrams
    ctrlexec.demo
    ctrlexec.errors
    ctrlexec.events
    ctrlexec.events.agent
    ctrlexec.events.agent_runs
    ctrlexec.events.api
    ctrlexec.events.dispatcher
    ctrlexec.events.event
    ctrlexec.events.joins
    ctrlexec.events.shared
    ctrlexec.files
    ctrlexec.interfaces
    ctrlexec.joining
    ctrlexec.kinds
    ctrlexec.lines
    ctrlexec.output
    ctrlexec.pki
    ctrlexec.placement
    ctrlexec.rates
    ctrlexec.settings
    ctrlexec.sinks
    ctrlexec.system_log
    ctrlexec.uptime
    ctrlexec.values
    ctrlexec.agent.admission
    ctrlexec.agent.allowlist
    ctrlexec.agent.dialect
    ctrlexec.agent.formats
    ctrlexec.agent.keeper.clearing
    ctrlexec.agent.keeper.descendants
    ctrlexec.agent.keeper.ending
    ctrlexec.agent.keeper.frames
    ctrlexec.agent.keeper.groups
    ctrlexec.agent.keeper.keep
    ctrlexec.agent.keeper.kernel
    ctrlexec.agent.keeper.loop
    ctrlexec.agent.keeper.orders
    ctrlexec.agent.keeper.orphans
    ctrlexec.agent.keeper.rights
    ctrlexec.agent.keeper.script
    ctrlexec.agent.keeper.serving
    ctrlexec.agent.keeper.streams
    ctrlexec.agent.keeper.visitors
    ctrlexec.agent.keeper.zygote
    ctrlexec.agent.patterns
    ctrlexec.agent.policy
    ctrlexec.agent.revocation
    ctrlexec.agent.run_ages
    ctrlexec.agent.run_elsewhere
    ctrlexec.agent.run_output
    ctrlexec.agent.run_records
    ctrlexec.agent.run_store
    ctrlexec.agent.run_sweep
    ctrlexec.agent.run_writing
    ctrlexec.agent.runs
    ctrlexec.agent.streams
    ctrlexec.agent.schema
    ctrlexec.agent.tokens
    ctrlexec.agent.settings
    ctrlexec.agent.trust
    ctrlexec.agent.trust_store
    ctrlexec.agent.update_serial
    ctrlexec.agent.validation
    ctrlexec.dispatcher.accounts
    ctrlexec.dispatcher.approvals
    ctrlexec.dispatcher.authority
    ctrlexec.dispatcher.desk
    ctrlexec.dispatcher.exit_codes
    ctrlexec.dispatcher.folding
    ctrlexec.dispatcher.backend
    ctrlexec.dispatcher.join_tokens
    ctrlexec.dispatcher.joining
    ctrlexec.dispatcher.live
    ctrlexec.dispatcher.live_fields
    ctrlexec.dispatcher.signals
    ctrlexec.dispatcher.wording
    ctrlexec.dispatcher.jumps
    ctrlexec.dispatcher.keys
    ctrlexec.dispatcher.lifecycle
    ctrlexec.dispatcher.live_orders
    ctrlexec.dispatcher.lock_files
    ctrlexec.dispatcher.locks
    ctrlexec.dispatcher.carried_errors
    ctrlexec.dispatcher.conversation
    ctrlexec.dispatcher.background
    ctrlexec.dispatcher.interruption
    ctrlexec.dispatcher.means
    ctrlexec.dispatcher.members
    ctrlexec.dispatcher.operator
    ctrlexec.dispatcher.operator_lines
    ctrlexec.dispatcher.operator_rows
    ctrlexec.dispatcher.orders
    ctrlexec.dispatcher.outcomes
    ctrlexec.dispatcher.pacing
    ctrlexec.dispatcher.printers
    ctrlexec.dispatcher.pairing_gate
    ctrlexec.dispatcher.queue
    ctrlexec.dispatcher.recorded
    ctrlexec.dispatcher.records
    ctrlexec.dispatcher.registry
    ctrlexec.dispatcher.render
    ctrlexec.dispatcher.render_rotation
    ctrlexec.dispatcher.render_runs
    ctrlexec.dispatcher.renewal
    ctrlexec.dispatcher.requests
    ctrlexec.dispatcher.remote
    ctrlexec.dispatcher.results
    ctrlexec.dispatcher.rolling
    ctrlexec.dispatcher.revocation
    ctrlexec.dispatcher.rotation_state
    ctrlexec.dispatcher.run_record
    ctrlexec.dispatcher.runs
    ctrlexec.dispatcher.selection
    ctrlexec.dispatcher.seen
    ctrlexec.dispatcher.settings
    ctrlexec.dispatcher.succession
    ctrlexec.dispatcher.tables
    ctrlexec.dispatcher.terminal
    ctrlexec.dispatcher.token_records
    ctrlexec.dispatcher.unrevealed
    ctrlexec.dispatcher.viewer
    ctrlexec.protocol.agreement
    ctrlexec.protocol.codec
    ctrlexec.protocol.fields
    ctrlexec.protocol.codec_pairing
    ctrlexec.protocol.codec_revocation
    ctrlexec.protocol.codec_runs
    ctrlexec.protocol.revocation
    ctrlexec.protocol.run_messages
    ctrlexec.protocol.codec_trust
    ctrlexec.protocol.http
    ctrlexec.protocol.limits
    ctrlexec.protocol.messages
    ctrlexec.protocol.pairing
    ctrlexec.protocol.pairing_dispatcher
""".split()

# A program of its own, which starts without any site: it has the standard library
# and itself.
ALONE = "ctrlexec.agent.keeper"

# Who may import the global reactor: the last part of the module's name.
REACTOR_OWNERS = {"service", "cli", "demo", "ctrlexec_plugins"}
REACTOR = ("twisted.internet.reactor", "twisted.internet.task.react")

STORES = tuple(
    f"ctrlexec.dispatcher.{name}"
    for name in (
        "dispatch",
        "registry",
        "queue",
        "locks",
        "runs",
        "lifecycle",
        "joining",
        "join_tokens",
    )
)
# The seams lie between the rooms: their signatures name the values of both
# sides, but nothing of that is imported when they run. So it is with those who
# look on, some of whom are waited for.
SEAMS = ("ctrlexec.interfaces", "ctrlexec.dispatcher.results")
SKINS = ("ctrlexec.dispatcher.cli", "ctrlexec.dispatcher.modes", "ctrlexec.api")
ROOMS = ("ctrlexec.agent", "ctrlexec.dispatcher", "ctrlexec.api", "ctrlexec.demo")


@attrs.frozen
class Rule:
    """
    Modules that must not import some others.

    @ivar modules: whom it binds; a package stands for all that is in it.
    @ivar banned: what they must not import, likewise.
    """

    modules: tuple[str, ...]
    banned: tuple[str, ...]

    def binds(self, module: str) -> bool:
        """
        Whether a module is under this rule. The rule for C{"ctrlexec"} is for
        what the rooms share: it binds no room.
        """
        if self.modules == ("ctrlexec",):
            return not inside(module, ROOMS)
        return inside(module, self.modules)


# DESIGN.md, "Rooms, and who may know whom".
RULES = (
    Rule(("ctrlexec",), ROOMS),
    Rule(("ctrlexec.agent",), ("ctrlexec.dispatcher", "ctrlexec.api", "ctrlexec.demo")),
    Rule(("ctrlexec.dispatcher",), ("ctrlexec.agent", "ctrlexec.api")),
    Rule(("ctrlexec.api",), ("ctrlexec.agent", "ctrlexec.demo")),
    Rule(SKINS, STORES),
    Rule(("ctrlexec.dispatcher.operations",), SKINS),
    Rule(STORES, ("ctrlexec.dispatcher.operations", *SKINS)),
)


def inside(name: str, packages: tuple[str, ...]) -> bool:
    """
    Whether a dotted name is one of some packages, or in one of them.
    """
    return any(name == each or name.startswith(f"{each}.") for each in packages)


def imports(source: str, *, annotating: bool = True) -> Iterator[str]:
    """
    @param annotating: whether imports under C{if TYPE_CHECKING} count.
    @return: the dotted name of all that a source imports, wherever in it: for
        C{from a import b} both C{a} and C{a.b}, as C{b} may be a module.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree if annotating else AtRunTime().visit(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class AtRunTime(ast.NodeTransformer):
    """
    Drops what stands under C{if TYPE_CHECKING}.
    """

    def visit_If(self, node: ast.If) -> ast.AST:
        """
        Only the C{else} of such a condition stays.
        """
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
        return self.generic_visit(node)


def counted_imports(module: str, source: str) -> set[str]:
    """
    The imports of a module that the rules on directions and purity look at.
    """
    return set(imports(source, annotating=module not in SEAMS))


def wrong_directions(module: str, source: str) -> list[str]:
    """
    The imports of a module that point the wrong way.
    """
    banned = [each for rule in RULES if rule.binds(module) for each in rule.banned]
    return sorted(
        f"{module} imports {name}"
        for name in counted_imports(module, source)
        if inside(name, tuple(banned)) or name.startswith(".")
    )


def strangers(module: str, source: str) -> list[str]:
    """
    What a module that is L{ALONE} imports beyond the standard library and its
    own package.
    """
    if not inside(module, (ALONE,)):
        return []
    return sorted(
        f"{module} imports {name}"
        for name in imports(source)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not inside(name, (ALONE,))
    )


def reactor_uses(module: str, source: str) -> list[str]:
    """
    Where a module that may not names the global reactor, by an import or by
    a text that an import could be made of.
    """
    if module.split(".")[-1] in REACTOR_OWNERS:
        return []
    texts = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = {*imports(source), *texts}
    return sorted(f"{module} names {name}" for name in named if inside(name, REACTOR))


def impurities(module: str, source: str) -> list[str]:
    """
    What keeps a module from being pure: Twisted, or one of ours that is not.
    """
    return sorted(
        f"{module} imports {name}"
        for name in counted_imports(module, source)
        if inside(name, ("twisted",))
        or (is_module(name) and name not in PURE and not is_package(name))
    )


def unlisted(module: str, source: str) -> list[str]:
    """
    Whether a module is pure and not in the list of those that stay so.
    """
    if module in PURE or is_package(module) or impurities(module, source):
        return []
    return [f"{module} is pure, but not listed in PURE (tests/structure.py)"]


def licence_missing(name: str, source: str) -> list[str]:
    """
    Whether the line on the licence is missing: it is the first one, or the one
    that follows a C{#!}.
    """
    lines = source.splitlines()
    start = 1 if lines and lines[0].startswith("#!") else 0
    return [] if lines[start : start + 1] == [SPDX] else [f"{name}: no SPDX line"]


def too_long(name: str, source: str) -> list[str]:
    """
    Whether a module is long and its docstring does not say why it has so many
    lines, with that word; or too long for any reason.
    """
    count = len(source.splitlines())
    docstring = ast.get_docstring(ast.parse(source)) or ""
    if count > MOST_LINES:
        return [f"{name}: {count} lines, more than any module may have"]
    if count > LONG_LINES and not re.search(r"\blines\b", docstring):
        return [f"{name}: {count} lines, and its docstring gives no reason"]
    return []


def plugin_faults(source: str) -> list[str]:
    """
    What the plugin file holds beyond a docstring and C{ServiceMaker} calls with
    nothing but texts.
    """
    allowed = ["__future__", "__future__.annotations"]
    allowed += [
        "twisted.application.service",
        "twisted.application.service.ServiceMaker",
    ]
    faults = [f"imports {name}" for name in imports(source) if name not in allowed]
    for node in ast.parse(source).body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant()):
                pass
            case ast.Assign(
                [ast.Name()], ast.Call(ast.Name("ServiceMaker"), [*texts], [])
            ) if all(isinstance(text, ast.Constant) for text in texts):
                pass
            case _:
                faults.append(f"line {node.lineno}: {ast.unparse(node)}")
    return faults


def module_file(module: str) -> Path:
    """
    Where the source of a module of ours is, or would be.
    """
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def is_module(name: str) -> bool:
    """
    Whether a dotted name is a module of ours, and not something in one.
    """
    return inside(name, ("ctrlexec",)) and module_file(name).is_file()


def is_package(name: str) -> bool:
    """
    Whether a dotted name is a package of ours.
    """
    return ROOT.joinpath(*name.split(".")).is_dir()


def modules() -> dict[str, str]:
    """
    @return: the source of each module of ctrl-exec, by its dotted name.
    """
    found = {}
    for path in sorted((ROOT / "ctrlexec").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text("utf-8")
    return found


def source_files() -> dict[str, str]:
    """
    @return: every Python file of the project, by its path from the top.
    """
    paths = [ROOT / "noxfile.py", ROOT / PLUGIN]
    for top in ("ctrlexec", "tests", "benchmarks", "docs", "init"):
        paths += sorted((ROOT / top).rglob("*.py"))
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in paths
        if "data" not in path.parts
    }


def loaded_after(module: str, unwanted: tuple[str, ...]) -> str:
    """
    Import a module in a fresh interpreter.

    @return: which of the unwanted modules that has loaded, or how it failed.
    """
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; "
        f"print(*[name for name in {unwanted!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"{module}: {(done.stderr.splitlines() or ['it failed'])[-1]}"
    return f"{module} loads {done.stdout.strip()}" if done.stdout.strip() else ""

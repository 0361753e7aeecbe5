# SPDX-License-Identifier: AGPL-3.0-only
"""
The regular expressions of a schema: those of ECMA-262, on RE2.

A pattern is the host's and the text that it meets is a caller's. RE2 takes no
longer than the size of the pattern times that of the text, whatever either of
them is; Python's C{re} can take hours over C{^(a+)+$} and forty letters. What
RE2 can not do in that time, lookahead and references back to a group, it does
not know.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from ctrlexec.errors import CtrlExecError, abbreviated

# For what a pattern is compiled to, some 20,000 instructions at the most, and
# for what RE2 remembers of texts that it has met.
_MEMORY_BYTES = 524_288
_WORDS = 80

_TOKENS = re.compile(
    r"""
    \\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})
    | \\u(?P<four>[0-9a-fA-F]{4}) | \\u\{0*(?P<braced>[0-9a-fA-F]{1,6})\}
    | \\c(?P<control>[A-Za-z])
    | \\(?P<sign>[^A-Za-z0-9])
    | (?P<known>\\(?:[bBdDwWsStnvfr]|0(?![0-9])|x[0-9a-fA-F]{2}|[pP]\{[A-Za-z_]+\}))
    | (?P<unknown>\\.?)
    | (?P<repeated>\{(?:[0-9]+|[0-9]+,[0-9]*)\})
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COUNTS = re.compile(r"\{(?:0|[1-9][0-9]{0,3})(?:,(?:0|[1-9][0-9]{0,3})?)?\}")
_SPACE = (
    r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}"
    r"\x{3000}\x{feff}"
)
_NO_SPACE = (
    r"\x00-\x08\x0e-\x1f!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}"
    r"\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}"
    r"\x{ff00}-\x{10ffff}"
)
# What is spelled in another way for RE2, outside of brackets and within.
_OUTSIDE = {
    ".": r"[^\n\r\x{2028}\x{2029}]",
    r"\s": f"[{_SPACE}]",
    r"\S": f"[{_NO_SPACE}]",
    r"\0": r"\x00",
}
_WITHIN = {
    "[": r"\[",
    r"\s": _SPACE,
    r"\S": _NO_SPACE,
    r"\b": r"\x08",
    r"\0": r"\x00",
}


class PatternError(CtrlExecError):
    """
    A regular expression can not be used.
    """


@attrs.frozen(eq=False)
class Pattern:
    """
    A regular expression that is ready for use.

    @ivar instructions: how much it is, compiled: a letter is one, C{.} is some
        20, and what is repeated up to n times is n times as much. RE2 takes each
        of them once for each byte of a text at the most, in a few nanoseconds.
    """

    instructions: int
    _compiled: Any

    def found_in(self, text: str) -> bool:
        """
        Whether it matches somewhere in a text, as in JSON Schema.
        """
        return self._compiled.search(text.encode("utf-8", "surrogatepass")) is not None


def pattern_of(source: str) -> Pattern:
    """
    @param source: as it stands in a schema.
    @raise PatternError: RE2 does not know it, it is too large, or there is no
        RE2.
    """
    try:
        # Not a tenth of all agents has a pattern.
        import re2
    except ImportError:
        raise PatternError("google-re2, which patterns need, is not there") from None
    options = re2.Options()
    options.max_mem, options.log_errors = _MEMORY_BYTES, False
    options.never_capture = True
    try:
        compiled = re2.compile(_translated(source), options)
    except re2.error as error:
        raise _unfit(source, _words(error)) from None
    except UnicodeEncodeError:
        raise _unfit(source, "half of a character") from None
    return Pattern(compiled.programsize, compiled)


def _unfit(source: str, why: str) -> PatternError:
    return PatternError(f"the pattern {abbreviated(source)} can not be used: {why}")


def _words(error: Exception) -> str:
    given = error.args[0] if error.args else b""
    words = given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)
    return words[:_WORDS]


def _translated(source: str) -> str:
    """
    The pattern in RE2's spelling. Its C{$} is the end of the text, and its
    C{\\d}, C{\\w} and C{\\b} are of ASCII, as they are to be.
    """
    pieces: list[str] = []
    within = False
    for token in _TOKENS.finditer(source):
        piece = token[0]
        if token["unknown"]:
            raise _unfit(source, f"{piece} is not known")
        if token["repeated"] and not within and not _COUNTS.fullmatch(piece):
            # RE2 would take it for the characters that it is spelled with.
            raise _unfit(source, f"it repeats too often: {abbreviated(piece)}")
        if token.lastgroup not in (None, "known", "repeated"):
            piece = f"\\x{{{_character(source, token):x}}}"
        elif piece == "[" and not within:
            if source.startswith(("]", "^]"), token.end()):
                raise _unfit(source, "brackets with nothing in them")
            within = True
        else:
            piece = (_WITHIN if within else _OUTSIDE).get(piece, piece)
            within = within and piece != "]"
        pieces.append(piece)
    return "".join(pieces)


def _character(source: str, token: re.Match[str]) -> int:
    """
    The character that an escape stands for.
    """
    if token["sign"]:
        return ord(token["sign"])
    if token["control"]:
        return ord(token["control"]) % 32
    if token["high"]:
        high, low = int(token["high"], 16), int(token["low"], 16)
        return 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)
    number = int(token["four"] or token["braced"], 16)
    if 0xD800 <= number <= 0xDFFF:
        raise _unfit(source, "half of a character")
    return number

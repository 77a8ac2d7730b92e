"""Where a source file declares what: its classes and functions, as sections of lines.

Python by its own parser. Others by what their declarations look like, in the text without its comments and
strings (which Pygments tells apart), nested by indentation: what nobody indents has a flat outline.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_LINE = 5_000
"""Characters. Longer lines are no code that somebody wrote, and Pygments' patterns may take very long."""
MAX_CHARACTERS = 2_000_000
"""Larger files get no outline."""
_LONGEST_DECLARATION = 300
_BLANK = re.compile(r"\S")

_CLASS_WORDS = (
    "class struct interface trait enum record impl extension protocol object module namespace union contract "
    "defmodule mod actor type"
)
_FUNCTION_WORDS = "def defp function func fun fn sub proc procedure method macro task"
_MODIFIERS = (
    "abstract annotation async case companion const constexpr data declare default export extern external "
    "fileprivate final friend global inline inner internal lateinit local native noexcept open operator "
    "override partial private protected pub public readonly sealed static suspend synchronized unsafe "
    "virtual volatile"
)
_CONTROL_WORDS = (
    "if for while switch catch return else do try foreach using lock when unless until elif new throw with "
    "sizeof await yield case delete typeof super not and or in is"
)
_KEYWORD_LANGUAGE_WORDS = (
    "python go rust php ruby kotlin swift scala elixir lua perl r julia nim pascal powershell fsharp zig "
    "fortran protobuf thrift graphql verilog vhdl vb.net matlab tcl fish"
)
_CLASSES = frozenset(_CLASS_WORDS.split())
_FUNCTIONS = frozenset(_FUNCTION_WORDS.split())
_CONTROL = frozenset(_CONTROL_WORDS.split())
_ROUTINES = frozenset({"function", "procedure"})
_TYPED_LANGUAGES = frozenset({"c", "cpp", "java", "csharp", "dart", "groovy", "d", "solidity"})
_SCRIPTS = frozenset({"javascript", "jsx", "typescript", "tsx", "vue", "svelte"})
_KEYWORD_LANGUAGES = frozenset(_KEYWORD_LANGUAGE_WORDS.split()) | _TYPED_LANGUAGES | _SCRIPTS
_WORD = rf"(?:(?:{'|'.join(_MODIFIERS.split())})(?:\([\w ]{{1,30}}\))?\s+){{0,8}}"
_KEYWORD = re.compile(
    rf"\s*{_WORD}(?P<kind>{'|'.join(sorted(_CLASSES | _FUNCTIONS, key=len, reverse=True))})\b\*?"
    r"(?:\s*<[^<>]{0,80}>)?(?:\s+(?:class|struct|type|body))?(?:\s+|\s*\([^()]{0,80}\)\s*)"
    r"(?P<name>[\w$.:?!~-]{1,100})"
)
_SQL = re.compile(
    r"\s*create\s+(?:or\s+replace\s+)?(?:\w+\s+){0,3}?"
    r"(?P<kind>table|view|function|procedure|trigger|index|type|schema)\s+(?:if\s+not\s+exists\s+)?"
    r"(?P<name>[\w.\"`\[\]]{1,100})",
    re.IGNORECASE,
)
_SHELL = re.compile(r"\s*(?:function\s+(?P<name>[\w:.-]{1,80})|(?P<plain>[\w:.-]{1,80})\s*\(\s*\))")
_TYPED = re.compile(
    r"\s*(?:[\w:<>,.\[\]*&?@~]{1,80}\s+){1,8}[*&]{0,3}(?P<name>~?[A-Za-z_][\w:~]{0,80})\s*\([^;=]{0,250}$"
)
_MEMBER = re.compile(
    rf"\s*{_WORD}(?:get\s+|set\s+)?[*#]?(?P<name>[A-Za-z_$][\w$]{{0,80}})\s*(?:<[^<>()]{{0,80}}>)?\([^;]{{0,250}}\{{\s*$"
)
_ARROW = re.compile(
    rf"\s*{_WORD}(?:let|var)?\s*(?P<name>[A-Za-z_$][\w$]{{0,80}})\s*(?::[^=]{{1,80}})?=\s*(?:async\s+)?"
    r"(?:function\b|(?:\([^;]{0,200}\)|[\w$]{1,80})(?:\s*:[^=]{1,80})?\s*=>)"
)
_R_FUNCTION = re.compile(r"\s*(?P<name>[\w.]{1,80})\s*(?:<-|=)\s*function\b")
_CLOSING = re.compile(
    r"\s*(?:[{})\];#]|(?:end|fi|done|else|elsif|elif|catch|except|finally|rescue|where)\b"
    r"|(?:public|private|protected|signals)\b[^(]{0,40}:\s*$)"
)
"""At a declaration's own indentation, and still part of it."""
_LEADING = re.compile(r"\s*(?:@|#\[|\[[A-Z]|template\s*<|\*/)")


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under one declaration; both ends count from 0, the last does not belong to it."""

    path: tuple[str, ...]
    """``class Leave``, ``function request``; empty for what stands outside of any."""
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Declaration:
    kind: str
    name: str
    line: int
    first: int
    """Where it begins, with the comments and decorators above it."""
    indent: int
    end: int | None = None
    """The line after it, where that is known."""


@dataclass(frozen=True, slots=True)
class Outline:
    sections: tuple[Section, ...]
    functions: tuple[str, ...]
    classes: tuple[str, ...]
    imports: tuple[str, ...] = ()


def outline(text: str, language: str) -> Outline | None:
    """The sections of ``text``, which together are all of its lines; None where they cannot be told."""
    lines = text.split("\n")
    if len(text) > MAX_CHARACTERS or max(map(len, lines)) > LONGEST_LINE:
        return None
    if language == "python" and (found := _python(text, lines)):
        return found
    masked = _masked(text, language)
    declarations = list(_declarations(lines, masked, language))
    return Outline(
        tuple(_sections(lines, masked, declarations)),
        tuple(d.name for d in declarations if d.kind in _ROUTINES),
        tuple(d.name for d in declarations if d.kind in _CLASSES),
    )


def _python(text: str, lines: list[str]) -> Outline | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # another version's, or none
        return None
    declarations: list[_Declaration] = []
    imports: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports["." * node.level + (node.module or "")] = None
    _collect(tree, declarations, lines)
    sections = tuple(_sections(lines, lines, declarations))
    names = [(d.kind, d.name) for d in declarations]
    return Outline(
        sections,
        tuple(name for kind, name in names if kind == "function"),
        tuple(name for kind, name in names if kind == "class"),
        tuple(imports),
    )


def _collect(node: ast.Module | ast.ClassDef, found: list[_Declaration], lines: list[str]) -> None:
    """Functions and classes, and those in classes; what is inside a function belongs to it."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)]) - 1
            while first and lines[first - 1].lstrip().startswith("#"):
                first -= 1
            kind = "class" if isinstance(child, ast.ClassDef) else "function"
            line, indent, end = child.lineno - 1, child.col_offset, child.end_lineno
            found.append(_Declaration(kind, child.name, line, first, indent, end))
            if isinstance(child, ast.ClassDef):
                _collect(child, found, lines)


def _masked(text: str, language: str) -> list[str]:
    """The lines with blanks in place of comments and strings."""
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
    from pygments.token import Comment, String  # type: ignore[import-untyped]
    from pygments.util import ClassNotFound  # type: ignore[import-untyped]

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return text.split("\n")
    parts = []
    position = 0
    for start, kind, value in lexer.get_tokens_unprocessed(text):
        if start < position:
            continue
        parts.append(text[position:start])
        hidden = (kind in Comment and kind not in Comment.Preproc) or kind in String
        parts.append(_BLANK.sub(" ", value) if hidden else value)
        position = start + len(value)
    parts.append(text[position:])
    return "".join(parts).split("\n")


def _declarations(lines: list[str], masked: list[str], language: str) -> Iterator[_Declaration]:
    inside: list[_Declaration] = []
    for number, line in enumerate(masked):
        if not line.strip():
            continue
        indent = _indent(line)
        while inside and inside[-1].indent >= indent:
            inside.pop()
        if inside and inside[-1].kind not in _CLASSES:
            continue
        if found := _declared(line, language, in_class=bool(inside)):
            first = _with_leading(lines, masked, number)
            end = len(lines) if language == "sql" else None  # nothing tells, but the next one
            declaration = _Declaration(*found, number, first, indent, end)
            inside.append(declaration)
            yield declaration


def _declared(line: str, language: str, *, in_class: bool) -> tuple[str, str] | None:
    """Kind and name of what the line declares."""
    if len(line) > _LONGEST_DECLARATION:
        return None
    if language == "sql":
        match = _SQL.match(line)
        return (match["kind"].lower(), match["name"].strip('"`[]')) if match else None
    if language == "bash":
        match = _SHELL.match(line)
        return ("function", match["name"] or match["plain"]) if match else None
    if language not in _KEYWORD_LANGUAGES:
        return None
    if (match := _KEYWORD.match(line)) and not _is_use(line, match["kind"], language):
        kind = match["kind"] if match["kind"] in _CLASSES else "function"
        return kind, match["name"].rstrip(":.-")
    patterns = [_TYPED] if language in _TYPED_LANGUAGES else []
    if language == "r":
        patterns.append(_R_FUNCTION)
    if language in _SCRIPTS:
        patterns += [_ARROW, _MEMBER] if in_class else [_ARROW]
    if in_class and language in _TYPED_LANGUAGES:
        patterns.append(_MEMBER)  # a constructor has no type
    for pattern in patterns:
        match = pattern.match(line)
        if match and match["name"] not in _CONTROL and line.split()[0].rstrip("({") not in _CONTROL:
            return "function", match["name"]
    return None


def _is_use(line: str, kind: str, language: str) -> bool:
    """Whether the word only names a type that is declared elsewhere: ``struct leave *find(int id)``."""
    if language in {"c", "cpp"} and kind in {"struct", "union", "enum"} and ("(" in line or "=" in line):
        return True
    return "{" not in line and line.rstrip().endswith((";", ","))


def _with_leading(lines: list[str], masked: list[str], number: int) -> int:
    """The line where the comments and decorators right above a declaration begin."""
    while number and lines[number - 1].strip():
        above = masked[number - 1]
        if above.strip() and not _LEADING.match(above):
            break
        number -= 1
    return number


def _sections(lines: list[str], masked: list[str], declarations: list[_Declaration]) -> Iterator[Section]:
    starts = {declaration.first: declaration for declaration in declarations}
    inside: list[_Declaration] = []
    path: tuple[str, ...] = ()
    first = 0
    for number, line in enumerate(masked):
        starting = starts.get(number)
        while inside and _has_ended(inside[-1], line, number, starting):
            inside.pop()
        if starting:
            inside.append(starting)
        found = tuple(f"{declaration.kind} {declaration.name}" for declaration in inside)
        if found != path or starting:
            if number > first:
                yield Section(path, first, number)
            path, first = found, number
    yield Section(path, first, len(lines))


def _has_ended(declaration: _Declaration, line: str, number: int, starting: _Declaration | None) -> bool:
    if starting:
        return starting.indent <= declaration.indent
    if declaration.end is not None:
        return number >= declaration.end and bool(line.strip())
    return (
        bool(line.strip())
        and number > declaration.line
        and _indent(line) <= declaration.indent
        and not _CLOSING.match(line)
    )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())

"""The contracts and ports of `docs/architecture.md`, with their methods, from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.proxy import ROOT

SHOWN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Plugins of the proxy", "plugins/core/ports.py", ("Tool", "IdentitySource")),
    (
        "Plugins of the crawler",
        "crawler/src/crawler/contracts.py",
        ("Format", "Extractor", "Chunker"),
    ),
    ("Ports of the domain", "plugins/core/ports.py", ("Catalogue", "Search", "Embed", "Health")),
    ("Ports of the crawler", "crawler/src/crawler/contracts.py", ("Embedder", "Complete")),
    ("The vector store", "crawler/src/crawler/store.py", ("Store",)),
    ("Uploaded files", "plugins/collections/originals/__init__.py", ("Originals",)),
    ("Signing in", "plugins/core/ports.py", ("SignIn", "Directory")),
    ("The crawler itself", "crawler/src/crawler/crawler.py", ("Preparer", "Crawler")),
)


def listing() -> str:
    """A heading and a block of code for each group; of a method what it takes, answers and is for."""
    parts = []
    for title, file, names in SHOWN:
        classes = formatted("\n\n\n".join(shown(found) for found in classes_of(ROOT / file, names)))
        parts.append(f"### {title}: `{file}`\n\n```python\n{classes}\n```")
    return "\n\n".join(parts)


def classes_of(path: Path, names: tuple[str, ...]) -> list[ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return [found[name] for name in names]


def shown(node: ast.ClassDef) -> str:
    bases = ", ".join(map(ast.unparse, node.bases))
    lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
    if text := first_sentence(node):
        lines.append(f'    """{text}"""')
    for method in methods(node):
        lines += ["", *(f"    {line}" for line in signature(method))]
    return "\n".join(lines)


def methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
    for item in functions:
        if not item.name.startswith("_") or item.name in ("__init__", "__call__"):
            yield item


def signature(method: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The method's head and what it is for."""
    kind = "async def" if isinstance(method, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    line = f"{kind} {method.name}({ast.unparse(method.args)}){returns}:"
    text = first_sentence(method)
    return [line, f'    """{text}"""'] if text else [f"{line} ..."]


def formatted(code: str) -> str:
    """As `make format` would have it."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "interfaces.py", "-"]
    ran = subprocess.run(command, cwd=ROOT, input=code, check=True, capture_output=True, text=True)
    return ran.stdout.rstrip()


def first_sentence(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The docstring's first paragraph, when it says more than what is raised."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    sentence = text.split(". ")[0]
    return sentence if sentence.endswith((".", ":")) or not sentence else f"{sentence}."

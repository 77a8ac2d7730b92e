"""Which room may import which: the rules of docs/architecture.md."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.proxy import ROOT

PLUGINS = ROOT / "plugins"
CRAWLER = ROOT / "crawler" / "src" / "crawler"

LAYERS = [
    {"entry", "worker"},
    {"bundle"},
    {"proxy", "api"},
    {"tools", "auth", "models"},
    {"collections"},
    {"core"},
]
"""From top to bottom; a room imports only rooms below its own layer, and itself."""
MAY_IMPORT_LITELLM = {"entry", "proxy", "models"}
PLUGIN_FOLDERS = [
    PLUGINS / "auth",
    PLUGINS / "tools",
    CRAWLER / "formats",
    CRAWLER / "chunkers",
    CRAWLER / "extractors",
    CRAWLER / "embedders",
]


def modules(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(path: Path) -> str | None:
    parts = path.relative_to(PLUGINS).parts
    return parts[0] if len(parts) > 1 else None


def layer_of(room: str) -> int:
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def test_every_room_is_in_the_layers() -> None:
    rooms = {p.name for p in PLUGINS.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms == set().union(*LAYERS)


def test_rooms_import_downward_only() -> None:
    wrong = []
    for path in modules(PLUGINS):
        room = room_of(path)
        for line, name in imports(path):
            target = name.split(".")[1] if name.startswith("plugins.") else None
            if room and target and target != room and layer_of(target) <= layer_of(room):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


def test_no_plugin_imports_another_of_its_kind() -> None:
    wrong = []
    for folder in PLUGIN_FOLDERS:
        kind = ".".join(folder.relative_to(CRAWLER.parent if CRAWLER in folder.parents else ROOT).parts)
        for path in modules(folder):
            for line, name in imports(path):
                other = name.removeprefix(f"{kind}.").split(".")[0] if name.startswith(f"{kind}.") else ""
                if other and not other.startswith("_") and other != path.stem:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong


def test_litellm_is_known_only_to_the_rooms_that_adapt_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in [*modules(PLUGINS), *modules(CRAWLER)]
        for line, name in imports(path)
        if name.split(".")[0] == "litellm"
        and (CRAWLER in path.parents or room_of(path) not in MAY_IMPORT_LITELLM)
    ]
    assert not wrong


def test_nothing_imports_the_proprietary_part_of_litellm() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in [*modules(PLUGINS), *modules(CRAWLER)]
        for line, name in imports(path)
        if name.split(".")[0] == "litellm_enterprise"
    ]
    assert not wrong


def test_pymilvus_is_known_only_to_the_stores() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in [*modules(PLUGINS), *modules(CRAWLER)]
        for line, name in imports(path)
        if name.split(".")[0] in {"pymilvus", "milvus_lite"} and path.parent != CRAWLER / "stores"
    ]
    assert not wrong


def test_the_crawler_knows_neither_fastapi_nor_the_plugins() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(CRAWLER)
        for line, name in imports(path)
        if name.split(".")[0] in {"fastapi", "starlette", "plugins"}
    ]
    assert not wrong


def loaded_by(modules: str, *wanted: str) -> str:
    """Which of the wanted modules a fresh interpreter has after importing the others."""
    code = f"import sys, {modules}; print(*sorted(set({wanted!r}) & set(sys.modules)))"
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return ran.stdout.strip()


def test_the_proxys_side_loads_no_converter() -> None:
    converters = ("liteparse", "xberg", "semantic_text_splitter", "onnx")
    assert loaded_by("plugins.bundle.process, plugins.models.minilm", *converters) == ""


def test_the_child_of_a_preview_loads_no_database_and_no_models_sdk() -> None:
    """Somebody waits for it; the two took most of its start."""
    assert loaded_by("plugins.worker.preview", "sqlalchemy", "alembic", "openai", "litellm") == ""


def test_the_check_of_the_configuration_loads_no_litellm() -> None:
    assert loaded_by("plugins.bundle.check, plugins.models", "litellm") == ""

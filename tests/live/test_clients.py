"""Other people's clients, as they are installed: OpenAI's SDK for Node, LangChain's and LlamaIndex's classes.

Each is installed once, at a pinned version, into an environment of its own under the cache folder. The model
is a stand-in that speaks OpenAI's API; proxy, documents and search are real.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.library import QUESTION, Library, key, library, litellm_config
from tests.support.upstream import ANSWER, upstream

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
NODE = Path(__file__).parent / "node"
INSTALL_S = 900.0
ASK_S = 240.0

LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI

base_url, api_key, question = sys.argv[1:]
model = ChatOpenAI(model="chat", base_url=base_url, api_key=api_key, max_retries=0, timeout=60)
plain = model.invoke(question)
streamed = [chunk.content for chunk in model.stream(question) if chunk.content]
print(json.dumps({"plain": plain.content, "streamed": streamed, "kept": repr(plain.model_dump())}))
"""
LLAMA_INDEX = """
import json, sys
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

base_url, api_key, question = sys.argv[1:]
model = OpenAILike(
    model="chat", api_base=base_url, api_key=api_key, is_chat_model=True, max_retries=0, timeout=60
)
asked = [ChatMessage(role="user", content=question)]
plain = model.chat(asked)
streamed = [part.delta for part in model.stream_chat(asked) if part.delta]
print(json.dumps({"plain": plain.message.content, "streamed": streamed, "kept": repr(plain.raw)}))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with upstream() as server:
        params = {"model": "openai/stand-in", "api_base": server.url, "api_key": "x", "num_retries": 0}
        chat = {"model_name": "chat", "litellm_params": params, "model_info": {"mode": "chat", "rag": True}}
        with library(tmp_path_factory.mktemp("clients"), litellm_config([chat])) as running:
            yield running


def python(package: str) -> Path:
    """The Python of an environment that has this package alone: their versions of `openai` differ."""

    def install(folder: Path) -> None:
        run([sys.executable, "-m", "venv", str(folder)], folder)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", package], folder)

    return environment("python", f"{package}\n{sys.version}", install) / "bin" / "python"


@pytest.fixture(scope="module")
def node() -> Path:
    """A folder with the SDK and the script."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("there is no Node.js with npm (https://nodejs.org)")
    return environment("node", (NODE / "package.json").read_text(encoding="utf-8"), node_packages)


def node_packages(folder: Path) -> None:
    shutil.copy(NODE / "package.json", folder)
    run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"], folder)


def environment(kind: str, wanted: str, install: Any) -> Path:
    """The folder where it is installed: made once for what is wanted. Skips where it cannot be had."""
    folder = CACHE / f"clients-{kind}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    done = folder / ".installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            install(folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "") or ""
            pytest.skip(f"the clients for {kind} cannot be installed: {type(error).__name__} {said[-300:]}")
        done.touch()
    return folder


def run(command: Sequence[str], folder: Path, timeout_s: float = INSTALL_S) -> str:
    """What it prints.

    Raises:
        CalledProcessError, TimeoutExpired: It failed, or took too long.
    """
    with tempfile.TemporaryDirectory() as home:
        ran = subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=folder,
            env={**os.environ, "HOME": home, "NO_PROXY": "127.0.0.1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
    return ran.stdout


def said(house: Library, command: Sequence[str], folder: Path) -> dict[str, Any]:
    """What a client's script printed, of alice's question."""
    try:
        printed = run([*command, house.base_url, key("alice"), QUESTION], folder, ASK_S)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr[-3000:]) from error
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    assert found["plain"] == "".join(ANSWER)
    assert "".join(found["streamed"]) == "".join(ANSWER)
    assert len(found["streamed"]) > 1, "piece by piece"


def test_openais_sdk_for_node_answers_with_citations(house: Library, node: Path) -> None:
    shutil.copy(NODE / "ask.mjs", node)
    found = said(house, ["node", "ask.mjs"], node)
    check(found)
    assert found["helped"] == "".join(ANSWER)
    [annotation] = found["annotations"]
    assert annotation["url_citation"]["url"].startswith(house.proxy.url)
    assert found["refused"] == "NotFoundError"


@pytest.mark.parametrize(
    ("package", "script"),
    [("langchain-openai==1.6.7", LANGCHAIN), ("llama-index-llms-openai-like==0.8.1", LLAMA_INDEX)],
    ids=["langchain", "llama-index"],
)
def test_a_framework_that_speaks_openais_api_answers_from_documents(
    house: Library, package: str, script: str
) -> None:
    interpreter = python(package)
    found = said(house, [str(interpreter), "-c", script], interpreter.parent)
    check(found)
    sys.stdout.write(f"{found['kept']}\n")

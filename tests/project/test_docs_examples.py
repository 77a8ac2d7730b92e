"""The examples of the documentation: Python is run against the sample installation, our YAML is checked as
`make check` does, JSON is JSON. Those that other tests run are named here."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.bundle.check import check
from plugins.core.config import Config
from tests.support.pages import Block, blocks
from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, variables

ELSEWHERE = {
    "README.md": "test_readme",
    "CONTRIBUTING.md": "test_readme",
    "crawler/README.md": "tests/unit/crawler/test_readme.py",
    "docs/pipelines.md": "tests/journeys/test_pipelines.py",
}
"""Pages whose Python is run by tests of their own."""
CURL_ELSEWHERE = {
    "docs/backup.md": "tests/live/test_restore_embedded.py",
    "docs/jobs.md": "tests/journeys/test_jobs.py",
}
OF_ADMINS = ("docs/audit.md", "docs/reload.md")
ONLY_PARSED = {"docs/milvus.md": "it makes users in a Milvus server", "docs/architecture.md": "declarations"}


def named(block: Block) -> str:
    return str(block.page.relative_to(ROOT))


RUN = [block for block in blocks("python") if named(block) not in {**ELSEWHERE, **ONLY_PARSED}]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.where)
def test_python_is_python(block: Block) -> None:
    compile(block.text, block.where, "exec")


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.where)
def test_python_does_what_it_shows_with_the_sample_installation(block: Block, running: Quickstart) -> None:
    """Only models and the address are others: those of the sample."""
    code = re.sub(r'model="\w+"', 'model="extractive"', block.text)
    code = code.replace("http://127.0.0.1:4000", running.url)
    given = {
        "client": running.openai("alice"),
        "key": running.key("alice"),
        "messages": [{"role": "user", "content": "How many days of annual leave are there?"}],
    }
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, block.where, "exec"), given)  # noqa: S102 - it is our own page
    assert "print(" not in code or "/content" in printed.getvalue()


KEYCLOAK = {
    "use": "oidc",
    "name": "keycloak",
    "issuer": "https://keycloak.example.com/realms/main",
    "audience": "litellm",
}
AROUND = {
    "worker": {"proxy_url": "http://127.0.0.1:4000", "api_key": f"sk-{'0' * 40}"},
    "storage": {"store": {"use": "milvus", "uri": "https://milvus.example.com:19530"}},
}
"""What examples take for granted: a way to the pipelines' models, a Milvus server, and Keycloak."""


def ours(content: Any) -> dict[str, Any] | None:
    """An example as keys of our configuration: whole, a list of identity sources, or of formats."""
    if isinstance(content, dict) and set(content) <= set(Config.model_fields):
        return content
    if isinstance(content, list) and all(isinstance(item, dict) and "use" in item for item in content):
        names = {path.stem for path in (ROOT / "plugins" / "auth").glob("[a-z]*.py")}
        if {item["use"] for item in content} <= names:
            return {"identity": {"sources": content}}
        return {"pipelines": {"default": {"formats": content}}}
    return None


def whole(content: Mapping[str, Any], folder: Path) -> None:
    """Write it into a copy of the sample's folder, whose other settings stay; sources are added."""
    files = {key: path for path in folder.glob("*.yaml") for key in yaml.safe_load(path.read_text())}
    sample = {key: yaml.safe_load(path.read_text())[key] for key, path in files.items()}
    sources = {source.get("name", source["use"]): source for source in sample["identity"]["sources"]}
    shown = content.get("identity", {}).get("sources", [])
    sources |= {"keycloak": KEYCLOAK} | {source.get("name", source["use"]): source for source in shown}
    for part in (AROUND, content):
        for key, value in part.items():
            old = sample.get(key)
            sample[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    sample["identity"]["sources"] = list(sources.values())
    for path in {*files.values()}:
        path.unlink()
    (folder / "all.yaml").write_text(yaml.safe_dump(sample))


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.where)
def test_yaml_of_ours_is_configuration_without_mistakes(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, content in enumerate(yaml.safe_load_all(block.text)):
        settings = ours(content)
        if settings is None or named(block) in ELSEWHERE.keys() - {"README.md", "docs/pipelines.md"}:
            continue
        folder = Path(shutil.copytree(ROOT / "config", tmp_path / str(number)))
        whole(settings, folder)
        for name in re.findall(r"os\.environ/(\w+)", (folder / "all.yaml").read_text()):
            address = "https://of-an-example.example.com"
            monkeypatch.setenv(name, address if name.endswith(("_URL", "_URI")) else f"sk-{name}{'0' * 40}")
        lines = check(folder, ROOT / "litellm_config.yaml")
        assert [line for line in lines if "in model_list" not in line] == []


CURL = [
    block for block in blocks("bash", "sh") if "curl " in block.text and named(block) not in CURL_ELSEWHERE
]


def test_every_curl_says_what_it_is() -> None:
    unlabelled = [block for block in blocks("") if "curl " in block.text]
    assert [block.where for block in unlabelled if named(block) not in ELSEWHERE] == []


@pytest.fixture
def notes(running: Quickstart) -> Iterator[str]:
    """A collection of alice's."""
    alice = running.http("alice")
    alice.post("/v1/collections/new", json={"name": "docs-examples"}).raise_for_status()
    note = {"filename": "notice.md", "markdown": "# Notice\n\nThe notice period is three months."}
    added = alice.post("/v1/collections/docs-examples/add?wait=true", json={"documents": [note]})
    assert added.status_code == 200, added.text
    yield "docs-examples"
    alice.delete("/v1/collections/docs-examples").raise_for_status()


@pytest.mark.parametrize("block", CURL, ids=lambda block: block.where)
def test_curl_gets_an_answer_and_no_error(block: Block, running: Quickstart, notes: str) -> None:
    """Only models and the collection are others: those of the sample, and one that may be changed."""
    script = block.text.replace("handbook", notes).replace("text-embedding-3-large", "local/minilm")
    script = re.sub(r'"model": "\w+"', '"model": "extractive"', script)
    key = running.key("master" if named(block) in OF_ADMINS else "alice")
    given = {"PROXY": running.url, "URL": running.url, "KEY": key}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        env=variables(running.folder) | given | {"TOKEN": given["KEY"], "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert re.search('"(id|model|object)"', done.stdout), done.stdout + done.stderr
    assert '"error"' not in done.stdout


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.where)
def test_json_is_json(block: Block) -> None:
    for line in [block.text] if block.text.lstrip()[:1] in "{[" else []:
        json.loads(line)

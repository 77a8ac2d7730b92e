"""`make check`: all mistakes at once, each with its file and path, and nothing of a secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from plugins.__main__ import main

ROOT = Path(__file__).parents[3]
KEYS = {f"DEMO_{name}_KEY": f"sk-{name.lower()}-key-of-the-tests-0123" for name in ("ALICE", "BOB", "CAROL")}


PROXY_CONFIG = ROOT / "litellm_config.yaml"

Checked = subprocess.CompletedProcess[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "config", tmp_path / "config"))


@pytest.fixture
def run_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Checked]:
    """The command in this process."""

    def run(keys: Mapping[str, str] = KEYS, proxy_config: Path = PROXY_CONFIG) -> Checked:
        monkeypatch.chdir(folder.parent)
        for name, value in {**keys, "COLLECTIONS_CONFIG": str(folder)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["plugins", "check", "--config", str(proxy_config)])
        status = main()
        return Checked(sys.argv, status, *capsys.readouterr())

    return run


def edit(path: Path, key: str, value: object) -> None:
    content = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    at = content
    for part in parents:
        at = at[part]
    at[last] = value
    path.write_text(yaml.safe_dump(content))


def test_the_sample_configuration_is_right(folder: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "plugins", "check", "--config", str(PROXY_CONFIG)],
        env={"PATH": os.environ["PATH"], "COLLECTIONS_CONFIG": str(folder), "PYTHONPATH": str(ROOT), **KEYS},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_all_mistakes_of_all_files_are_printed_at_once(
    folder: Path, run_check: Callable[..., Checked]
) -> None:
    edit(folder / "chat.yaml", "chat.max_rounds", 0)
    edit(folder / "chat.yaml", "chat.answers", "short")
    edit(folder / "limits.yaml", "limits.max_files", "many")
    checked = run_check(keys={**KEYS, "DEMO_BOB_KEY": ""})
    assert checked.returncode == 1
    for line in (
        f"{folder / 'chat.yaml'}: chat.max_rounds: input should be greater than or equal to 1",
        f"{folder / 'chat.yaml'}: chat.answers: unknown setting",
        f"{folder / 'limits.yaml'}: limits.max_files: input should be a valid integer",
        f"{folder / 'identity.yaml'}: identity.sources[0].keys[1].key: "
        "the environment variable DEMO_BOB_KEY is not set",
        "4 mistake(s)",
    ):
        assert line in checked.stderr


def test_mistakes_that_only_the_parts_can_see_are_found_together(
    folder: Path, run_check: Callable[..., Checked]
) -> None:
    edit(
        folder / "tools.yaml",
        "tools",
        [{"use": "no_such_tool"}, {"use": "search_documents", "allow": ["bob"]}],
    )
    edit(folder / "collections.yaml", "collections.policy", [{"names": "*", "query": ["group:staff"]}])
    edit(folder / "pipelines.yaml", "pipelines.default.chunker", {"use": "headings", "max_tokens": "few"})
    edit(folder / "storage.yaml", "storage.store", {"use": "milvus", "uri": "ftp://milvus"})
    edit(folder / "chat.yaml", "chat.prompt", "missing.md")
    edit(folder / "chat.yaml", "chat.budgets", [{"subjects": ["role:nowhere/x"], "max_rounds": 9}])
    sources = yaml.safe_load((folder / "identity.yaml").read_text())["identity"]["sources"]
    edit(folder / "identity.yaml", "identity.sources", [*sources, {"use": "ldap"}])
    edit(folder / "identity.yaml", "identity.allowances", [{"subjects": ["*", "user:nowhere/x"]}])
    edit(folder / "limits.yaml", "limits.quotas", [{"subjects": ["group:nowhere/x"], "max_documents": 1}])
    edit(folder / "limits.yaml", "worker.priorities", [{"subjects": ["role:nowhere/x"], "priority": 1}])
    checked = run_check()
    assert checked.returncode == 1
    for part in (
        "limits.yaml: limits.quotas[0].subjects[0]: `group:nowhere/x` must name its source",
        "limits.yaml: worker.priorities[0].subjects[0]: `role:nowhere/x` must name its source",
        "tools.yaml: tools[0].use: ",
        "tools.yaml: tools[1].allow[0]: `bob` is not a subject",
        "collections.yaml: collections.policy[0].query[0]: `group:staff` must name its source",
        "pipelines.yaml: pipelines.default.chunker.max_tokens: ",
        "storage.yaml: storage.store: `uri` must be a path, or begin with http:// or https://",
        "identity.yaml: identity.allowances[0].subjects[1]: `user:nowhere/x` must name its source",
        "chat.yaml: chat.prompt: there is no file prompts/missing.md",
        "chat.yaml: chat.budgets[0].subjects[0]: `role:nowhere/x` must name its source",
    ):
        assert part in checked.stderr, checked.stderr
    assert f"\n{folder / 'identity.yaml'}: identity.sources[2].use: " in f"\n{checked.stderr}"


def test_a_wrong_setting_does_not_hide_what_is_wrong_elsewhere(
    folder: Path, run_check: Callable[..., Checked]
) -> None:
    edit(folder / "limits.yaml", "limits.max_files", "many")
    edit(folder / "tools.yaml", "tools", [{"use": "no_such_tool"}])
    edit(folder / "pipelines.yaml", "pipelines.default.chunker", {"use": "headings", "max_tokens": "few"})
    checked = run_check()
    for part in ("limits.max_files: ", "tools[0].use: ", "pipelines.default.chunker.max_tokens: "):
        assert part in checked.stderr, checked.stderr
    assert "3 mistake(s)" in checked.stderr


@pytest.mark.parametrize(
    "identity", ["identity: [", "identity: {sources: []}", "identity: {sources: [{use: litellm}], more: 1}"]
)
def test_a_wrong_identity_does_not_hide_what_is_wrong_elsewhere(
    folder: Path, identity: str, run_check: Callable[..., Checked]
) -> None:
    (folder / "identity.yaml").write_text(identity)
    edit(folder / "tools.yaml", "tools", [{"use": "no_such_tool"}])
    edit(folder / "pipelines.yaml", "pipelines.default.chunker", {"use": "headings", "max_tokens": "few"})
    checked = run_check()
    for part in ("identity.yaml", "tools[0].use: ", "pipelines.default.chunker.max_tokens: "):
        assert part in checked.stderr, checked.stderr
    assert "3 mistake(s)" in checked.stderr, "and nothing that is wrong only because of it"


def test_a_key_that_is_too_weak_is_not_repeated_in_the_message(run_check: Callable[..., Checked]) -> None:
    checked = run_check(keys={**KEYS, "DEMO_BOB_KEY": "sk-hunter2"})
    assert checked.returncode == 1
    assert "identity.sources[0].keys[1].key" in checked.stderr
    assert "hunter2" not in checked.stderr


def test_litellms_own_yaml_must_load_us_and_check_models(
    folder: Path, tmp_path: Path, run_check: Callable[..., Checked]
) -> None:
    path = tmp_path / "litellm.yaml"
    models = [
        {"model_name": "x", "litellm_params": {"model": "local/none"}},
        {"model_name": "y", "litellm_params": {"model": "openai/x"}, "model_info": {"rag": "legal"}},
    ]
    cache = {"cache": True, "cache_params": {"type": "redis-semantic"}}
    path.write_text(yaml.safe_dump({"model_list": models, "general_settings": {}, "litellm_settings": cache}))
    checked = run_check(proxy_config=path)
    assert checked.returncode == 1
    for part in (
        "general_settings.custom_auth: must be plugins.entry.authenticate",
        "general_settings.custom_auth_run_common_checks: must be true",
        "litellm_settings.callbacks: must have plugins.entry.hooks",
        "litellm_settings.cache_params.type: `redis-semantic` answers",
        "model_list[0].litellm_params.model: there is no built-in model `none`",
        "model_list[1].model_info.rag: there is no profile `legal` in chat.profiles",
    ):
        assert f"{path}: {part}" in checked.stderr


@pytest.mark.parametrize("content", ["identity: [", "- a\n- b\n", "identity:\n  sources: []\n"])
def test_a_file_that_is_no_configuration_says_what_it_should_be(
    folder: Path, content: str, run_check: Callable[..., Checked]
) -> None:
    (folder / "identity.yaml").write_text(content)
    checked = run_check()
    assert checked.returncode == 1
    assert "identity.yaml" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_a_key_that_two_files_set_is_a_mistake(folder: Path, run_check: Callable[..., Checked]) -> None:
    (folder / "more.yaml").write_text("limits: {max_files: 3}\n")
    checked = run_check()
    assert checked.returncode == 1
    assert "limits: is already set in" in checked.stderr


def test_the_models_that_pipelines_ask_must_be_there_and_reachable(
    folder: Path, run_check: Callable[..., Checked]
) -> None:
    form = {"type": "object", "properties": {"kind": {"type": "string"}}}
    asking = {
        "embedding_model": "no-such-embedder",
        "extractor": {"use": "llm", "model": "no-such-model", "metadata_schema": form},
        "image_descriptions": {"model": "extractive"},
    }
    edit(folder / "pipelines.yaml", "pipelines.asking", asking)
    checked = run_check()
    path = folder / "pipelines.yaml"
    for part in (
        "pipelines.asking.extractor.model: to ask `no-such-model`, set worker.proxy_url and worker.api_key",
        "pipelines.asking.image_descriptions.model: to ask `extractive`, set worker.proxy_url",
        "pipelines.asking.extractor.model: there is no model `no-such-model` in model_list",
        "pipelines.asking.embedding_model: there is no model `no-such-embedder` in model_list",
    ):
        assert f"{path}: {part}" in checked.stderr, checked.stderr
    assert "4 mistake(s)" in checked.stderr
    edit(folder / "limits.yaml", "worker.proxy_url", "http://127.0.0.1:4000")
    edit(folder / "limits.yaml", "worker.api_key", "sk-worker")
    edit(folder / "pipelines.yaml", "pipelines.asking.extractor.model", "extractive")
    edit(folder / "pipelines.yaml", "pipelines.asking.embedding_model", "local/minilm")
    assert run_check().returncode == 0


def test_the_embedding_model_of_collections_must_be_there_unless_models_are_in_litellms_database(
    folder: Path, run_check: Callable[..., Checked]
) -> None:
    edit(folder / "collections.yaml", "collections.embedding_model", "no-such-embedder")
    checked = run_check()
    wanted = "collections.embedding_model: there is no model `no-such-embedder` in model_list"
    assert f"{folder / 'collections.yaml'}: {wanted}" in checked.stderr, checked.stderr
    assert run_check({**KEYS, "STORE_MODEL_IN_DB": "True"}).returncode == 0

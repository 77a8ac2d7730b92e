"""The unit tests on the image's Python with the image's packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.image import engine
from tests.image.engine import NO_NETWORK, once
from tests.support.proxy import ROOT


def test_the_unit_tests_pass_in_the_image(image: str, tmp_path: Path) -> None:
    with_ocr = engine.build_product(f"{image}-ocr", OCR_LANGUAGES="eng deu")
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    tag = f"{image}-unit"
    engine.build(tag, tmp_path, Path(__file__).parent / "unit_tests.Dockerfile", {"IMAGE": with_ocr})
    options = (*NO_NETWORK, "--volume", f"{ROOT}:/src:ro", "--env", "PYTHONDONTWRITEBYTECODE=1")
    command = ("python", "-m", "pytest", "tests/unit", "-n2", "--dist=loadfile", "-p", "no:cacheprovider")
    done = once(tag, *command, options=options, timeout=3600)
    assert done.returncode == 0, done.stdout[-8000:]

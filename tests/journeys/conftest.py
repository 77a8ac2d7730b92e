"""What journeys share: one proxy of the rights matrix, and one for the other chat APIs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import observed as observing
from tests.support.apis_proxy import Apis, apis_proxy
from tests.support.rights_proxy import Matrix, matrix_proxy
from tests.support.rights_stage import Stage


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with matrix_proxy(tmp_path_factory.mktemp("rights")) as made:
        yield made


@pytest.fixture
def on(matrix: Matrix) -> Stage:
    return matrix.stage


@pytest.fixture(scope="session")
def apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apis]:
    with apis_proxy(tmp_path_factory.mktemp("apis")) as made:
        yield made


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[observing.Observed]:
    with observing.observed(tmp_path_factory.mktemp("observed")) as made:
        yield made

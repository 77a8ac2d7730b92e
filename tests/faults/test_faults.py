"""Redis, Postgres, Milvus or Keycloak gone for a while under load; prints the tables of docs/faults.md."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.faults.house import House, build
from tests.faults.load import ANSWERED, INSIDE, WITHOUT, Sample
from tests.faults.report import table
from tests.faults.services import NewTokens, halt

SECONDS = float(os.environ.get("FAULT_SECONDS", "60"))
RECOVERY_S = 180.0
"""How long to wait for all to go well again; how long it took is in the tables."""
SERVICES = ("redis", "postgres", "milvus", "keycloak")
WAYS = ("killed", "silent")
READABLE = re.compile(r"[45]\d\d [a-z_]+")
SURPRISE = "unforeseen error"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ExitStack() as stack:
        made = build(tmp_path_factory.mktemp("faults"), stack)
        try:
            yield made
        finally:
            if kept := os.environ.get("FAULT_LOGS"):
                Path(kept).write_text(made.logs(), encoding="utf-8")


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + RECOVERY_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def wait_until_well(house: House, since: float) -> None:
    """Until every kind that is asked has had a right answer to what was asked after that."""
    wait_for(
        lambda: not house.load.missing(since), lambda: (house.load.missing(since), house.load.samples[-9:])
    )


def refused_badly(samples: Sequence[Sample]) -> set[tuple[str, str, str]]:
    """What a client could not have understood, or should not have seen."""
    return {
        (sample.kind, sample.outcome, sample.text[:300])
        for sample in samples
        if sample.outcome not in (ANSWERED, WITHOUT)
        and (
            not READABLE.fullmatch(sample.outcome)
            or sample.outcome.startswith("500")
            or INSIDE.search(sample.text)
        )
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SERVICES)
def test_without_it_requests_end_readably_and_all_is_well_by_itself_when_it_is_back(
    house: House, name: str, way: str
) -> None:
    service, load, pids = house.services[name], house.load, house.pids()
    began, log_begins = time.monotonic(), len(house.logs())
    new = NewTokens(house.keycloak, 32 if name == "keycloak" else 0)
    with ExitStack() as stack:
        stack.enter_context(load.searching("search, new token", new))
        wait_until_well(house, began)
        if name == "keycloak":
            house.keycloak.new_key()
            stranger = house.keycloak.token()
        gone = time.monotonic()
        go_on = halt(service) if way == "silent" else service.restart
        if way == "killed":
            service.kill()
        try:
            if name == "keycloak":
                stack.enter_context(load.searching("search, new key", lambda: stranger))
            while time.monotonic() < gone + SECONDS:
                time.sleep(0.05)
        finally:
            go_on()
        back = time.monotonic()
        try:
            wait_until_well(house, back)
            wait_for(house.caught_up, lambda: "uploads that were acknowledged are not processed")
        finally:
            samples = load.since(gone)
            print("", table(name, way, samples, gone, back, time.monotonic()), sep="\n")  # noqa: T201 - the figures
    assert refused_badly(samples) == set()
    assert house.pids() == pids
    assert all(house.alive())
    assert SURPRISE not in house.logs()[log_begins:]


def test_nothing_that_was_acknowledged_is_lost(house: House) -> None:
    house.load.stop()
    wait_for(house.caught_up, lambda: "uploads that were acknowledged are not processed")
    with httpx.Client(base_url=house.running.proxies[0].url, timeout=60, trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {house.keycloak.token()}"
        for name in house.load.acknowledged:
            file = {"type": "eq", "key": "filename", "value": f"{name}.md"}
            body = {"query": f"the code of {name}", "filters": file}
            found = client.post("/v1/collections/uploads/search", json=body)
            assert f"The code of {name} is" in found.text

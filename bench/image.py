"""`python -m bench.image`: size and start of our image beside the stock proxy in one made the same way.

Same base, same environment, same versions; the stock one has `litellm[proxy]` and `prisma`. The start is from
`podman run` until the proxy answers, in turns, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from bench.figures import MeasurementFailed, Row, table
from tests.image import engine
from tests.support.proxy import ROOT

STOCK = "localhost/litellm-stock:test"
STOCK_FILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
RUN python -m venv --without-pip /opt/venv
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \\
    python -m pip --python /opt/venv/bin/python install --constraint constraints.txt "litellm[proxy]" prisma
FROM ${BASE_IMAGE}
RUN python -m compileall -q "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY litellm_config.yaml ./
ENV PATH=/opt/venv/bin:$PATH LITELLM_LOCAL_MODEL_COST_MAP=True
CMD ["litellm", "--config", "litellm_config.yaml"]
"""
STOCK_CONFIG = """\
model_list:
  - model_name: chat
    litellm_params: {model: ollama_chat/llama3.2, api_base: "http://127.0.0.1:9"}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
"""
ANSWERS_S = 300.0
COLLECTOR = "PYTHON_GC_THRESHOLD=100000,50,50"
"""LiteLLM's own variable for the thresholds of Python's garbage collector."""


@dataclass(frozen=True)
class Start:
    """One way to start; ``ready`` says of a client whether it is done."""

    what: str
    image: str
    command: tuple[str, ...]
    ready: Callable[[httpx.Client], bool]
    environment: tuple[str, ...] = ()


def alive(client: httpx.Client) -> bool:
    return client.get("/health/liveliness").status_code == 200


def works(client: httpx.Client) -> bool:
    """The store answers and the worker takes jobs."""
    return bool(client.get("/health/collections").json().get("status") == "ok")


def build_stock() -> None:
    lock = (ROOT / "requirements-image.lock").read_text(encoding="utf-8")
    versions = re.findall(r"^[A-Za-z0-9._-]+==[^\\\n]+", lock, re.MULTILINE)
    with tempfile.TemporaryDirectory(prefix="collections-bench-") as folder:
        context = Path(folder)
        (context / "constraints.txt").write_text("\n".join(versions), encoding="utf-8")
        (context / "litellm_config.yaml").write_text(STOCK_CONFIG, encoding="utf-8")
        (context / "Dockerfile").write_text(STOCK_FILE, encoding="utf-8")
        engine.build(STOCK, context, arguments={"BASE_IMAGE": engine.base_image()})


@dataclass(frozen=True)
class Took:
    """Seconds of the clock, and of the processor in all processes of the container."""

    clock: float
    processor: float


UNITS: tuple[tuple[str, Callable[[Took], float]], ...] = (
    ("", lambda took: took.clock),
    (": processor time", lambda took: took.processor),
)


def processor_s(running: engine.Container) -> float:
    """Of all processes that run in the container, and of those that they waited for."""
    ticks = 0
    for pid in engine.podman("top", running.name, "hpid").split()[1:]:
        with contextlib.suppress(OSError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds_to_start(start: Start) -> Took:
    """From `podman run` with an empty volume until it is ready.

    Raises:
        MeasurementFailed: It was not ready in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    keys = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
    known = (
        *(f"--env={name}=sk-{secrets.token_urlsafe(32)}" for name in keys),
        "--env=CHAT_MODEL=ollama_chat/llama3.2",
        "--env=OLLAMA_BASE_URL=http://127.0.0.1:9",
    )
    options = ("--network", "host", "--tmpfs", "/tmp", *known, *start.environment)  # noqa: S108 - in the container
    begin = time.monotonic()
    with (
        engine.container(start.image, *start.command, "--port", port, options=options) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5) as client,
    ):
        while time.monotonic() - begin < ANSWERS_S:
            try:
                if start.ready(client):
                    return Took(time.monotonic() - begin, processor_s(running))
            except (httpx.TransportError, ValueError):
                time.sleep(0.05)
        raise MeasurementFailed(f"{start.what}: {running.log[-2000:]}")


def starts() -> list[Start]:
    """The stock proxy first."""
    host = ("--host", "127.0.0.1")
    stock = ("litellm", "--config", "litellm_config.yaml", *host)
    serve = ("python", "-m", "plugins", "serve", "--", *host)
    return [
        Start("start until it answers, without the check", STOCK, stock, alive),
        Start("start until it answers, without the check", engine.IMAGE, stock, alive),
        Start("start until it answers", engine.IMAGE, serve, alive),
        Start(f"start until it answers, {COLLECTOR}", engine.IMAGE, serve, alive, (f"--env={COLLECTOR}",)),
        Start("start until store and worker work", engine.IMAGE, serve, works),
    ]


def size_row() -> Row:
    sizes = [int(engine.inspect(image)["Size"]) / 1e6 for image in (STOCK, engine.IMAGE, engine.base_image())]
    stock, ours, base = sizes
    what = f"size, of it the base {base:,.0f} MB"
    return Row(what, f"{stock:,.0f} MB", f"{ours:,.0f} MB", f"+{ours - stock:,.0f} MB")


def measure(rounds: int) -> list[Row]:
    ways = starts()
    taken: dict[int, list[Took]] = {number: [] for number in range(len(ways))}
    for turn in range(rounds):
        for number in list(taken) if turn % 2 == 0 else reversed(list(taken)):
            taken[number].append(seconds_to_start(ways[number]))
    rows = [size_row()]
    for number, way in enumerate(ways[1:], 1):
        for unit, of in UNITS:
            stock, ours = (median(map(of, taken[which])) for which in (0, number))
            rows.append(Row(way.what + unit, f"{stock:.1f} s", f"{ours:.1f} s", f"{ours - stock:+.1f} s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.image", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="starts of each (%(default)s)")
    rounds = parser.parse_args().rounds
    if reason := engine.lacking():
        raise SystemExit(reason)
    engine.build_product()
    build_stock()
    load = os.getloadavg()[0]
    print(table(measure(rounds)))
    print(f"\n{rounds} starts of each, {os.cpu_count()} cores; load of the machine before: {load:.1f}")


if __name__ == "__main__":
    main()

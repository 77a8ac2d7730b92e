"""Images and containers with buildah and podman, also where no image registry can be reached.

Nothing here is superfluous: `--isolation chroot` builds where namespaces are refused; only `--format docker`
keeps health checks; crun refuses hybrid cgroups, runc does not; podman's own limits of files and processes
cannot be set without CAP_SYS_RESOURCE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.proxy import ROOT
from tests.support.quickstart import until

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections" / "image"
GIVEN_BASE = os.environ.get("BASE_IMAGE", "")
"""A base image that the machine can get at, `python:3.14-slim`; else one is made of Debian's packages."""
STAND_IN = "localhost/litellm-collections-base:3.14"
IMAGE = "localhost/litellm-collections:test"
DEBIAN = "forky"
"""The first Debian with Python 3.14."""

TOOLS = ("buildah", "podman", "runc")
CA_FILE = Path("/etc/ssl/certs/ca-certificates.crt")
LOCKED_DOWN = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""Nothing can be written but volumes; not even /tmp, which podman would add."""
NO_NETWORK = ("--network", "none")
START_S, STOP_S = 300.0, 60

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STAND_IN_FILE = """\
FROM scratch
ADD rootfs.tar /
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# As in python:3.14-slim: the name `python`, and apt that keeps no caches.
RUN ln -s python3 /usr/bin/python \\
 && printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf \\
 && printf 'Dir::Cache::pkgcache "";\\nDir::Cache::srcpkgcache "";\\n' > /etc/apt/apt.conf.d/docker-clean \\
 && printf 'APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\\n' \\
      >> /etc/apt/apt.conf.d/docker-clean \\
 && find /usr/lib/python3.* -name __pycache__ -prune -exec rm -r {} +
"""


def lacking() -> str:
    """Why no image can be built here; empty where it can be."""
    tools = TOOLS if GIVEN_BASE else (*TOOLS, "mmdebstrap")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        return f"images need {', '.join(missing)}: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        return "images are built as root"
    return ""


def run(*command: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command of the container tools; a failure shows what it printed.

    Raises:
        AssertionError: It failed, and ``check``.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    conf = CACHE / "containers.conf"
    conf.write_text(CONTAINERS_CONF, encoding="utf-8")
    environ = os.environ | {"CONTAINERS_CONF": str(conf)}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def podman(*arguments: str, timeout: float = 120, check: bool = True) -> str:
    return run("podman", *arguments, timeout=timeout, check=check).stdout.strip()


def base_image() -> str:
    """The base's name; where none is given, one of Debian's packages, kept for the next time."""
    if GIVEN_BASE:
        return GIVEN_BASE
    if run("podman", "image", "exists", STAND_IN, check=False).returncode:
        context = CACHE / "base"
        context.mkdir(parents=True, exist_ok=True)
        rootfs = context / "rootfs.tar"
        if not rootfs.is_file():
            unfinished = rootfs.with_suffix(".new.tar")
            options = ("--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"')
            packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
            run("nice", "mmdebstrap", *options, packages, DEBIAN, str(unfinished), timeout=600)
            unfinished.rename(rootfs)
        shutil.copy(CA_FILE, context / "ca-certificates.crt")
        (context / "Dockerfile").write_text(STAND_IN_FILE, encoding="utf-8")
        build(STAND_IN, context)
    return STAND_IN


def build(
    tag: str, context: Path = ROOT, file: Path | None = None, arguments: Mapping[str, str] | None = None
) -> None:
    """Build an image; what did not change since the last time is taken from there."""
    found = [f"--build-arg={name}={value}" for name, value in (arguments or {}).items()]
    command = ["nice", "buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", *found]
    run(*command, "-f", str(file or context / "Dockerfile"), "-t", tag, str(context), timeout=1800)


def build_product(tag: str = IMAGE, **arguments: str) -> str:
    """The product's image on the base of this machine."""
    build(tag, arguments={"BASE_IMAGE": base_image(), **arguments})
    return tag


def inspect(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman("image", "inspect", image))[0]
    return found


@dataclass(frozen=True)
class Container:
    name: str

    @property
    def log(self) -> str:
        done = run("podman", "logs", self.name, check=False)
        return done.stdout + done.stderr

    @property
    def exit_status(self) -> int:
        return int(podman("inspect", "-f", "{{.State.ExitCode}}", self.name))

    @property
    def running(self) -> bool:
        return podman("inspect", "-f", "{{.State.Running}}", self.name) == "true"

    def python(self, code: str) -> str:
        """What the code prints that Python runs in the container."""
        return podman("exec", self.name, "python", "-c", code)

    def wait_until_healthy(self) -> None:
        """Until the image's own health check passes."""

        def healthy() -> bool:
            assert self.running, self.log[-4000:]
            return run("podman", "healthcheck", "run", self.name, check=False).returncode == 0

        until(healthy, "the health check passes", START_S)

    def stop(self) -> int:
        """SIGTERM, and the exit status; 137 when it did not end in time."""
        podman("stop", "-t", str(STOP_S), self.name, timeout=STOP_S + 60)
        return self.exit_status

    def start(self) -> None:
        podman("start", self.name)


@contextmanager
def volume() -> Iterator[str]:
    name = f"collections-{uuid.uuid4().hex[:12]}"
    podman("volume", "create", name)
    try:
        yield name
    finally:
        podman("volume", "rm", "-f", name)


@contextmanager
def container(image: str, *command: str, options: tuple[str, ...] = NO_NETWORK) -> Iterator[Container]:
    """A container that nothing is allowed; it is removed in any case."""
    name = f"collections-{uuid.uuid4().hex[:12]}"
    try:
        podman("run", "-d", "--name", name, *LOCKED_DOWN, *options, image, *command)
        yield Container(name)
    finally:
        podman("rm", "-f", "-v", "-t", "0", name, check=False)


def once(
    image: str, *command: str, options: tuple[str, ...] = NO_NETWORK, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """A command in a container of its own, until it ends."""
    every = ("podman", "run", "--rm", *LOCKED_DOWN, *options, image, *command)
    return run(*every, timeout=timeout, check=False)

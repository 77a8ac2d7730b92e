"""A real Keycloak on loopback, with the realm of `realm.json`, for trying out and for tests.

    python deploy/keycloak/keycloak.py --port 8080

It is gone at Ctrl-C, and everything that was changed in it. Needed: Java 17 or later and Maven, or else
Docker or Podman. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VERSION = "26.7.3"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
IMAGE = f"keycloak/keycloak:{VERSION}"
JAVA = 17
REALM = Path(__file__).parent / "realm.json"
START_S = 300.0
"""The first start after a download is slow."""
STOP_S = 20.0
JAVA_OPTS = "-Dfile.encoding=UTF-8 -Xms64m -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Halves the time to start and the memory of the defaults."""
MISSING = (
    f"Keycloak needs Java {JAVA} or later and Maven (Debian: apt install openjdk-17-jre-headless maven), "
    "or Docker or Podman."
)


class Unavailable(Exception):
    """Keycloak cannot be had here; the text says what is missing."""


@dataclass(frozen=True)
class Server:
    """A Keycloak that runs; the admin is one of the realm `master`."""

    url: str
    admin: str
    password: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None
    """None for a server that somebody else runs."""
    log: Path | None = None
    """Its output, with a line for each request."""

    def create_realm(self, realm: dict[str, Any]) -> None:
        """Raises urllib.error.HTTPError (409 where there is one of that name)."""
        self._post("/admin/realms", json.dumps(realm).encode(), "application/json")

    def _post(self, path: str, content: bytes, kind: str) -> None:
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": kind}
        _open(urllib.request.Request(f"{self.url}{path}", content, headers))

    def token(self) -> str:
        """An access token of the admin; OSError while the server does not answer."""
        form = {"grant_type": "password", "client_id": "admin-cli"}
        form |= {"username": self.admin, "password": self.password}
        address = f"{self.url}/realms/master/protocol/openid-connect/token"
        request = urllib.request.Request(address, urllib.parse.urlencode(form).encode())
        return str(json.loads(_open(request))["access_token"])


def _open(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return bytes(answer.read())


def realm(name: str = "", proxy: str = "") -> dict[str, Any]:
    """The realm of `realm.json`, under another name and for a proxy at another address if these are given."""
    text = REALM.read_text(encoding="utf-8")
    if proxy:
        text = text.replace("http://127.0.0.1:4000/", f"{proxy.rstrip('/')}/")
    found: dict[str, Any] = json.loads(text)
    if name:
        text = text.replace(f'"default-roles-{found["realm"]}"', f'"default-roles-{name}"')
        found = {**json.loads(text), "realm": name}
    return found


@contextmanager
def server(log: Path, port: int = 0) -> Iterator[Server]:
    """Start Keycloak with an empty database in memory, on loopback only; end it in any case.

    Args:
        log: The file that its output goes to, with a line for each request.
        port: 0 = a free one.

    Raises:
        Unavailable: Something is missing, or it did not start in time.
    """
    port = port or free_port()
    url, password = f"http://127.0.0.1:{port}", secrets.token_urlsafe(16)
    command, environment = prepared(port)
    environment |= {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": password}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        running = Server(url, "admin", password, process, log)
        wait_until_ready(running, process)
        yield running
    finally:
        end(process)


def prepared(port: int) -> tuple[list[str], dict[str, str]]:
    """The command that starts Keycloak on a port of loopback, and the environment that it needs."""
    url = f"http://127.0.0.1:{port}"
    if shutil.which("mvn") and (java_version() or 0) >= JAVA:
        options = ["--optimized", "--http-enabled=true", f"--hostname={url}", "--http-host=127.0.0.1"]
        # without a local cache at run time it opens a port for its cluster on all addresses
        options += [f"--http-port={port}", "--cache=local", "--http-access-log-enabled=true"]
        return ["bash", str(installed() / "bin" / "kc.sh"), "start", *options], {"JAVA_OPTS": JAVA_OPTS}
    for engine in ("docker", "podman"):
        if shutil.which(engine) and _succeeds([engine, "info"]):
            names = ["KC_BOOTSTRAP_ADMIN_USERNAME", "KC_BOOTSTRAP_ADMIN_PASSWORD"]
            passed = [part for name in names for part in ("--env", name)]
            options = ["--rm", "--init", "--publish", f"127.0.0.1:{port}:8080", *passed]
            return [engine, "run", *options, IMAGE, "start-dev", "--db=dev-mem", f"--hostname={url}"], {}
    raise Unavailable(MISSING)


def java_version() -> int | None:
    """The major version of the Java that `kc.sh` would use; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    try:
        ran = subprocess.run([java, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r'version "(\d+)', ran.stderr)
    return int(found[1]) if found else None


def installed() -> Path:
    """The folder of a Keycloak that is ready to start: fetched, unpacked and built once, then kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
    home = cache / f"keycloak-{VERSION}"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(fetched(folder)) as archive:
            archive.extractall(folder)
        unpacked = folder / f"keycloak-{VERSION}"
        run(["bash", str(unpacked / "bin" / "kc.sh"), "build", "--db=dev-mem"], folder)
        try:
            unpacked.rename(home)
        except OSError:
            if not home.is_dir():  # else another process was first
                raise
    return home


def fetched(folder: Path) -> Path:
    """The distribution from Maven Central (or from the mirror of Maven's settings), its content checked."""
    run(
        ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"],
        folder,
    )
    path = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise Unavailable(f"Maven fetched another file than Keycloak {VERSION}: its SHA-256 is wrong.")
    return path


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "JAVA_OPTS": JAVA_OPTS}
    ran = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise Unavailable(f"`{' '.join(command[:3])}` failed:\n{(ran.stdout + ran.stderr)[-2000:]}")


def wait_until_ready(running: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(
                f"Keycloak ended with status {process.returncode} when it was started; --log FILE says why."
            )
        try:
            # the admin is made last, after the ports are open
            running.token()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise Unavailable(f"Keycloak was not ready in {START_S:.0f} s.")


def end(process: subprocess.Popen[bytes]) -> None:
    """End it and wait; politely first, also where it was stopped."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGCONT)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def guide(running: Server, made: dict[str, Any]) -> str:
    """What to do with it, for the terminal."""
    people = [user for user in made["users"] if "credentials" in user]
    signs_in = ", ".join(f"{user['username']}/{user['credentials'][0]['value']}" for user in people)
    return f"""
Keycloak {VERSION} runs on {running.url}; Ctrl-C ends it and forgets everything.
Admin console: {running.url}/admin ({running.admin} / {running.password})
Users (name/password): {signs_in}

Put this before the other sources in config/identity.yaml:

    - use: oidc
      name: keycloak
      issuer: {running.url}/realms/{made["realm"]}
      audience: litellm
      client_id: litellm
      client_secret: litellm-secret
      introspect: {{every_s: 30}}
      store_credential_claim: milvus_token
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="A real Keycloak on loopback, for trying out.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--proxy", default="http://127.0.0.1:4000", help="where the LiteLLM proxy listens")
    parser.add_argument(
        "--log", type=Path, default=os.devnull, help="the file that Keycloak's output goes to"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    made = realm(proxy=given.proxy)
    print(
        "Starting Keycloak (the first time it is fetched and built, which takes some minutes) ...", flush=True
    )
    try:
        with server(given.log, given.port) as running:
            running.create_realm(made)
            print(guide(running, made), flush=True)
            if running.process is not None:
                running.process.wait()
    except Unavailable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Keycloak has ended.")


if __name__ == "__main__":
    main()

"""A real Open WebUI in an environment of its own, whose people sign in at a realm of Keycloak.

It is installed once from the package index (about 7 GB, most of it PyTorch, which it loads at its start) and
kept under the cache folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.live.keycloak_realm import SECRETS
from tests.support.proxy import end, free_port

VERSION = "0.12.4"
PYTHONS = ("python3.12", "python3.11", sys.executable)
"""It supports no other versions."""
NEEDED_BYTES = 15 * 10**9
INSTALL_S = 1800.0
START_S = 300.0
"""It imports PyTorch, beside other work."""
ADMIN = {"WEBUI_ADMIN_EMAIL": "admin@webui.test", "WEBUI_ADMIN_NAME": "Admin of Open WebUI"}
"""A local account: else the first who signs in at Keycloak would become the administrator."""
QUIET = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "RAG_EMBEDDING_ENGINE": "openai",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    "AUDIO_STT_ENGINE": "openai",
    "ENABLE_OLLAMA_API": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
}
"""It loads no model of its own and asks nobody outside."""


class CannotRun(Exception):
    """This machine has no Open WebUI for the tests, and why."""


@dataclass(frozen=True)
class Connection:
    """One upstream of Open WebUI: the proxy, with these headers."""

    headers: Mapping[str, str]
    prefix: str = ""
    """Stands before the names of its models."""


@dataclass(frozen=True)
class OpenWebUI:
    url: str
    log_file: Path
    admin: Mapping[str, str]
    """Address and password of its local administrator."""

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextmanager
def server(
    folder: Path, issuer: str, upstream: str, connections: Sequence[Connection]
) -> Iterator[OpenWebUI]:
    """Start it with nothing stored on loopback; ended in any case.

    Args:
        folder: Takes its data and its log.
        issuer: The realm's address, whose client `open-webui` it is.
        upstream: The proxy's address.
        connections: How it speaks to the proxy; always with the person's own token.

    Raises:
        CannotRun: This machine cannot install it, or it did not start.
    """
    environment, port = installed(), free_port()
    url, log_file, password = f"http://127.0.0.1:{port}", folder / "open-webui.log", secrets.token_urlsafe(18)
    settings = {
        **QUIET,
        **ADMIN,
        **sign_in(issuer, url),
        **upstreams(upstream, connections),
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "DATA_DIR": str(folder / "data"),
        "WEBUI_URL": url,
        "CORS_ALLOW_ORIGIN": url,
        "WEBUI_SECRET_KEY": secrets.token_urlsafe(32),
        "WEBUI_ADMIN_PASSWORD": password,
    }
    (folder / "data").mkdir(parents=True)
    serve = "from open_webui import app; app()"  # its script names the folder that it was installed in
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                environment / "bin" / "python",
                "-c",
                serve,
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=folder,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = OpenWebUI(url, log_file, {"email": ADMIN["WEBUI_ADMIN_EMAIL"], "password": password})
    try:
        wait_until_ready(running, process)
        yield running
    finally:
        end(process)


def sign_in(issuer: str, url: str) -> dict[str, str]:
    """As `docs/open-webui.md` says it.

    https://docs.openwebui.com/features/authentication-access/auth/sso
    """
    return {
        "ENABLE_OAUTH_SIGNUP": "true",
        "OPENID_PROVIDER_URL": f"{issuer}/.well-known/openid-configuration",
        "OAUTH_PROVIDER_NAME": "Keycloak",
        "OAUTH_CLIENT_ID": "open-webui",
        "OAUTH_CLIENT_SECRET": SECRETS["open-webui"],
        "OAUTH_SCOPES": "openid email profile",
        "OAUTH_CODE_CHALLENGE_METHOD": "S256",
        "OPENID_REDIRECT_URI": f"{url}/oauth/oidc/callback",
        "DEFAULT_USER_ROLE": "user",
        "BYPASS_MODEL_ACCESS_CONTROL": "true",
    }


def upstreams(url: str, connections: Sequence[Connection]) -> dict[str, str]:
    configs = {
        str(index): {
            "enable": True,
            "connection_type": "external",
            "auth_type": "system_oauth",
            "headers": dict(connection.headers),
            "prefix_id": connection.prefix,
        }
        for index, connection in enumerate(connections)
    }
    return {
        "OPENAI_API_BASE_URLS": ";".join([f"{url}/v1"] * len(connections)),
        "OPENAI_API_KEYS": ";".join([""] * len(connections)),
        "OPENAI_API_CONFIGS": json.dumps(configs),
    }


def wait_until_ready(running: OpenWebUI, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{running.url}/health", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise CannotRun(f"Open WebUI did not start: {running.log[-500:]}")


def installed() -> Path:
    """Its environment: made once, then kept.

    Raises:
        CannotRun: It cannot be made here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
    environment = cache / f"open-webui-{VERSION}"
    if environment.exists():
        return environment
    python = supported_python()
    cache.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(cache).free) < NEEDED_BYTES:
        raise CannotRun(
            f"Open WebUI needs {NEEDED_BYTES // 10**9} GB of disk while it is installed; "
            f"{free // 10**9} GB are free."
        )
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "environment"
        run(Path(folder), python, "-m", "venv", str(made))
        # pip alone needs many times as long for so many packages
        run(Path(folder), str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")
        target = ("--python", str(made / "bin" / "python"))
        uv = ("-m", "uv", "pip", "install", "--no-cache", *target, f"open-webui=={VERSION}")
        run(Path(folder), str(made / "bin" / "python"), *uv)
        made.replace(environment)
    return environment


def supported_python() -> str:
    """A Python that can make environments; a name on the PATH may be that of a launcher without one."""
    look = "import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))"
    for python in PYTHONS:
        try:
            if not subprocess.run(
                [python, "-c", look], capture_output=True, timeout=30, check=False
            ).returncode:
                return python
        except OSError:
            continue
    raise CannotRun(f"Open WebUI {VERSION} needs Python 3.12 or 3.11 with venv (Debian: python3.12-venv).")


def run(folder: Path, *command: str) -> None:
    """At the lowest priority; its output is put into the folder.

    Raises:
        CannotRun: It failed or took too long.
    """
    log_file = folder / "install.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            ["nice", "-n", "19", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(INSTALL_S)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"Open WebUI was not installed in {INSTALL_S:.0f} s.") from None
    finally:
        end(process)
    if status:
        output = log_file.read_text(encoding="utf-8", errors="replace")
        raise CannotRun(f"Open WebUI {VERSION} cannot be installed: {output[-500:]}")

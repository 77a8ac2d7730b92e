"""`make run`: the stock LiteLLM proxy with the sample configuration and the sample documents.

Writes `.env` when there is none, checks the configuration, and becomes the proxy (`exec`), so that
signals reach it. A child waits until it answers, uploads the sample documents at the first start, and
prints what to do next.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ROOT / "examples" / "documents"
READY_WITHIN_S = 180.0

SAMPLES = {
    "handbook": (
        {"name": "handbook", "description": "How we work: hours, leave, notice, travel, first week"},
        "LITELLM_MASTER_KEY",
        ["employee-handbook.md", "onboarding.html", "travel-policy.docx"],
    ),
    "finance": (
        {
            "name": "finance",
            "description": "Annual reports: revenue, earnings, outlook",
            "access": {
                "discover": ["user:local/bob", "user:local/carol"],
                "add": ["user:local/carol"],
                "manage": ["user:local/alice"],
            },
        },
        "DEMO_ALICE_KEY",
        ["annual-report-2025.pdf"],
    ),
}
"""Collection: its body, whose key creates it, and its documents."""

HINTS = """
Ready: http://127.0.0.1:{port}   (API: /, admin pages: /ui)
Keys are in .env: LITELLM_MASTER_KEY, and DEMO_ALICE_KEY, DEMO_BOB_KEY, DEMO_CAROL_KEY of three people.

Try, in another terminal in this folder:

  . ./.env; curl -s http://127.0.0.1:{port}/v1/collections -H "Authorization: Bearer $DEMO_ALICE_KEY"

  . ./.env; curl -s http://127.0.0.1:{port}/v1/chat/completions -H "Authorization: Bearer $DEMO_ALICE_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "extractive",
         "messages": [{{"role": "user", "content": "How many days of annual leave are there?"}}]}}'

  . ./.env; curl -sN http://127.0.0.1:{port}/v1/chat/completions -H "Authorization: Bearer $DEMO_ALICE_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "extractive", "stream": true,
         "messages": [{{"role": "user", "content": "What was the total revenue in 2025?"}}]}}'

Open WebUI: Admin Panel > Settings > Connections > OpenAI API: add the URL http://127.0.0.1:{port}/v1 and
one of the keys; choose the model `extractive`, or `chat` for Ollama (CHAT_MODEL, OLLAMA_BASE_URL in .env).

Ctrl-C ends it.
"""


def write_env(path: Path) -> None:
    """Strong random keys, readable for the owner only; an existing file is left as it is."""
    keys = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
    lines = [f"{name}=sk-{secrets.token_urlsafe(32)}" for name in keys]
    lines += [
        "# The model behind `chat`; while Ollama is not there, `extractive` answers.",
        "CHAT_MODEL=ollama_chat/llama3.2",
        "OLLAMA_BASE_URL=http://127.0.0.1:11434",
        "# Use LiteLLM's own price list instead of fetching one at every start.",
        "LITELLM_LOCAL_MODEL_COST_MAP=True",
    ]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def environment(env_file: Path, port: int) -> dict[str, str]:
    """The process's environment over `.env` over defaults."""
    from_file = {k: v for k, v in dotenv_values(env_file).items() if v is not None}
    defaults = {
        "COLLECTIONS_CONFIG": str(ROOT / "config"),
        "PUBLIC_BASE_URL": f"http://127.0.0.1:{port}",
        "DATA_DIR": str(ROOT / "data"),
        "CHAT_MODEL": "ollama_chat/llama3.2",
        "OLLAMA_BASE_URL": "http://127.0.0.1:11434",
    }
    return {**defaults, **from_file, **os.environ}


def check_port(port: int) -> None:
    """LiteLLM takes another port by itself where 4000 is taken, and our keys would go to whoever has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SystemExit(f"Port {port} is not free; take another: make run PORT={port + 1}") from error


def proxy_command(port: int) -> list[str]:
    """The stock proxy on loopback."""
    litellm = str(Path(sys.executable).parent / "litellm")
    config = str(ROOT / "litellm_config.yaml")
    return [litellm, "--config", config, "--host", "127.0.0.1", "--port", str(port)]


def wait_until_ready(client: httpx.Client, proxy_is_alive: object = None) -> None:
    """Until the store answers and the worker works, or the time is over."""
    end = time.monotonic() + READY_WITHIN_S
    alive = proxy_is_alive if callable(proxy_is_alive) else lambda: True
    while time.monotonic() < end and alive():
        try:
            health = client.get("/health/collections").json()
            if health["store"] != "unavailable" and health["worker"] == "ok":
                return
        except (httpx.TransportError, ValueError, KeyError):
            pass
        time.sleep(0.3)
    raise SystemExit("The proxy did not become ready; its messages are above.")


def upload_samples(client: httpx.Client, environ: dict[str, str]) -> None:
    """Both collections and their documents; what is there already stays as it is."""
    for name, (body, key, files) in SAMPLES.items():
        headers = {"Authorization": f"Bearer {environ[key]}"}
        created = client.post("/v1/collections/new", json=body, headers=headers)
        if created.status_code not in (201, 409):
            raise SystemExit(f"The collection {name} could not be made: {created.text}")
        parts = [("files", (file, (DOCUMENTS / file).read_bytes())) for file in files]
        answer = client.post(
            f"/v1/collections/{name}/add?wait=true", files=parts, headers=headers, timeout=180
        )
        answer.raise_for_status()
        for document in answer.json()["data"]:
            print(f"  {name}: {document['filename']}: {document['status']}, {document['chunks']} passages")


def announce(port: int, environ: dict[str, str]) -> None:
    """Wait for the proxy (our parent), upload the samples at the first start, print what to do."""
    parent = os.getppid()
    marker = Path(environ["DATA_DIR"]) / "samples-uploaded"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        wait_until_ready(client, lambda: os.getppid() == parent)
        if not marker.exists():
            print("Uploading the sample documents ...", flush=True)
            upload_samples(client, environ)
            marker.touch()
    print(HINTS.format(port=port), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--announce", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    env_file = ROOT / ".env"
    write_env(env_file)
    environ = environment(env_file, args.port)
    if args.announce:
        announce(args.port, environ)
        return
    checked = subprocess.run([sys.executable, "-m", "plugins", "check"], env=environ, cwd=ROOT, check=False)
    if checked.returncode:
        raise SystemExit(checked.returncode)
    check_port(args.port)
    subprocess.Popen([sys.executable, __file__, "--port", str(args.port), "--announce"], env=environ)
    command = proxy_command(args.port)
    os.execve(command[0], command, environ)  # noqa: S606 - becomes the proxy


if __name__ == "__main__":
    main()

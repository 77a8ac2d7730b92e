"""Two real proxies side by side: the stock one, and the stock one with our lines in its YAML."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.models import DIMENSION
from tests.support.collections import MODEL
from tests.support.issuer import issuer
from tests.support.proxy import MASTER_KEY, ROOT, proxy

PLAIN = "plain"
STREAMED, FAST, STEADY = "stream", "fast", "steady"
"""Models of `bench.models`; each is there with documents, too."""
SOURCE = "kc"
TOKEN_S = 3600
GROUP = "staff"


def with_documents(model: str) -> str:
    """The name of the same model that our tools are offered to."""
    return f"{model}-with-documents"


STOCK: dict[str, Any] = {
    "model_list": [
        {
            "model_name": PLAIN,
            "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "Hello."},
        },
        *(
            {
                "model_name": with_documents(name) if rag else name,
                "litellm_params": {"model": f"bench/{name}"},
                "model_info": {"rag": rag, "supports_function_calling": True},
            }
            for name in (STREAMED, FAST, STEADY)
            for rag in (False, True)
        ),
        {
            "model_name": MODEL,
            "litellm_params": {"model": "bench/embedding"},
            "model_info": {"mode": "embedding", "output_vector_size": DIMENSION},
        },
    ],
    "litellm_settings": {
        "custom_provider_map": [{"provider": "bench", "custom_handler": "bench.models.models"}]
    },
    "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
}
OURS: dict[str, Any] = {
    **STOCK,
    "litellm_settings": {**STOCK["litellm_settings"], "callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        **STOCK["general_settings"],
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "KEEPALIVE_TIMEOUT": "75"}
"""As in the image, idle connections outlive the client's (15 s). Without what makes the tests' proxies start
sooner: those collect garbage seldom."""


@dataclass(frozen=True)
class Side:
    """A proxy and the credential that is sent to it."""

    url: str
    key: str
    pid: int

    def session(self) -> aiohttp.ClientSession:
        """A client that keeps its connections open."""
        return aiohttp.ClientSession(
            self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
        )

    def memory_bytes(self) -> int:
        """What the proxy's process holds (proc_pid_status(5), VmRSS)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    def cpu_s(self) -> float:
        """Processor time that the proxy's process took so far (proc_pid_stat(5), utime and stime)."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sides:
    stock: Side
    ours: Side
    folder: Path
    """Where our proxy keeps its data, under `data`."""


@contextmanager
def sides(folder: Path) -> Iterator[Sides]:
    """Start both, and the issuer whose RS256 token our proxy is sent; end all of them in any case."""
    ours_folder, stock_folder = folder / "ours", folder / "stock"
    stock_folder.mkdir()
    shutil.copytree(ROOT / "config" / "prompts", ours_folder / "config" / "prompts")
    with issuer() as realm:
        config: dict[str, dict[str, Any]] = {
            "identity": {
                "identity": {
                    "sources": [
                        {"use": "oidc", "name": SOURCE, "issuer": realm.url, "audience": "litellm"},
                        {"use": "litellm"},
                    ]
                }
            },
            "collections": {"collections": {"embedding_model": MODEL}},
            "storage": {"storage": {"data_dir": str(ours_folder / "data")}},
            "tools": {"tools": [{"use": "search_documents", "allow": ["*"]}]},
            "limits": {"worker": {"embedded": False}},
        }
        token = realm.token("alice", groups=[f"/{GROUP}"], exp=realm.claims()["exp"] + TOKEN_S)
        with (
            proxy(stock_folder, STOCK, {}, ENVIRONMENT) as stock,
            proxy(ours_folder, OURS, config, ENVIRONMENT) as ours,
        ):
            yield Sides(
                Side(stock.url, MASTER_KEY, stock.process.pid),
                Side(ours.url, token, ours.process.pid),
                ours_folder,
            )

"""The contract of a store on a real Milvus server; what that cannot do is skipped there, with the reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.live.milvus import Server, milvus
from tests.support.proxy import ROOT

__all__ = ["milvus"]

TIMEOUT_S = 900
CONTRACTS = ("tests/contract/test_stores.py", "tests/contract/test_store_rows.py")


def test_the_server_keeps_the_contract_of_a_store(milvus: Server) -> None:
    environment = {
        "MILVUS_URI": milvus.uri,
        "MILVUS_USER": milvus.user,
        "MILVUS_PASSWORD": milvus.password,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *CONTRACTS, "-k", "server", "-q", "--tb=short"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert not re.search(r"failed|error", done.stdout.splitlines()[-1]), done.stdout[-1000:]

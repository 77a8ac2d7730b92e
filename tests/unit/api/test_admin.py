"""`/api/admin`: who may, what is answered, and what is written down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import select

from crawler.errors import ConfigError
from plugins.api import admin
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.processes import Processes
from plugins.core.admin_shapes import Configuration, Reload, ReloadedProcess, Setting
from plugins.core.config import StorageConfig
from plugins.core.identity import Principal
from plugins.core.shapes import Standing
from tests.support.api_server import authenticated
from tests.support.migrated import migrated


class Administration:
    mistakes: list[str] = []

    async def reload(self, principal: Principal) -> Reload:
        if self.mistakes:
            raise ConfigError(self.mistakes)
        process = ReloadedProcess(id="1", kind="proxy", host="here", pid=1, state="applied")
        return Reload(number=7, processes=[process], not_reloaded=["storage.database"])

    def configuration(self) -> Configuration:
        value = Setting(key="chat.max_rounds", value=5, origin="chat.yaml")
        return Configuration(digest="d", folder="config", values=[value])


def standing(request: Request) -> Standing:
    role = "proxy_admin" if request.headers["x-user"] == "root" else "internal_user"
    unlimited = dict.fromkeys(Standing.model_fields.keys() - {"user_role", "spend"})
    return Standing.model_validate({**unlimited, "user_role": role, "spend": 0.0})


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(admin.router(Administration(), authenticated, standing))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_reload_answers_what_each_process_made_of_it(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/admin/reload", headers={"x-user": "root"})
    process = {"id": "1", "kind": "proxy", "host": "here", "pid": 1, "state": "applied", "mistakes": []}
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "reload",
        "number": 7,
        "processes": [process],
        "not_reloaded": ["storage.database"],
    }


async def test_the_configuration_says_where_each_value_is_from(http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/admin/config", headers={"x-user": "root"})
    assert answer.json() == {
        "object": "configuration",
        "digest": "d",
        "folder": "config",
        "values": [{"key": "chat.max_rounds", "value": 5, "origin": "chat.yaml"}],
    }


async def test_mistakes_are_told_in_openais_error_form(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Administration, "mistakes", ["chat.yaml: chat.x: unknown setting"])
    answer = await http.post("/api/admin/reload", headers={"x-user": "root"})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "The configuration has a mistake; nothing was changed. chat.yaml: chat.x: unknown setting",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_configuration",
        "mistakes": ["chat.yaml: chat.x: unknown setting"],
    }


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/admin/reload"), ("GET", "/api/admin/config")])
async def test_who_is_no_admin_is_refused(http: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await http.request(method, path, headers={"x-user": "alice"})).status_code == 403
    assert (await http.request(method, path)).status_code == 401


async def test_who_asked_for_a_reload_is_in_the_audit_log(tmp_path: Path) -> None:
    database = Database(migrated(StorageConfig(data_dir=tmp_path)))
    processes = Processes(database, "proxy")
    number = await processes.ask(Principal(source="local", subject="root", username="root"))
    async with database.read() as connection:
        row = (await connection.execute(select(tables.audit))).one()
    await database.close()
    assert (row.action, row.user_id, row.detail) == ("configuration.reload", "local/root", {"number": number})

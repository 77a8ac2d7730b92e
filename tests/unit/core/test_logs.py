"""Lines of the log name the request and the user that they are about."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import time

import pytest

from plugins.core.logs import JsonLine, Line, about, log_request


def a_record(message: str, **ids: str) -> logging.LogRecord:
    logger = logging.getLogger("plugins.test")
    return logger.makeRecord(logger.name, logging.INFO, __file__, 1, message, (), None, extra=ids or None)


async def test_records_of_a_task_name_what_it_is_about_and_those_of_another_do_not() -> None:
    async def request(number: str) -> str:
        about(request_id=f"r-{number}")
        await asyncio.sleep(0)
        about(user_id=f"kc/user-{number}")
        return Line().format(a_record("a word"))

    one, two = await asyncio.gather(request("1"), request("2"))
    assert one.endswith("INFO plugins.test: a word request_id=r-1 user_id=kc/user-1")
    assert two.endswith("INFO plugins.test: a word request_id=r-2 user_id=kc/user-2")
    assert Line().format(a_record("a word")).endswith("a word")


async def test_what_a_record_says_itself_goes_first() -> None:
    about(request_id="r-1")
    assert "request_id=r-2" in Line().format(a_record("a word", request_id="r-2"))


@pytest.mark.parametrize("name", ["kc/eve\nERROR all is lost", "kc/two words", "kc/\u2028"])
async def test_a_name_cannot_begin_a_line_of_its_own(name: str) -> None:
    about(user_id=name)
    line = Line().format(a_record("a word"))
    assert len(line.splitlines()) == 1
    assert line.endswith(f"user_id={json.dumps(name)}")


async def test_as_json_a_line_is_one_object_with_the_traceback_in_it() -> None:
    about(request_id="r-1", user_id="kc/alice")
    record = a_record("a word")
    try:
        raise RuntimeError("why")
    except RuntimeError:
        record.exc_info = sys.exc_info()
    [line] = JsonLine().format(record).splitlines()
    found = json.loads(line)
    assert (found["level"], found["message"], found["request_id"], found["user_id"]) == (
        "INFO",
        "a word",
        "r-1",
        "kc/alice",
    )
    assert "RuntimeError: why" in found["exception"]


@pytest.mark.parametrize(("value", "is_json"), [("true", True), ("", False)])
def test_configured_it_is_written_once_to_standard_error(value: str, is_json: bool) -> None:
    code = (
        "import logging; from plugins.core import logs; logs.configure(); logs.configure();"
        "logging.getLogger('plugins.x').info('a word'); logging.getLogger('crawler.y').debug('no word')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"JSON_LOGS": value},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    [line] = done.stderr.splitlines()
    assert line.startswith("{") == is_json
    assert "a word" in line


def test_a_request_s_line_has_its_numbers_in_words_and_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("plugins.test")
    caplog.set_level(logging.INFO, logger.name)
    numbers: dict[str, str | int] = {"model": "a\nERROR all is lost", "rounds": 2}
    log_request(logger, "POST", "/v1/messages", 200, time.monotonic(), request_id="r-1", numbers=numbers)
    [record] = caplog.records
    line = Line().format(record)
    assert len(line.splitlines()) == 1
    said = r'POST /v1/messages: 200 in \d+ ms model="a\\nERROR all is lost" rounds=2 request_id=r-1$'
    assert re.search(said, line)
    found = json.loads(JsonLine().format(record))
    assert (found["method"], found["route"], found["status"]) == ("POST", "/v1/messages", 200)
    assert (found["rounds"], found["model"], found["request_id"]) == (2, "a\nERROR all is lost", "r-1")
    assert isinstance(found["duration_ms"], int)

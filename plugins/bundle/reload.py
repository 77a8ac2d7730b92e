"""Taking up a changed configuration without a restart: in every process, or in none that finds it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crawler.errors import ConfigError
from plugins.bundle.effective import Value
from plugins.collections.processes import Processes, ProcessRecord
from plugins.core.admin_shapes import Configuration, Reload, ReloadedProcess, Setting
from plugins.core.config import Config, load
from plugins.core.errors import BundleError
from plugins.core.identity import Principal
from plugins.core.metrics import CONFIGURATION_MISTAKES, RELOADS

log = logging.getLogger(__name__)

LOOK_S = 1.0
WATCH_S = 2.0
"""Between two looks at the files; a change is taken up when they are the same for two looks."""
BEAT_S = 5.0
ANSWER_S = 10.0
"""How long `POST /api/admin/reload` waits for the other processes."""
LASTING = {
    "storage": None,
    "worker": {"embedded", "concurrency", "lease_s", "max_attempts", "metrics_host", "metrics_port"},
}
"""What a process keeps as long as it lives; None = all of it."""
Check = Callable[[Config], list[str]]
SURPRISE = "The configuration could not be taken up; the log of the process says why."


@dataclass(frozen=True)
class Loaded:
    """A configuration that is right."""

    config: Config
    """What cannot be reloaded is in it as it was."""
    digest: str
    """Of its files."""
    values: list[Value]
    not_reloaded: tuple[str, ...] = ()
    """The settings that have changed and take a restart."""


def read(running: Config, check: Check) -> tuple[Config, tuple[str, ...]]:
    """The folder of what is running anew, checked whole, and what of it takes a restart. Blocks.

    Raises:
        ConfigError: With every mistake.
    """
    config = load(running.folder)
    merged, changed = keep_lasting(config, running)
    if mistakes := check(config) or (check(merged) if changed else []):
        raise ConfigError(mistakes)
    return merged, changed


def keep_lasting(config: Config, running: Config) -> tuple[Config, tuple[str, ...]]:
    """The configuration with what cannot be reloaded as it was, and which of that has changed."""
    changed: list[str] = []
    kept = {}
    for key, names in LASTING.items():
        new, old = getattr(config, key), getattr(running, key)
        fields = [name for name in type(new).model_fields if names is None or name in names]
        changed += [f"{key}.{name}" for name in fields if getattr(new, name) != getattr(old, name)]
        kept[key] = new.model_copy(update={name: getattr(old, name) for name in fields})
    return config.model_copy(update=kept), tuple(changed)


def files(folder: Path) -> list[Path]:
    """All that a configuration is read from."""
    prompts = (path for path in folder.glob("prompts/**/*") if path.is_file())
    return sorted([*folder.glob("*.yaml"), *prompts])


def digest_of(paths: Sequence[Path]) -> str:
    """The same while the files are the same. Blocks."""
    content = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError):  # it was taken away just now
            content.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


class Reloads:
    """Follows the number of the last reload, raises it, and says what came of it.

    Args:
        processes: The row of this process, and those of the others.
        config: The one in force, without mistakes.
        digest: Of its files, from before they were read: what is changed later is a change.
        take_up: Puts another in force; raises ConfigError where it cannot, and changes nothing.
        check: Every mistake that this process would find in a configuration. Blocks.
        describe: What is to be shown of a configuration. Blocks.
        beside: A file that is read at start only: LiteLLM's YAML.
    """

    def __init__(
        self,
        processes: Processes,
        config: Config,
        digest: str,
        take_up: Callable[[Config], Awaitable[None]],
        check: Check,
        describe: Callable[[Config], list[Value]] = lambda config: [],
        beside: Path | None = None,
    ) -> None:
        self._processes = processes
        self._take_up = take_up
        self._check = check
        self._describe = describe
        self._beside = beside
        self._beside_digest = digest_of([beside] if beside else [])
        self.loaded = Loaded(config, digest, describe(config))
        self._mistakes: Sequence[str] = ()
        self._number: int | None = None
        """Of the last reload that was heard of."""
        self._tried = self.loaded.digest
        """Of the files that were taken up, or refused."""
        self._seen = self._tried
        self._watched_at = self._told_at = -float("inf")
        self._signalled = False
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`; then nobody waits for this process any more."""
        while not stop.is_set():
            try:
                await self._look()
            except BundleError as error:
                log.warning("Whether the configuration is to be reloaded is not known: %s", error.message)
            except Exception:
                log.exception("A reload ended unexpectedly; it goes on with the configuration that it had")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            self._wake.clear()
        with contextlib.suppress(BundleError):
            await self._processes.leave()

    def follow_signal(self) -> None:
        """Reload on SIGHUP. Where that says that the terminal is gone, this process ends as ever."""
        if threading.current_thread() is not threading.main_thread():
            return  # only there signals can be handled
        mortal = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL and _has_terminal()

        def hang_up() -> None:
            if mortal and not _has_terminal():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self._signalled = True
            self._wake.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)

    async def ask(self, principal: Principal | None = None) -> tuple[int, tuple[str, ...]]:
        """Have all processes reload: the number of this reload, and what takes a restart.

        Raises:
            ConfigError: This process finds mistakes; nothing was changed.
            Upstream: The database does not answer; nothing was changed.
        """
        try:
            found = await self._read()
        except ConfigError as error:
            raise ConfigError(self._refuse(error.mistakes)) from error
        number = await self._processes.ask(principal)
        self._wake.set()
        return number, found.not_reloaded

    async def reload(self, principal: Principal) -> Reload:
        """As `ask`, then what every process made of it within `ANSWER_S`, as far as the database says so."""
        number, not_reloaded = await self.ask(principal)
        deadline = time.monotonic() + ANSWER_S
        found: Sequence[ProcessRecord] = ()
        while True:
            with contextlib.suppress(BundleError):  # it goes on, whoever can say how far
                found = await self._processes.alive()
            if (found and all(process.reload >= number for process in found)) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        views = [_view(process, number) for process in found]
        return Reload(number=number, processes=views, not_reloaded=list(not_reloaded))

    def configuration(self) -> Configuration:
        """The one in force."""
        return Configuration(
            digest=self.loaded.digest,
            folder=str(self.loaded.config.folder),
            values=[Setting(**value._asdict()) for value in self.loaded.values],
        )

    async def _look(self) -> None:
        if self._signalled or await self._has_changed():
            self._signalled = False
            try:
                await self.ask()
            except ConfigError:
                pass  # it is logged
            except BundleError:  # the others could not be told
                self._signalled = True
                raise
        number = await self._processes.asked()
        if self._number is None:
            await self._begin(number)
        elif number > self._number:
            await self._follow(number)
        if time.monotonic() - self._told_at > BEAT_S:
            await self._processes.note(self._number or 0, self.loaded.digest, self._mistakes)
            self._told_at = time.monotonic()

    async def _begin(self, number: int) -> None:
        """What was changed since this process read its files may have been told to all before it listened."""
        self._number = number
        if await self._digest() != self._tried:
            await self._follow(number)

    async def _has_changed(self) -> bool:
        """Whether files were changed, and are not being changed any more."""
        if not self.loaded.config.reload.watch or time.monotonic() - self._watched_at < WATCH_S:
            return False
        self._watched_at = time.monotonic()
        seen = await self._digest()
        settled, self._seen = seen == self._seen, seen
        return settled and seen != self._tried

    async def _follow(self, number: int) -> None:
        self._number, self._told_at = number, -float("inf")
        try:
            found = await self._read()
            await self._take_up(found.config)
        except ConfigError as error:
            self._refuse(error.mistakes)
        except Exception:
            log.exception("The configuration could not be taken up")
            self._refuse([SURPRISE])
        else:
            self.loaded, self._mistakes = found, ()
            RELOADS.labels("applied").inc()
            CONFIGURATION_MISTAKES.set(0)
            log.info("Reload %d: the configuration %s is taken up", number, found.digest[:12])
            if found.not_reloaded:
                log.warning("Reload %d: these take a restart: %s", number, ", ".join(found.not_reloaded))

    async def _read(self) -> Loaded:
        self._tried = await self._digest()
        return await asyncio.to_thread(self._read_now, self._tried)

    def _read_now(self, digest: str) -> Loaded:
        config, changed = read(self.loaded.config, self._check)
        if self._beside and digest_of([self._beside]) != self._beside_digest:
            changed = (*changed, self._beside.name)
        return Loaded(config, digest, self._describe(config), changed)

    async def _digest(self) -> str:
        folder = self.loaded.config.folder
        return await asyncio.to_thread(lambda: digest_of(files(folder)))

    def _refuse(self, mistakes: Sequence[str]) -> list[str]:
        """Keep what there is; the mistakes without the machine's paths."""
        folder = f"{self.loaded.config.folder}{os.sep}"
        parent = f"{self._beside.parent}{os.sep}" if self._beside else folder
        self._mistakes = [line.removeprefix(folder).removeprefix(parent) for line in mistakes]
        self._told_at = -float("inf")
        RELOADS.labels("refused").inc()
        CONFIGURATION_MISTAKES.set(len(mistakes))
        log.error("The configuration is not taken up, the one before stays: %s", "; ".join(self._mistakes))
        return list(self._mistakes)


def _view(process: ProcessRecord, number: int) -> ReloadedProcess:
    mistakes = list(process.mistakes or ()) if process.reload >= number else []
    return ReloadedProcess(
        id=process.id,
        kind=process.kind,
        host=process.host,
        pid=process.pid,
        state="no_answer" if process.reload < number else "refused" if mistakes else "applied",
        mistakes=mistakes,
    )


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

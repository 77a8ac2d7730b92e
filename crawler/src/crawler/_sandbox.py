"""The confinement of a conversion: what the kernel lets a process do that reads a file of a stranger's.

Where the system allows (Linux on x86_64 and aarch64; containers unless their own seccomp profile forbids it):

- **seccomp** (kernel 3.17): no sockets, no new processes or programs, no signals to others, no tracing, no
  mounts, no io_uring, ... (:mod:`crawler._syscalls`);
- **Landlock** (kernel 5.13; TCP from 6.7, signals and abstract sockets from 6.12): reads Python, its packages
  and the system's libraries, reads and writes its own folder, and opens no other file;
- no capabilities, and none to be had (``no_new_privs``).

What is not there is not used; what is there and fails ends the process. Elsewhere the limits of
:mod:`crawler.conversion` are all that holds.

Sources: ``seccomp(2)``, ``landlock(7)``, ``capabilities(7)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import site
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crawler._syscalls import CHECKED, DENIED

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Name: column of the tables of numbers, and AUDIT_ARCH_... of linux/audit.h."""

_READABLE = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share", "/usr/local/share"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"),
    *("/dev/urandom", "/dev/zero", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
)
"""Libraries, fonts, time zones and text recognition's data; nothing that is anybody's."""

FOLDERS_OF_ENVIRONMENT = ("TESSDATA_PREFIX",)
"""Variables that name folders which may be read: Tesseract's language data, where it lies elsewhere."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_THREAD = 0x10000
_SOCK_STREAM, _TYPE_OF_SOCKET = 1, 0xF
_SIGNALLING = {"fcntl": (8, 10, 15), "ioctl": (0x8901, 0x8902)}
"""F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP: with them a file sends any process a signal."""


@dataclass(frozen=True)
class Confinement:
    """What of the confinement this system allows."""

    seccomp: bool
    landlock: int
    """The version of its interface; 0 = none."""

    def __str__(self) -> str:
        files = f"Landlock {self.landlock}" if self.landlock else "not confined"
        network = (
            "seccomp" if self.seccomp else "Landlock, TCP only" if self.landlock >= 4 else "not confined"
        )
        return (
            f"files: {files}; network: {network}; processes: {'seccomp' if self.seccomp else 'not confined'}"
        )


def available() -> Confinement:
    """What conversions on this system are confined by, over and above their limits."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES:
        return Confinement(seccomp=False, landlock=0)
    action = ctypes.c_uint32(_RET_ERRNO)
    seccomp = _call("seccomp", 2, 0, ctypes.byref(action))  # SECCOMP_GET_ACTION_AVAIL
    version = _call("landlock_create_ruleset", None, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    return Confinement(seccomp=seccomp == 0, landlock=max(version, 0))


def die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent (Linux); elsewhere the CPU limit ends it."""
    if sys.platform != "linux":
        return
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
    # When memory runs out, the kernel should take this process, not the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def enter(folder: Path, packages: Iterable[str]) -> None:
    """Confine this process, for good. It must have no other threads yet.

    Args:
        folder: The only one that it may write in.
        packages: Names of loaded packages whose files it may read, beside Python's own and those installed.

    Raises:
        OSError: The system has what confines, and it could not be put in force.
    """
    confinement = available()
    if not (confinement.seccomp or confinement.landlock):
        return
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _drop_capabilities()
    if confinement.landlock:
        _close_files(confinement.landlock, folder, packages)
    if confinement.seccomp:
        _close_calls()


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _call(name: str, *arguments: object) -> int:
    column, _ = _ARCHITECTURES[platform.machine()]
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc().syscall(ctypes.c_long(CHECKED[name][column]), *words)
    return result


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _drop_capabilities() -> None:
    """Root's, where the service runs as root in a container."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    _checked(_call("capset", header, ctypes.create_string_buffer(bytes(24))))


# --- Landlock ----------------------------------------------------------------------------------------

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_RIGHTS_OF_FILES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files each version knows; the later know as many as the fifth."""
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_OF_A_FILE = _READ_FILE | _WRITE_FILE | _TRUNCATE


def _close_files(version: int, folder: Path, packages: Iterable[str]) -> None:
    handled = (1 << _RIGHTS_OF_FILES.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0  # bind and connect of TCP
    scoped = 0b11 if version >= 6 else 0  # abstract sockets and signals
    attributes = struct.pack("=QQQ", handled, network, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _checked(_call("landlock_create_ruleset", ctypes.create_string_buffer(attributes), size, 0))
    named = (os.environ[name] for name in FOLDERS_OF_ENVIRONMENT if os.environ.get(name))
    for path in {*map(Path, (*_READABLE, *named)), *_python(packages)}:
        _allow(rules, path, _READ & handled)
    _allow(rules, Path("/dev/null"), (_READ | _WRITE_FILE) & handled)
    _allow(rules, folder, _WRITE & handled)
    _checked(_call("landlock_restrict_self", rules, 0))
    os.close(rules)


def _python(packages: Iterable[str]) -> Iterator[Path]:
    paths = sysconfig.get_paths()
    yield from (Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from map(Path, site.getsitepackages())
    for name in packages:
        module = sys.modules[name]
        yield from map(Path, getattr(module, "__path__", None) or [module.__file__ or ""])


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_A_FILE
        beneath = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
        _checked(_call("landlock_add_rule", rules, 1, beneath, 0))
    finally:
        os.close(opened)


# --- seccomp -----------------------------------------------------------------------------------------

_RET_KILL, _RET_ERRNO, _RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_REFUSE, _ABSENT = _RET_ERRNO | errno.EPERM, _RET_ERRNO | errno.ENOSYS

_Program = list[tuple[int, int, int, int]]


def _close_calls() -> None:
    program = b"".join(struct.pack("=HBBI", *line) for line in _program(*_ARCHITECTURES[platform.machine()]))
    lines = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    # SECCOMP_SET_MODE_FILTER
    _checked(_call("seccomp", 1, 0, ctypes.create_string_buffer(filter_)))


def _program(column: int, architecture: int) -> _Program:
    number = {name: numbers[column] for name, numbers in CHECKED.items()}
    myself = os.getpid()
    program: _Program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _RET_KILL),  # another instruction set has other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
    ]
    for numbers in DENIED.values():
        if (denied := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, denied), (_RETURN, 0, 0, _REFUSE)]
    # glibc asks for clone3 first, whose flags cannot be seen from here, and then for clone.
    program += [(_EQUAL, 0, 1, number["clone3"]), (_RETURN, 0, 0, _ABSENT)]
    program += _only(number["clone"], [(0, _ANY_BIT, _CLONE_THREAD)])
    program += _only(number["kill"], [(0, _EQUAL, myself)])
    program += _only(number["tgkill"], [(0, _EQUAL, myself)])
    program += _only(number["prlimit64"], [(2, _EQUAL, 0), (2.5, _EQUAL, 0)])  # to read limits
    for name, commands in _SIGNALLING.items():
        program += _all_but(number[name], commands)
    # Others send to sockets of any name.
    program += [
        (_EQUAL, 0, 5, number["socketpair"]),
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        (_AND, 0, 0, _TYPE_OF_SOCKET),
        (_EQUAL, 0, 1, _SOCK_STREAM),
        (_RETURN, 0, 0, _RET_ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    # To outlive the service is all that prctl could give it.
    program += [
        (_EQUAL, 0, 4, number["prctl"]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_EQUAL, 0, 1, _PR_SET_PDEATHSIG),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    return [*program, (_RETURN, 0, 0, _RET_ALLOW)]


def _only(number: int, tests: list[tuple[float, int, int]]) -> _Program:
    """Allow a call whose arguments pass all tests: (argument, comparison, value), on the lower half of the
    argument, or with .5 on the upper."""
    steps: _Program = []
    for index, (argument, comparison, value) in enumerate(tests):
        left = 2 * (len(tests) - index - 1)
        steps += [
            (_LOAD, 0, 0, _ARGUMENTS + int(argument * 8)),
            (comparison, 0, left + 1, value),
        ]
    body = [*steps, (_RETURN, 0, 0, _RET_ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return [(_EQUAL, 0, len(body), number), *body]


def _all_but(number: int, refused: tuple[int, ...]) -> _Program:
    """Allow a call unless its second argument is one of these."""
    tests: _Program = []
    for value in refused:
        tests += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _REFUSE)]
    body = [(_LOAD, 0, 0, _ARGUMENTS + 8), *tests, (_RETURN, 0, 0, _RET_ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]

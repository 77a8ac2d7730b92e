"""One-file plugins: ``use: name`` in YAML names a module, and the module holds one class.

``use: pdf`` in a list of formats is ``crawler/formats/pdf.py``; ``use: acme.jira`` is the module
``acme.jira`` of an installed package. The class is the one subclass of the contract that the module
defines; the settings type is the first type argument that it gives to the contract::

    class Pdf(Format[PdfSettings]): ...
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from typing import Any, TypeVar, get_args, get_origin

from crawler.errors import ConfigError
from crawler.settings import Settings

T = TypeVar("T")


def available(package: str) -> list[str]:
    """The names that ``use:`` may take for the plugins of ``package`` (its module names)."""
    paths = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))


def find(package: str, contract: type[T], use: str) -> type[T]:
    """The class behind ``use``.

    Raises:
        ConfigError: There is no such module, or it does not hold exactly one class of the contract.
    """
    names = ", ".join(available(package))
    module_name = use if "." in use else f"{package}.{use}"
    if not all(part.isidentifier() for part in use.split(".")) or use.startswith("_"):
        raise ConfigError([f"`use: {use}` is not a plugin's name; there are: {names}"])
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise ConfigError(
                [f"`use: {use}` needs the module `{error.name}`, which is not installed"]
            ) from error
        raise ConfigError([f"`use: {use}`: no such plugin; there are: {names}"]) from error
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, contract)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
    ]
    if len(found) != 1:
        raise ConfigError(
            [f"`use: {use}`: the module must define one {contract.__name__}, it has {len(found)}"]
        )
    return found[0]


def settings_type(plugin: type[Any]) -> type[Settings]:
    """The settings model that a plugin class reads: the first type argument of its contract."""
    for cls in plugin.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is None:
                continue
            for argument in get_args(base)[:1]:
                if inspect.isclass(argument) and issubclass(argument, Settings):
                    return argument
    return Settings

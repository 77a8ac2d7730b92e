"""How YAML names a plugin."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from crawler.settings import Settings


class Plugin(Settings):
    """One entry of a list of plugins: ``use`` and the plugin's own settings."""

    model_config = ConfigDict(extra="allow")

    use: str = Field(min_length=1)
    """The plugin's file name, or the module of an outside package."""

    @property
    def settings(self) -> dict[str, Any]:
        """The plugin's own settings, not yet read."""
        return dict(self.model_extra or {})

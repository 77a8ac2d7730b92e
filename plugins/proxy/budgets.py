"""What a request of someone may use: everyone's budget, or that of their role."""

from __future__ import annotations

from collections.abc import Collection

from plugins.core.chat_config import Budget, ChatConfig
from plugins.core.errors import ConfigError, InvalidRequest
from plugins.core.identity import Principal, canonical_subject


class Budgets:
    """`chat.budgets`.

    Args:
        config: The entries, and everyone's budget.
        sources: Names of the identity sources.

    Raises:
        ConfigError: An entry names a subject of no source.
    """

    def __init__(self, config: ChatConfig, sources: Collection[str]) -> None:
        everyones = config.model_dump(include=set(Budget.model_fields))
        self._everyones = Budget(**everyones)
        self._entries: list[tuple[frozenset[str], Budget]] = []
        for number, entry in enumerate(config.budgets):
            try:
                subjects = frozenset(canonical_subject(text, sources) for text in entry.subjects)
            except InvalidRequest as error:
                raise ConfigError([f"chat.budgets[{number}].subjects: {error.message}"]) from error
            own = entry.model_dump(include=set(Budget.model_fields), exclude_none=True)
            self._entries.append((subjects, Budget(**{**everyones, **own})))

    def of(self, principal: Principal) -> Budget:
        """That of the first entry which names the principal; what it leaves out is everyone's."""
        found = (budget for subjects, budget in self._entries if subjects & principal.subjects)
        return next(found, self._everyones)

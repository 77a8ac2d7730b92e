"""An issuer's directory with fixed people."""

from __future__ import annotations

from plugins.core.ports import Person


class FixedDirectory:
    """People by name, each with groups and roles."""

    def __init__(self, **people: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self._people = {
            name: Person(name, f"{name}@example.test", frozenset(groups), frozenset(roles))
            for name, (groups, roles) in people.items()
        }

    async def people(self, search: str, *, after: str | None, limit: int) -> list[Person]:
        names = [name for name in self._people if search in name]
        start = names.index(after) + 1 if after is not None else 0
        return [self._people[name]._replace(groups=frozenset()) for name in names[start : start + limit]]

    async def person(self, username: str) -> Person | None:
        return self._people.get(username)

    async def roles(self) -> list[str]:
        return sorted({role for person in self._people.values() for role in person.roles})

    async def groups(self) -> list[str]:
        return sorted({group for person in self._people.values() for group in person.groups})

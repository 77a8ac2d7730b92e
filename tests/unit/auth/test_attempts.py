"""How often a password may be tried."""

from __future__ import annotations

import pytest

from plugins.auth._attempts import ACCOUNT, ADDRESS, FORGET_S, MAX_KEYS, PAIR, Attempts
from plugins.core.errors import LimitReached


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> Attempts:
    return Attempts(clock)


def wait(attempts: Attempts, account: str = "alice", address: str = "10.0.0.1") -> int:
    """Seconds to wait for the next try; 0 = it was made, and counts as failed."""
    try:
        attempts.begin(account, address)
    except LimitReached as error:
        return error.retry_after_s or -1
    return 0


def test_failures_make_the_next_tries_wait_twice_as_long_each_up_to_a_minute(
    attempts: Attempts, clock: Clock
) -> None:
    assert [wait(attempts) for _ in range(PAIR.free)] == [0] * PAIR.free
    waits = []
    for _ in range(8):
        waits.append(wait(attempts))
        clock.now += waits[-1]
        assert wait(attempts) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_many_tries_at_once_gain_nothing(attempts: Attempts) -> None:
    assert sum(wait(attempts) == 0 for _ in range(100)) == PAIR.free


def test_the_name_of_an_account_is_the_same_however_it_is_written(attempts: Attempts) -> None:
    for name in ("alice", "Alice", " ALICE ", "alice\t", "aLice"):
        assert wait(attempts, name) == 0
    assert wait(attempts) > 0


def test_nobody_can_lock_somebody_else_out_for_long(attempts: Attempts, clock: Clock) -> None:
    """From many addresses."""
    for number in range(1000):
        while wait(attempts, "alice", f"10.0.{number}.1"):
            clock.now += 1
    assert 0 < wait(attempts, "alice", "192.0.2.7") <= ACCOUNT.max_delay_s
    assert wait(attempts, "bob", "192.0.2.7") == 0


def test_one_address_cannot_try_many_accounts(attempts: Attempts) -> None:
    tried = [wait(attempts, f"user{number}") for number in range(100)]
    assert tried.count(0) == ADDRESS.free


def test_a_right_password_forgets_ones_own_failures_and_not_those_of_the_address(
    attempts: Attempts, clock: Clock
) -> None:
    for _ in range(4):
        assert wait(attempts) == 0
    assert wait(attempts) == 0
    attempts.succeeded("alice", "10.0.0.1")
    assert [wait(attempts) for _ in range(PAIR.free)] == [0] * PAIR.free
    guesses = 0
    while wait(attempts, f"guess{guesses}") == 0 and wait(attempts, "mallory") == 0:
        attempts.succeeded("mallory", "10.0.0.1")
        guesses += 1
        assert guesses < ADDRESS.free


def test_what_told_nothing_does_not_count(attempts: Attempts) -> None:
    for _ in range(100):
        assert wait(attempts) == 0
        attempts.undo("alice", "10.0.0.1")


def test_failures_are_forgotten(attempts: Attempts, clock: Clock) -> None:
    for _ in range(PAIR.free):
        wait(attempts)
    assert wait(attempts) > 0
    clock.now += FORGET_S
    assert wait(attempts) == 0


def test_memory_is_bounded_however_long_the_names_are(attempts: Attempts) -> None:
    for number in range(MAX_KEYS):
        wait(attempts, f"{number}" * 100, f"10.1.{number}")
    kept = attempts._failures
    assert len(kept) <= MAX_KEYS
    assert max(map(len, kept)) < 100

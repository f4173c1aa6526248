import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from largede.streams.workers import FETCHED_AHEAD, fetched_ahead


def test_items_come_in_order_to_their_end() -> None:
    assert list(fetched_ahead(iter(range(100)))) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in fetched_ahead(failing()):
            got.append(item)
    assert got == [0, 1, 2, 3, 4]


def test_items_are_taken_before_they_are_asked_for_but_not_without_bound() -> None:
    taken: list[int] = []

    def noted() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    stream = fetched_ahead(noted())
    assert next(stream) == 0
    time.sleep(0.3)
    # One is handed over, FETCHED_AHEAD lie ready, one waits for room.
    assert len(taken) == 1 + FETCHED_AHEAD + 1
    stream.close()


def test_closing_ends_the_thread_although_items_are_left() -> None:
    stream = fetched_ahead(count())
    next(stream)
    names = [thread.name for thread in threading.enumerate()]
    assert "largede batches" in names
    stream.close()
    assert "largede batches" not in [thread.name for thread in threading.enumerate()]

"""Pauses between attempts."""

from __future__ import annotations

import random
import time
from typing import Callable, TypeVar

from .errors import Hopeless, NoAnswer

T = TypeVar("T")


class Backoff:
    """Pauses that double from 1 s and have full jitter, so that a thousand clients do not return at once."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._next = min(1.0, longest)

    def next(self) -> float:
        pause = random.uniform(0, self._next)
        self._next = min(self._next * 2, self._longest)
        return pause


def insist(call: Callable[[], T], limit: float) -> T:
    """Repeats a call while there is no answer, for at most this many seconds."""
    end = time.monotonic() + limit
    backoff = Backoff(1.0)
    while True:
        try:
            return call()
        except NoAnswer as error:
            pause = backoff.next()
            if isinstance(error, Hopeless) or time.monotonic() + pause >= end:
                raise
            time.sleep(pause)

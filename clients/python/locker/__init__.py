"""Locks for CI that cannot get stuck and cannot be granted twice. See README.md beside the package.

    import locker

    with locker.lock("staging", ttl=60) as hold:
        deploy(fence=hold.fence)

``Locker`` is the client; ``lock``, ``try_lock`` and ``verify`` of the module use one made from the environment.
"""

from __future__ import annotations

import threading
from typing import Any, Optional

from .client import Locker, Part, Waiting
from .errors import (
    BadRequest,
    Conflict,
    Denied,
    Ended,
    Hopeless,
    LockerError,
    Lost,
    NoAnswer,
    NotFound,
    Refused,
    TimedOut,
)
from .hold import Hold

__all__ = [
    "BadRequest", "Conflict", "Denied", "Ended", "Hold", "Hopeless", "Locker", "LockerError", "Lost", "NoAnswer",
    "NotFound", "Part", "Refused", "TimedOut", "Waiting", "lock", "try_lock", "verify",
]  # fmt: skip

_guard = threading.Lock()
_shared: Optional[Locker] = None


def _client() -> Locker:
    global _shared
    with _guard:
        if _shared is None:
            _shared = Locker.from_env()
        return _shared


def lock(pool: str, **options: Any) -> Hold:
    """As ``Locker.lock``, with the client of the environment."""
    return _client().lock(pool, **options)


def try_lock(pool: str, **options: Any) -> Optional[Hold]:
    """As ``Locker.try_lock``, with the client of the environment."""
    return _client().try_lock(pool, **options)


def verify(pool: str, lock: str, fence: int) -> bool:
    """As ``Locker.verify``, with the client of the environment."""
    return _client().verify(pool, lock, fence)

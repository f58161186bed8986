"""What can go wrong, as types. No text contains credentials."""

from __future__ import annotations

from typing import Any, Optional


class LockerError(Exception):
    """Any error of this package."""


class NoAnswer(LockerError):
    """No usable answer: whether the request took effect is unknown. Asking again is safe and may help."""


class Hopeless(NoAnswer):
    """No server has ever answered, and what is wrong does not pass by itself, such as an untrusted certificate."""


class TimedOut(LockerError):
    """The time for waiting is over. Nothing is held. ``waiting`` is the last news about the wait, if there was any."""

    def __init__(self, text: str, waiting: Optional[Any] = None) -> None:
        super().__init__(text)
        self.waiting = waiting


class Lost(LockerError):
    """The locks are lost, or will be before they can be renewed. Stop what needs them."""


class Refused(LockerError):
    """The server understood the request and refused it. ``code`` is the stable word, ``status`` the HTTP status."""

    def __init__(self, body: dict[str, Any], status: int) -> None:
        self.code: str = str(body.get("code", ""))
        self.status = status
        self.problems: list[str] = list(body.get("problems") or [])
        self.claim: Optional[dict[str, Any]] = body.get("claim")
        super().__init__(f"{body.get('error', 'refused')} ({self.code})")


class BadRequest(Refused):
    """The request can never succeed as it is: a bad name, more locks than the pool has, a wrong ttl."""


class Denied(Refused):
    """The server refuses these credentials, or wants some."""


class NotFound(Refused):
    """No such pool, lock or claim."""


class Conflict(Refused):
    """The request does not fit what the server knows: another claim has this id, another fence is current."""


class Ended(Conflict):
    """The claim has ended. ``claim["how"]`` says how."""


_BY_CODE: dict[str, type[Refused]] = {"ended": Ended}
_BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest, 401: Denied, 403: Denied, 404: NotFound, 405: BadRequest, 409: Conflict, 410: Conflict,
    413: BadRequest, 421: Conflict, 422: BadRequest,
}  # fmt: skip


def refused(body: dict[str, Any], status: int) -> Refused:
    """The error for an answer that is a refusal: by its code, else by the status that the code belongs to."""
    kind = _BY_CODE.get(str(body.get("code"))) or _BY_STATUS.get(status, Refused)
    return kind(body, status)

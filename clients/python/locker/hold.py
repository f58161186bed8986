"""Held locks, and the renewal of their lease in the background.

    0 ---------- ttl/3 ------------ 2/3 ttl ------------------- ttl
                 renew; again if    told that it is lost        the server may give the locks to others
                 that fails

The server counts from when it receives a renewal, this side from before it was sent, so this side's lease always ends
first.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any, Callable, Optional

from .errors import Conflict, LockerError, Lost, NoAnswer, Refused
from .retry import Backoff, insist
from .transport import PATIENCE, Transport

#: How long giving the locks back may take without an answer, in seconds. After that the lease ends by itself.
GIVE_BACK = 10.0
#: The longest sleep in one piece, in seconds: sleeps do not count the time that the machine is suspended.
SLICE = 0.5
#: Refusals that say that the claim no longer holds its locks. Others, such as refused credentials, do not say so.
OVER = {"ended", "no_such_claim", "not_granted", "wrong_fence", "superseded_run"}

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "day": 86400, "d": 86400}
log = logging.getLogger("locker")


def clock() -> float:
    """Seconds of a clock that also counts while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def duration(seconds: float) -> str:
    """A duration as the API reads it."""
    return f"{round(seconds * 1000)}ms"


def seconds(text: str) -> float:
    """A duration as the API writes it: ``1m5s``, ``4s352ms``."""
    found = re.findall(r"(\d+)\s*(ms|s|m|h|day|d)", text)
    return sum(int(number) * _UNITS[unit] for number, unit in found)


def held(transport: Transport, pool: str, lock: str, fence: int) -> bool:
    """Asks the server whether this fence belongs to a present holder of the lock."""
    try:
        insist(lambda: transport.get("/api/v1/verify", pool=pool, lock=lock, fence=fence), PATIENCE)
    except Conflict as error:
        if error.code == "not_held":
            return False
        raise
    return True


class Hold:
    """Locks that are held. Leaving its ``with`` block gives them back.

    If the locks were lost in the meantime, a block that ends well raises ``Lost`` instead.
    """

    def __init__(
        self,
        transport: Transport,
        claim: dict[str, Any],
        run: str,
        ttl: float,
        sent: float,
        on_lost: Optional[Callable[[Lost], None]] = None,
    ) -> None:
        self._transport, self._run, self._ttl, self._on_lost = transport, run, ttl, on_lost
        #: The id of the claim.
        self.id: str = claim["id"]
        #: The number of this grant, larger than that of every earlier grant of these locks.
        self.fence: int = claim["fence"]
        #: ``(pool, lock)`` of each lock.
        self.locks: list[tuple[str, str]] = [(one["pool"], one["lock"]) for one in claim["locks"]]
        self._guard = threading.Condition()
        self._lost: Optional[Lost] = None
        self._released = False
        #: How many renewals the server has answered.
        self.renewals = 0
        self._count_from(claim, sent)
        threading.Thread(target=self._watch, name="locker-lease", daemon=True).start()

    @property
    def pool(self) -> str:
        """The pool of the first lock."""
        return self.locks[0][0]

    @property
    def lock(self) -> str:
        """The name of the first lock."""
        return self.locks[0][1]

    @property
    def lost(self) -> Optional[Lost]:
        """Why the locks are lost, or ``None`` while they are safely held."""
        with self._guard:
            return self._lost

    def check(self) -> None:
        """Raises ``Lost`` if the locks are lost, as far as is known here. Asks nobody."""
        lost = self.lost
        if lost:
            raise lost

    def verify(self) -> bool:
        """Asks the server whether all locks are still held by this fence."""
        return all(held(self._transport, pool, lock, self.fence) for pool, lock in self.locks)

    def release(self) -> None:
        """Gives the locks back. Harmless to repeat.

        Raises ``Lost`` if they were lost before, and ``NoAnswer`` if the server does not answer for 10 s: the locks
        come back with the end of the lease then.
        """
        with self._guard:
            if self._released:
                return
            self._released = True
            self._guard.notify_all()
        path = f"/api/v1/claims/{self.id}?run={self._run}"
        try:
            insist(lambda: self._transport.send("DELETE", path, patience=GIVE_BACK), GIVE_BACK)
        except Refused as error:
            if error.code not in OVER:
                raise
            with self._guard:
                self._lost = self._lost or Lost(str(error))
        self.check()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_: object) -> None:
        try:
            self.release()
        except Lost:
            # What the block itself raised says more.
            if kind is None:
                raise
        except LockerError as error:
            log.warning("the locks could not be given back; the server ends the hold with its lease: %s", error)

    def _count_from(self, claim: dict[str, Any], sent: float) -> None:
        """Counts the lease anew, from just before the request was sent that this claim is the answer to."""
        left = claim.get("held_for")
        span = min(self._ttl, seconds(left)) if left else self._ttl
        self._ends = sent + span
        self._tell_at = self._ends - self._ttl / 3
        self._renew_at = sent + self._ttl / 3
        self._backoff = Backoff(self._ttl / 12)

    def _watch(self) -> None:
        """Starts renewals and tells a loss in time. Requests run in other threads, so none can delay this one."""
        while True:
            with self._guard:
                if self._released or self._lost:
                    return
                now = clock()
                if now >= self._tell_at:
                    lost = Lost(f"the lease was not renewed in time and ends in {max(0.0, self._ends - now):.1f} s")
                    break
                if now >= self._renew_at:
                    self._renew_at = float("inf")
                    threading.Thread(target=self._renew, name="locker-renewal", daemon=True).start()
                self._guard.wait(max(0.0, min(SLICE, self._tell_at - now, self._renew_at - now)))
        self._lose(lost)

    def _renew(self) -> None:
        sent = clock()
        body = {"run": self._run, "fence": self.fence}
        try:
            path = f"/api/v1/claims/{self.id}/renew"
            answer = self._transport.send("POST", path, body, patience=self._ttl / 6)
        except Refused as error:
            if error.code in OVER:
                self._lose(Lost(str(error)))
            else:
                self._again(error)
        except Exception as error:  # Whatever it is, only a later renewal can help.
            self._again(error)
        else:
            with self._guard:
                self._count_from(answer.body, sent)
                self.renewals += 1
                self._guard.notify_all()

    def _again(self, error: Exception) -> None:
        with self._guard:
            self._renew_at = clock() + self._backoff.next()
            self._guard.notify_all()
        log.warning("the lease could not be renewed, trying again: %s", error)

    def _lose(self, lost: Lost) -> None:
        with self._guard:
            if self._released or self._lost:
                return
            self._lost = lost
            self._guard.notify_all()
        if self._on_lost:
            self._on_lost(lost)

"""Asks for locks until they are held, or gives up and leaves nothing behind.

The id of a claim and the run are chosen once, so every message can be repeated: a lost answer never takes two locks.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, Union
from urllib.parse import quote

from .errors import BadRequest, Hopeless, Lost, NoAnswer, NotFound, Refused, TimedOut
from .hold import Hold, clock, duration, held
from .retry import Backoff, insist
from .transport import PATIENCE, Answer, Transport

#: How long the server is asked to hold one request, in seconds: below the idle timeout of common proxies.
WAIT = 25.0
#: The longest pause between two attempts, in seconds: well below the 20 s for which a waiter counts as listening.
LONGEST_PAUSE = 10.0
#: How long a try-lock, or a wait whose time is over, still waits for an answer, in seconds.
TRY = 3.0
#: How long taking a claim back may take, in seconds.
CANCEL = 5.0
#: The shortest ttl, in seconds. Below 15 s little time is left to stop; see README.md.
SHORTEST_TTL = 3.0

_WITHDRAWN = {"not_granted", "wrong_fence", "ended"}


@dataclass(frozen=True)
class Part:
    """Locks of one pool: one named, several named, or any ``count`` of them that carry the ``labels``."""

    pool: str
    lock: Optional[str] = None
    locks: Optional[Sequence[str]] = None
    count: Optional[int] = None
    labels: Optional[Mapping[str, str]] = None

    def body(self) -> dict[str, Any]:
        fields = {"pool": self.pool, "lock": self.lock, "locks": self.locks, "count": self.count, "labels": self.labels}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Waiting:
    """News about a wait. ``position`` is 1 at the head of the queue."""

    position: Optional[int]
    #: Who holds locks that could serve the claim: at most 10, as in the API.
    holders: Sequence[Mapping[str, Any]]
    #: How many holders there are in all.
    holder_count: int
    #: The waiters directly ahead, nearest first: at most 5.
    ahead: Sequence[Mapping[str, Any]]
    #: ``waiting``, ``self_wait`` or ``deadlock``.
    code: str
    #: The same in words.
    text: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Waiting:
        queue = (body.get("claim") or {}).get("queue") or {}
        holders = body.get("holders") or []
        count = body.get("holder_count", len(holders))
        ahead = queue.get("ahead") or []
        return cls(queue.get("position"), holders, count, ahead, body.get("code", ""), body.get("error", ""))


Tell = Callable[[Waiting], None]
OnLost = Callable[[Lost], None]


class Locker:
    """A client of one store, which one or more servers serve. Threads may share it.

    ``servers`` is one URL, several separated by commas, or a list. Without ``username`` and ``token``, a user and
    password in the URLs are used. ``ca_file``: trust only these issuers. ``owner`` is shown to others, and says who
    asks: members of the API's ``Owner``, such as ``person`` and ``program``.
    """

    def __init__(
        self,
        servers: Union[str, Sequence[str]] = "http://127.0.0.1:8910",
        *,
        username: Optional[str] = None,
        password: Optional[str] = None,
        token: Optional[str] = None,
        ca_file: Optional[str] = None,
        cert_file: Optional[str] = None,
        key_file: Optional[str] = None,
        owner: Optional[Mapping[str, str]] = None,
    ) -> None:
        urls = servers.split(",") if isinstance(servers, str) else list(servers)
        self._transport = Transport(urls, username, password, token, ca_file, cert_file, key_file)
        self._owner = dict(owner) if owner is not None else {"person": _person()}

    def __repr__(self) -> str:
        return f"Locker({self._transport.names})"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Locker:
        """A client of the variables that the command line reads, and of ``LOCKER_TOKEN``. Certificates are files."""
        return cls(
            env.get("LOCKER_URI") or "http://127.0.0.1:8910",
            username=env.get("LOCKER_USERNAME") or None,
            password=env.get("LOCKER_PASSWORD") or None,
            token=env.get("LOCKER_TOKEN") or None,
            ca_file=env.get("LOCKER_CA_CERT") or None,
            cert_file=env.get("LOCKER_CLIENT_CERT") or None,
            key_file=env.get("LOCKER_CLIENT_KEY") or None,
        )

    def lock(
        self,
        pool: str,
        *,
        timeout: Optional[float] = None,
        on_wait: Optional[Tell] = None,
        **options: Any,
    ) -> Hold:
        """Waits until the locks are held. ``timeout`` is in seconds; ``on_wait`` is called with each news of the wait.

        Options: ``lock``, ``locks``, ``count``, ``labels`` (which locks of the pool), ``also`` (a list of ``Part``:
        locks of more pools, all or nothing), ``ttl`` in seconds (60), ``on_lost`` (called from another thread, before
        the lease ends), ``key``, ``requestor``, ``priority``, ``reason``.

        Raises ``TimedOut``, ``Refused``, ``Hopeless``; nothing is held then.
        """
        hold = self._acquire(pool, timeout, True, on_wait, **options)
        assert hold is not None
        return hold

    def try_lock(self, pool: str, **options: Any) -> Optional[Hold]:
        """Takes the locks now, or returns ``None`` if others have them. Raises ``NoAnswer`` after 3 s without answer."""
        return self._acquire(pool, None, False, None, **options)

    def verify(self, pool: str, lock: str, fence: int) -> bool:
        """Whether this fence belongs to a present holder of the lock. Anything but ``True`` means stop."""
        return held(self._transport, pool, lock, fence)

    def history(self, pool: Optional[str] = None, *, limit: int = 100, **filters: Any) -> list[dict[str, Any]]:
        """What happened, the newest first. ``filters``: ``lock``, ``claim``, ``who``, ``kind``, ``since``, ``until``."""
        path = f"/api/v1/pools/{_encode(pool)}/changes" if pool is not None else "/api/v1/changes"
        return list(self._get(path, limit=limit, order="newest_first", **filters)["items"])

    def get_lock(self, pool: str, lock: str) -> dict[str, Any]:
        """A lock with its labels, its metadata and its holders."""
        return dict(self._get(f"/api/v1/pools/{_encode(pool)}/locks/{_encode(lock)}"))

    def info(self) -> dict[str, Any]:
        """Version, store and time of the server."""
        return dict(self._get("/api/v1/info"))

    def _get(self, path: str, **query: Any) -> Any:
        return insist(lambda: self._transport.get(path, **query), PATIENCE).body

    def _acquire(
        self,
        pool: str,
        timeout: Optional[float],
        queue: bool,
        on_wait: Optional[Tell],
        *,
        lock: Optional[str] = None,
        locks: Optional[Sequence[str]] = None,
        count: Optional[int] = None,
        labels: Optional[Mapping[str, str]] = None,
        also: Sequence[Part] = (),
        ttl: float = 60,
        on_lost: Optional[OnLost] = None,
        **rest: Any,
    ) -> Optional[Hold]:
        if ttl < SHORTEST_TTL:
            raise ValueError(f"a ttl of {ttl} s leaves no time to stop: at least {SHORTEST_TTL} s")
        unknown = set(rest) - {"key", "requestor", "priority", "reason"}
        if unknown:
            raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
        body = Part(pool, lock, locks, count, labels).body()
        body.update(scope="lease", ttl=duration(ttl), confirm=True, queue=queue, owner=self._owner)
        body.update({name: value for name, value in rest.items() if value is not None})
        if also:
            body["also"] = [part.body() for part in also]
        return _Acquire(self._transport, body, ttl, timeout, on_wait).run(on_lost)


class _Acquire:
    """One wait for locks, from its first request on."""

    def __init__(
        self, transport: Transport, body: dict[str, Any], ttl: float, timeout: Optional[float], on_wait: Optional[Tell]
    ) -> None:
        self.transport = transport
        self.id, self.run_id = secrets.token_hex(20), secrets.token_hex(16)
        self.body = {**body, "run": self.run_id}
        self.ttl = ttl
        self.on_wait = on_wait
        limit = timeout if body["queue"] else TRY
        self.end = None if limit is None else time.monotonic() + limit
        self.last: Optional[Waiting] = None
        self.backoff = Backoff(LONGEST_PAUSE)

    def run(self, on_lost: Optional[OnLost]) -> Optional[Hold]:
        """Asks until the claim is held. In every other case the claim is taken back."""
        try:
            granted = self._ask()
        except (BadRequest, NotFound):
            raise
        except BaseException:
            self._cancel()
            raise
        if granted is None:
            return None
        claim, sent = granted
        return Hold(self.transport, claim, self.run_id, self.ttl, sent, on_lost)

    def _ask(self) -> Optional[tuple[dict[str, Any], float]]:
        # The first request does not wait, so that people see at once who is ahead of them.
        span = 0.0
        while True:
            asked = time.monotonic()
            try:
                answer = self._put(span)
            except NoAnswer as error:
                self._pause(self.backoff.next(), error)
            else:
                if answer.status == 423:
                    if answer.body["code"] == "locked":
                        return None
                    self._tell(answer.body)
                    held_open = answer.body["parked"] and time.monotonic() - asked >= min(0.1, span)
                    if span == 0 or held_open:
                        self.backoff = Backoff(LONGEST_PAUSE)
                        self._pause(0)
                    else:
                        self._pause(self.backoff.next())
                else:
                    granted = self._confirm(answer.body)
                    if granted:
                        return granted
                    self._pause(self.backoff.next())
            left = self._left()
            span = WAIT if left is None else min(WAIT, left)

    def _put(self, span: float) -> Answer:
        body = {**self.body, "wait": duration(span)} if span and self.body["queue"] else self.body
        return self.transport.send("PUT", f"/api/v1/claims/{self.id}", body, self._patience(span))

    def _confirm(self, claim: dict[str, Any]) -> Optional[tuple[dict[str, Any], float]]:
        """Confirms a grant. ``None``: the server has withdrawn it in the meantime; ask again."""
        self.backoff = Backoff(LONGEST_PAUSE)
        body = {"run": self.run_id, "fence": claim["fence"]}
        while True:
            sent = clock()
            try:
                path = f"/api/v1/claims/{self.id}/confirm"
                return self.transport.send("POST", path, body, self._patience(0)).body, sent
            except NoAnswer as error:
                self._pause(self.backoff.next(), error)
            except Refused as error:
                if error.code in _WITHDRAWN:
                    return None
                raise

    def _tell(self, body: dict[str, Any]) -> None:
        self.last = Waiting.of(body)
        if self.on_wait:
            self.on_wait(self.last)

    def _left(self) -> Optional[float]:
        return None if self.end is None else max(0.0, self.end - time.monotonic())

    def _patience(self, span: float) -> float:
        left = self._left()
        return PATIENCE + span if left is None else min(PATIENCE + span, left + TRY)

    def _pause(self, span: float, unanswered: Optional[NoAnswer] = None) -> None:
        """Sleeps, but not past the time limit, which ends the wait."""
        left = self._left()
        if isinstance(unanswered, Hopeless):
            raise unanswered
        time.sleep(span if left is None else min(span, left))
        if self._left() == 0:
            if unanswered:
                raise unanswered
            held = self.last.text if self.last else "no news"
            raise TimedOut(f"the time for waiting is over: {held}", self.last)

    def _cancel(self) -> None:
        path = f"/api/v1/claims/{self.id}?run={self.run_id}"
        try:
            insist(lambda: self.transport.send("DELETE", path, patience=CANCEL), CANCEL)
        except (NoAnswer, Refused):
            # Without an answer, the server ends the claim when its deadlines pass. A refusal: nothing of ours is left.
            pass


def _encode(text: str) -> str:
    return quote(text, safe="")


def _person() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"

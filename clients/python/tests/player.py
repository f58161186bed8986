"""Does with the client what each line of the input says; see ../../README.md."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import locker

#: How long the player waits for something that must happen, in seconds.
PATIENCE = 80


class Mine(Exception):
    """An error of the block itself."""


class Task:
    """A lock that is asked for in the background, and what became of it."""

    def __init__(self) -> None:
        self.hold: Any = None
        self.error: Any = None
        self.news: list[locker.Waiting] = []
        self.lost: list[locker.Lost] = []
        self.ended, self.waited, self.told = threading.Event(), threading.Event(), threading.Event()
        self.leave = threading.Event()
        self.thread: Any = None

    def start(self, call: Any) -> None:
        def run() -> None:
            try:
                call()
            except Exception as error:
                self.error = error
            self.ended.set()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def on_wait(self, news: locker.Waiting) -> None:
        self.news.append(news)
        self.waited.set()

    def on_lost(self, lost: locker.Lost) -> None:
        self.lost.append(lost)
        self.told.set()


client: Any = None
tasks: dict[str, Task] = {}


def options(step: dict[str, Any]) -> dict[str, Any]:
    given = dict(step["with"])
    if "also" in given:
        given["also"] = [locker.Part(**part) for part in given["also"]]
    return given


def failure(error: Exception) -> dict[str, Any]:
    answer = {"error": type(error).__name__, "text": str(error)}
    if isinstance(error, locker.Refused):
        answer.update(code=error.code, status=error.status)
    return answer


def shown(hold: locker.Hold) -> dict[str, Any]:
    return {"locks": [list(one) for one in hold.locks], "fence": hold.fence, "id": hold.id}


def wait(event: threading.Event, what: str) -> None:
    if not event.wait(PATIENCE):
        raise AssertionError(f"{what} within {PATIENCE} s")


def do(step: dict[str, Any]) -> dict[str, Any]:
    global client
    what = step["do"]
    if what == "open":
        given = {name: value for name, value in step.items() if name != "do"}
        client = locker.Locker(given.pop("servers"), owner={"person": "player"}, **given)
    elif what == "lock":
        task = tasks[step["as"]] = Task()

        def take() -> None:
            task.hold = client.lock(step["pool"], on_wait=task.on_wait, on_lost=task.on_lost, **options(step))

        task.start(take)
    elif what == "try":
        task = tasks[step["as"]] = Task()

        def take_now() -> None:
            task.hold = client.try_lock(step["pool"], on_lost=task.on_lost, **options(step))

        task.start(take_now)
    elif what == "await":
        task = tasks[step["as"]]
        wait(task.ended, "no end of the wait")
        if task.error:
            raise task.error
        return shown(task.hold) if task.hold else {"none": True}
    elif what == "waits":
        task = tasks[step["as"]]
        wait(task.waited, "no news")
        news = task.news[0]
        holder = news.holders[0]["owner"]["person"] if news.holders else None
        return {"position": news.position, "holder": holder, "holder_count": news.holder_count, "code": news.code}
    elif what == "release":
        tasks[step["as"]].hold.release()
    elif what == "release_later":
        task = tasks[step["as"]]
        task.ended.clear()
        task.start(task.hold.release)
    elif what == "released":
        task = tasks[step["as"]]
        wait(task.ended, "not released")
        if task.error:
            raise task.error
    elif what == "lost":
        task = tasks[step["as"]]
        wait(task.told, "no loss")
        assert task.hold.lost is task.lost[0] and len(task.lost) == 1
        return {"text": str(task.lost[0])}
    elif what == "renewed":
        hold = tasks[step["as"]].hold
        before, end = hold.renewals, time.monotonic() + PATIENCE
        while hold.renewals == before and not hold.lost and time.monotonic() < end:
            time.sleep(0.02)
        return {"lost": str(hold.lost) if hold.lost else None, "renewals": hold.renewals}
    else:
        return look(step)
    return {}


def look(step: dict[str, Any]) -> dict[str, Any]:
    what = step["do"]
    if what == "block":
        with client.lock(step["pool"], **options(step)) as hold:
            if step.get("fail"):
                raise Mine("of the block")
        return shown(hold)
    if what == "block_later":
        task = tasks[step["as"]] = Task()

        def block() -> None:
            with client.lock(step["pool"], **options(step)) as hold:
                task.hold = hold
                task.ended.set()
                task.leave.wait(PATIENCE)

        task.start(block)
    elif what == "end_block":
        task = tasks[step["as"]]
        task.leave.set()
        task.thread.join(PATIENCE)
        if task.error:
            raise task.error
    elif what == "verify":
        return {"held": client.verify(step["pool"], step["lock"], step["fence"])}
    elif what == "verify_hold":
        return {"held": tasks[step["as"]].hold.verify()}
    elif what == "history":
        return {"kinds": [entry["kind"] for entry in client.history(step["pool"], **step["filters"])]}
    elif what == "get_lock":
        return {"lock": client.get_lock(step["pool"], step["lock"])}
    else:
        raise AssertionError(f"unknown step {what}")
    return {}


for line in sys.stdin:
    try:
        answer = do(json.loads(line))
    except (locker.LockerError, Mine) as error:
        answer = failure(error)
    print(json.dumps(answer), flush=True)

"""Plays one scenario: starts its server and a player of the language, does each step, and compares what came out."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from servers import Between, Impostor, Server, certificates

#: How long one step of a player may take, in seconds. It is only ever reached by a bug.
PATIENCE = 90
#: What must never be seen in anything that a client says.
SECRETS = ("s3cret", "t0ken", "czNjcmV0")


class Player:
    """A process that does with the client of its language what each line of its input says."""

    def __init__(self, command, env):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.answers, self.said = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        self.errors = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self.errors.start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def do(self, step):
        self.process.stdin.write(json.dumps(step) + "\n")
        self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no answer within {PATIENCE} s") from None
        assert line is not None, f"the player has ended: {''.join(self.said)}"
        leak(line)
        return json.loads(line)

    def end(self):
        """Ends the player; it must end by itself once its input ends."""
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        self.errors.join()
        leak("".join(self.said))
        assert self.process.returncode == 0, f"the player ended with {self.process.returncode}: {''.join(self.said)}"


def leak(text):
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"a secret is shown: {text}"


class Scene:
    """One scenario while it is played. The methods that begin with `on_` are the kinds of steps."""

    def __init__(self, scenario, language, built, binary):
        self.scenario, self.language, self.built, self.binary = scenario, language, built, binary
        self.folder = tempfile.mkdtemp(prefix="locker-clients-")
        self.names, self.closing, self.player = {"folder": self.folder}, [], None

    def play(self):
        try:
            self._begin()
            for number, step in enumerate(self.scenario["steps"], 1):
                try:
                    self._step(dict(step))
                except Exception as error:
                    raise AssertionError(f"step {number}, {json.dumps(step)}: {error}") from error
            self.player.end()
        finally:
            if self.player:
                self.player.process.kill()
            for close in reversed(self.closing):
                close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self):
        setting = self.scenario.get("server", {})
        if setting.get("tls"):
            certificates(self.folder)
        args = [self._fill(arg) for arg in setting.get("args", [])]
        scheme = "https" if setting.get("tls") else "http"
        # What is never restarted needs no disk.
        restarts = any(step.get("server") == "start" for step in self.scenario["steps"])
        store = f"sqlite:{self.folder}/store.db" if restarts else "memory:"
        self.server = Server(self.binary, self.folder, args, setting.get("env"), scheme, store)
        self.closing.append(self.server.end)
        self.server.start()
        self.names.update(url=self.server.url, address=self.server.address)
        env = {**os.environ, **self.language.env}
        self.player = Player(self.language.player(self.built), env)
        if not setting.get("tls"):
            self.player.do({"do": "open", "servers": self.server.url})

    def _step(self, step):
        expected = step.pop("expect", None)
        step = self._fill(step)
        kind = next(name for name in ("do", "server", "ask", "between", "impostor", "cut", "seen", "rival") if name in step)
        answer = getattr(self, f"on_{kind}")(step)
        if "keep" in step:
            for name, path in step["keep"].items():
                self.names[name] = _find(answer, path)
        if expected is None:
            assert "error" not in answer, answer
        else:
            _compare(self._fill(expected), answer, "")

    def on_do(self, step):
        return self.player.do(step)

    def on_server(self, step):
        what = step["server"]
        if what == "kill":
            self.server.end(signal.SIGKILL)
        elif what == "start":
            self.server.start()
        else:
            self.server.signal({"freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}[what])
        return {}

    def on_ask(self, step):
        """Somebody else's request. With `until`, it is repeated until the answer fits."""
        method, path = step["ask"].split(" ", 1)
        end = time.monotonic() + PATIENCE
        while True:
            answer = self.server.ask(method, path, step.get("body"))
            if "until" not in step:
                return answer
            try:
                _compare(step["until"], answer, "")
                return answer
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def on_rival(self, step):
        """Somebody else takes locks of a pool: `rival` is the id of that claim."""
        body = {"pool": step["pool"], "scope": "person", "owner": {"person": "rival"}, **step.get("with", {})}
        answer = self.server.ask("PUT", f"/api/v1/claims/{step['rival']}", body)
        assert answer["status"] == 200, answer
        return answer

    def on_between(self, step):
        self.between = Between(self.server)
        self.closing.append(self.between.end)
        self.names["between"] = self.between.url
        return {}

    def on_impostor(self, step):
        self.between = Impostor(step["impostor"], self.server.url + "/elsewhere")
        self.closing.append(self.between.end)
        self.names["between"] = self.between.url
        return {}

    def on_cut(self, step):
        self.between.cuts.extend(step["cut"])
        return {}

    def on_seen(self, step):
        """What the proxy has seen: the header of the last request, and which answers it threw away."""
        cut = [self.between.was_cut.get(timeout=PATIENCE) for _ in step["seen"].get("cut", [])]
        assert cut == step["seen"].get("cut", []), cut
        return {"authorization": self.between.authorizations[-1], "requests": len(self.between.authorizations)}

    def _fill(self, value):
        """Replaces `{name}` in texts. A text that is only a name becomes the value itself."""
        if isinstance(value, str):
            whole = re.fullmatch(r"\{(\w+)\}", value)
            if whole and whole.group(1) in self.names:
                return self.names[whole.group(1)]
            return re.sub(r"\{(\w+)\}", lambda name: str(self.names.get(name.group(1), name.group(0))), value)
        if isinstance(value, list):
            return [self._fill(one) for one in value]
        if isinstance(value, dict):
            return {name: self._fill(one) for name, one in value.items()}
        return value


def _find(answer, path):
    for name in path.split("."):
        answer = answer[int(name)] if isinstance(answer, list) else answer[name]
    return answer


def _compare(expected, found, place):
    """Every expected member is there. `~text` is part of a text; `>N` a larger number; `*` anything but null."""
    if isinstance(expected, dict):
        for name, one in expected.items():
            assert isinstance(found, dict) and (name in found or one is None), f"{place}.{name} is missing in {found}"
            _compare(one, found.get(name), f"{place}.{name}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), f"{place} is {found}, not {expected}"
        for number, (one, other) in enumerate(zip(expected, found)):
            _compare(one, other, f"{place}.{number}")
    elif isinstance(expected, str) and expected.startswith("~"):
        assert expected[1:] in str(found), f"{place} is {found!r}, without {expected[1:]!r}"
    elif isinstance(expected, str) and expected.startswith(">"):
        assert found > int(expected[1:]), f"{place} is {found}, not {expected}"
    elif expected == "*":
        assert found is not None, f"{place} is missing"
    else:
        assert found == expected, f"{place} is {found!r}, not {expected!r}"

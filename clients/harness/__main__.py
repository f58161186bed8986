"""Plays the scenarios and runs the examples of one language: python3 clients/harness LANGUAGE [NAME...]

$LOCKER is the program to test. With names, only scenarios whose names contain one of them are played.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from languages import ALL, CLIENTS
from play import PATIENCE, Scene, leak
from servers import Server

#: How many scenarios are played at once: they wait more than they compute.
AT_ONCE = 6


def main():
    language, names, binary = ALL[sys.argv[1]], sys.argv[2:], os.environ["LOCKER"]
    with open(os.path.join(CLIENTS, "scenarios.json"), encoding="utf-8") as table:
        scenarios = json.load(table)
    with tempfile.TemporaryDirectory(prefix="locker-clients-") as built:
        language.prepare(built)
        tasks = {one["name"]: Scene(one, language, built, binary).play for one in scenarios}
        for line, code in language.examples():
            tasks[f"README.md:{line}"] = lambda line=line, code=code: example(language, built, binary, code)
        if names:
            tasks = {name: task for name, task in tasks.items() if any(part in name for part in names)}
        failed = run(language.name, tasks)
    print(f"{language.name}: {len(tasks) - failed} passed, {failed} failed")
    return 1 if failed or not tasks else 0


def run(language, tasks):
    """Runs all tasks, tells how each ended, and returns how many failed."""

    def timed(task):
        start = time.monotonic()
        try:
            task()
            return time.monotonic() - start, None
        except Exception as error:  # Whatever it is, the others go on.
            return time.monotonic() - start, error

    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, (took, error) in zip(tasks, pool.map(timed, tasks.values())):
            failed += error is not None
            print(f"{language}: {'FAILED' if error else 'ok'} {name} ({took:.1f} s)", flush=True)
            if error:
                print(f"    {error}", flush=True)
    return failed


def example(language, built, binary, code):
    """Runs one block of the page against a server of its own."""
    with tempfile.TemporaryDirectory(prefix="locker-clients-") as folder:
        server = Server(binary, folder)
        server.start()
        try:
            env = {**os.environ, **language.env, "LOCKER_URI": server.url}
            command = language.example(code, folder, built)
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, cwd=folder)
        finally:
            server.end()
        leak(done.stdout + done.stderr)
        assert done.returncode == 0, f"it ends with {done.returncode}:\n{code}\n{done.stdout}{done.stderr}"


sys.exit(main())

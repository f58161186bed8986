"""How the player and the examples of each language are run."""

import os
import re
import subprocess
import sys

CLIENTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Language:
    """A language: its folder, its player, and how to run one example of its README.md."""

    def __init__(self, name, fence, player, env=None):
        self.name, self.fence, self._player, self.env = name, fence, player, env or {}
        self.folder = os.path.join(CLIENTS, name)

    def prepare(self, built):
        """Builds what must be built, into this folder."""

    def player(self, built):
        return self._player

    def example(self, code, work, built):
        """The command that runs this code, written to the folder `work`."""
        file = os.path.join(work, "example")
        with open(file, "w", encoding="utf-8") as out:
            out.write(code)
        return [*self._player[:-1], file]

    def examples(self):
        """Each block of the page in this language, with its line."""
        with open(os.path.join(self.folder, "README.md"), encoding="utf-8") as page:
            text = page.read()
        for found in re.finditer(rf"(?ms)^```{self.fence}\n(.*?)^```$", text):
            yield text.count("\n", 0, found.start()) + 1, found.group(1)


class JavaScript(Language):
    def example(self, code, work, built):
        # A package finds itself by its name only inside its own folder.
        file = os.path.join(work, "example.mjs")
        with open(file, "w", encoding="utf-8") as out:
            out.write(code.replace('"locker-client"', f'"{self.folder}/index.js"'))
        return ["node", file]


class Java(Language):
    def prepare(self, built):
        sources = []
        for kind in ("main", "test"):
            for place, _, names in os.walk(os.path.join(self.folder, "src", kind, "java")):
                sources += [os.path.join(place, name) for name in names if name.endswith(".java")]
        options = ["--release", "17", "-Xlint:all", "-Werror", "-d", os.path.join(built, "classes")]
        subprocess.run(["javac", *options, *sources], check=True)

    def player(self, built):
        return ["java", "-XX:TieredStopAtLevel=1", "-cp", os.path.join(built, "classes"), "locker.client.Player"]

    def example(self, code, work, built):
        imports = "".join(re.findall(r"(?m)^import .*\n", code))
        body = re.sub(r"(?m)^import .*\n", "", code)
        file = os.path.join(work, "Example.java")
        with open(file, "w", encoding="utf-8") as out:
            out.write(f"{imports}class Example {{\npublic static void main(String[] args) throws Exception {{\n{body}}}\n}}\n")
        return ["java", "-cp", os.path.join(built, "classes"), file]


def _in(*parts):
    return os.path.join(CLIENTS, *parts)


ALL = {
    "python": Language("python", "python", [sys.executable, _in("python/tests/player.py")],
                       {"PYTHONPATH": _in("python"), "PYTHONDONTWRITEBYTECODE": "1"}),
    "ruby": Language("ruby", "ruby", ["ruby", "-w", "-I", _in("ruby/lib"), _in("ruby/test/player.rb")]),
    "javascript": JavaScript("javascript", "js", ["node", _in("javascript/test/player.mjs")]),
    "java": Java("java", "java", []),
}  # fmt: skip

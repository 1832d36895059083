"""A reader who does all that a page says, in a folder of their own.

Blocks of a page say what they are:

* ``sh``: commands; ``console``: commands after ``$``, and what they print, in which a line ``…``
  stands for any lines;
* ``python``: run in one namespace for the page;
* anything with a title is written to that file;
* ``text``: only shown.

The reader has no key and no network: ``openai:MODEL`` and every address of a language model is a
server on this machine at a made-up price, a model to adapt is ``shapes-tiny``, and ``RUN`` is the
newest run folder.
A search that several pages ask for is made once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_line import run
from served import serving

from llmopt.errors import UNFINISHED
from llmopt.vision.base import Access
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.server.keys import Keys
from llmopt.vision.server.service import Protection

CHECKOUT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^ *```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
OURS = ("shapes-tiny", "local-dir:")
_SHELL = {"cat", "head", "ls", "mkdir", "python"}
_DONE: dict[tuple[str, ...], tuple[str, list[Path]]] = {}
UNSTEADY = (
    (re.compile(r"\d{8}-\d{6}(-\d+)?"), "TIME"),
    (re.compile(r"\d+\.\d s\b.*"), "SECONDS"),
    (re.compile(r"[─]{3,}"), "───"),
    (re.compile(r" +"), " "),
)


class Reader(contextlib.ExitStack):
    """Someone who follows a page.

    Args:
        folder: where they sit.
        llm: the address of a language model.
        names: what their Python session knows.
    """

    def __init__(self, folder: Path, llm: str, names: dict[str, Any]) -> None:
        super().__init__()
        self.folder, self.llm, self.names = folder, llm, names
        self.addresses: dict[str, str] = {}

    def follow(self, page: Path) -> int:
        """Do what each block says; how many there were."""
        text = page.read_text(encoding="utf-8")
        blocks = BLOCK.findall(text)
        assert not re.search(r"^ {4}(\$ )?llmopt ", BLOCK.sub("", text), re.MULTILINE), "no block"
        for language, title, text in blocks:
            if title:
                (self.folder / title).write_text(self._here(text), encoding="utf-8")
            elif language == "python":
                exec(compile(self._here(text), page.name, "exec"), self.names)  # noqa: S102
            elif language == "sh":
                for command in commands(text):
                    self.type(command)
            elif language == "console":
                for command, printed in _exchanges(text):
                    found = self.type(command)
                    assert _alike(printed, found), f"{page.name}: $ {command}\n{found}"
            else:
                assert language == "text", f"{page.name}: a block of {language!r} and no title"
        return len(blocks)

    def type(self, command: str) -> str:
        """Type a command, which must succeed; what it printed."""
        words = shlex.split(self._here(command), comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            self._set(words.pop(0))
        match words:
            case []:
                return ""
            case ["export", *pairs]:
                for pair in pairs:
                    self._set(pair)
                return ""
            case ["pip", "install", *what]:
                return _can_be_installed(what)
            case ["make", target, *_]:
                makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
                assert f"\n{target}: " in makefile, command
                return ""
            case ["git", "clone", *_] | ["cd", _] | ["source", _]:
                return ""
            case ["llmopt", "serve", *options]:
                return self._serve(options)
            case ["llmopt", "run" | "compare", *_] if tuple(words) in _DONE:
                printed, folders = _DONE[tuple(words)]
                for folder in folders:
                    there = self.folder / "runs" / folder.name
                    shutil.copytree(folder, there, dirs_exist_ok=True)
                    there.touch()  # it is the newest now
                return printed
            case ["llmopt", *options]:
                before = self._runs()
                ended = run(*self._options(options), cwd=self.folder)
                halfway = UNFINISHED if "--status" in options else 0
                assert ended.code in (0, halfway), f"{command}\n{ended.err}"
                _DONE[tuple(words)] = ended.out, sorted(self._runs() - before)
                return ended.out
        assert words[0] in _SHELL, f"nobody has said what {words[0]!r} is: {command}"
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout

    def _set(self, pair: str) -> None:
        """An environment variable, until the reader leaves."""
        name, _, value = pair.partition("=")
        os.environ[name] = "sk-of-nobody-0123456789" if value == "…" else value
        self.callback(os.environ.pop, name, None)

    def _options(self, words: list[str]) -> Iterator[str]:
        """The options as this reader has to write them."""
        given = iter([one for word in words for one in self._expanded(word)])
        for word in given:
            match word:
                case "--model":
                    name = next(given)
                    yield from (word, name if name.startswith(OURS) else "shapes-tiny")
                case "--pretrained":
                    next(given)
                case "--llm-base-url":
                    next(given)
                    yield from (word, self.llm)
                case "--llm" if (name := next(given)).startswith("openai:"):
                    yield from (word, name, "--llm-base-url", self.llm, "--llm-set", "price=1,1")
                case "--llm":
                    yield from (word, name)
                case _:
                    yield word

    def _expanded(self, word: str) -> list[str]:
        if word == "RUN":
            return [
                str(max((self.folder / "runs").iterdir(), key=lambda one: one.stat().st_mtime_ns))
            ]
        if "*" in word and "=" not in word:
            return sorted(map(str, Path().glob(word)))
        return [word]

    def _runs(self) -> set[Path]:
        return set((self.folder / "runs").glob("[!.]*"))

    def _newest(self) -> Path:
        return max(self._runs(), key=lambda one: one.stat().st_mtime_ns)

    def _serve(self, options: list[str]) -> str:
        """A server of shapes-tiny, on a port of its own, of what the options let out."""
        given = dict(zip(options[::2], options[1::2], strict=True))
        keys = given.get("--keys")
        url = self.enter_context(
            serving(
                OpenClipBlackBox("shapes-tiny"),
                Access[given.get("--access", "soft").upper()],
                keys=Keys(self.folder / keys) if keys else None,
                protection=Protection(int(given.get("--round", 9)), int(given.get("--top-k", 99))),
            )
        )
        self.addresses.setdefault("http://127.0.0.1:8017", url)
        return ""

    def _here(self, text: str) -> str:
        """What a page says, with the addresses and the run that are here."""
        for said, holds in self.addresses.items():
            text = text.replace(said, holds)
        return text.replace('"RUN"', f'"{self._newest()}"') if '"RUN"' in text else text


def commands(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def _exchanges(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.replace("\\\n", " ").partition("\n")
        yield command, printed.splitlines()


def _alike(wanted: list[str], found: str) -> bool:
    """Whether a text has these lines, but for times and what a line ``…`` leaves out."""
    lines = [".*" if line.strip() == "…" else re.escape(steady(line)) for line in wanted]
    pattern = "\n".join(lines).replace("\n.*\n", "\n(?:.*\n)?").replace(".*", "(?:.*)")
    return re.fullmatch(pattern, steady(found).strip("\n"), re.DOTALL) is not None


def steady(text: str) -> str:
    """A text without what differs from time to time."""
    for pattern, name in UNSTEADY:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _can_be_installed(words: list[str]) -> str:
    """The extras that are named are those of the package."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        if extras := re.fullmatch(r"llmopt\[(.+)\]", word):
            assert set(extras[1].split(",")) <= project["optional-dependencies"].keys(), word
    return ""

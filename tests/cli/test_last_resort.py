"""No answer of the command is a traceback, whatever goes wrong, and nothing outside text can do."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, done, run
from fakes import write_folder
from worlds import COMMAND, llmopt

from llmopt.errors import ConfigError
from llmopt.screen import printable

pytestmark = pytest.mark.usefixtures("shared_cache")

CHAT = (
    "run", "--llm", "builtin", "--set", "probes=0", "--set", "restarts=1", "--set", "iterations=1",
)  # fmt: skip
ZERO = ("run", "--optimizer", "zeroshot")
SOFT = (
    "run", "--optimizer", "craft", "--set", "budget=24", "--set", "dim=8", "--set", "population=4",
    "--set", "head=none",
)  # fmt: skip
SECRET = "sk-abcdefghijklmnop"


class Odd(Exception):
    """Nobody has foreseen it."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def break_at(patch: pytest.MonkeyPatch, place: str, error: BaseException) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error

    patch.setattr(place, broken)


@pytest.mark.parametrize(
    ("place", "arguments", "in_run"),
    [
        ("llmopt.runs.compose.open_dataset", ZERO, False),
        ("llmopt.runs.compose.optimizer_of", ZERO, False),
        ("llmopt.vision.openclip.OpenClipBlackBox.__init__", ZERO, False),
        ("llmopt.runs.folder.create", ZERO, False),
        ("llmopt.spend.journal.Journal.pay", CHAT, True),
        ("llmopt.language.metered.MeteredChat.ask", CHAT, True),
        ("llmopt.vision.metered.MeteredBox.score_templates", ZERO, True),
        ("llmopt.spend.checkpoint.Checkpoints.save", SOFT, True),
        ("llmopt.runs.engine.measure", ZERO, True),
        ("llmopt.runs.result.build", ZERO, True),
        ("llmopt.cli.show.print_result", ZERO, False),
        ("llmopt.doctor.examine", ("doctor",), False),
        ("llmopt.data.overview.overview", ("datasets", "list"), False),
        ("llmopt.cli.app.load", ("runs",), False),
    ],
)
def test_a_fault_is_a_line_and_a_file(place: str, arguments: tuple[str, ...], in_run: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, place, Odd(f"key {SECRET}"))
        ended = run(*arguments)
    check_fault(ended, "Odd")
    found = re.search(
        r"the trace, without secrets, is in (\S+error-([0-9a-f]{8})\.txt):", ended.err
    )
    assert found is not None, ended.err
    assert f"(error {found[2]})" in ended.err
    trace = Path(found[1]).read_text()
    assert trace.startswith("Traceback")
    assert "Odd: key [secret]" in trace
    assert SECRET not in trace
    assert (Path(found[1]).parent.parent.name == "runs") == in_run
    assert ("go on with 'llmopt resume" in ended.err) == in_run


def check_fault(ended: Done, name: str) -> None:
    assert ended.code == 70, ended
    assert "Traceback" not in ended.err + ended.out
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: llmopt has a fault: {name} (error ")
    assert lines[0].endswith("please report it")


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), KeyError("\x1b[2J\ud800")]
)
def test_faults_of_every_kind(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    break_at(monkeypatch, "llmopt.doctor.examine", error)
    ended = run("doctor")
    check_fault(ended, type(error).__name__)
    assert "\x1b" not in ended.err


def test_a_trace_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMOPT_CACHE", str(tmp_path / "file"))
    break_at(monkeypatch, "llmopt.doctor.examine", Odd())
    ended = run("doctor")
    check_fault(ended, "Odd")
    assert "could not be written" in ended.err


@pytest.mark.parametrize("name", ["checkpoint", "predictor", "test_predictions", "result"])
def test_a_disk_that_runs_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    with monkeypatch.context() as patch:
        plain = Path.write_bytes

        def full(self: Path, content: bytes) -> int:
            if self.name.startswith(f".{name}."):
                plain(self, content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return plain(self, content)

        patch.setattr(Path, "write_bytes", full)
        ended = run(*(SOFT if name == "checkpoint" else ZERO), "--quiet")
    assert ended.code == 2, ended
    assert "No space left on device; nothing written before is lost" in ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists()
    assert not list(folder.glob(".*.tmp"))
    assert done("resume", folder, "--json").json["status"] == "complete"


def test_a_run_folder_that_is_moved_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from llmopt.spend.checkpoint import Checkpoints

    plain = Checkpoints.save

    def moved(self: Checkpoints, *args: Any) -> None:
        if self.path.parent.exists():
            self.path.parent.rename(tmp_path / "elsewhere")
        plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", moved)
        ended = run(*SOFT, "--quiet")
    assert ended.code == 2, ended
    assert "was the folder moved away? Put it back, or 'llmopt resume' it where it" in ended.err
    assert done("resume", tmp_path / "elsewhere", "--json").json["status"] == "complete"


@pytest.mark.long
def test_a_full_output_is_told(tmp_path: Path) -> None:
    for words in (["run", "--optimizer", "zeroshot", "--quiet"], ["optimizers", "list", "--json"]):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
            )
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: cannot write the output: No space left on device")
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1


def test_a_full_screen_ends_no_run(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "run", "--optimizer", "zeroshot", "--json", "--runs", "r"],
            stderr=full,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
    assert json.loads(ended.stdout)["status"] == "complete"
    assert ended.returncode == 0


def test_ctrl_c_at_once_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        def find_spec(self, name: str, *args: Any) -> None:
            if name == "typer":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "typer")
    monkeypatch.setattr(sys, "meta_path", [Pressed(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "llmopt.cli.app")
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("llmopt.cli.app")
    assert stop.value.code == 130


@pytest.mark.parametrize("error", [ConfigError("a shape is odd"), ValueError("a shape is odd")])
def test_an_interrupt_that_a_library_turned_into_an_error_is_still_one(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def loading(*args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("llmopt.runs.compose.open_dataset", loading)
    try:
        ended = run(*ZERO)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (ended.code, ended.err.splitlines()[-1]) == (130, "interrupted")


# --- outside text --------------------------------------------------------------------------------


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert printable("a\x1b[31mb\x07\x9b\x7f\r\u202ec\u2066\ud800") == "a\ufffd[31mb" + (
        "\ufffd" * 5 + "c" + "\ufffd" * 2
    )
    kept = "tab\tline\nümlaut 字 \u200d\U0001f468\u200d\U0001f469 :dog: [bold]"
    assert printable(kept) == kept


NAME = "x\x1b[31m\u202eevil :dog: [red]"


def test_names_from_outside_are_shown_as_they_are(tmp_path: Path) -> None:
    from llmopt.testing.world import pictures

    for split in ("train", "test"):
        for number, (image, _) in enumerate(pictures(split, 1)):
            folder = tmp_path / "d" / split / (NAME if number % 2 else "cat")
            folder.mkdir(parents=True, exist_ok=True)
            image.load().save(folder / f"{number}.png")
    for command in (["datasets", "show"], ["datasets", "check"]):
        ended = run(*command, "folder:d")
        assert not set("\x1b\u202e") & set(ended.out + ended.err)
    assert "evil :dog: [red]" in run("datasets", "show", "folder:d").out
    told = done("datasets", "show", "folder:d", "--json")
    assert not set("\x1b\u202e") & set(told.out)
    assert any(name.endswith("evil :dog: [red]") for name in told.json["class names"])
    assert "\x1b" not in run("run", "--dataset", "folder:\x1b[31m").err


def test_titles_take_no_emoji(tmp_path: Path) -> None:
    write_folder(tmp_path / ":dog:")
    out = done(*ZERO, "--dataset", "folder::dog:", "--model", "shapes-tiny", "--shots", "1").out
    assert "folder::dog:, 1-shot" in out


@pytest.mark.long
def test_any_encoding_of_the_terminal_will_do(tmp_path: Path) -> None:
    ended = llmopt("run", "--template", "ein größeres {}", *ZERO[1:], cwd=tmp_path,
                   PYTHONIOENCODING="ascii")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "ein gr\\xf6\\xdferes {}" in ended.stdout

"""The command as a process of its own: streams, signals, pipes, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import done, refused
from result_schema import RESULT, check
from worlds import COMMAND, llmopt, settled

pytestmark = pytest.mark.usefixtures("shared_cache")

# A form that asks as often as it is told to.
LONG = (
    "run", "--llm=builtin", "--set=profile=paper", "--set=restarts=2", "--set=resets=1",
    "--set=iterations=6", "--set=pool=9", "--set=k=3",
)  # fmt: skip
PATIENCE = 300.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, encoded: Path) -> Any:
    """The result of ``LONG``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPT_CACHE", str(encoded))
        return done(*LONG, "--json", cwd=tmp_path_factory.mktemp("whole")).json


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """The command running, its streams as pipes of lines."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """The lines of standard error up to the first that matches."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"ended without {pattern!r}: {said}")


def result(root: Path) -> dict[str, Any]:
    (path,) = root.glob("runs/*/result.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_result_alone_is_on_stdout(tmp_path: Path) -> None:
    ended = llmopt("run", "--optimizer", "zeroshot", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    check(found, RESULT)
    assert found == result(tmp_path)
    assert ended.stderr == ""


def test_a_mistake_is_one_line_on_stderr(tmp_path: Path) -> None:
    ended = llmopt("run", "--optimizer", "chatt", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: unknown optimizer 'chatt'; did you mean 'chat'?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_ctrl_c_and_resume(tmp_path: Path, undisturbed: Any, number: signal.Signals) -> None:
    process = start(*LONG, "-v", cwd=tmp_path)
    read_until(process, r"^\[1/12\] ")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "interrupted: finishing with the best so far" in err
    assert "Traceback" not in err
    assert "interrupted; go on with: llmopt resume runs/" in out
    found = result(tmp_path)
    assert (found["status"], found["stop_reason"]) == ("interrupted", "interrupted")
    assert found["best"]["templates"]
    assert found["best"]["test_accuracy"] is None
    (listed,) = done("runs", "--json", cwd=tmp_path).json
    assert listed["status"] == "interrupted"
    warned = f"warning: run {listed['folder']} was interrupted, and this is its best so far"
    assert warned in done("export", listed["folder"], cwd=tmp_path).err
    assert warned in done("evaluate", listed["folder"], cwd=tmp_path).err

    resumed = done("resume", listed["folder"], "--json", cwd=tmp_path)
    assert resumed.err == ""
    assert resumed.json["status"] == "complete"
    assert settled(resumed.json) == settled(undisturbed)
    assert result(tmp_path) == resumed.json


@pytest.mark.parametrize("repeats", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_kill_9_and_resume(tmp_path: Path, undisturbed: Any, repeats: int) -> None:
    process = start(*LONG, "-v", cwd=tmp_path)
    for turn in range(repeats):
        read_until(process, rf"^\[{1 + 2 * turn}/12\] ")
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
        (folder,) = (tmp_path / "runs").iterdir()
        assert not (folder / "result.json").exists()
        process = start("resume", folder, "-v", cwd=tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "warning" not in err
    assert settled(result(tmp_path)) == settled(undisturbed)
    assert result(tmp_path)["ledger"]["llm_calls_lost"] <= repeats
    assert "gain on test" in out


@pytest.mark.parametrize(
    ("number", "stage", "said"),
    [
        (signal.SIGINT, "loading", "interrupted"),
        (signal.SIGTERM, "measuring", "interrupted; go on with 'llmo"),
        pytest.param(signal.SIGTERM, "loading", "interrupted", marks=pytest.mark.slow),
        pytest.param(
            signal.SIGINT, "measuring", "interrupted; go on with 'llmo", marks=pytest.mark.slow
        ),
    ],
)
def test_interruptions_outside_of_the_search_are_told(
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    stage: str,
    said: str,
) -> None:
    monkeypatch.setenv("LLMOPT_CACHE", str(cache_dir))  # empty, so that measuring takes a while
    process = start("run", "--optimizer=zeroshot", "-v", cwd=tmp_path)
    read_until(process, rf"^{stage} ")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.startswith(said)


def test_a_resumed_run_has_no_result_until_it_ends(tmp_path: Path) -> None:
    process = start(*LONG, "-v", cwd=tmp_path)
    read_until(process, r"^\[1/12\] ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "result.json").exists()
    process = start("resume", folder, "-v", cwd=tmp_path)
    read_until(process, r"^\[3/12\] ")
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert "is not finished; go on with" in refused("export", folder, cwd=tmp_path)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    command = " ".join(["models", "list", "--json"])
    ended = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {command} | head -n 1', sys.executable, COMMAND[-1]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ended.stdout == "[\n"
    assert "Traceback" not in ended.stderr


def test_a_terminal_sees_a_panel(tmp_path: Path) -> None:
    screen, inside = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [*COMMAND, "run", "--llm=builtin", "--shots=2", "--set=probes=0", "--set=proposals=2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=inside,
    )
    os.close(inside)
    shown = b""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        ready, _, _ = select.select([screen], [], [], 0.5)
        if ready:
            try:
                piece = os.read(screen, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        elif process.poll() is not None:
            break
    os.close(screen)
    assert process.stdout is not None
    with process.stdout as stdout:
        out = stdout.read().decode()
    assert process.wait(timeout=PATIENCE) == 0
    text = shown.decode(errors="replace")
    assert "\x1b[" in text
    for part in ("llmopt", "best", "train", "val", "queries", "LLM calls", "2 conversations"):
        assert part in text
    assert "\x1b" not in out
    assert re.search(r"\d+ proposals in \d+ calls of builtin", out)

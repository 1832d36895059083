"""Servers of language models that a run meets, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Done, done, run
from hostile_server import HostileServer

SMALL = ("--set", "probes=0", "--set", "restarts=1", "--set", "iterations=2", "--set", "pool=2")


def ask(server: HostileServer, folder: Path, *more: object) -> Done:
    options = ("--llm", "openai:x", "--llm-base-url", server.url, "--runs", folder)
    return run("run", *SMALL, *options, *more)


@pytest.mark.parametrize("act", ["too long elsewhere", "small context vllm"])
def test_a_context_that_is_too_small_for_everything(act: str, tmp_path: Path) -> None:
    with HostileServer([act] * 9) as server:
        ended = ask(server, tmp_path)
    assert ended.code == 4
    assert "convincingly" not in ended.out + ended.err
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "the conversation is too long for the model, HTTP 400" in error
    assert "nothing of it was tried: serve the model with a longer context" in error
    assert "llmopt resume" not in ended.err


def test_a_context_that_is_too_small_for_long_replies(tmp_path: Path) -> None:
    with HostileServer(["small context half"] * 9) as server:
        server.context = 4_000
        ended = ask(server, tmp_path, "--json")
    assert ended.code == 0
    (note,) = ended.json["optimizer"]["notes"]
    assert note == "openai:x has no room for replies of 4096 tokens: asking for at most 2048"


def test_nothing_but_the_start_was_tried() -> None:
    told = done("run", "--llm", "builtin", "--max-queries", "12").out
    assert "Nothing else was tried, so the start was kept." in told


@pytest.mark.parametrize("act", ["dear", "megabyte"])
def test_a_service_that_takes_more_than_its_bound(act: str, tmp_path: Path) -> None:
    with HostileServer(["ok", act]) as server:
        options = ("--llm-set", "price=1,1000", "--max-usd", "5", "--set", "iterations=1")
        ended = ask(server, tmp_path, *options, "--set", "restarts=2")
        assert server.requests == 2
        again = ask(server, tmp_path, *options, "--set", "restarts=2", "--json")
    assert ended.code == 0
    assert "warning: openai:x broke its bound" in ended.err
    assert "cap broken by the service" in ended.out
    (folder, _) = sorted(tmp_path.iterdir())
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["stop_reason"] == "cap broken by the service"
    assert result["optimizer"]["notes"][0] in ended.err
    assert result["ledger"]["llm_usd"] > 5
    assert result["best"]["test_accuracy"] is not None
    # What was broken off is in no cache: another run asks.
    assert again.json["stop_reason"] == "iterations"

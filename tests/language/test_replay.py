"""A journal replayed: the same course offline, failures and losses included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from scripted import Scripted, answer

from llmopt.errors import (
    AuthenticationFailed,
    ConfigError,
    ContentRefused,
    ContextOverflow,
    LlmoptError,
    RateLimited,
    ServiceUnavailable,
)
from llmopt.language.llm import Llm, choose_llm
from llmopt.language.metered import MeteredChat, open_metered
from llmopt.language.providers import open_chat
from llmopt.language.settings import LlmSettings
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger

COUNTS = ("llm_calls", "llm_tokens_in", "llm_tokens_out")


@pytest.fixture
def journals() -> Iterator[list[Journal]]:
    opened: list[Journal] = []
    yield opened
    for journal in opened:
        journal.close()


def recorded(path: Path, journals: list[Journal], script: list[Any]) -> MeteredChat:
    journals.append(Journal(path))
    return MeteredChat(
        Llm("test:scripted", settings=LlmSettings(first_pause=0.0), model=Scripted(script=script)),
        Ledger(),
        journals[-1],
    )


def replayed(run: Path, path: Path, journals: list[Journal]) -> MeteredChat:
    journals.append(Journal(path))
    return open_metered(choose_llm(f"replay:{run}"), 1, Ledger(), journals[-1])


def course(chat: MeteredChat) -> list[str]:
    """Replies and refusals of two conversations."""
    said = []
    for stream in ("a", "b"):
        for turn in range(3):
            try:
                said.append(chat.ask([HumanMessage(f"turn {turn}")], stream=stream, turn=turn).text)
            except LlmoptError as error:
                said.append(type(error).__name__)
    return said


def counts(chat: MeteredChat) -> dict[str, float]:
    return {name: chat._ledger[name] for name in COUNTS}


def test_same_replies_same_failures_same_counts(tmp_path: Path, journals: list[Journal]) -> None:
    script = [
        RateLimited("wait", retry_after=0.01),
        "- one {}",
        ContextOverflow("too long"),
        answer("", finish_reason="content_filter"),
        answer(""),
        "- four {}",
        ServiceUnavailable("down"),
        "- five {}",
        ContentRefused("no"),
    ]
    chat = recorded(tmp_path / "journal.jsonl", journals, script)
    first = course(chat)
    assert first == [
        "- one {}",
        "ContextOverflow",
        "ContentRefused",
        "- four {}",
        "- five {}",
        "ContentRefused",
    ]
    for number, run in enumerate([tmp_path / "journal.jsonl", tmp_path]):
        again = replayed(run, tmp_path / f"again{number}.jsonl", journals)
        assert course(again) == first
        assert counts(again) == counts(chat)
        assert again._ledger["llm_usd"] == 0
    # Also when the replay is itself interrupted and resumed.
    resumed = replayed(tmp_path, tmp_path / "again0.jsonl", journals)
    assert course(resumed) == first
    assert counts(resumed) == counts(chat)


def test_a_run_that_was_mended_and_resumed(tmp_path: Path, journals: list[Journal]) -> None:
    path = tmp_path / "journal.jsonl"
    with pytest.raises(AuthenticationFailed):
        recorded(path, journals, [AuthenticationFailed("bad key")]).ask([HumanMessage("x")])
    mended = recorded(path, journals, ["- fine {}"])
    mended.ask([HumanMessage("x")])
    again = replayed(path, tmp_path / "again.jsonl", journals)
    assert again.ask([HumanMessage("x")]).text == "- fine {}"
    assert counts(again) == counts(mended)


def test_what_was_never_asked(tmp_path: Path, journals: list[Journal]) -> None:
    chat = recorded(tmp_path / "journal.jsonl", journals, ["- one {}"])
    chat.ask([HumanMessage("x")])
    again = replayed(tmp_path, tmp_path / "again.jsonl", journals)
    with pytest.raises(ConfigError, match="never asked this"):
        again.ask([HumanMessage("y")])


def test_by_itself_it_answers_by_the_messages(tmp_path: Path, journals: list[Journal]) -> None:
    recorded(tmp_path / "journal.jsonl", journals, ["- one {}"]).ask([HumanMessage("x")])
    model = open_chat(f"replay:{tmp_path}")
    assert model.invoke("x").content == "- one {}"


def test_no_journal_no_replies(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no journal"):
        open_chat(f"replay:{tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match="there is no journal"):  # before a folder is made
        choose_llm(f"replay:{tmp_path / 'nothing'}").check()
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds no reply"):
        open_chat(f"replay:{tmp_path}")

"""What every chat model must do behind the meter. A new one passes by a line in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import NAMES, scripted
from langchain_core.messages import AIMessage, HumanMessage

from llmopt.errors import BudgetExhausted
from llmopt.language import wire
from llmopt.language.builtin import BuiltinRewriter
from llmopt.language.llm import Llm
from llmopt.language.metered import MeteredChat
from llmopt.language.replay import open_replay
from llmopt.language.settings import LlmSettings
from llmopt.search.text.conversation import Conversation, Lists
from llmopt.search.text.replies import parse_reply
from llmopt.spend.journal import Journal, read_journal
from llmopt.spend.ledger import Caps, Ledger

QUICK = LlmSettings(attempts=2, first_pause=0.0)


def question(count: int = 3) -> list[Any]:
    return list(Conversation(NAMES).turn(Lists([]), count))


def replay(tmp_path: Path) -> Any:
    """What the rewriter was once asked and answered."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    with Journal(folder / "journal.jsonl") as journal:
        chat = MeteredChat(Llm("builtin"), Ledger(), journal)
        for turn in range(3):
            chat.ask(question(), turn=turn)
        chat.ask([HumanMessage("Write 2 templates.")])
    return open_replay(str(folder))


MODELS: dict[str, Callable[[Path], Any]] = {
    "builtin": lambda tmp_path: BuiltinRewriter(seed=1),
    "replay": replay,
    "scripted": lambda tmp_path: scripted(then="- a small {}.\n- a tiny {}."),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MODELS[request.param](tmp_path)


class Sitting:
    """The model behind the meter, in a process's hold on the run."""

    def __init__(self, folder: Path, model: Any, caps: Caps | None = None) -> None:
        self.path = folder / "journal.jsonl"
        self.journal = Journal(self.path)
        self.ledger = Ledger(caps)
        llm = Llm("test:model", settings=QUICK, model=model)
        self.chat = MeteredChat(llm, self.ledger, self.journal)

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.journal.close()

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [r["data"] for r in read_journal(self.path) if r["kind"] == kind]


def test_it_answers_with_text_and_a_count_of_tokens(model: Any) -> None:
    answer = model.invoke([HumanMessage("Write 2 templates.")])
    assert isinstance(answer, AIMessage)
    assert parse_reply(str(answer.text), NAMES).templates
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 0
    assert answer.usage_metadata["output_tokens"] > 0


def test_each_question_is_one_call_journaled_before_it_is_used(tmp_path: Path, model: Any) -> None:
    with Sitting(tmp_path, model) as s:
        replies = [s.chat.ask(question(), turn=turn) for turn in range(3)]
        assert s.ledger["llm_calls"] == 3
        assert s.ledger["llm_tokens_in"] == sum(r.tokens_in for r in replies) > 0
        assert s.ledger["llm_tokens_out"] == sum(r.tokens_out for r in replies) > 0
        assert [r["text"] for r in s.records("llm_reply")] == [r.text for r in replies]
        assert len(s.records("llm_intent")) == 3
        for reply in replies:
            assert parse_reply(reply.text, NAMES).templates
            assert not reply.estimated
            assert reply.finish_reason == "stop"


def test_a_resumed_run_finds_every_reply_and_pays_for_none(tmp_path: Path, model: Any) -> None:
    with Sitting(tmp_path, model) as s:
        replies = [s.chat.ask(question(), turn=turn) for turn in range(3)]
        spent = s.ledger.snapshot()
        lines = s.path.read_bytes()

    dead = scripted(then=AssertionError("asked again"))
    with Sitting(tmp_path, dead) as s:
        s.chat._parameters = wire.parameters(model)  # it claims to be the same model
        again = [s.chat.ask(question(), turn=turn) for turn in range(3)]
        assert again == replies
        assert s.ledger.snapshot() == spent
        assert s.path.read_bytes() == lines
    assert not dead.heard


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_cap_stops_before_the_call(tmp_path: Path, model: Any, calls: int) -> None:
    with Sitting(tmp_path, model, Caps(llm_calls=calls)) as s:
        for turn in range(calls):
            s.chat.ask(question(), turn=turn)
        with pytest.raises(BudgetExhausted, match=f"{calls} llm calls"):
            s.chat.ask(question(), turn=calls)
        assert s.ledger["llm_calls"] == calls
        assert len(s.records("llm_intent")) == calls


def test_a_stopped_run_asks_nothing(tmp_path: Path, model: Any) -> None:
    with Sitting(tmp_path, model) as s:
        s.ledger.stop()
        with pytest.raises(BudgetExhausted, match="interrupted"):
            s.chat.ask(question())
        assert s.path.read_bytes() == b""

"""What every chat model must do behind the meter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from llmopt.errors import BudgetExhausted
from llmopt.resources import read_prompt
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN
from llmopt.testing.world import Stage, make_task, stage


def question(count: int = 3) -> list[Any]:
    """Messages that ask for templates, as ``chat`` does."""
    asked = f"- {PLAIN} (score -0.73, accuracy 41.7%)\n\nWrite {count} new templates."
    return [SystemMessage(read_prompt("meta/system.txt")), HumanMessage(asked)]


@contextmanager
def sitting(folder: Path, model: Any, caps: Caps | None = None) -> Iterator[tuple[Any, Stage]]:
    """The model behind the meter, and the run it belongs to."""
    with stage(folder, make_task(), chat=model, caps=caps) as s:
        yield s.search.chat, s


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the journal holds of a kind."""
    return [r["data"] for r in read_journal(folder / "journal.jsonl") if r["kind"] == kind]


class ChatModelContract:
    """Give it the fixture ``model``, a LangChain chat model that answers three questions."""

    @pytest.fixture
    def model(self) -> Any:
        """The chat model."""
        raise NotImplementedError("override the fixture 'model'")

    def test_it_answers_with_text_and_a_count_of_tokens(self, model: Any) -> None:
        """Without a count, caps on tokens and money could only be kept by estimates."""
        answer = model.invoke([HumanMessage("Write 2 templates.")])
        assert isinstance(answer, AIMessage)
        assert str(answer.text)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_tokens"] > 0
        assert answer.usage_metadata["output_tokens"] > 0

    def test_each_question_is_one_call_and_a_resumed_run_pays_for_none(
        self, tmp_path: Path, model: Any
    ) -> None:
        """A call is journaled before it is made, its reply before it is used."""
        with sitting(tmp_path, model) as (chat, s):
            replies = [chat.ask(question(), turn=turn) for turn in range(3)]
            assert s.ledger["llm_calls"] == len(records(tmp_path, "llm_intent")) == 3
            assert s.ledger["llm_tokens_in"] == sum(r.tokens_in for r in replies) > 0
            assert s.ledger["llm_tokens_out"] == sum(r.tokens_out for r in replies) > 0
            assert [r["text"] for r in records(tmp_path, "llm_reply")] == [r.text for r in replies]
            assert not any(reply.estimated for reply in replies)
            spent, lines = s.ledger.snapshot(), (tmp_path / "journal.jsonl").read_bytes()
        with sitting(tmp_path, model) as (chat, s):
            assert [chat.ask(question(), turn=turn) for turn in range(3)] == replies
            assert s.ledger.snapshot() == spent
            assert (tmp_path / "journal.jsonl").read_bytes() == lines

    @pytest.mark.parametrize("calls", [0, 2])
    def test_a_cap_stops_before_the_call(self, tmp_path: Path, model: Any, calls: int) -> None:
        """Not one call too many is made."""
        with sitting(tmp_path, model, Caps(llm_calls=calls)) as (chat, s):
            for turn in range(calls):
                chat.ask(question(), turn=turn)
            with pytest.raises(BudgetExhausted, match=f"{calls} llm calls"):
                chat.ask(question(), turn=calls)
            assert s.ledger["llm_calls"] == len(records(tmp_path, "llm_intent")) == calls

    def test_a_stopped_run_asks_nothing(self, tmp_path: Path, model: Any) -> None:
        """Nothing is journaled either."""
        with sitting(tmp_path, model) as (chat, s):
            s.ledger.stop()
            with pytest.raises(BudgetExhausted, match="interrupted"):
                chat.ask(question())
            assert (tmp_path / "journal.jsonl").read_bytes() == b""

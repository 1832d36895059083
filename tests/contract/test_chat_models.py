"""Every chat model passes the contract. A new one does by a line in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import scripted
from langchain_core.messages import HumanMessage

from llmopt.language.builtin import BuiltinRewriter
from llmopt.language.llm import Llm
from llmopt.language.metered import MeteredChat
from llmopt.language.replay import open_replay
from llmopt.search.text.replies import parse_reply
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger
from llmopt.testing import ChatModelContract
from llmopt.testing.chat import question
from llmopt.testing.world import NAMES


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


class TestChatModels(ChatModelContract):
    @pytest.fixture(params=list(MODELS))
    def model(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        return MODELS[request.param](tmp_path)

    def test_its_answers_hold_templates(self, model: Any) -> None:
        for messages in (question(), [HumanMessage("Write 2 templates.")]):
            assert parse_reply(str(model.invoke(messages).text), NAMES).templates

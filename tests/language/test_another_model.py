"""A run that goes on with another language model keeps what the one before was paid for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_server import HostileServer
from test_hostile import SETTINGS, converse

from llmopt.language.llm import Llm
from llmopt.language.metered import MeteredChat
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger


def talk(model: str, server: HostileServer, path: Path, turns: int):
    ledger, journal = Ledger(), Journal(path)
    with MeteredChat(Llm(model, server.url, SETTINGS), ledger, journal) as chat, journal:
        course = converse(chat, turns)
    assert course.ended_by is None
    return [reply.text for reply in course.replies], ledger.snapshot(), chat.remarks


@pytest.mark.parametrize("script", [[], ["ok", "too long"], ["ok", "filtered"], ["429"]])
def test_no_reply_is_paid_twice(tmp_path: Path, script: list[str]) -> None:
    path = tmp_path / "journal.jsonl"
    with HostileServer(script) as server:
        before, spent, none = talk("openai:one", server, path, 3)
        asked = server.requests
        after, more, remarks = talk("openai:two", server, path, 5)
        assert after[: len(before)] == before
        assert server.requests == asked + 2
        assert [seen["model"] for seen in server.seen[asked:]] == ["two", "two"]
        assert more["llm_calls"] == spent["llm_calls"] + 2
        assert none == []
        assert "earlier sittings of this run asked openai:one" in remarks[0]
        # And once more with a third, which finds the replies of both.
        assert talk("openai:three", server, path, 5)[0] == after
        assert server.requests == asked + 2


def test_what_one_model_refuses_another_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with HostileServer(["no seed"]) as server:
        talk("openai:one", server, path, 2)
        assert "seed" not in server.seen[-1]
        talk("openai:two", server, path, 3)
        assert server.seen[-1]["seed"] == 3


def test_a_price_that_is_not_known_stays_unknown(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with HostileServer() as server:
        for model, known in (("openai:nobody-knows", False), ("builtin", False)):
            ledger, journal = Ledger(), Journal(path)
            url = "" if model == "builtin" else server.url
            with MeteredChat(Llm(model, url), ledger, journal) as chat, journal:
                converse(chat, 1)
            assert ledger.price_known is known

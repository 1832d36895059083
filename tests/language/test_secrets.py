"""No key in anything a conversation writes, shows or raises, whatever the service echoes."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest
from hostile_server import HostileServer
from langchain_core.messages import HumanMessage

from llmopt.errors import LlmoptError
from llmopt.language.llm import choose_llm
from llmopt.language.metered import open_metered
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger

KEY = "correct-horse-battery-staple"
GATEWAY = "gateway-pass-phrase-0123"


class Listening(Watch):
    """Keeps whatever it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)

    warn = note


@pytest.mark.parametrize(
    "script",
    [
        ["401 echo"],
        ["400 echo"],
        ["key in reply", "key in reply"],
        ["429", "hang up", "html", "key in reply"],
        ["no temperature", "content null", "declined"],
    ],
)
def test_nothing_shows_the_key(
    script: list[str],
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_GATEWAY", GATEWAY)
    caplog.set_level(logging.DEBUG)
    watch = Listening()
    shown: list[str] = []
    with HostileServer(script) as server:
        config = RunConfig(
            llm="openai:hostile",
            llm_base_url=server.url,
            llm_settings={
                "key_env": "MY_KEY",
                "headers": "X-Gateway-Token: $MY_GATEWAY; X-Title: test",
                "first_pause": 0.0,
                "attempts": 3,
            },
        )
        shown += [repr(config), config.to_toml()]
        for sitting in range(2):
            journal = Journal(tmp_path / "journal.jsonl")
            ledger = Ledger()
            llm = choose_llm(config.llm, config.llm_base_url, config.llm_settings)
            with open_metered(llm, config.seed, ledger, journal, watch) as chat:
                shown += [repr(chat), str(vars(chat).keys())]
                for turn in range(2):
                    try:
                        reply = chat.ask([HumanMessage(f"{sitting}")], turn=turn)
                        shown += [repr(reply)]
                    except LlmoptError as error:
                        shown += traceback.format_exception(error)
                        shown += [repr(error), repr(vars(error)), repr(error.__cause__)]
            journal.close()
        assert server.authorizations == {f"Bearer {KEY}"}
    shown += watch.heard + [record.getMessage() for record in caplog.records]
    shown += list(capfd.readouterr())
    written = [p.read_bytes() for p in (*tmp_path.rglob("*"), *cache_dir.rglob("*")) if p.is_file()]
    assert written
    for secret in (KEY, GATEWAY):
        assert not [text for text in shown if secret in text]
        assert not [raw for raw in written if secret.encode() in raw]

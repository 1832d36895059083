"""What only our own tests need of the small world: it as files, and a scripted chat model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmopt.testing.world import NAMES, pictures


def write_folder(root: Path, train: int = 6, val: int = 4, test: int = 8) -> Path:
    """The same world as files, for ``folder:PATH``."""
    for split, per_class in (("train", train), ("val", val), ("test", test)):
        for number, (image, label) in enumerate(pictures(split, per_class)):
            folder = root / split / NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            image.load().save(folder / f"{number:04d}.png")
    return root


Answer = Callable[[list[Any]], str]


def scripted(*replies: str | Exception, then: str | Exception | Answer = "") -> Any:
    """A LangChain chat model that gives these replies, then the last one for ever.

    Exceptions are raised. ``then`` may be a function of the messages. What it was asked is in
    ``heard``, a list of lists of messages.
    """
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from pydantic import PrivateAttr

    class ScriptedChat(BaseChatModel):
        _left: list[Any] = PrivateAttr(default_factory=lambda: list(replies))
        _heard: list[list[Any]] = PrivateAttr(default_factory=list)
        _lock: Any = PrivateAttr(default_factory=threading.Lock)

        @property
        def heard(self) -> list[list[Any]]:
            return self._heard

        @property
        def _llm_type(self) -> str:
            return "scripted"

        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
            with self._lock:
                self._heard.append(list(messages))
                reply = self._left.pop(0) if self._left else then
            if isinstance(reply, Exception):
                raise reply
            text = reply if isinstance(reply, str) else reply(messages)
            words = sum(len(str(m.content).split()) for m in messages)
            message = AIMessage(
                text,
                usage_metadata={
                    "input_tokens": words,
                    "output_tokens": len(text.split()),
                    "total_tokens": words + len(text.split()),
                },
                response_metadata={"finish_reason": "stop", "model_name": "scripted"},
            )
            return ChatResult(generations=[ChatGeneration(message=message)])

    return ScriptedChat()

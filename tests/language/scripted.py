"""Chat models for tests. They live outside the package, so they are treated as remote ones."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from patience import HUNG
from pydantic import Field, PrivateAttr, SecretStr


def answer(text: str, **metadata: Any) -> AIMessage:
    """A reply with an honest count of tokens."""
    return AIMessage(
        text,
        usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
        response_metadata={"finish_reason": "stop", "model_name": "fake-1", **metadata},
    )


class Scripted(BaseChatModel):
    """Plays a list of replies and errors, one a call, and counts the calls.

    Beyond the list, the reply depends on the messages alone.
    """

    script: list[Any] = Field(default_factory=list)
    latency: float = 0.0
    together: int = 0  # calls answered only once as many are on their way
    temperature: float | None = None
    api_key: SecretStr | None = None
    _calls: int = PrivateAttr(default=0)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)
    _barrier: Any = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return self._calls

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lock:
            number = self._calls
            self._calls += 1
            if self.together and self._barrier is None:
                self._barrier = threading.Barrier(self.together, timeout=HUNG)
        if self._barrier is not None:
            self._barrier.wait()
        if self.latency:
            time.sleep(self.latency)
        if number < len(self.script):
            act = self.script[number]
        else:
            text = "\0".join(str(m.content) for m in messages)
            act = f"- photo {hashlib.sha256(text.encode()).hexdigest()[:8]} of {{}}"
        if isinstance(act, BaseException):
            raise act
        message = act if isinstance(act, AIMessage) else answer(act)
        return ChatResult(generations=[ChatGeneration(message=message)])

"""``--llm parrot:WORD``: says the same two templates whatever it is asked."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class Parrot(BaseChatModel):
    """A chat model that puts a word before the class name."""

    word: str

    @property
    def _llm_type(self) -> str:
        return "parrot"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        text = f"- a photo of a {self.word} {{}}.\n- the {self.word} {{}}."
        usage = {"input_tokens": sum(len(m.text) for m in messages), "output_tokens": len(text)}
        usage["total_tokens"] = sum(usage.values())
        message = AIMessage(text, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


def open_parrot(model: str, **others: Any) -> Parrot:
    """The model behind ``parrot:WORD``; settings and seed make no difference to it."""
    return Parrot(word=model)

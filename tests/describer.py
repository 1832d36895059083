"""A chat model that knows what classes look like."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field


class Describer(BaseChatModel):
    """Says what it is told to of each class that it is asked for."""

    said: dict[str, list[str]]
    seen: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "describer"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = str(messages[-1].content)
        self.seen.append(text)
        names = [line for line in text.splitlines() if line in self.said]
        lists = [f"**{n}:**\n" + "\n".join(f"- {one}" for one in self.said[n]) for n in names]
        message = AIMessage("Here they are.\n\n" + "\n\n".join(lists))
        return ChatResult(generations=[ChatGeneration(message=message)])

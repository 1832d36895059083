"""What a search can spend on its chat model at most, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.chat.prices import FREE_PROVIDERS, call_bound, price_of
from llmopt.chat.settings import ChatSettings

if TYPE_CHECKING:
    from llmopt.run.config import RunConfig

Row = tuple[str, float | None, float | None]


def chat_bounds(
    config: RunConfig, calls: int, turns: int, turn_bytes: int
) -> tuple[list[Row], list[str]]:
    """Upper bounds beside the caps, and notes.

    Args:
        config: with its model resolved.
        calls: LLM calls at most.
        turns: turns of a conversation whose history is sent along; 1 for single questions.
        turn_bytes: the longest a turn's own text can be; a byte is never more than a token.

    Returns:
        rows of (currency, most, cap) with None for not known and for no cap.
    """
    from langchain_core.messages import HumanMessage

    settings = ChatSettings.from_mapping(config.llm_settings)
    question = call_bound([HumanMessage("x" * turn_bytes)], settings.max_tokens).tokens_in
    # Turn t sends the t turns before it along, with their replies.
    history = (turns - 1) / 2 * (question + settings.max_tokens)
    tokens_in = int(question + history)
    price = price_of(config.llm, settings.price, config.llm_base_url)
    usd = None if price is None else calls * price.bound(tokens_in, settings.max_tokens)
    rows: list[Row] = [
        ("llm_calls", calls, config.max_llm_calls),
        ("llm_tokens", calls * (tokens_in + settings.max_tokens), config.max_tokens),
        ("llm_usd", usd, config.max_usd),
    ]
    if config.llm.split(":")[0] in FREE_PROVIDERS:
        return rows, []
    notes = [
        "Token bounds count a byte as a token and every reply at its full length "
        f"(max_tokens={settings.max_tokens}); the real figure is usually a tenth. "
        "Failed calls and retries count against the caps too."
    ]
    if usd is None:
        notes.append(
            f"The price of '{config.llm}' is not known; give it as --llm-set price=INPUT,OUTPUT."
        )
    elif config.max_usd is not None and usd > config.max_usd:
        notes.append("The cap on money ends the search earlier if it comes to that.")
    return rows, notes

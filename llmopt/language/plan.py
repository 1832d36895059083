"""What a search can spend on its chat model at most, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.language.prices import call_bound
from llmopt.spend.currency import Spend

if TYPE_CHECKING:
    from llmopt.language.llm import Llm
    from llmopt.spend.ledger import Caps


def call_bounds(llm: Llm, turns: int, turn_bytes: int) -> Spend:
    """Tokens and money of a call at most, the mean over a conversation; no money if not known.

    Args:
        llm: what is asked.
        turns: turns of a conversation whose history is sent along; 1 for single questions.
        turn_bytes: the longest a turn's own text can be; a byte is never more than a token.
    """
    from langchain_core.messages import HumanMessage

    reply_tokens = llm.settings.max_tokens
    question = call_bound([HumanMessage("x" * turn_bytes)], reply_tokens).tokens_in
    # Turn t sends the t turns before it along, with their replies.
    history = (turns - 1) / 2 * (question + reply_tokens)
    tokens_in = int(question + history)
    usd = 0.0 if llm.price is None else llm.price.bound(tokens_in, reply_tokens)
    return Spend(llm_tokens_in=tokens_in, llm_tokens_out=reply_tokens, llm_usd=usd)


def chat_bounds(
    llm: Llm, caps: Caps, calls: int, each: Spend
) -> tuple[dict[str, float | None], list[str]]:
    """Upper bounds by the cap they stand beside, and notes.

    Args:
        llm: what is asked.
        caps: of the run.
        calls: LLM calls at most.
        each: what one takes at most.

    Returns:
        bounds, with None where the price is unknown; and what is worth knowing.
    """
    usd = None if llm.price is None else float(calls * each["llm_usd"])
    bounds = {
        "llm_calls": calls,
        "llm_tokens": calls * int(each.under("llm_tokens")),
        "llm_usd": usd,
    }
    if llm.free:
        return bounds, []
    notes = [
        "Token bounds count a byte as a token and every reply at its full length "
        f"(max_tokens={each['llm_tokens_out']:.0f}); the real figure is far lower "
        "('llmopt docs budget'). Failed calls and retries count against the caps too.",
        "A cap on tokens or money is what can be lost: the bound of a call is put aside before it "
        "is sent. If a service reports more than that, its figure is recorded and nothing more is "
        "sent: only the calls then in progress can pass the cap.",
    ]
    if usd is None:
        notes.append(
            f"The price of '{llm.spec}' is not known; give it as --llm-set price=INPUT,OUTPUT."
        )
    elif caps.llm_usd is not None and usd > caps.llm_usd:
        notes.append("The cap on money ends the search earlier if it comes to that.")
    return bounds, notes

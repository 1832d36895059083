"""What can be spent."""

from __future__ import annotations

LEDGER_LABELS = {
    "labelled_images": "labelled images",
    "image_encodings": "image encodings",
    "text_encodings": "text encodings",
    "soft_prompt_encodings": "soft-prompt encodings",
    "pairs_scored": "pairs scored",
    "black_box_calls": "black-box calls",
    "cache_hits": "cache hits",
    "llm_calls": "LLM calls",
    "llm_calls_lost": "LLM calls lost",
    "llm_tokens_in": "LLM tokens in",
    "llm_tokens_out": "LLM tokens out",
    "llm_usd": "LLM cost",
}

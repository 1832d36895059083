"""What services say when prompt and reply do not fit, and what is asked for then."""

from __future__ import annotations

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.language.room import LEAST, for_reply

TOO_LONG = "This model's maximum context length is 2048 tokens"


@pytest.mark.parametrize(
    ("words", "room"),
    [
        (
            f"{TOO_LONG}. However, you requested 5000 tokens (904 in the messages, 4096 in the "
            "completion). Please reduce the length of the messages or completion.",
            1144,
        ),
        (f"{TOO_LONG}, however you requested 5,000 tokens (904 in your prompt; 4096 for …)", 1144),
        (f"{TOO_LONG} and your request has 904 input tokens (4096 > 2048 - 904).", 1144),
        (
            f"{TOO_LONG}. However, you requested 4096 output tokens and your prompt contains at "
            "least 904 input tokens, for a total of at least 5000 tokens.",
            1144,
        ),
        (
            "Requested token count exceeds the model's maximum context length of 2048 tokens. You "
            "requested a total of 5000 tokens: 904 tokens from the input messages and 4096 tokens "
            "for the completion.",
            1144,
        ),
        ("`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 904 `inputs` tokens …", 1144),
        ("input length and `max_tokens` exceed context limit: 904 + 4096 > 2048, decrease", 1144),
        ("max_tokens is too large: 4096. This model supports at most 1024 completion", 1024),
        ("max_tokens: 4096 > 1024, which is the maximum allowed number of output tokens", 1024),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 1024]", 1024),
        ("`max_tokens` must be less than or equal to `1024`, the maximum value for", 1024),
        ("a maxOutputTokens value of 4096 but the supported range is from 1 (inclusive) to 1025 "
         "(exclusive)", 1024),
        ("max_tokens is too large for this model", 2048),
        ("reduce max_tokens", 2048),
        # No reply would be short enough, or it is not about that.
        ("request (9412 tokens) exceeds the available context size (8192 tokens)", None),
        (f"{TOO_LONG} and your request has 2000 input tokens (4096 > 2048 - 2000).", None),
        (f"{TOO_LONG}. However, your messages resulted in 9001 tokens.", None),
        ("max_tokens: 100 > 8192", None),
        ("the input length exceeds the context length", None),
        ("unsupported parameter: max_tokens", None),
        ("the server is busy", None),
    ],
)  # fmt: skip
def test_room(words: str, room: int | None) -> None:
    assert for_reply(words, 4096) == room


_WORDS = st.sampled_from(
    ["maximum context length is ", "max_tokens", " tokens ", "(", "4096", "9" * 5000, " > ", "1,0",
     " in the messages", "too large", "is [1, ", "]", "requested ", "exceed ", "٣", "must be <= "]
)  # fmt: skip


@fuzz(words=st.lists(_WORDS | st.text(max_size=5), max_size=60), asked=st.integers(1, 10**6))
def test_any_words(words: list[str], asked: int) -> None:
    room = for_reply("".join(words), asked)
    assert room is None or LEAST <= room < asked

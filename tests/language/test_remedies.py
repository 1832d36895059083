"""Refusals of the form of a question: told from others, and mended."""

from __future__ import annotations

import itertools

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from test_failures import HttpError, Response, http_error

from llmopt.language import remedies

SYSTEM = remedies.SYSTEM_ROLE


@pytest.mark.parametrize(
    ("status", "message", "name"),
    [
        (400, "Unsupported value: 'temperature' does not support 0.7", "temperature"),
        (400, "`temperature` is deprecated for this model.", "temperature"),
        (400, "`temperature` and `top_p` cannot both be specified for this model", "temperature"),
        (422, "body.seed: Extra inputs are not permitted (extra_forbidden: seed)", "seed"),
        (400, "'response_format' of type 'json_schema' is not supported", "response_format"),
        (400, "Unrecognized request argument supplied: reasoning_effort", "reasoning_effort"),
        (400, "something else is invalid", None),
        (400, "the temperature in the room is nice", None),
        (500, "Unsupported value: 'temperature'", None),
        (
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
        ),
        (400, "max_tokens is deprecated in favor of max_completion_tokens", "max_tokens"),
        (400, "Invalid 'max_tokens': integer above the maximum value", None),
        (400, "max_tokens is too large: 4096, at most 2048", None),
        (422, "max_completion_tokens: Extra inputs are not permitted", "max_completion_tokens"),
        (400, "Unknown field: max_completion_tokens", "max_completion_tokens"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/...", SYSTEM),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it", SYSTEM),
        (None, "400 Developer instruction is not enabled for models/gemma-3-1b-it", SYSTEM),
        (500, "Value is not callable: System role not supported", SYSTEM),
        (422, "Template error: syntax error: System role not supported", SYSTEM),
        (400, "'messages[0].role' does not support 'system' with this model.", SYSTEM),
        (400, "Only user and assistant roles are supported!", SYSTEM),
        (400, "messages.0.role: Input should be 'user' or 'assistant'", SYSTEM),
        (400, "This model doesn't support system messages. Try again without one", SYSTEM),
        (400, 'messages: roles must alternate between "user" and "assistant"', SYSTEM),
        (400, "The first message must have the role user", SYSTEM),
        (400, "Unexpected message role.", SYSTEM),
        (400, "rejected by our safety system", None),
        (401, "System role not supported", None),
        (500, "the system is not reachable", None),
    ],
)
def test_what_is_refused(status: int | None, message: str, name: str | None) -> None:
    error = http_error(status, message=message) if status else RuntimeError(message)
    remedy = remedies.find(error, remedies.REMEDIES)
    assert remedy == name
    if remedy:
        assert name in remedies.REMEDIES
        assert remedies.find(error, ()) is None


def test_a_parameter_that_is_named_beside_the_message() -> None:
    error = HttpError("No.", Response(400, None), None)
    error.param = "top_p"  # type: ignore[attr-defined]
    found = remedies.find(error, remedies.REMEDIES)
    assert found == "top_p"


TURNS = st.lists(
    st.tuples(
        st.sampled_from([SystemMessage, HumanMessage, AIMessage]),
        st.one_of(st.text(max_size=5), st.just([{"type": "image_url", "image_url": {"url": "x"}}])),
    ),
    max_size=8,
)


@fuzz(turns=TURNS)
def test_two_roles_take_turns_and_nothing_is_lost(turns) -> None:
    messages = [kind(content) for kind, content in turns]
    plain = remedies.two_roles(messages)
    roles = [message.type for message in plain]
    assert set(roles) <= {"human", "ai"}
    assert all(one != two for one, two in itertools.pairwise(roles))
    assert remedies.two_roles(plain) == plain
    said = "".join(str(m.content) for m in plain)
    assert all(
        str(content).strip("[]") in said for _, content in turns if "\\" not in repr(content)
    )


def test_the_system_message_goes_before_the_first_question() -> None:
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    first, second, third = remedies.two_roles(
        [
            SystemMessage("Be brief."),
            HumanMessage([{"type": "text", "text": "See."}, picture]),
            AIMessage("- a {}"),
            HumanMessage("Go on."),
            HumanMessage("Kindly."),
        ]
    )
    assert first.content == [
        {"type": "text", "text": "Be brief."}, {"type": "text", "text": "See."}, picture
    ]  # fmt: skip
    assert second.content == "- a {}"
    assert third.content == "Go on.\n\nKindly."

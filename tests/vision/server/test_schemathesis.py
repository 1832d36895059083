"""Schemathesis asks whatever the OpenAPI page describes, and what it does not; the page holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access
from llmopt.vision.server.app import build
from llmopt.vision.server.bounds import Bounds

BOUNDS = Bounds(body=200_000, pixels=20_000, images=4, prompts=5, letters=30, reading=0.3)


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_its_page_holds(examples: int) -> None:
    import schemathesis  # takes a second, which only this test should wait for
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    def hold(cases: SearchStrategy[Any]) -> None:
        @settings(
            max_examples=examples,
            deadline=timedelta(seconds=5),
            database=None,
            derandomize=examples < 100,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def ask(case: Any) -> None:
            # That a text is a picture, or that bounds hold, is more than a schema says; and what is
            # too much is refused for that, whatever else is wrong with it.
            answer, beyond = case.call(), [positive_data_acceptance]
            if answer.status_code == 413:
                beyond.append(negative_data_rejection)
            case.validate_response(answer, excluded_checks=beyond)

        ask()

    app = build(FakeBox(Access.SOFT), bounds=BOUNDS)
    labels = []
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation, wrong = found.ok(), schemathesis.GenerationMode.NEGATIVE
        labels.append(operation.label)
        hold(operation.as_strategy())
        if operation.method == "post":
            hold(operation.as_strategy(generation_mode=wrong))
    assert {"GET /metrics", "POST /scores", "POST /v1/embeddings"} <= set(labels)

"""Every head passes the contract, with its defaults and, where they matter, with other settings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from llmopt.heads import HEADS
from llmopt.heads.base import Head
from llmopt.heads.bias import Bias, BiasSettings
from llmopt.heads.gda import GDA, GDASettings
from llmopt.heads.tip import Tip, TipSettings
from llmopt.testing import HeadContract


def short(kind: type[Head[Any]]) -> Head[Any]:
    """With its defaults, but few training steps."""
    trained = any(field.name == "steps" for field in fields(kind.Settings))
    return kind(kind.Settings(steps=(1, 6)) if trained else None)


ALL: list[Head[Any]] = [
    *(short(HEADS.get(name)) for name in HEADS),
    Bias(BiasSettings(kappa=0.1)),
    GDA(GDASettings(kappa=0.0)),
    Tip(TipSettings(betas=(1.0, 10.0), kappa=0.0)),
]


class TestHeads(HeadContract):
    @pytest.fixture(params=ALL, ids=lambda head: f"{head.name}-{head.settings}")
    def head(self, request: pytest.FixtureRequest) -> Head[Any]:
        return request.param

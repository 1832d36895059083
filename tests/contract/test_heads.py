"""Every head passes the contract, with its defaults and, where they matter, with other settings."""

from __future__ import annotations

from typing import Any

import pytest

from llmopt.heads import HEADS
from llmopt.heads.base import Head
from llmopt.heads.bias import Bias, BiasSettings
from llmopt.heads.gda import GDA, GDASettings
from llmopt.heads.tip import Tip, TipSettings
from llmopt.testing import HeadContract

ALL: list[Head[Any]] = [
    *(HEADS.get(name)() for name in HEADS),
    Bias(BiasSettings(kappa=0.1)),
    GDA(GDASettings(kappa=0.0)),
    Tip(TipSettings(betas=(1.0, 10.0), kappa=0.0)),
]


class TestHeads(HeadContract):
    @pytest.fixture(params=ALL, ids=lambda head: f"{head.name}-{head.settings}")
    def head(self, request: pytest.FixtureRequest) -> Head[Any]:
        return request.param

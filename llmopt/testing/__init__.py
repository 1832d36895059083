"""Contract suites: what every optimizer, head, black box and chat model must do, for pytest.

Who writes a plug-in derives a test class and gives it the thing::

    import pytest
    from llmopt.testing import OptimizerContract

    class TestMine(OptimizerContract):
        @pytest.fixture
        def optimizer(self):
            return Mine(steps=3)

The suites run in a world of a few small pictures (:mod:`llmopt.testing.world`), without network,
in seconds. Optimizers should be given settings that make them short. pytest must be installed.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{m}" for m in ("boxes", "chat", "heads", "optimizers"))
)

from llmopt.testing.boxes import BlackBoxContract  # noqa: E402
from llmopt.testing.chat import ChatModelContract  # noqa: E402
from llmopt.testing.heads import HeadContract  # noqa: E402
from llmopt.testing.optimizers import OptimizerContract  # noqa: E402

__all__ = ["BlackBoxContract", "ChatModelContract", "HeadContract", "OptimizerContract"]

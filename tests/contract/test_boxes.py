"""Every black box passes the contract. A new one does by a line in ``BOXES``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from llmopt.testing import BlackBoxContract
from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.function import FunctionBox
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.server.app import BlackBoxServer
from llmopt.vision.services.http import HttpBlackBox


@contextmanager
def served(access: Access) -> Iterator[BlackBox]:
    """A box behind HTTP."""
    server = BlackBoxServer(FakeBox(Access.SOFT), ("127.0.0.1", 0), access)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    box = HttpBlackBox(f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield box
    finally:
        box.close()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def here(make: Callable[[], BlackBox]) -> Iterator[BlackBox]:
    """A box in this process."""
    yield make()


def likeness(images: list[PillowImage.Image], prompts: list[str]) -> torch.Tensor:
    """Logits that are mean brightness by length of the prompt, less its square."""
    light = torch.tensor([np.asarray(image).mean() for image in images], requires_grad=True)
    words = torch.tensor([len(" ".join(p.split())) for p in prompts])
    return torch.outer(light, words) - words**2


BOXES: dict[str, Callable[[], Any]] = {
    **{f"fake {level}": lambda level=level: here(lambda: FakeBox(level)) for level in Access},
    **{f"http {level}": lambda level=level: served(level) for level in Access},
    "shapes-tiny": lambda: here(lambda: OpenClipBlackBox("shapes-tiny", device="cpu")),
    "function scores": lambda: here(lambda: FunctionBox("a function", likeness)),
    "function labels": lambda: here(
        lambda: FunctionBox("a function", lambda i, p: likeness(i, p).argmax(1), access="labels")
    ),
}


@pytest.fixture(scope="module", params=list(BOXES))
def opened(request: pytest.FixtureRequest) -> Iterator[BlackBox]:
    with BOXES[request.param]() as one:
        yield one


class TestBlackBoxes(BlackBoxContract):
    @pytest.fixture
    def box(self, opened: BlackBox) -> BlackBox:
        return opened

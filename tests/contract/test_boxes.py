"""Every black box passes the contract. A new one does by a line in ``BOXES``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from seeing_server import SeeingServer
from served import serving
from service_server import ServiceServer

from llmopt.testing import BlackBoxContract
from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.boxes import open_black_box
from llmopt.vision.function import FunctionBox
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.services.chat import ChatBox
from llmopt.vision.services.embeddings import DIALECTS
from llmopt.vision.services.http import HttpBlackBox


@contextmanager
def served(access: Access) -> Iterator[BlackBox]:
    """A box behind HTTP."""
    with serving(FakeBox(Access.SOFT), access) as url:
        box = HttpBlackBox(url)
        try:
            yield box
        finally:
            box.close()


@contextmanager
def seeing() -> Iterator[BlackBox]:
    """A chat model that sees."""
    with SeeingServer(odd=0.1) as server:
        yield ChatBox("openai:seer", {"base_url": server.url})


@contextmanager
def service(name: str, address: str) -> Iterator[BlackBox]:
    """A service that gives features or scores."""
    with ServiceServer(name) as server:
        dialect = name.partition("/")[2]
        yield open_black_box(address, {"base_url": server.url, "dialect": dialect})


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
    "chat": seeing,
    **{
        name: lambda name=name, address=address: service(name, address)
        for name, address in {
            "cohere": "cohere:embed-v4.0",
            "voyage": "voyage:voyage-multimodal-3.5",
            "gemini": "gemini:gemini-embedding-2",
            "vertex": "vertex:project/us-central1",
            "roboflow": "roboflow:ViT-B-16",
            "hf": "hf:openai/clip",
            **{f"openai-embeddings/{dialect}": "openai-embeddings:clip" for dialect in DIALECTS},
        }.items()
    },
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

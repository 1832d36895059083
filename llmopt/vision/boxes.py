"""Black boxes by address: ``open_black_box("llmopt:http://10.0.0.5:8000")``.

===================== ========================================= ==================================
kind                  what stands behind it                     what follows the colon
===================== ========================================= ==================================
``open_clip``         a model in this process                   ``NAME`` or ``NAME@TAG``
``llmopt``            a model behind ``llmopt serve``           ``http://HOST:PORT``
``chat``              a chat model that sees                    ``PROVIDER:MODEL``
``openai-embeddings`` vLLM, Infinity, Jina, LiteLLM             ``MODEL``
``cohere``, …         services that give features               ``MODEL``
``vertex``            Google Cloud's multimodal embeddings      ``PROJECT/LOCATION``
``hf``                zero-shot image classification            ``ORG/MODEL``
===================== ========================================= ==================================

A bare ``http://`` or ``https://`` URL is of the kind ``llmopt``. Packages outside add kinds through
the entry points ``llmopt.black_boxes``: functions that take what follows the colon, and settings if
there are any, and return a :class:`~llmopt.vision.base.BlackBox`, or such a class itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from llmopt.errors import ConfigError
from llmopt.registry import Registry
from llmopt.settings import Settings
from llmopt.vision.base import BlackBox

_URLS = ("http", "https")
LOCAL: Final = "open_clip:"
"""Before models of this process: what opens them can also be told device, precision, batch size."""

BLACK_BOXES: Final[Registry[Callable[..., BlackBox]]] = Registry(
    "kind of black box",
    "black_boxes",
    {
        "open_clip": "llmopt.vision.openclip:open_address",
        "llmopt": "llmopt.vision.services.http:HttpBlackBox",
        "chat": "llmopt.vision.services.chat:ChatBox",
        "openai-embeddings": "llmopt.vision.services.embeddings:OpenAIEmbeddingsBox",
        "cohere": "llmopt.vision.services.embeddings:CohereBox",
        "voyage": "llmopt.vision.services.embeddings:VoyageBox",
        "gemini": "llmopt.vision.services.embeddings:GeminiBox",
        "vertex": "llmopt.vision.services.embeddings:VertexBox",
        "roboflow": "llmopt.vision.services.embeddings:RoboflowBox",
        "hf": "llmopt.vision.services.zero_shot:ZeroShotBox",
    },
    reserved=_URLS,
)
"""What stands before the colon of ``--blackbox KIND:ADDRESS``."""


PAID: Final = (
    "chat", "openai-embeddings", "cohere", "voyage", "gemini", "vertex", "roboflow", "hf",
)  # fmt: skip
"""Kinds that may cost money, and open and send nothing before they are used."""


def is_paid(address: str) -> bool:
    """Whether the box at an address may cost money."""
    return address.partition(":")[0] in PAID


def settings_at(address: str) -> type[Settings] | None:
    """The settings of a box that may cost money; None for other boxes, which say of none."""
    if not is_paid(address):
        return None
    box: Any = BLACK_BOXES.get(address.partition(":")[0])
    return cast("type[Settings]", box.Settings)


def open_black_box(address: str, settings: Mapping[str, Any] | None = None) -> BlackBox:
    """The black box at an address.

    Args:
        address: ``KIND:ADDRESS``, or the URL of an ``llmopt serve``.
        settings: by name, where the kind takes any, as its second argument.

    Raises:
        ConfigError: the kind is unknown (the nearest is suggested), a plug-in that cannot be used,
            or nothing follows the colon.
        UserError, ServiceError: as the kind of box says.
    """
    kind, colon, rest = address.partition(":")
    if kind.lower() in _URLS:
        kind, rest = "llmopt", address
    elif not colon or (kind not in BLACK_BOXES and rest[:1].isdigit()):  # HOST:PORT
        raise ConfigError(
            f"--blackbox {address!r} is not of the form http://HOST:PORT or KIND:ADDRESS"
        )
    if not rest:
        raise ConfigError(f"--blackbox {address!r}: something must follow the colon")
    make = BLACK_BOXES.get(kind)
    if not settings:
        return make(rest)
    try:
        inspect.signature(make).bind(rest, settings)
    except TypeError:
        raise ConfigError(
            f"a black box of the kind '{kind}' takes no settings; leave --blackbox-set out"
        ) from None
    return make(rest, settings)


def split_tag(address: str) -> tuple[str, str]:
    """Name and weight tag of ``NAME`` or ``NAME@TAG``; ``local-dir:`` and ``hf-hub:`` have none."""
    name, _, tag = (address, "", "") if ":" in address else address.partition("@")
    return name, tag

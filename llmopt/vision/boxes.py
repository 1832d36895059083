"""Black boxes by address: ``open_black_box("llmopt:http://10.0.0.5:8000")``.

============== ================================================ ==================================
kind           what stands behind it                            what follows the colon
============== ================================================ ==================================
``open_clip``  a model in this process                          ``NAME`` or ``NAME@TAG``
``llmopt``     a model behind HTTP, as ``llmopt serve`` puts it  ``http://HOST:PORT``
============== ================================================ ==================================

A bare ``http://`` or ``https://`` URL is of the kind ``llmopt``. Packages outside add kinds through
the entry points ``llmopt.black_boxes``: functions that take what follows the colon and return a
:class:`~llmopt.vision.base.BlackBox`, or such a class itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from llmopt.errors import ConfigError
from llmopt.registry import Registry
from llmopt.vision.base import BlackBox

_URLS = ("http", "https")
LOCAL: Final = "open_clip:"
"""Before models of this process: what opens them can also be told device, precision, batch size."""

BLACK_BOXES: Final[Registry[Callable[[str], BlackBox]]] = Registry(
    "kind of black box",
    "black_boxes",
    {
        "open_clip": "llmopt.vision.openclip:open_address",
        "llmopt": "llmopt.vision.services.http:HttpBlackBox",
    },
    reserved=_URLS,
)
"""What stands before the colon of ``--blackbox KIND:ADDRESS``."""


def open_black_box(address: str) -> BlackBox:
    """The black box at an address.

    Args:
        address: ``KIND:ADDRESS``, or the URL of an ``llmopt serve``.

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
    return BLACK_BOXES.get(kind)(rest)


def split_tag(address: str) -> tuple[str, str]:
    """Name and weight tag of ``NAME`` or ``NAME@TAG``; ``local-dir:`` and ``hf-hub:`` have none."""
    name, _, tag = (address, "", "") if ":" in address else address.partition("@")
    return name, tag

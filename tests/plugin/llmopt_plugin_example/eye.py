"""``--blackbox eye:SCALE``: scores by how much there is of the colour that a prompt names."""

from __future__ import annotations

import numpy as np
from PIL.Image import Image

from llmopt.errors import ConfigError
from llmopt.vision import FunctionBox

CHANNELS = ("red", "green", "blue")


def open_eye(scale: str) -> FunctionBox:
    """An eye that is ``scale`` times as sure; twice as sure where a prompt says "vivid"."""
    if not scale.isdigit():
        raise ConfigError(f"--blackbox eye:{scale}: a whole number follows the colon")

    def see(images: list[Image], prompts: list[str]) -> np.ndarray:
        light = np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images]) / 255
        named = np.array([[float(c in prompt.lower()) for c in CHANNELS] for prompt in prompts])
        sure = np.array([1 + ("vivid" in prompt.lower()) for prompt in prompts])
        return np.asarray(int(scale) * sure * (light @ named.T))

    return FunctionBox(f"eye:{scale}", see)

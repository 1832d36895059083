"""What Hugging Face's ``zero-shot-image-classification`` pipeline takes: one template."""

from __future__ import annotations

from typing import Final

from llmopt.export.base import Files, Format
from llmopt.export.lists import encode, literal
from llmopt.export.prompts import PromptList

# The same weights in transformers' own port; other models of open_clip have none there.
PORTS = {
    "ViT-B-32-quickgelu openai": "openai/clip-vit-base-patch32",
    "ViT-B-16-quickgelu openai": "openai/clip-vit-base-patch16",
    "ViT-L-14-quickgelu openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336-quickgelu openai": "openai/clip-vit-large-patch14-336",
    "ViT-B-32 laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-H-14 laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}

_SCRIPT = '''\
"""Classify the images named on the command line."""

import sys

HYPOTHESIS_TEMPLATE = {template!r}

CANDIDATE_LABELS = {labels}

MODEL = {model!r}

if __name__ == "__main__":
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=MODEL)
    for path in sys.argv[1:]:
        print(
            path,
            classify(
                path,
                candidate_labels=CANDIDATE_LABELS,
                hypothesis_template=HYPOTHESIS_TEMPLATE,
            ),
        )
'''


def write(prompts: PromptList, warnings: list[str]) -> Files:
    """A script with ``hypothesis_template``, labels and the call."""
    best = max(prompts.prompts, key=lambda prompt: prompt.weight)
    if len(prompts.prompts) > 1:
        warnings.append(
            f"transformers takes one template: of {len(prompts.prompts)}, only "
            f"{best.text!r} was written"
        )
    model = PORTS.get(prompts.model)
    if model is None:
        model = "openai/clip-vit-base-patch32"
        warnings.append(
            f"transformers has no port of {prompts.model}, behind which this template was found; "
            f"the script names {model}, where its accuracy was not measured"
        )
    text = _SCRIPT.format(template=best.text, labels=literal(prompts.names), model=model)
    return {"classify_transformers.py": encode(text)}


PIPELINE: Final = Format(write)

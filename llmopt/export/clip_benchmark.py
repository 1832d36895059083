"""What CLIP_benchmark takes: templates and class names as JSON, or beside a webdataset.

It fills templates by ``str.format(c=classname)``, so the slot is ``{c}`` and any other brace is
doubled, and it looks both files up by the name of the data set. A name it does not find there makes
it fall back to ImageNet's templates without a word, so the key must be the one given to it as
``--dataset``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from llmopt.export.base import Files, Format
from llmopt.export.lists import encode
from llmopt.export.prompts import Prompt, PromptList, repeated, repeated_by_class
from llmopt.template import SLOT

TEMPLATES, CLASSNAMES = "templates.json", "classnames.json"
WDS_TEMPLATES, WDS_CLASSNAMES = "zeroshot_classification_templates.txt", "classnames.txt"


def write_json(prompts: PromptList, warnings: list[str]) -> Files:
    """For ``--custom_template_file`` and ``--custom_classname_file``."""
    key = prompts.dataset
    warnings.append(
        f"call clip_benchmark with --dataset {key}, the key of both files; for another name, "
        "export again with --key NAME"
    )
    templates: Any = [named_slot(text) for text in repeated(prompts, warnings)]
    if prompts.by_class:  # used as they are, under the names of the classes
        templates = by_name(prompts, warnings)
    return {
        TEMPLATES: encode(json.dumps({key: templates}, indent=2) + "\n"),
        CLASSNAMES: encode(json.dumps({key: prompts.names}, indent=2) + "\n"),
    }


def write_cupl(prompts: PromptList, warnings: list[str]) -> Files:
    """Class names with their prompts, as Pratt et al. publish them."""
    if not prompts.by_class:
        own = [tuple(Prompt(t.replace(SLOT, name)) for t in repeated(prompts, warnings))
               for name in prompts.names]  # fmt: skip
        prompts = replace(prompts, by_class=tuple(own))
    text = json.dumps(by_name(prompts, warnings), indent=2, ensure_ascii=False)
    return {"prompts_cupl.json": encode(text + "\n")}


def by_name(prompts: PromptList, warnings: list[str]) -> dict[str, list[str]]:
    """The prompts of each class by its name; classes that share one share their prompts."""
    found: dict[str, list[str]] = {}
    for name, own in zip(prompts.names, repeated_by_class(prompts, warnings), strict=True):
        if name in found and own != found[name]:
            warnings.append(f"two classes are called {name!r} here, and share their prompts")
        found[name] = [*found.get(name, []), *own]
    return found


def write_wds(prompts: PromptList, warnings: list[str]) -> Files:
    """The two text files that lie in a webdataset's folder."""
    templates = [named_slot(text) for text in repeated(prompts, warnings)]
    return {
        WDS_TEMPLATES: encode("".join(f"{text}\n" for text in templates)),
        WDS_CLASSNAMES: encode("".join(f"{name}\n" for name in prompts.names)),
    }


def named_slot(template: str) -> str:
    """``{}`` becomes ``{c}``, other braces are doubled."""
    return "{c}".join(part.replace("{", "{{").replace("}", "}}") for part in template.split(SLOT))


CLIP_BENCHMARK: Final = Format(write_json, by_class=True)
CUPL: Final = Format(write_cupl, by_class=True)
WDS: Final = Format(write_wds)

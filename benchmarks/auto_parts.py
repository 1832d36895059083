"""``auto`` without one of its stages, or with one more, for the ablations of ``auto.py``.

Descriptions are what somebody would write who knows the classes: 12 captions of each, each of the
object of a scene that is in no split, so what makes the class is in all of them, and the rest is
chance. Wrong ones are those of another class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from llmopt.data.shapes import SHAPES, TASKS, ShapesObject, random_scene
from llmopt.data.worlds import WORLDS
from llmopt.search import make_optimizer
from llmopt.search.base import Optimizer
from llmopt.search.text.auto import Auto
from llmopt.search.text.chat import Chat
from llmopt.task import Task

CAPTIONS: Final = 12
PARTS: Final = (
    "auto without rename", "auto without chat", "auto without probes",
    "auto without conversation", "auto without by class", "auto with descriptions",
    "descriptions alone", "wrong descriptions alone", "auto with soft",
)  # fmt: skip
_ALONE: Final[dict[str, Any]] = {"rename": False, "chat": False, "by_class": False}


class ChatChanged(Auto):
    """``auto`` with other settings of its chat stage."""

    def __init__(self, **changed: int) -> None:
        super().__init__()
        self.changed = changed

    def stages(self, task: Task) -> Iterator[Optimizer[Any]]:
        """As they are, but for the chat stage."""
        for stage in super().stages(task):
            yield Chat(**stage.as_given() | self.changed) if isinstance(stage, Chat) else stage


def make_part(arm: str, world: str, folder: Path) -> Optimizer[Any]:
    """An optimizer by its arm; descriptions are written into the folder."""
    match arm:
        case "auto without probes":
            return ChatChanged(probes=0)  # the conversation begins from a pool of captions
        case "auto without conversation":
            return ChatChanged(iterations=0)
        case "auto with descriptions":
            return Auto(file=written(world, folder))
        case "descriptions alone":
            return Auto(file=written(world, folder), **_ALONE)
        case "wrong descriptions alone":
            return Auto(file=written(world, folder, of=1), **_ALONE)
        case "auto with soft":
            return Auto(soft=200)
        case _:
            return make_optimizer(
                "auto", {arm.removeprefix("auto without ").replace(" ", "_"): False}
            )


def written(world: str, folder: Path, of: int = 0) -> str:
    """A file of captions of each class of a drawn world.

    Args:
        of: how many places further the class is that they are of.

    Raises:
        KeyError: the world is not drawn.
    """
    names = SHAPES if world in TASKS else WORLDS[world].names
    said = [[caption(world, k, n) for n in range(CAPTIONS)] for k in range(len(names))]
    file = folder / "descriptions.json"
    file.write_text(json.dumps({name: said[(k + of) % len(names)] for k, name in enumerate(names)}))
    return str(file)


def caption(world: str, label: int, number: int) -> str:
    """What the object of a scene of a class looks like."""
    rng = np.random.default_rng((label, number))
    thing: ShapesObject
    if world in TASKS:
        thing, _ = random_scene(rng, SHAPES[label], world.removeprefix("shapes-"))
    else:
        thing, _ = WORLDS[world].scene(rng, label)
    return f"a {thing.size} {thing.pattern} {thing.colour} {thing.shape} on the {thing.side}."

"""A template for each class, of those that were scored: where no one template suits all classes.

The templates of a front stand in for descriptions: each class weighs them by how well they rank
its own shots, judged and kept as descriptions are (:mod:`llmopt.search.text.weighing`). No language
model is asked, and a box that gives features encodes nothing anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import MaxLen

from llmopt.search.base import Search
from llmopt.search.text.archive import FRONT
from llmopt.search.text.describe import DescribeSettings, Describing
from llmopt.task import Task
from llmopt.template import Template


@dataclass(frozen=True)
class ByClassSettings(DescribeSettings):
    """Settings of the stage.

    Attributes:
        templates: of the front; not known before there is one.
    """

    templates: Annotated[tuple[str, ...], MaxLen(FRONT)] = ()


class ByClass(Describing[ByClassSettings]):
    """Scored templates as descriptions."""

    name = "by class"
    FORMS: ClassVar = {}
    Settings = ByClassSettings

    def per_class(self, task: Task) -> int:
        """All of the front."""
        return FRONT

    def written(self, search: Search, counts: Counter[str]) -> list[list[str]]:
        """Each template with each name."""
        filled = [
            Template(text).fill_all(search.task.classnames) for text in self.settings.templates
        ]
        return [list(own) for own in zip(*filled, strict=True)] or [[]] * len(
            search.task.classnames
        )

"""The black box of a run as it is chosen: a name or an address, not open yet."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmopt.errors import BudgetExhausted
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import Task
from llmopt.vision.base import BlackBox
from llmopt.vision.boxes import is_paid, open_black_box
from llmopt.vision.metered import MeteredBox
from llmopt.vision.precision import AUTO
from llmopt.vision.temperature import fitted_scale


@dataclass(frozen=True)
class ModelChoice:
    """A black box, chosen but not open.

    Attributes:
        model, pretrained, device, precision, batch_size: of an open_clip model.
        address, settings: of another kind of box, in place of it.
        box: one that is open already.
    """

    model: str = ""
    pretrained: str = ""
    address: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    precision: str = AUTO
    batch_size: int | None = None
    box: BlackBox | None = None

    @property
    def title(self) -> str:
        """The address of a remote box, or the model's name."""
        return self.address or self.model

    @property
    def undecided(self) -> bool:
        """Whether its precision is found out when a run begins."""
        open_clip = self.box is None and not self.address
        return open_clip and self.precision == AUTO and self.model != "shapes-tiny"

    def look(self) -> BlackBox | None:
        """The box, where it is open already or remote; None for a model that is still to be loaded.

        Asking a remote box what it is costs nothing.
        """
        if self.box is None and is_paid(self.address):  # without its key, too
            return open_black_box(self.address, self.settings)
        return self.open(Watch()) if self.box is not None or self.address else None

    def cap_on_usd(self, max_usd: float | None) -> float | None:
        """The cap on money: the given one, or a default where the box is paid for.

        Raises:
            ConfigError: a cap is given, and the price is not known.
        """
        box = self.look() if is_paid(self.address) else self.box
        return box.cap_on_usd(max_usd) if isinstance(box, BlackBox) else max_usd

    def open(self, watch: Watch) -> BlackBox:
        """The box.

        Raises:
            UserError: it cannot be had.
            ServiceError: it is remote, and does not answer.
        """
        if self.box is not None:
            return self.box
        if self.address:
            remote = open_black_box(self.address, self.settings)
            remote.tell = watch.note
            remote.ready()
            return remote
        from llmopt.vision.openclip import OpenClipBlackBox

        watch.stage(f"loading {self.model} {self.pretrained}".strip())
        box = OpenClipBlackBox(
            self.model,
            self.pretrained,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
        )
        if self.precision == "full":
            watch.note(f"{self.model} computes in {box.precision}, in full precision")
        return box

    def knowing(self, found: Mapping[str, Any]) -> ModelChoice:
        """With these settings too, not open yet."""
        return dataclasses.replace(self, settings={**self.settings, **found}, box=None)

    def found_out(self, box: BlackBox, task: Task, caps: Caps, watch: Watch) -> dict[str, Any]:
        """Settings that are found out of the box at the beginning of a run, which keeps them.

        Args:
            box: this one, open.
            task: whose shots tell its temperature, if it does not.
            caps: of the run; where they do not pay for that, the usual one is taken.
            watch: told what was found.
        """
        found = box.decided()
        if not box.scale_known:
            metered = MeteredBox(self.knowing(found).open(watch) if found else box, Ledger(caps))
            with contextlib.suppress(BudgetExhausted):
                images = metered.image_features(task.train)
                texts = metered.text_features([task.start], task.classnames)[0]
                scale = fitted_scale(images @ texts.T, task.train.labels)
                found = {**found, "logit_scale": scale}
                watch.note(
                    f"{self.address} tells no temperature: on the shots, {scale:g} x cosine fits"
                )
        return found

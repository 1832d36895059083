"""The black box of a run as it is chosen: a name or an address, not open yet."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llmopt.errors import BudgetExhausted, BudgetTooSmall, CapBroken
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import Task
from llmopt.vision.base import BlackBox
from llmopt.vision.boxes import is_paid, open_black_box
from llmopt.vision.kept import kept_by_run
from llmopt.vision.metered import MeteredBox
from llmopt.vision.precision import AUTO
from llmopt.vision.temperature import fitted_scale

SEARCH: Final = "search"
"""The part of a run whose answers are kept under this name."""


@dataclass(frozen=True)
class FoundOut:
    """What was found out of a black box before a run.

    Attributes:
        settings: that the run keeps.
        spent: on pictures that no run is about.
        answers: that the run will ask for too, and count: files by name.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelChoice:
    """A black box, chosen but not open.

    Attributes:
        model, pretrained, device, precision, decoder, batch_size: of an open_clip model.
        address, settings: of another kind of box, in place of it.
        box: one that is open already.
    """

    model: str = ""
    pretrained: str = ""
    address: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    precision: str = AUTO
    decoder: str = "pillow"
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
            decoder=self.decoder,
            batch_size=self.batch_size,
        )
        if self.precision == "full":
            watch.note(f"{self.model} computes in {box.precision}, in full precision")
        return box

    def knowing(self, found: Mapping[str, Any]) -> ModelChoice:
        """With these settings too, not open yet."""
        return dataclasses.replace(self, settings={**self.settings, **found}, box=None)

    def found_out(self, box: BlackBox, task: Task, caps: Caps, watch: Watch) -> FoundOut:
        """What is found out of the box at the beginning of a run.

        Args:
            box: this one, open.
            task: whose shots tell its temperature, if it does not.
            caps: of the run; where they do not pay for that, the usual one is taken.
            watch: told what was found.

        Raises:
            BudgetTooSmall: the caps do not pay for finding out how the box is asked.
            CapBroken: a call took more than was put aside for it.
        """
        ledger = Ledger(caps)
        began = ledger.state()
        try:
            found = box.decided(MeteredBox(box, ledger).probe)
        except BudgetExhausted as error:
            raise BudgetTooSmall(
                f"{error}, which does not even pay for finding out how {self.address} takes "
                "pictures; raise the cap, see 'llmopt plan'"
            ) from error
        spent = ledger.since(began)
        if box.scale_known:
            return FoundOut(found, spent)
        box = self.knowing(found).open(watch) if found else box
        with tempfile.TemporaryDirectory() as folder:
            kept = kept_by_run(Path(folder), box, SEARCH)
            metered = MeteredBox(box, ledger, kept=kept)
            try:
                images = metered.image_features(task.train)
                texts = metered.text_features([task.start], task.classnames)[0]
                scale = fitted_scale(images @ texts.T, task.train.labels)
                found = {**found, "logit_scale": scale}
                watch.note(
                    f"{self.address} tells no temperature: on the shots, {scale:g} x cosine fits"
                )
            except CapBroken:
                raise
            except BudgetExhausted:
                pass
            answers = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return FoundOut(found, spent, answers)

"""A finished run as a classifier for Python: ``llmopt.load(RUN)``.

>>> classifier = llmopt.load("runs/…")
>>> classifier("photo.jpg")
[('circle', 0.93), ('ring', 0.04), …]

It has the methods of a scikit-learn classifier, so what works on those works on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.errors import ConfigError
from llmopt.images import as_image
from llmopt.predictor import Predictor
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import choose_model
from llmopt.runs.config import RunConfig
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.trust import refuse_untrusted
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, Labelled
from llmopt.vision.base import BlackBox
from llmopt.vision.metered import MeteredBox


def load(run: str | Path, *, trust_config: bool = False, **options: Any) -> PromptClassifier:
    """The classifier a finished run found, with its model.

    Args:
        run: the run folder.
        trust_config: as in :func:`llmopt.resume`.
        options: other values of the run's options that say where the model lives: ``device``,
            ``precision``, ``batch_size``.

    Raises:
        RunFolderError: there is no finished run.
        ModelError: the model cannot be opened here.
    """
    folder = Path(run)
    predictor = load_predictor(folder)
    config = run_folder.read_run_config(folder)
    if not trust_config:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    allowed = ("device", "precision", "batch_size")
    if unknown := [name for name in options if name not in allowed]:
        raise ConfigError(f"load() takes {', '.join(allowed)}, not {', '.join(unknown)}")
    values = {name: getattr(config, name) for name in RunConfig.__dataclass_fields__}
    box = choose_model(RunConfig.make({**values, **options}, "the options")).open(Watch())
    return PromptClassifier(predictor, box, read_found(folder)["classnames"])


class PromptClassifier:
    """Images in, labelled scores out.

    An image is a path, a Pillow image, or an array of (height, width, 3) uint8 pixels.

    Args:
        predictor: prompts and head.
        box: the model they were found behind.
        classnames: what the classes are called, in the order of the scores.

    Attributes:
        classes_: (K,) class names, in the order of all scores.
    """

    _estimator_type = "classifier"

    def __init__(self, predictor: Predictor, box: BlackBox, classnames: Sequence[str]) -> None:
        self.predictor = predictor
        self.box = box
        self.classnames = classnames
        self.classes_ = np.array(classnames, dtype=object)

    def __call__(self, image: Any, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of one image with their probabilities, best first."""
        probabilities = self.predict_proba([image])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(str(self.classes_[k]), float(probabilities[k])) for k in best]

    def decision_function(self, X: Sequence[Any]) -> FloatArray:
        """(N, K) class scores: logits at the model's own temperature."""
        if not len(X):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        images = tuple(as_image(x, number) for number, x in enumerate(X))
        unlabelled = Labelled(images, np.zeros(len(images), dtype=np.int64))
        return self.predictor.scores(MeteredBox(self.box, Ledger()), unlabelled)

    def predict_proba(self, X: Sequence[Any]) -> npt.NDArray[np.float64]:
        """(N, K) probabilities."""
        scores = self.decision_function(X).astype(np.float64)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, X: Sequence[Any]) -> npt.NDArray[np.object_]:
        """(N,) class names."""
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])

    def score(self, X: Sequence[Any], y: Sequence[Any]) -> float:
        """Accuracy against (N,) labels, class names or their indices."""
        wanted = np.asarray(y)
        predicted = self.decision_function(X).argmax(axis=1)
        if np.issubdtype(wanted.dtype, np.integer):
            return float((predicted == wanted).mean())
        return float((self.classes_[predicted] == wanted.astype(object)).mean())

    def fit(self, X: Any = None, y: Any = None) -> PromptClassifier:
        """Nothing: the run did this."""
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with."""
        return {"predictor": self.predictor, "box": self.box, "classnames": self.classnames}

    def set_params(self, **params: Any) -> PromptClassifier:
        """Make it of other parts."""
        self.__init__(**{**self.get_params(), **params})  # type: ignore[misc]
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"PromptClassifier({self.predictor.describe()!r}, {self.box.info.name!r})"

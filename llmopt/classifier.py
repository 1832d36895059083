"""A classifier of images for Python: trained by a search, or loaded from a finished run.

>>> classifier = llmopt.PromptClassifier(llm="openai:gpt-5-mini").fit(images, labels)
>>> classifier = llmopt.load("runs/…")
>>> classifier("photo.jpg")
[('circle', 0.93), ('ring', 0.04), …]

It is a scikit-learn classifier: what works on those works on it, such as ``cross_val_score``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from llmopt.errors import ConfigError, DatasetError
from llmopt.images import as_image, without_remedy
from llmopt.predictor import Predictor
from llmopt.runs import engine
from llmopt.runs import folder as run_folder
from llmopt.runs.asked import asked
from llmopt.runs.compose import choose_model, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.trust import refuse_untrusted
from llmopt.search.base import Optimizer
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, Labelled, Task
from llmopt.template import PLAIN
from llmopt.vision.base import BlackBox
from llmopt.vision.metered import MeteredBox

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def load(run: str | Path, *, trust_config: bool = False, **options: Any) -> PromptClassifier:
    """The classifier a finished run found, with its model.

    Args:
        run: the run folder.
        trust_config: as in :func:`llmopt.resume`.
        options: other values of the run's options that say where the model lives: ``device``,
            ``precision``, ``decoder``, ``batch_size``.

    Raises:
        RunFolderError: there is no finished run.
        ModelError: the model cannot be opened here.
    """
    folder = Path(run)
    predictor = load_predictor(folder)
    config = run_folder.read_run_config(folder)
    if not trust_config:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    allowed = ("device", "precision", "decoder", "batch_size")
    if unknown := [name for name in options if name not in allowed]:
        raise ConfigError(f"load() takes {', '.join(allowed)}, not {', '.join(unknown)}")
    values = {name: getattr(config, name) for name in RunConfig.__dataclass_fields__}
    changed = RunConfig.make({**values, **options}, "the options")
    box = choose_model(changed).open(Watch())
    return PromptClassifier.of(predictor, box, read_found(folder)["classnames"], changed)


class PromptClassifier:
    """Images in, labels out; :meth:`fit` searches for the prompts.

    An image is a path, the bytes of a file, a Pillow image, or an array of (height, width, 3) uint8
    pixels. Addresses are refused: nothing is fetched.

    Args:
        optimizer: its name, or an object, as :func:`llmopt.run` takes it; so are the others.
        model: by default the paper's backbone.
        llm: by default the built-in rewriter, or OpenAI's where a key is set.
        template: where the search starts.
        classnames: what the classes are called in prompts, in sorted order of the labels; by
            default the labels themselves.
        seed: of every random choice.
        options: other options of a run, such as ``{"head": "auto", "max_usd": 0.5}``.

    Attributes:
        classes_: (K,) labels, in the order of all scores.
        predictor_: prompts and head.
        run_: folder of the run that found them; None where they came otherwise.
    """

    _estimator_type = "classifier"

    classes_: npt.NDArray[Any]
    predictor_: Predictor
    run_: Path | None
    _box: BlackBox

    def __init__(
        self,
        optimizer: str | Optimizer[Any] = "chat",
        model: str | BlackBox | None = None,
        llm: str | BaseChatModel | None = None,
        template: str = PLAIN,
        classnames: Sequence[str] | None = None,
        seed: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.model = model
        self.llm = llm
        self.template = template
        self.classnames = classnames
        self.seed = seed
        self.options = options

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        box: BlackBox,
        classnames: Sequence[str],
        config: RunConfig | None = None,
    ) -> Self:
        """A fitted one.

        Args:
            predictor: prompts and head.
            box: the model they were found behind.
            classnames: in the order of the scores.
            config: of the run; another :meth:`fit` asks for the same. By default it searches behind
                the same box.
        """
        made = cls(model=box) if config is None else cls(**_asked_by(config))
        made.predictor_, made._box, made.run_ = predictor, box, None
        made.classes_ = np.array(classnames, dtype=object)
        return made

    def fit(self, X: Sequence[Any], y: Sequence[Any]) -> Self:
        """Search for prompts that tell (N,) images by their (N,) labels apart; all are trained on.

        Raises:
            LlmoptError: as :func:`llmopt.run` does.
        """
        labels = np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(X):
            raise ConfigError(f"y must be a label for each of the {len(X)} images")
        classes, index = np.unique(labels, return_inverse=True)
        names = [str(one) for one in classes] if self.classnames is None else self.classnames
        if len(names) != len(classes):
            raise ConfigError(f"classnames are {len(names)}, but y has {len(classes)} classes")
        task = Task.from_images(list(X), index.tolist(), list(names), template=self.template)
        given, config = asked(
            None, task, self.optimizer, self.model, self.llm, None,
            {"seed": self.seed, **(self.options or {})},
        )  # fmt: skip
        setup = compose(config, given).settled(Watch())
        folder = Path(engine.start(setup)["run"])
        self.predictor_, self.classes_ = load_predictor(folder), classes
        self._box, self.run_ = setup.open_box(Watch()), folder
        return self

    def __call__(self, image: Any, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of one image with their probabilities, best first."""
        probabilities = self.predict_proba([image])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(str(self.classes_[k]), float(probabilities[k])) for k in best]

    def decision_function(self, X: Sequence[Any]) -> FloatArray:
        """(N, K) class scores: logits at the model's own temperature."""
        if not self.__sklearn_is_fitted__():
            raise ConfigError("this PromptClassifier is not fitted; call fit(X, y) first")
        if not len(X):
            return np.empty((0, len(self.classes_)), dtype=np.float32)
        try:
            images = tuple(as_image(x, number) for number, x in enumerate(X))
            unlabelled = Labelled(images, np.zeros(len(images), dtype=np.int64))
            return self.predictor_.scores(MeteredBox(self._box, Ledger()), unlabelled)
        except DatasetError as error:
            raise DatasetError(without_remedy(error)) from error

    def predict_proba(self, X: Sequence[Any]) -> npt.NDArray[np.float64]:
        """(N, K) probabilities."""
        scores = self.decision_function(X).astype(np.float64)
        odds = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, X: Sequence[Any]) -> npt.NDArray[Any]:
        """(N,) labels."""
        found = self.decision_function(X).argmax(axis=1)
        return np.asarray(self.classes_[found])

    def score(self, X: Sequence[Any], y: Sequence[Any]) -> float:
        """Accuracy against (N,) labels; of classes with names, their indices do too."""
        wanted = np.asarray(y)
        predicted = self.decision_function(X).argmax(axis=1)
        if np.issubdtype(wanted.dtype, np.integer) and self.classes_.dtype == object:
            return float((predicted == wanted).mean())
        return float((self.classes_[predicted] == wanted).mean())

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with."""
        return {name: getattr(self, name) for name in _NAMES}

    def set_params(self, **params: Any) -> Self:
        """Change arguments; what was fitted stays until the next :meth:`fit`.

        Raises:
            ValueError: there is no such argument.
        """
        for name, value in params.items():
            if name not in _NAMES:
                raise ValueError(f"PromptClassifier has no parameter {name!r}; it has {_NAMES}")
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> Self:
        """An unfitted one that shares the objects among its arguments: models are not copied."""
        return type(self)(**self.get_params())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "predictor_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn 1.6 and later asks in place of ``_estimator_type``."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, string=True),
        )

    def __repr__(self) -> str:
        usual = {name: one.default for name, one in _SIGNATURE.items()}
        told = [f"{n}={v!r}" for n, v in self.get_params().items() if v is not usual[n] != v]
        found = f" found {self.predictor_.describe()!r}" if self.__sklearn_is_fitted__() else ""
        return f"PromptClassifier({', '.join(told)}){found}"


_SIGNATURE = {
    name: one
    for name, one in inspect.signature(PromptClassifier.__init__).parameters.items()
    if name != "self"
}
_NAMES = tuple(_SIGNATURE)


_OF_DATA = ("dataset", "classnames", "shots", "data_root", "init_from", "runs", "skip_unreadable")


def _asked_by(config: RunConfig) -> dict[str, Any]:
    """Arguments that ask for the search of a run again, on other images."""
    usual = RunConfig()
    given = {
        name: value
        for name in RunConfig.__dataclass_fields__
        if (value := getattr(config, name)) != getattr(usual, name) and name not in _OF_DATA
    }
    own = {name: given.pop(name) for name in _NAMES if name in given}
    return {**own, "options": given}

"""A run as a classifier for Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import paper_run

import llmopt
from llmopt.data.shapes import SHAPES, ShapesDataset
from llmopt.errors import ConfigError, DatasetError, RunFolderError

pytestmark = pytest.mark.usefixtures("shared_cache")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> llmopt.PromptClassifier:
    folder = paper_run(tmp_path_factory.mktemp("runs"), classnames=SHAPES)
    return llmopt.load(folder, device="cpu")


def test_images_of_every_kind_give_the_same(
    classifier: llmopt.PromptClassifier, tmp_path: Path
) -> None:
    image = ShapesDataset("shapes-small").split("test")[0][0].load()
    path = tmp_path / "picture.png"
    image.save(path)
    ways = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    scores = classifier.decision_function(ways)
    assert scores.shape == (5, 12)
    assert np.abs(scores - scores[0]).max() < 1e-4
    assert np.allclose(classifier.predict_proba(ways).sum(axis=1), 1)
    labelled = classifier(path, top=3)
    assert len(labelled) == 3
    assert labelled[0][0] == classifier.predict([path])[0]
    assert labelled[0][1] >= labelled[1][1] >= labelled[2][1]


def test_it_scores_as_the_run_does(classifier: llmopt.PromptClassifier) -> None:
    images, labels = ShapesDataset("shapes-small").split("test")
    names = [SHAPES[k] for k in labels[:60]]
    by_name, by_index = (classifier.score(images[:60], y) for y in (names, labels[:60]))
    assert by_name == by_index > 0.8


WEAK = "a picture with a large {}."


def pictures(part: str, names: Sequence[str], count: int) -> tuple[list[Any], list[str]]:
    """So many images of each class."""
    images, labels = ShapesDataset("shapes-small").split(part)  # type: ignore[arg-type]
    kept: list[tuple[Any, str]] = []
    for name in names:
        of_it = [
            image for image, k in zip(images, labels.tolist(), strict=True) if SHAPES[k] == name
        ]
        kept += [(image.load(), name) for image in of_it[:count]]
    return [image for image, _ in kept], [name for _, name in kept]


def searching(tmp_path: Path, **options: Any) -> llmopt.PromptClassifier:
    """Not fitted yet."""
    asked = {"runs": str(tmp_path), "settings": {"evaluations": 40}}
    return llmopt.PromptClassifier("random", "shapes-tiny", options=asked, **options)


def test_it_learns_from_images_and_labels(tmp_path: Path) -> None:
    names = ["circle", "square", "star"]
    images, labels = pictures("train", names, 4)
    found = searching(tmp_path, template=WEAK).fit(images, labels)
    assert found.classes_.tolist() == names
    assert found.run_ is not None
    assert (found.run_ / "result.json").is_file()
    tests, wanted = pictures("test", names, 10)
    start = searching(tmp_path, template=WEAK).set_params(optimizer="zeroshot")
    start.set_params(options={"runs": str(tmp_path)})
    assert found.score(tests, wanted) > start.fit(images, labels).score(tests, wanted)
    # Numbers for labels, names for prompts.
    numbers = [10 * names.index(label) for label in labels]
    other = searching(tmp_path, classnames=names, template=WEAK).fit(images, numbers)
    assert set(other.predict(tests).tolist()) <= {0, 10, 20}
    assert other.score(tests, [10 * names.index(one) for one in wanted]) == found.score(
        tests, wanted
    )
    with pytest.raises(ConfigError, match="a label for each"):
        found.fit(images, labels[:-1])
    with pytest.raises(ConfigError, match="y has 4 classes"):
        other.fit(images, [*numbers[:-1], 99])


def test_scikit_learn_takes_it(classifier: llmopt.PromptClassifier, tmp_path: Path) -> None:
    base = pytest.importorskip("sklearn.base")
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.utils.validation import check_is_fitted

    assert base.is_classifier(classifier)
    check_is_fitted(classifier)
    again = base.clone(classifier)
    assert again.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(again)
    with pytest.raises(ConfigError, match=r"call fit\(X, y\) first"):
        again.predict([])
    assert classifier.set_params(**classifier.get_params()) is classifier
    assert "a small {}." in repr(classifier)
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 12)
    images, labels = pictures("train", ["circle", "star"], 4)
    start = llmopt.PromptClassifier("zeroshot", "shapes-tiny", options={"runs": str(tmp_path)})
    assert (cross_val_score(start, images, labels, cv=2) >= 0.5).all()
    grid = GridSearchCV(start, {"template": [WEAK, "a small {}."]}, cv=2, refit=False)
    assert grid.fit(images, labels).best_params_ == {"template": "a small {}."}


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_mixin_order",
    ],
)
def test_checks_of_scikit_learn_that_need_no_table_of_numbers(check: str) -> None:
    """Their other checks fit on matrices, which are no images."""
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    getattr(checks, check)("PromptClassifier", llmopt.PromptClassifier())


def test_what_is_no_image_is_refused(classifier: llmopt.PromptClassifier, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not int"):
        classifier.predict([3])
    with pytest.raises(ConfigError, match="uint8"):
        classifier.predict([np.zeros((2, 2, 3))])
    with pytest.raises(DatasetError, match="there is no such file"):
        classifier.predict([tmp_path / "none.png"])
    with pytest.raises(DatasetError, match="not an image"):
        classifier.predict([b"GIF8 no more"])
    for address in (
        "https://example.org/cat.jpg",
        "s3://bucket/cat.jpg",
        "data:image/png;base64,AA",
    ):
        with pytest.raises(ConfigError, match="fetches no pictures"):
            classifier.predict([address])


def test_only_finished_runs_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        llmopt.load(tmp_path)
    with pytest.raises(ConfigError, match="load"):
        llmopt.load(paper_run(tmp_path), colour="red")

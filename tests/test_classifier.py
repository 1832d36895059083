"""A run as a classifier for Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paper_runs import paper_run

import llmopt
from llmopt.data.shapes import SHAPES, ShapesDataset
from llmopt.errors import ConfigError, DatasetError, RunFolderError


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
    ways = [path, str(path), image, np.asarray(image)]
    scores = classifier.decision_function(ways)
    assert scores.shape == (4, 12)
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


def test_scikit_learn_takes_it(classifier: llmopt.PromptClassifier) -> None:
    base = pytest.importorskip("sklearn.base")
    assert classifier.fit() is classifier
    assert base.clone(classifier, safe=False) is not None
    assert classifier.set_params(**classifier.get_params()) is classifier
    assert "a small {}." in repr(classifier)
    assert classifier.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 12)


def test_what_is_no_image_is_refused(classifier: llmopt.PromptClassifier, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not int"):
        classifier.predict([3])
    with pytest.raises(ConfigError, match="uint8"):
        classifier.predict([np.zeros((2, 2, 3))])
    with pytest.raises(DatasetError, match="missing"):
        classifier.predict([tmp_path / "none.png"])


def test_only_finished_runs_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        llmopt.load(tmp_path)
    with pytest.raises(ConfigError, match="load"):
        llmopt.load(paper_run(tmp_path), colour="red")

"""What each word of a template is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paper_runs import paper_run

from llmopt.data.shapes import SHAPES
from llmopt.errors import ConfigError
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.predictor import single
from llmopt.runs.words import words_worth
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.template import Template


def test_the_word_that_matters_is_worth_most(tmp_path: Path) -> None:
    run = paper_run(tmp_path, templates={"a tiny {}.": 0.5, "{}": 0.5}, classnames=SHAPES)
    found = words_worth(run)
    assert found.images == 24
    words = found.templates["a tiny {}."]
    assert [(word.text, word.without) for word in words] == [("a", "tiny {}."), ("tiny", "a {}.")]
    assert words[1].worth > 0.3 > abs(words[0].worth)
    assert words[1].accuracy > 0.3
    assert words[1].se is not None
    assert 0 < words[1].se < 0.2
    assert found.templates["{}"] == ()


def test_classes_are_called_what_the_run_calls_them(tmp_path: Path) -> None:
    codes = [f"class_{k:02d}" for k in range(len(SHAPES))]
    renamed = single(Template("a tiny {}."), SHAPES)
    run = paper_run(tmp_path, predictor=renamed, classnames=codes)
    worth = {word.text: word.worth for word in words_worth(run).templates["a tiny {}."]}
    assert worth["tiny"] > 0.3


def test_what_stands_apart_is_named(tmp_path: Path) -> None:
    plain = single(Template("a tiny {}."), SHAPES)
    bias = HeadedPredictor(
        plain, FittedHead("bias", {"bias": np.zeros(len(SHAPES), dtype=np.float32)}, {})
    )
    assert words_worth(paper_run(tmp_path / "a", predictor=plain, classnames=SHAPES)).apart == ()
    run = paper_run(tmp_path / "b", predictor=bias, classnames=SHAPES)
    assert words_worth(run).apart == ("head",)


def test_a_word_said_twice_is_left_out_once_each(tmp_path: Path) -> None:
    template = Template("a tiny tiny {}-shape")
    run = paper_run(tmp_path, predictor=single(template, SHAPES), classnames=SHAPES)
    (words,) = words_worth(run).templates.values()
    assert [word.without for word in words] == [
        "tiny tiny {}-shape", "a tiny {}-shape", "a tiny {}-shape",
    ]  # fmt: skip
    assert words[1].worth == words[2].worth


def test_vectors_have_no_words_to_leave_out(tmp_path: Path) -> None:
    soft = SoftPredictor(np.zeros((2, 8), dtype=np.float32), SHAPES)
    with pytest.raises(ConfigError, match="no text whose words"):
        words_worth(paper_run(tmp_path, predictor=soft, classnames=SHAPES))

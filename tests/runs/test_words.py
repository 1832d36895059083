"""What each word of a template is worth."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_runs import paper_run

from llmopt.data.shapes import SHAPES
from llmopt.errors import ConfigError
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


def test_a_word_said_twice_is_left_out_once_each(tmp_path: Path) -> None:
    template = Template("a tiny tiny {}-shape")
    run = paper_run(tmp_path, predictor=single(template, SHAPES), classnames=SHAPES)
    (words,) = words_worth(run).templates.values()
    assert [word.without for word in words] == [
        "tiny tiny {}-shape", "a tiny {}-shape", "a tiny {}-shape",
    ]  # fmt: skip
    assert words[1].worth == words[2].worth


def test_vectors_have_no_words_to_leave_out(tmp_path: Path) -> None:
    import numpy as np

    soft = SoftPredictor(np.zeros((2, 8), dtype=np.float32), SHAPES)
    with pytest.raises(ConfigError, match="no text whose words"):
        words_worth(paper_run(tmp_path, predictor=soft, classnames=SHAPES))

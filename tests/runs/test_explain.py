from pathlib import Path

import numpy as np
import pytest
from running import start

from llmopt.errors import ConfigError
from llmopt.runs.config import RunConfig
from llmopt.runs.explain import explain
from llmopt.spend.files import read_arrays, write_arrays
from llmopt.vision.openclip import OpenClipBlackBox

pytestmark = pytest.mark.usefixtures("shared_cache")


def run(root: Path, optimizer: str, **settings: object) -> Path:
    config = RunConfig(optimizer=optimizer, settings=settings, runs=str(root))  # type: ignore[arg-type]
    return Path(start(config)["run"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(
        tmp_path_factory.mktemp("runs"), "craft", budget=40, dim=8, population=4, head="none"
    )


def test_every_vector_has_its_words(folder: Path) -> None:
    found = explain(folder, k=3)
    (places,) = found.prompts.values()
    assert [place.began_at for place in places] == ["a", "photo", "of", "a"]
    for place in places:
        distances = [word.distance for word in place.nearest]
        assert len(distances) == 3
        assert distances == sorted(distances)
    assert found.token_spacing > 0
    assert 0 <= found.as_words <= 1


def test_a_prompt_made_of_words_is_those_words(folder: Path) -> None:
    """What is known: put 'the small the small' in the place of what was found."""
    path = folder / "predictor.safetensors"
    before = path.read_bytes()
    spelled = OpenClipBlackBox().embed_text("the small the small")
    kept = read_arrays(path)
    write_arrays(path, {**kept.arrays, "context": np.asarray(spelled)}, kept.texts)
    try:
        found = explain(folder, k=2)
    finally:
        path.write_bytes(before)
    (places,) = found.prompts.values()
    assert [place.nearest[0].text for place in places] == ["the", "small", "the", "small"]
    assert all(place.nearest[0].distance == 0 for place in places)
    assert found.as_words == found.as_vectors
    assert found.nearest_distance == 0


def test_text_needs_no_explanation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found no soft prompt to explain.*a photo of a \{\}"):
        explain(run(tmp_path, "zeroshot"))


def test_at_least_one_word(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--top 0"):
        explain(folder, k=0)

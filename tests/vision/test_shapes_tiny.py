from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from llmopt.data.shapes import SHAPES, TASKS, ShapesDataset, planted_template, pool_image
from llmopt.errors import ModelError
from llmopt.vision import shapes_tiny

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "shapes_clip"
TEXTS = ["a small circle.", "a zebra on the left", "a photo of a Heart, tiny and red"]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, Any]:
    return shapes_tiny.load()


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    """The training script, which is no part of the package."""
    sys.path.insert(0, str(BENCHMARK))
    yield importlib.import_module("train")
    sys.path.remove(str(BENCHMARK))


def test_the_weights_are_small() -> None:
    assert shapes_tiny.weights_path().stat().st_size < 4_000_000


def test_it_is_an_ordinary_model_in_evaluation_mode(loaded: tuple[Any, Any, Any]) -> None:
    model, preprocess, tokenizer = loaded
    assert not model.training
    assert model.token_embedding.weight.shape == (49408, 96)
    pixels = preprocess(pool_image(0).load())
    assert (pixels.shape, pixels.dtype) == ((3, 48, 48), torch.float32)
    assert tokenizer(TEXTS).shape == (3, 24)
    with torch.inference_mode():
        image, text, scale = model(pixels[None], tokenizer(TEXTS))
    assert image.shape == (1, 128)
    assert text.shape == (3, 128)
    assert 1.0 < scale.item() <= 100.1


def test_all_words_outside_its_world_are_one(loaded: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = loaded
    with torch.inference_mode():
        zebra, harp, small = model.encode_text(
            tokenizer(["a zebra circle.", "a harp circle.", "a small circle."])
        )
    assert torch.equal(zebra, harp)
    assert not torch.allclose(zebra, small)


def test_loading_leaves_the_dice_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    shapes_tiny.load()
    assert torch.equal(torch.rand(1), expected)


def test_right_templates_beat_the_plain_one(loaded: tuple[Any, Any, Any]) -> None:
    model, preprocess, tokenizer = loaded
    plain, planted = [], []
    for task in TASKS:
        images, labels = ShapesDataset(task).split("test")
        pixels = torch.stack([preprocess(image.load()) for image in images[:120]])
        with torch.inference_mode():
            features = model.encode_image(pixels)
            for template, scores in (
                (ShapesDataset.template, plain),
                (planted_template(task), planted),
            ):
                prompts = [template.replace("{}", shape) for shape in SHAPES]
                text = model.encode_text(tokenizer(prompts), normalize=True)
                scores.append(np.mean((features @ text.T).argmax(1).numpy() == labels[:120]))
    assert np.mean(planted) >= 0.85
    assert min(planted) >= 0.75
    assert 0.3 <= np.mean(plain) <= 0.7
    assert np.mean(planted) - np.mean(plain) >= 0.25


def test_the_committed_table_meets_its_promise() -> None:
    rows = json.loads((BENCHMARK / "results.json").read_text())
    assert rows["weights_sha256"] == shapes_tiny.weights_sha256()
    accuracy = rows["accuracy"]
    assert tuple(accuracy) == TASKS
    plain, planted = ([row[key] for row in accuracy.values()] for key in ("plain", "planted"))
    assert np.mean(planted) >= 0.85
    assert min(planted) >= 0.75
    assert min(plain) >= 0.3
    assert max(plain) <= 0.7
    assert np.mean(planted) - np.mean(plain) >= 0.25
    assert all(row["wrong"] < row["plain"] for row in accuracy.values())


def test_an_export_loads_in_open_clip_unchanged(
    loaded: tuple[Any, Any, Any], open_clip: ModuleType, tmp_path: Path
) -> None:
    shapes_tiny.export(tmp_path / "out")
    name = f"local-dir:{tmp_path / 'out'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, require_pretrained=True)
    tokenizer = open_clip.get_tokenizer(name)
    ours, our_preprocess, our_tokenizer = loaded
    picture = pool_image(3).load()
    pixels, tokens = preprocess(picture)[None], tokenizer(TEXTS)
    assert torch.equal(pixels[0], our_preprocess(picture))
    assert torch.equal(tokens, our_tokenizer(TEXTS))
    with torch.inference_mode():
        outputs = model.eval()(pixels, tokens)
        expected = ours(pixels, tokens)
    assert all(torch.equal(out, want) for out, want in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_file_is_named_with_the_way_out(kept: int, tmp_path: Path) -> None:
    broken = tmp_path / "weights.safetensors"
    broken.write_bytes(shapes_tiny.weights_path().read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"weights\.safetensors.*truncated.*reinstall"):
        shapes_tiny.load(broken)


def test_a_missing_file_or_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="missing"):
        shapes_tiny.load(tmp_path / "none.safetensors")
    shapes_tiny.export(tmp_path)
    with pytest.raises(ModelError, match="holds no shapes-tiny weights"):
        shapes_tiny.load(tmp_path / "open_clip_model.safetensors")


def test_a_few_steps_of_training(training: ModuleType, tmp_path: Path) -> None:
    config = json.loads((BENCHMARK / "config.json").read_text())
    config["training"] |= {"steps": 3, "pool": 64, "batch": 16, "log_every": 1}
    trained = training.train(config, tmp_path, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "training_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert log[-1]["samples"] == 48
    assert all(np.isfinite(entry["contrastive"]) for entry in log)
    # What was written is what was trained, once its token table is laid out for the tokenizer.
    model, preprocess, tokenizer = shapes_tiny.load(tmp_path / "weights.safetensors")
    pixels = preprocess(pool_image(0).load())[None]
    rows = training.Vocabulary(24).encode(TEXTS)
    with torch.inference_mode():
        torch.testing.assert_close(trained.encode_image(pixels), model.encode_image(pixels))
        text = training.encode_text(trained, rows)
        torch.testing.assert_close(text, model.encode_text(tokenizer(TEXTS)))
        by_length = training.encode_by_length(trained, rows, groups=2)
        torch.testing.assert_close(by_length, text)


def test_the_packaged_config_is_the_one_trained() -> None:
    trained = json.loads((BENCHMARK / "config.json").read_text())
    assert shapes_tiny.config() == {key: trained[key] for key in ("model_cfg", "preprocess_cfg")}


def test_captions_are_true_of_their_images(training: ModuleType) -> None:
    pool = training.draw_pool(64)
    source = training.batches(pool, training.Training(1, 64, 64, 1, 1, 0.1, 0.1, 1.0, 1, 1))
    for _ in range(20):
        index, captions = next(source)
        truth = training.truth(pool, index, captions)
        assert truth.diagonal().all()
        for row, column in ((0, 1), (5, 3), (7, 60)):
            scene = pool.scenes[index[row]]
            fits = all(
                any(
                    thing.shape == claim.shape and all(thing.has(a) for a in claim.attributes)
                    for thing in scene
                )
                for claim in captions[column].claims
            )
            assert truth[row, column] == fits

"""Other people's software, given an export unchanged, classifies as llmopt does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from command_line import done
from paper_runs import paper_run
from readers import read, read_matrix

import llmopt
from llmopt.data.shapes import SHAPES, ShapesDataset
from llmopt.errors import RunFolderError
from llmopt.export.clip_benchmark import CLASSNAMES, TEMPLATES
from llmopt.export.formats import export, save
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.predictor import TextPredictor
from llmopt.runs.load import load_predictor
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.spend.ledger import Ledger
from llmopt.task import Labelled
from llmopt.template import Template
from llmopt.vision import shapes_tiny
from llmopt.vision.metered import MeteredBox
from llmopt.vision.openclip import OpenClipBlackBox

pytestmark = pytest.mark.usefixtures("shared_cache")

ENSEMBLE = {"a photo of a small {}.": 2 / 3, "a blurry photo of the {}, tiny": 1 / 3}


@pytest.fixture(scope="module")
def box() -> OpenClipBlackBox:
    return OpenClipBlackBox(device="cpu")


@pytest.fixture(scope="module")
def images() -> Labelled:
    """The whole test split: 1,000 images."""
    found, labels = ShapesDataset("shapes-small").split("test")
    return Labelled(tuple(found), labels)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return paper_run(tmp_path / "runs", templates=ENSEMBLE, classnames=SHAPES)


def ours(run: Path, box: OpenClipBlackBox, images: Labelled) -> tuple[Any, Any]:
    """Text matrix and predicted classes."""
    predictor = load_predictor(run)
    assert isinstance(predictor, TextPredictor)
    metered = MeteredBox(box, Ledger())
    return predictor.text_matrix(metered), predictor.scores(metered, images).argmax(axis=1)


def test_open_clip_builds_the_same_classifier(
    open_clip: ModuleType, run: Path, box: OpenClipBlackBox, images: Labelled, tmp_path: Path
) -> None:
    shapes_tiny.export(tmp_path / "model")
    name = f"local-dir:{tmp_path / 'model'}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    save(export(run, "openclip"), tmp_path / "prompts.py")
    prompts: dict[str, Any] = {}
    exec((tmp_path / "prompts.py").read_text(), prompts)  # noqa: S102 - as a user would
    with torch.inference_mode():
        weights = open_clip.build_zero_shot_classifier(
            model.eval(), open_clip.get_tokenizer(name), prompts["CLASSNAMES"], prompts["TEMPLATES"]
        )
        pixels = torch.stack([preprocess(image.load()) for image in images.images])
        predicted = (model.encode_image(pixels, normalize=True) @ weights).argmax(dim=1)
    text, expected = ours(run, box, images)
    assert np.abs(weights.T.numpy() - text).max() < 1e-5
    assert predicted.tolist() == expected.tolist()


def test_the_text_matrix_is_the_classifier(
    run: Path, box: OpenClipBlackBox, images: Labelled, tmp_path: Path
) -> None:
    save(export(run, "safetensors"), tmp_path / "c.safetensors")
    tensors, metadata = read_matrix(tmp_path / "c.safetensors")
    text, expected = ours(run, box, images)
    assert np.abs(tensors["text_matrix"] - text).max() < 1e-6
    assert metadata["classnames"] == list(SHAPES)
    scores = metadata["logit_scale"] * box.image_features(images.images) @ tensors["text_matrix"].T
    assert (scores + metadata["logit_bias"]).argmax(axis=1).tolist() == expected.tolist()


# --- CLIP_benchmark ------------------------------------------------------------------------------


def webdataset(folder: Path, images: Labelled) -> None:
    """A test split as CLIP_benchmark takes it."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("1")
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for index, (image, label) in enumerate(images):
            pixels = BytesIO()
            image.load().save(pixels, "PNG")
            for suffix, content in (("png", pixels.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{index:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


@pytest.mark.long
def test_clip_benchmark_scores_the_same(
    run: Path, box: OpenClipBlackBox, images: Labelled, tmp_path: Path
) -> None:
    """Its own evaluation, on its own reading of the files, in its own process: the same accuracy,
    to the image, as ``llmopt evaluate`` prints.
    """
    pytest.importorskip("clip_benchmark", reason="clip_benchmark is not installed; see .ci/run")
    shapes_tiny.export(tmp_path / "model")
    webdataset(tmp_path / "data", images)
    save(export(run, "wds"), tmp_path / "data")
    save(export(run, "clip-benchmark", key="wds/shapes"), tmp_path / "json")
    finished = subprocess.run(
        [sys.executable, Path(__file__).with_name("client_clip_benchmark.py"), tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    text, expected = ours(run, box, images)
    evaluated = done("evaluate", run, "--json").json
    assert evaluated["test_images"] == len(images) == 1000
    for client in found.values():
        assert np.abs(np.array(client["classifier"]).T - text).max() < 1e-5
        assert client["predicted"] == expected.tolist()
        assert round(1000 * client["acc1"]) == round(1000 * evaluated["best_accuracy"])


def test_the_webdatasets_own_files_are_read_back(run: Path, tmp_path: Path) -> None:
    save(export(run, "wds"), tmp_path / "wds")
    assert read(tmp_path / "wds", "wds").classnames == SHAPES
    save(export(run, "clip-benchmark"), tmp_path / "cb")
    assert {path.name for path in (tmp_path / "cb").iterdir()} == {TEMPLATES, CLASSNAMES}


# --- transformers --------------------------------------------------------------------------------


def test_transformers_gets_the_prompts_we_score(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script runs as it is; the pipeline's own way of filling its template is applied here."""
    asked: list[str] = []

    def pipeline(task: str, model: str) -> Callable[..., Any]:
        def classify(path: str, candidate_labels: Any, hypothesis_template: str) -> str:
            asked.extend(hypothesis_template.format(label) for label in candidate_labels)
            return "done"

        assert task == "zero-shot-image-classification"
        return classify

    module = ModuleType("transformers")
    module.pipeline = pipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    monkeypatch.setattr(sys, "argv", ["script", "picture.png"])
    save(export(run, "hf"), tmp_path / "script.py")
    code = compile((tmp_path / "script.py").read_text(), "script.py", "exec")
    exec(code, {"__name__": "__main__"})  # noqa: S102 - as a user would
    predictor = load_predictor(run)
    assert isinstance(predictor, TextPredictor)
    assert asked == predictor.templates[0].fill_all(SHAPES)
    assert capsys.readouterr().out == "picture.png done\n"


# --- soft prompts and heads ----------------------------------------------------------------------


@pytest.mark.long
def test_soft_prompts_and_heads_are_exported_and_loaded(
    box: OpenClipBlackBox, images: Labelled, tmp_path: Path
) -> None:
    context = np.array(box.embed_text("a small"), dtype=np.float32)
    bias = FittedHead("bias", {"bias": np.linspace(-1, 1, 12, dtype=np.float32)}, {})
    soft = SoftPredictor(context, SHAPES)
    text = TextPredictor((Template("a small {}."),), SHAPES)
    for number, predictor in enumerate((soft, HeadedPredictor(text, bias))):
        run = paper_run(tmp_path / "runs", predictor=predictor, classnames=SHAPES, seed=number)
        save(export(run, "safetensors"), tmp_path / f"{number}.safetensors")
        tensors, metadata = read_matrix(tmp_path / f"{number}.safetensors")
        assert metadata["predictor"] == predictor.state()[1]
        ours = predictor.scores(MeteredBox(box, Ledger()), images)
        theirs = metadata["logit_scale"] * (
            box.image_features(images.images) @ tensors["text_matrix"].T
        )
        if predictor is not soft:
            theirs = bias.scores(theirs.astype(np.float32))
        assert np.abs(ours - theirs).max() < 1e-3
        loaded = llmopt.load(run, device="cpu")
        assert list(loaded.classes_) == list(SHAPES)
        assert np.abs(loaded.decision_function(images.images) - ours).max() < 1e-3
    with pytest.raises(RunFolderError, match="use --format safetensors --out FILE"):
        export(paper_run(tmp_path, predictor=soft), "txt")
    headed = paper_run(tmp_path, predictor=HeadedPredictor(text, bias), classnames=SHAPES)
    exported = export(headed, "txt")
    assert exported.files["prompts.txt"] == b"a small {}.\n"
    assert "has a head as well" in exported.warnings[0]

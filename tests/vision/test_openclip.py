"""open_clip behind the wall: its own numbers, and clear words when a model cannot be had."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file

from llmopt.data.shapes import ShapesDataset
from llmopt.errors import ConfigError, ModelError, TemplateError
from llmopt.spend.ledger import Ledger
from llmopt.task import Labelled
from llmopt.template import Template
from llmopt.vision import shapes_tiny
from llmopt.vision.base import Access
from llmopt.vision.metered import MeteredBox
from llmopt.vision.models import describe, export_model, known_models
from llmopt.vision.openclip import OpenClipBlackBox

PROMPTS = [
    "a photo of a circle.",
    "a small heart on the left.",
    "itap of a jack-o'-lantern, a type of pet.",
    "{}",
    "猫 🐈 100%",
]
NAMES = ["circle", "big_star", "jack-o'-lantern"]


def images(count: int = 6) -> Labelled:
    found, labels = ShapesDataset("shapes-small").split("test")
    return Labelled(tuple(found[:count]), labels[:count])


@pytest.fixture(scope="module")
def shapes_box() -> OpenClipBlackBox:
    return OpenClipBlackBox("shapes-tiny", device="cpu")


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory, open_clip: ModuleType) -> Path:
    """A random ViT with QuickGELU as open_clip's ``local-dir``."""
    folder = tmp_path_factory.mktemp("tiny")
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    torch.manual_seed(3)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    settings = {
        "model_cfg": config,
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def loaded(request: pytest.FixtureRequest, tmp_path: Path, open_clip: ModuleType) -> Any:
    """The box of a model, and the same model as open_clip itself loads it."""
    if request.param == "shapes-tiny":
        box = request.getfixturevalue("shapes_box")
        export_model("shapes-tiny", tmp_path / "exported")
        name = f"local-dir:{tmp_path / 'exported'}"
    else:
        name = f"local-dir:{request.getfixturevalue('tiny_dir')}"
        box = OpenClipBlackBox(name, device="cpu", batch_size=4)
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return box, model.eval(), preprocess, open_clip.get_tokenizer(name)


both = pytest.mark.parametrize("loaded", ["shapes-tiny", "local-dir"], indirect=True)


@both
def test_scores_are_open_clips_own(loaded: Any) -> None:
    box, model, preprocess, tokenizer = loaded
    few = images()
    with torch.inference_mode():
        pixels = torch.stack([preprocess(image.load()) for image in few.images])
        visual = model.encode_image(pixels, normalize=True)
        text = model.encode_text(tokenizer(PROMPTS), normalize=True)
        logits = model.logit_scale.exp() * visual @ text.T
    np.testing.assert_allclose(box.image_features(few.images), visual, atol=2e-5)
    np.testing.assert_allclose(box.text_features(PROMPTS), text, atol=2e-5)
    scores = box.scores(few.images, PROMPTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, logits, atol=2e-3)
    assert box.labels(few.images, PROMPTS).tolist() == logits.argmax(dim=1).tolist()


@both
def test_soft_prompts_of_a_templates_words_score_as_the_template(loaded: Any) -> None:
    box = loaded[0]
    assert box.info.access == Access.SOFT
    context = torch.tensor(box.embed_text("a photo of a"))[None]
    soft = box.soft_features(context, NAMES)[0].numpy()
    text = box.text_features(Template("a photo of a {}.").fill_all(NAMES))
    np.testing.assert_allclose(soft, text, atol=1e-4)
    assert box.embedding_std == pytest.approx(
        float(loaded[1].token_embedding.weight.detach().std()), rel=1e-3
    )


def test_batches_do_not_matter(tiny_dir: Path) -> None:
    few = images(7)
    by_size = [
        OpenClipBlackBox(f"local-dir:{tiny_dir}", device="cpu", batch_size=size) for size in (3, 64)
    ]
    small, large = (box.image_features(few.images) for box in by_size)
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_nothing_of_a_batch_outlives_it(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Features kept among activations broke up the heap, which grew by 400 MiB in 1,600 images.
    box = OpenClipBlackBox(f"local-dir:{tiny_dir}", device="cpu", batch_size=2)
    encode, made = box._encode_pixels, list[weakref.ref[torch.Tensor]]()

    def watched(pixels: torch.Tensor) -> torch.Tensor:
        assert not any(earlier() is not None for earlier in made)
        features = encode(pixels)
        made.append(weakref.ref(features))
        return features

    monkeypatch.setattr(box, "_encode_pixels", watched)
    assert box.image_features(images(7).images).shape == (7, 16)
    assert len(made) == 4


@pytest.mark.parametrize(
    "dirty",
    [
        "a small <end_of_text> circle.",
        "a small <|endoftext|> circle.",
        "a small\u200b circle.",
        "<start_of_text>a small circle.",
        "  a  SMALL\ncircle.",
    ],
)
def test_control_tokens_and_invisible_characters_change_nothing(
    shapes_box: OpenClipBlackBox, dirty: str
) -> None:
    clean = "a small circle."
    assert shapes_box.normal_forms([dirty]) == shapes_box.normal_forms([clean])
    np.testing.assert_array_equal(
        shapes_box.text_features([dirty]), shapes_box.text_features([clean])
    )


def test_normal_forms_are_token_ids(shapes_box: OpenClipBlackBox) -> None:
    forms = shapes_box.normal_forms(
        [
            "a photo of a circle.",
            "A photo of  a CIRCLE .",
            "a photo of a circle",
            "a photo of circle.",
        ]
    )
    assert forms[0] == forms[1]
    assert len(set(forms)) == 3


def test_templates_that_would_be_cut_are_refused(shapes_box: OpenClipBlackBox) -> None:
    fits = Template("a " * 18 + "{}.")  # with start, end, circle and full stop, 22 of 24 tokens
    assert shapes_box.token_excess(fits.fill("circle")) == -2
    shapes_box.check(fits, ["circle"])
    with pytest.raises(TemplateError, match=r"tokens too long for shapes-tiny .*jack-o'-lantern"):
        shapes_box.check(fits, NAMES)
    long = Template("a photo of " * 30 + "a {}.")
    with pytest.raises(TemplateError, match="71 tokens too long"):
        shapes_box.check(long, ["circle"])


def test_the_weights_decide_the_identity(tiny_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (other / name).write_bytes((tiny_dir / name).read_bytes())

    def identity(folder: Path, **options: Any) -> str:
        box = OpenClipBlackBox(f"local-dir:{folder}", device="cpu", **options)
        return box.info.weights_sha256

    first = identity(tiny_dir)
    assert len(first) == 64
    assert identity(other, batch_size=2) == first
    assert identity(other, precision="bf16") != first
    settings = json.loads((other / "open_clip_config.json").read_text())
    settings["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (other / "open_clip_config.json").write_text(json.dumps(settings))
    assert identity(other) != first
    state = load_file(tiny_dir / "open_clip_model.safetensors")
    state["text_projection"][0, 0] += 1e-3
    save_file(state, tmp_path / "other" / "open_clip_model.safetensors", {"format": "pt"})
    (other / "open_clip_config.json").write_bytes((tiny_dir / "open_clip_config.json").read_bytes())
    assert identity(other) != first


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("model", ["shapes-tiny", "tiny"])
def test_half_precision_is_close(tiny_dir: Path, model: str, precision: str) -> None:
    few = images(4).images
    name = f"local-dir:{tiny_dir}" if model == "tiny" else model
    full = OpenClipBlackBox(name, device="cpu", precision="fp32")
    half = OpenClipBlackBox(name, device="cpu", precision=precision)
    assert (full.precision, half.precision) == ("fp32", precision)
    assert full.info.weights_sha256 != half.info.weights_sha256
    prompts = [f"a small {name}." for name in NAMES]
    context = torch.from_numpy(np.array(full.embed_text("a small")))[None]
    for found, wanted in (
        (half.image_features(few), full.image_features(few)),
        (half.text_features(prompts), full.text_features(prompts)),
        (
            half.soft_features(context, NAMES).numpy(),
            full.soft_features(context, NAMES).numpy(),
        ),
    ):
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, wanted, atol=0.05)


def test_it_may_stand_behind_the_meter(shapes_box: OpenClipBlackBox) -> None:
    few, ledger = images(), Ledger()
    scores = MeteredBox(shapes_box, ledger).score_templates(few, [Template("a small {}.")], NAMES)
    assert scores.shape == (1, 6, 3)
    assert (ledger["image_encodings"], ledger["text_encodings"]) == (6, 3)


# --------------------------------------------------------------------- what cannot be had


def refusal(name: str, pretrained: str = "", **options: Any) -> str:
    with pytest.raises(ModelError) as refused:
        OpenClipBlackBox(name, pretrained, device=options.pop("device", "cpu"), **options)
    assert refused.value.exit_code == 2
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "pretrained", "says"),
    [
        ("RN50-quickgel", "openai", ["unknown model 'RN50-quickgel'", "'RN50-quickgelu'"]),
        ("shapes-tinny", "", ["did you mean 'shapes-tiny'?"]),
        ("ViT-B-32", "", ["needs --pretrained", "laion2b_s34b_b79k"]),
        ("ViT-B-32", "laion2b_s34b_b79q", ["did you mean 'laion2b_s34b_b79k'?"]),
        ("RN50-quickgelu", "nothing-like-it", ["it has: ", "openai"]),
        ("shapes-tiny", "openai", ["shapes-tiny carries its own weights", "--pretrained openai"]),
        ("local-dir:/nowhere/at/all", "", ["there is no folder '/nowhere/at/all'"]),
        ("ViT-B-32", "/nowhere/weights.safetensors", ["there is no weights file"]),
        ("ViT-B-32", "weights.pt", ["there is no weights file 'weights.pt'"]),
    ],
)
def test_unknown_names(name: str, pretrained: str, says: Sequence[str]) -> None:
    message = refusal(name, pretrained)
    for part in says:
        assert part in message


@pytest.mark.parametrize("name", ["RN50", "ViT-B-32", "ViT-L-14"])
def test_weights_of_the_other_activation_are_refused(name: str) -> None:
    message = refusal(name, "openai")
    assert "trained with QuickGELU" in message
    assert f"use --model {name}-quickgelu" in message


def test_every_pair_of_activations_open_clip_knows_is_judged_by_its_own_tables(
    open_clip: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmopt.vision.openclip import _check_names

    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    refused = set()
    for name, tag in open_clip.list_pretrained():
        try:
            _check_names(name, tag)
        except ModelError:
            refused.add((name, tag))
    mismatched = {
        (name, tag)
        for name, tag in open_clip.list_pretrained()
        if bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
        != bool(open_clip.get_model_config(name).get("quick_gelu", False))
    }
    assert refused == mismatched
    assert ("RN50-quickgelu", "openai") not in refused


def test_weights_that_are_not_here_and_cannot_be_fetched() -> None:
    message = refusal("RN50-quickgelu", "openai")
    assert "are not on this machine and could not be fetched" in message
    assert "--model local-dir:PATH" in message
    assert "--model shapes-tiny" in message


def test_names_are_cleaned_before_vectors_as_in_text(shapes_box: OpenClipBlackBox) -> None:
    contexts = torch.from_numpy(shapes_box.embed_text("a photo of a"))[None]
    clear, veiled = (
        shapes_box.soft_features(contexts, [name]) for name in ("ring", "\u200bri\u200bng ")
    )
    assert torch.equal(clear, veiled)
    assert shapes_box.token_excess("x ri\u200bng.") == shapes_box.token_excess("x ring.")


def test_a_broken_transformers_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('hub>=9 is required')\n")
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(hub>=9 is required\)"):
        OpenClipBlackBox("ViT-B-16-SigLIP", "webli", device="cpu")


@pytest.mark.parametrize("kind", ["registry", "tokenizer", "tower"])
def test_models_that_need_transformers(
    kind: str, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    monkeypatch.setattr("open_clip.hf_model.transformers", None)
    name, pretrained = "ViT-B-16-SigLIP", "webli"
    if kind != "registry":
        config = json.loads((tiny_dir / "open_clip_config.json").read_text())
        key = {"tokenizer": "hf_tokenizer_name", "tower": "hf_model_name"}[kind]
        config["model_cfg"]["text_cfg"][key] = "roberta-base"
        config["model_cfg"]["custom_text"] = kind == "tower"
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        weights = "open_clip_model.safetensors"
        (tmp_path / weights).write_bytes((tiny_dir / weights).read_bytes())
        name, pretrained = f"local-dir:{tmp_path}", ""
    with pytest.raises(ConfigError, match=r"pip install 'llmopt\[transformers\]'") as refused:
        OpenClipBlackBox(name, pretrained, device="cpu")
    assert name in str(refused.value)


@pytest.mark.parametrize("damage", ["torn", "empty", "other model", "no weights", "no config"])
def test_damaged_folders(tiny_dir: Path, tmp_path: Path, damage: str) -> None:
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (tmp_path / name).write_bytes((tiny_dir / name).read_bytes())
    weights = tmp_path / "open_clip_model.safetensors"
    match damage:
        case "torn":
            weights.write_bytes(weights.read_bytes()[:100_000])
        case "empty":
            weights.write_bytes(b"")
        case "other model":
            save_file({"logit_scale": torch.tensor(1.0)}, weights, {"format": "pt"})
        case "no weights":
            weights.unlink()
        case "no config":
            (tmp_path / "open_clip_config.json").unlink()
    message = refusal(f"local-dir:{tmp_path}")
    assert str(tmp_path) in message
    assert "is the file complete" in message or "config" in message


def test_a_torn_weights_file(tiny_dir: Path, tmp_path: Path) -> None:
    torn = tmp_path / "weights.safetensors"
    torn.write_bytes((tiny_dir / "open_clip_model.safetensors").read_bytes()[:100_000])
    message = refusal("ViT-B-32", str(torn))
    assert str(torn) in message
    assert "is the file complete and made for this model?" in message


def test_a_torn_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = tmp_path / "weights.safetensors"
    torn.write_bytes(shapes_tiny.weights_path().read_bytes()[:100_000])
    monkeypatch.setattr(shapes_tiny, "weights_path", lambda: torn)
    message = refusal("shapes-tiny")
    assert str(torn) in message
    assert "unreadable or truncated" in message
    assert "reinstall llmopt" in message


def test_unknown_devices_and_precisions() -> None:
    assert "use --device cpu or auto" in refusal("shapes-tiny", device="quantum")
    if not torch.cuda.is_available():
        assert "use --device cpu or auto" in refusal("shapes-tiny", device="cuda:7")
    assert "did you mean 'bf16'?" in refusal("shapes-tiny", precision="bf6")


def test_a_missing_image_is_named(shapes_box: OpenClipBlackBox) -> None:
    class Broken:
        name = "holiday/beach.jpg"

        def key(self) -> str:
            return "0"

        def load(self) -> PillowImage.Image:
            raise OSError(f"{self.name} is damaged")

    with pytest.raises(OSError, match=r"holiday/beach.jpg"):
        shapes_box.image_features([*images(2).images, Broken()])


# ------------------------------------------------------------------------ for people to look at


def test_known_models_begin_with_the_embedded_one() -> None:
    models = known_models()
    assert models[0]["name"] == "shapes-tiny"
    by_name = {model["name"]: model["pretrained"] for model in models}
    assert "openai" in by_name["RN50-quickgelu"]
    assert len(by_name) == len(models)


def test_description() -> None:
    found = describe("shapes-tiny", "", "cpu")
    assert (found["access"], found["context length"], found["feature dimension"]) == (
        "soft",
        24,
        128,
    )
    assert found["text path"] == "trie"
    json.dumps(found)


def test_only_the_embedded_model_is_exported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only 'shapes-tiny'"):
        export_model("RN50", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write"):
        export_model("shapes-tiny", tmp_path / "file" / "below")

"""What a model's own files may choose, and that every kind of model computes in every precision."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import fuzz
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from served import serving
from tiny_folders import CONFIG, KINDS, WEIGHTS, open_clip, write

from llmopt.data.shapes import ShapesDataset
from llmopt.errors import ModelError
from llmopt.images import PixelImage
from llmopt.runs.compose import choose_model
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.vision import model_files
from llmopt.vision.decoders import PillowDecoder
from llmopt.vision.model_files import ModelConfig, check_model
from llmopt.vision.openclip import OpenClipBlackBox, load_model
from llmopt.vision.services.http import HttpBlackBox

IMAGES = ShapesDataset("shapes-small").split("test")[0][:3]
PROMPTS = ["a photo of a cat.", "texture"]


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer() -> Iterator[None]:
    """open_clip reads its merges anew for each tokenizer, which takes most of the time here."""

    def make(context_length: int = 77, **_: Any) -> Any:
        made = copy(open_clip.tokenizer._tokenizer)
        made.context_length = context_length
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory.SimpleTokenizer", make)
        yield


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    write(folder)
    return folder


@pytest.fixture
def folder(vit: Path, tmp_path: Path) -> Path:
    """A copy of a sound model's folder, to be spoilt."""
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    return tmp_path


def changed(folder: Path, place: str, value: Any) -> str:
    """Set one entry of a folder's config; the model's name."""
    settings = json.loads((folder / CONFIG).read_text())
    *path, key = place.split(".")
    part = settings
    for name in path:
        part = part.setdefault(name, {})
    part[key] = value
    (folder / CONFIG).write_text(json.dumps(settings))
    return f"local-dir:{folder}"


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(ModelError) as refused:
        OpenClipBlackBox(name, device=options.pop("device", "cpu"), **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------------- precisions


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.long] * (kind not in ("vit", "resnet")))
        for kind in KINDS
    ],
)
def test_every_kind_of_model_computes_in_every_precision(kind: str, tmp_path: Path) -> None:
    name = write(tmp_path, kind)
    found = {}
    for precision in ("fp32", "fp16", "bf16"):
        box = OpenClipBlackBox(name, device="cpu", precision=precision)
        found[precision] = (box.image_features(IMAGES), box.text_features(PROMPTS))
        if box.engine.path == "trie":
            context = torch.tensor(box.embed_text("a small"))[None]
            soft = box.soft_features(context, ["cat"])[0].numpy()
            np.testing.assert_allclose(soft, box.text_features(["a small cat."]), atol=0.02)
    for precision, atol in (("fp16", 0.005), ("bf16", 0.03)):
        for half, full in zip(found[precision], found["fp32"], strict=True):
            assert half.dtype == np.float32
            np.testing.assert_allclose(half, full, atol=atol)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_served_box_in_half_precision(precision: str) -> None:
    box = OpenClipBlackBox(device="cpu", precision=precision)
    with serving(box) as url, contextlib.closing(HttpBlackBox(url)) as client:
        scores = client.scores(IMAGES, PROMPTS)
    np.testing.assert_allclose(scores, box.scores(IMAGES, PROMPTS), atol=0.05)


def test_a_local_black_box_honours_device_and_precision(vit: Path) -> None:
    for address in ("open_clip:shapes-tiny", f"open_clip:local-dir:{vit}"):
        config = RunConfig(blackbox=address, device="cpu", precision="bf16", batch_size=7)
        box = choose_model(config).open(Watch())
        assert isinstance(box, OpenClipBlackBox)
        assert (box.precision, box.device.type, box._batch.size) == ("bf16", "cpu", 7)
    tagged = choose_model(RunConfig(blackbox="open_clip:RN50-quickgelu@openai"))
    assert (tagged.model, tagged.pretrained, tagged.address) == ("RN50-quickgelu", "openai", "")


# -------------------------------------------------------------------------- numbers and devices


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", ["visual.conv1.weight", "token_embedding.weight", "logit_scale"])
def test_weights_that_are_no_numbers_are_found_when_opened(
    weight: str, bad: float, folder: Path
) -> None:
    state = load_file(folder / WEIGHTS)
    state[weight].view(-1)[-1] = bad
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    message = refusal(f"local-dir:{folder}")
    assert f"the weights '{weight}' of model 'local-dir:{folder}' are not finite" in message
    assert "fetch it again" in message


def test_logits_and_features_beyond_a_precision_are_found_when_opened(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    sound = state["visual.conv1.weight"].clone()
    state["visual.conv1.weight"] *= 1e6
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    assert "or use --precision fp32" in refusal(f"local-dir:{folder}", precision="fp16")
    state["visual.conv1.weight"] = sound
    state["logit_scale"] += 1000
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    assert "the logits of model" in refusal(f"local-dir:{folder}")


def test_one_picture_beyond_a_precision_is_named(folder: Path) -> None:
    box = OpenClipBlackBox(f"local-dir:{folder}", device="cpu", precision="fp16")
    box.decoder = PillowDecoder(
        lambda picture: box.preprocess(picture) * (1e9 if picture.size == (7, 7) else 1)
    )
    pictures = [PixelImage(f"{side}.png", np.zeros((side, side, 3), np.uint8)) for side in (9, 7)]
    with pytest.raises(ModelError, match=r"the features of '7\.png'.*or use --precision fp32"):
        box.image_features(pictures)


@pytest.mark.filterwarnings("ignore:'mkldnn' is no longer used")
@pytest.mark.parametrize(
    "device",
    ["meta", "meta:0", "xla", "vulkan", "lazy", "mkldnn", "hpu", "privateuseone", "mtia", "cuda:-1",
     "", "CPU", "fpga"],
)  # fmt: skip
def test_devices_that_cannot_compute(device: str) -> None:
    message = refusal("shapes-tiny", device=device)
    assert f"device '{device}' cannot be used here" in message
    assert "use --device cpu or auto" in message


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.safetensors", "mine"])
def test_a_file_of_weights_beside_you_is_seen_as_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"no weights")
    with pytest.raises(ModelError, match=rf"with weights '{name}': .*is the file complete"):
        load_model("ViT-B-32", name)
    Path(name).unlink()
    with pytest.raises(ModelError, match=f"weights file '{name}'|no weights '{name}'"):
        load_model("ViT-B-32", name)


def test_a_folder_and_other_weights_are_not_mixed(vit: Path) -> None:
    with pytest.raises(ModelError, match="leave out --pretrained openai"):
        load_model(f"local-dir:{vit}", "openai")


# ------------------------------------------------------------------------------- what may stand


@pytest.mark.parametrize("name", open_clip.list_models())
def test_what_open_clip_describes_itself_is_allowed(name: str) -> None:
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": None}
    ModelConfig.model_validate_json(json.dumps(config))


def test_every_setting_of_a_tower_is_decided_on() -> None:
    from open_clip.coca_model import MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip.transform import PreprocessCfg

    for ours, theirs in (
        (model_files._Vision, CLIPVisionCfg),
        (model_files._Text, CLIPTextCfg),
        (model_files._Multimodal, MultimodalCfg),
        (model_files._Preprocess, PreprocessCfg),
    ):
        assert set(ours.model_fields) == {field.name for field in fields(theirs)}


REFUSED: list[tuple[str, Any]] = [
    ("model_cfg.text_cfg.tokenizer_kwargs.trust_remote_code", True),
    ("model_cfg.text_cfg.tokenizer_kwargs.code_revision", "main"),
    ("model_cfg.text_cfg.tokenizer_kwargs.vocab_file", "/etc/passwd"),
    ("model_cfg.text_cfg.tokenizer_kwargs.bpe_path", "/etc/passwd"),
    ("model_cfg.text_cfg.tokenizer_kwargs.reduction_mask", "random"),
    ("model_cfg.text_cfg.hf_tokenizer_name", "/home/me/tokenizer"),
    ("model_cfg.text_cfg.hf_tokenizer_name", "../tokenizer"),
    ("model_cfg.text_cfg.hf_model_name", "https://example.org/x"),
    ("model_cfg.text_cfg.hf_model_name", "a/b/c"),
    ("model_cfg.text_cfg.config", {"auto_map": {}}),
    ("model_cfg.vision_cfg.timm_model_name", "hf-hub:someone/model"),
    ("model_cfg.vision_cfg.timm_model_name", "local-dir:/tmp/x"),
    ("model_cfg.vision_cfg.timm_model_checkpoint_path", "/tmp/x.pth"),
    ("model_cfg.vision_cfg.norm_kwargs", {"device": "cuda"}),
    ("model_cfg.vision_cfg.act_kwargs", {"inplace": True}),
    ("model_cfg.vision_cfg.layers", "12"),
    ("model_cfg.vision_cfg.layers", True),
    ("model_cfg.vision_cfg.layers", 10**9),
    ("model_cfg.vision_cfg.layers", [1, 2]),
    ("model_cfg.vision_cfg.width", -1),
    ("model_cfg.vision_cfg.image_size", 10**6),
    ("model_cfg.vision_cfg", {"image_size": 2048, "patch_size": 1, "pos_embed_type": "sin_cos_2d"}),
    ("model_cfg.text_cfg.context_length", 10**6),
    ("model_cfg.text_cfg.vocab_size", 10**12),
    ("model_cfg.embed_dim", 0),
    ("model_cfg.output_dict", True),
    ("model_cfg.init_logit_scale", "inf"),
    ("preprocess_cfg.interpolation", "nearest"),
    ("preprocess_cfg.std", [0.0, 1.0, 1.0]),
    ("preprocess_cfg.mean", 0.5),
    ("auto_map", {"AutoModel": "modeling.Evil"}),
]


@pytest.mark.parametrize(("place", "value"), REFUSED)
def test_what_may_not_stand_in_a_config_is_named(place: str, value: Any, folder: Path) -> None:
    message = refusal(changed(folder, place, value))
    assert f"{CONFIG} sets {place}" in message
    assert "nothing was loaded" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"\xff\xfe{}", "Invalid JSON"),
        (b"{}", "lacks model_cfg"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"a":' * 100_000, "Invalid JSON"),
        (b'{"model_cfg": NaN}', "model_cfg"),
        (b" " * (17 * 2**20), "more than"),
    ],
)
def test_what_is_no_config(content: bytes, says: str, folder: Path) -> None:
    (folder / CONFIG).write_bytes(content)
    message = refusal(f"local-dir:{folder}")
    assert says in message
    assert str(folder) in message


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_pipes_and_devices_among_a_models_files_are_not_opened(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "it is a pipe, not a file" in refusal(f"local-dir:{folder}")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert "it is a device, not a file" in refusal(f"local-dir:{folder}")


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


class Provoking:
    """Unpickled with care, a TypeError; at that open_clip tries again without."""

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, ()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("provoking", [True, False])
def test_files_of_weights_run_nothing(provoking: bool, zipped: bool, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    content = [Provoking()] * provoking + [Evil(folder / "ran"), torch.zeros(10**6)]
    torch.save(content, folder / "model.pth", _use_new_zipfile_serialization=zipped)
    assert "cannot load model" in refusal(f"local-dir:{folder}")
    with pytest.raises(ModelError, match=r"model\.pth"):
        load_model("ViT-B-32", str(folder / "model.pth"))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model_cfg.vision_cfg.layers", 400),
        ("model_cfg.vision_cfg.width", 16_384),
        ("model_cfg.text_cfg.width", 16_384),
        ("model_cfg.text_cfg.vocab_size", 4_000_000),
        ("model_cfg.vision_cfg", {"timm_model_name": "vit_giant_patch14_224"}),
    ],
)
def test_a_model_larger_than_its_weights_is_not_built(place: str, value: Any, folder: Path) -> None:
    message = refusal(changed(folder, place, value))
    assert "parameters" in message
    assert f"{WEIGHTS} has" in message


def spoilt(config: Any, places: list[int], value: Any) -> Any:
    """A config with one part, found by walking down ``places``, replaced or added."""
    config = part = deepcopy(config)
    for place in places[:-1]:
        below = [key for key in part if isinstance(part[key], dict)]
        if not below:
            break
        part = part[below[place % len(below)]]
    keys = [*part, "trust_remote_code", "auto_map"]
    part[keys[places[-1] % len(keys)]] = value
    return config


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@fuzz(
    kind=st.sampled_from(sorted(KINDS)),
    places=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    value=VALUES,
)
def test_any_config_is_built_or_refused(kind: str, places: list[int], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = spoilt(KINDS[kind], places, value)
        (Path(folder) / CONFIG).write_text(json.dumps(config))
        (Path(folder) / WEIGHTS).write_bytes(bytes(2**23))
        with pytest.raises(ModelError, match="local-dir:"):
            load_model(f"local-dir:{folder}", "")


# ------------------------------------------------------------------------------------- tokenizers


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for the package that says what it was asked for."""
    asked: dict[str, Any] = {}

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(source: Any, **options: Any) -> Any:
            asked.update(source=source, patience=modules.TIME_OUT_REMOTE_CODE, **options)
            return open_clip.tokenizer._tokenizer

    fake, modules = (ModuleType(f"transformers{end}") for end in ("", ".dynamic_module_utils"))
    fake.AutoTokenizer, modules.TIME_OUT_REMOTE_CODE = AutoTokenizer, 15
    for module in (fake, modules):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("open_clip.hf_model.transformers", fake)
    asked["modules"] = modules
    return asked


def test_a_tokenizer_is_told_to_run_nothing(transformers: dict[str, Any], folder: Path) -> None:
    name = changed(folder, "model_cfg.text_cfg.hf_tokenizer_name", "org/words")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    load_model(name, "")
    assert transformers["source"] == folder
    assert transformers["trust_remote_code"] is False
    assert transformers["patience"] == 0  # or it would ask whoever sits there
    assert transformers["modules"].TIME_OUT_REMOTE_CODE == 15


@pytest.mark.parametrize("file", model_files.TOKENIZER_FILES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoTokenizer": ["evil.Evil", None]}),
        ("trust_remote_code", True),
        ("vocab_file", "/etc/passwd"),
        ("tokenizer_file", "../tokenizer.json"),
        ("sp_model_kwargs", {"model_file": "/etc/passwd"}),
        ("mecab_kwargs", {"mecab_option": "-r /tmp/x"}),
        ("init_inputs", ["/etc/passwd"]),
    ],
)
def test_what_may_not_stand_in_a_tokenizers_files(
    file: str, key: str, value: Any, transformers: dict[str, Any], folder: Path
) -> None:
    name = changed(folder, "model_cfg.text_cfg.hf_tokenizer_name", "org/words")
    (folder / file).write_text(json.dumps({"pad_token": "x", key: value}))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert f"{file} sets {key}" in refusal(name)
    assert not (folder / "ran").exists()
    assert "source" not in transformers


def test_a_hub_models_files_are_read_the_same_way(
    transformers: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(folder, "model_cfg.text_cfg.hf_tokenizer_name", "org/words")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {}}')

    def fetch(model: str, filename: str = WEIGHTS, **_: Any) -> str:
        if not (folder / filename).exists():
            raise FileNotFoundError(filename)
        return str(folder / filename)

    for module in ("pretrained", "factory"):
        monkeypatch.setattr(f"open_clip.{module}.download_pretrained_from_hf", fetch)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json sets auto_map"):
        check_model("hf-hub:org/model")
    changed(folder, "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    assert "tokenizer_kwargs.trust_remote_code" in refusal("hf-hub:org/model")

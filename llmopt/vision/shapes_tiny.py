"""``shapes-tiny``: the CLIP model that comes with the package and knows the shapes world.

An ordinary open_clip model in every respect but its file: of the 49,408 token vectors only those of
the world's vocabulary were trained, and all other words share one vector. The file keeps what was
trained; the full table is laid out on loading, so open_clip's classes and tokenizer work unchanged.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmopt._torchvision import ensure_operators
from llmopt.errors import ModelError

ensure_operators()

import open_clip.tokenizer  # noqa: E402
from open_clip import CLIP, SimpleTokenizer  # noqa: E402
from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402

NAME = "shapes-tiny"
_CONFIG = "open_clip_config.json"
_WEIGHTS = "weights.safetensors"
_TABLE = "token_embedding.weight"
# What stands in the file in place of the table: V trained rows (V, width), their token ids (V,),
# and the vector (width,) of every other token.
_KNOWN, _KNOWN_IDS, _UNKNOWN = (
    f"token_embedding.{part}" for part in ("known", "known_ids", "unknown")
)

Preprocess = Callable[[Image.Image], Tensor]


def weights_path() -> Path:
    """Where the weights lie."""
    return _folder() / _WEIGHTS


def config_path() -> Path:
    """Where the architecture and preprocessing are written down, in open_clip's own format."""
    return _folder() / _CONFIG


def _folder() -> Path:
    return Path(__file__).resolve().parents[1] / "assets" / NAME


@cache
def weights_sha256() -> str:
    """Identity of the model: a digest of its weights and its config."""
    digest = hashlib.sha256()
    for path in (weights_path(), config_path()):
        digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()


def config() -> dict[str, Any]:
    """``{"model_cfg": ..., "preprocess_cfg": ...}``, as open_clip reads it."""
    parsed: dict[str, Any] = json.loads(_read(config_path()))
    return parsed


def load(
    weights: Path | None = None, precision: str = "fp32"
) -> tuple[CLIP, Preprocess, SimpleTokenizer]:
    """The model in evaluation mode, its preprocessing and its tokenizer.

    Args:
        weights: a file as the training script writes it; the packaged one by default.
        precision: ``fp32``, ``fp16`` or ``bf16``; normalisation stays in float32, as in open_clip.

    Returns:
        The model on the CPU; PIL image -> (3, 48, 48) float32; texts -> (B, 24) int64.

    Raises:
        ModelError: the weights or the config are missing, unreadable or don't fit each other.
    """
    settings = config()
    model_cfg = settings["model_cfg"]
    state = read_state(weights or weights_path(), model_cfg["text_cfg"]["vocab_size"])
    with torch.random.fork_rng(devices=[]):  # loading a model must not disturb the caller's dice
        towers = model_cfg["embed_dim"], model_cfg["vision_cfg"], model_cfg["text_cfg"]
        model = CLIP(*towers, cast_dtype=open_clip.get_cast_dtype(precision))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise _unusable(weights or weights_path(), "does not fit the model's config") from error
    if half := open_clip.get_cast_dtype(precision):
        open_clip.convert_weights_to_lp(model, half)
    preprocess = image_transform_v2(PreprocessCfg(**settings["preprocess_cfg"]), is_train=False)
    return model.eval(), preprocess, _tokenizer(model_cfg["text_cfg"]["context_length"])


def _tokenizer(context_length: int) -> SimpleTokenizer:
    """open_clip's tokenizer, sharing the tables that its import has built: that takes a while."""
    built: Any = getattr(open_clip.tokenizer, "_tokenizer", None)
    tokenizer: Any = copy.copy(built) if type(built) is SimpleTokenizer else SimpleTokenizer()
    tokenizer.context_length = context_length
    return tokenizer


def read_state(path: Path, vocab_size: int) -> dict[str, Tensor]:
    """The state of an open_clip ``CLIP``, with the token table at full size.

    Raises:
        ModelError: the file is missing, truncated or holds something else.
    """
    try:
        state = load_file(path)
        known, ids = state.pop(_KNOWN), state.pop(_KNOWN_IDS).long()
        table = state.pop(_UNKNOWN).repeat(vocab_size, 1)
        table[ids] = known
    except FileNotFoundError as error:
        raise _unusable(path, "is missing") from error
    except (OSError, SafetensorError) as error:
        raise _unusable(path, f"is unreadable or truncated ({error})") from error
    except (KeyError, IndexError, RuntimeError) as error:
        raise _unusable(path, f"holds no {NAME} weights ({error})") from error
    state[_TABLE] = table
    return state


def export(folder: Path) -> None:
    """Write an open_clip ``local-dir``: config and full weights, for open_clip and its kin.

    ``open_clip.create_model_and_transforms("local-dir:FOLDER")`` and
    ``open_clip.get_tokenizer("local-dir:FOLDER")`` load it unchanged.
    """
    state = read_state(weights_path(), config()["model_cfg"]["text_cfg"]["vocab_size"])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / _CONFIG).write_bytes(_read(config_path()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"can't be read ({error.strerror})") from error


def _unusable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"the file {path} of the model '{NAME}' {why}; reinstall llmopt, or in a checkout run "
        f"'git checkout -- llmopt/assets/{NAME}'"
    )

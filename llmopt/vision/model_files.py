"""What a model's own files may choose: sizes and kinds of layers, never code, files or addresses.

A folder (``local-dir:PATH``) or a model of the hub (``hf-hub:ORG/NAME``) describes itself in
``open_clip_config.json``, and its tokenizer in files of transformers. Loaders hand what they find
there to whatever they build, so nothing may stand there but what is named here.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from llmopt.errors import ModelError, seen_from
from llmopt.images import regular

SCHEMAS: Final = ("local-dir:", "hf-hub:")
"""Before the names of models that bring their own config and weights."""

CONFIG: Final = "open_clip_config.json"
MAX_BYTES: Final = 16 * 2**20
MAX_POSITIONS: Final = 2**25
"""Numbers in a table of positions: 128 MiB, some twenty times the largest known."""
WEIGHTS: Final = (".safetensors", ".bin", ".pth", ".pt", ".npz", ".npy")
"""How files of weights are called."""

TOKENIZER_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json")
TOKENIZER_KEYS: Final = frozenset({
    "add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder",
    "additional_special_tokens", "backend", "bos_token", "chat_template",
    "clean_up_tokenization_spaces", "cls_token", "do_basic_tokenize", "do_lower_case", "eos_token",
    "errors", "extra_ids", "extra_special_tokens", "is_local", "keep_accents", "legacy",
    "legacy_behaviour", "mask_token", "max_len", "max_length", "model_input_names",
    "model_max_length", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token",
    "pad_token_type_id", "padding_side", "processor_class", "remove_space", "sep_token",
    "sp_model_kwargs", "spaces_between_special_tokens", "special_tokens_map_file",
    "split_special_tokens", "src_lang", "stride", "strip_accents", "tgt_lang",
    "tokenize_chinese_chars", "tokenizer_class", "transformers_version", "trim_offsets",
    "truncation_side", "truncation_strategy", "unk_token", "use_default_system_prompt",
})  # fmt: skip
"""What a tokenizer's files may set. ``sp_model_kwargs`` has to be empty: it can name files."""


def _whole(most: int, length: int) -> Callable[[object], object]:
    """A check for a whole number of 1 to ``most``, or a list of ``length`` of them."""

    def check(value: object) -> object:
        numbers = value if isinstance(value, list) and len(value) == length else [value]
        if all(type(number) is int and 1 <= number <= most for number in numbers):
            return value
        raise ValueError(f"expected whole numbers of 1 to {most}, one or {length}")

    return check


Count = Annotated[int, Field(ge=1, le=16_384)] | None
Layers = Annotated[Any, AfterValidator(_whole(512, 4))]
Pixels = Annotated[Any, AfterValidator(_whole(2048, 2))]
Number = Annotated[float, Field(ge=-1e4, le=1e4)]
Share = Annotated[float, Field(ge=0.0, le=1.0)] | None
Flag = bool | None
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_.]*$", max_length=100)] | None
HubName = (
    Annotated[
        str,
        Field(pattern="^([A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?)?$"),
        Field(max_length=200),
    ]
    | None
)


class _Section(BaseModel):
    """A part of a config: what is not named in it is refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class _Activation(_Section):
    approximate: Literal["none", "tanh"] | None = None


class _Norm(_Section):
    eps: Share = None
    elementwise_affine: Flag = None
    bias: Flag = None


class _Tower(_Section):
    layers: Layers = 12
    width: Count = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    ls_init_value: Number | None = None
    pool_type: Name = None
    final_ln_after_pool: Flag = None
    output_tokens: Flag = None
    act_kwargs: _Activation | None = None
    norm_kwargs: _Norm | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: Flag = None
    scaled_cosine_attn: Flag = None
    scale_heads: Flag = None
    scale_attn_inner: Flag = None
    scale_attn: Flag = None
    scale_fc: Flag = None


class _Vision(_Tower):
    head_width: Count = None
    patch_size: Count = None
    image_size: Pixels = 224
    patch_dropout: Share = None
    attentional_pool: bool | Literal["parallel", "cascade"] | None = None
    attn_pooler_queries: Count = None
    attn_pooler_heads: Count = None
    no_ln_pre: Flag = None
    pos_embed_type: Literal["learnable", "sin_cos_2d"] | None = None
    timm_model_name: Name = None
    timm_model_pretrained: Flag = None
    timm_pool: Name = None
    timm_proj: Name = None
    timm_proj_bias: Flag = None
    timm_drop: Share = None
    timm_drop_path: Share = None

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        size = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        patches = math.prod(side // (self.patch_size or 16) for side in size)
        if patches * (self.width or 768) > MAX_POSITIONS:
            raise ValueError(f"{patches:,} patches of {self.width or 768} numbers are too many")
        return self


class _TokenizerOptions(_Section):
    clean: Literal["whitespace", "lower", "canonicalize"] | None = None
    strip_sep_token: Flag = None
    language: Name = None


class _Text(_Tower):
    context_length: Annotated[int, Field(ge=1, le=4096)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=4_000_000)] | None = None
    hf_tokenizer_name: HubName = None
    tokenizer_mode: Literal["", "clips"] | None = None
    tokenizer_kwargs: _TokenizerOptions = _TokenizerOptions()
    heads: Count = None
    embed_cls: Flag = None
    pad_id: Annotated[int, Field(ge=0, le=4_000_000)] | None = None
    eos_id: Annotated[int, Field(ge=0, le=4_000_000)] | None = None
    no_causal_mask: Flag = None
    proj_bias: Flag = None
    proj_type: Name = None
    hf_model_name: HubName = None
    hf_model_pretrained: Flag = None
    hf_proj_type: Name = None
    hf_pooler_type: Name = None


class _Multimodal(_Text):
    dim_head: Count = None
    n_queries: Count = None
    attn_pooler_heads: Count = None


class _Model(_Section):
    embed_dim: Annotated[int, Field(ge=1, le=16_384)]
    vision_cfg: _Vision
    text_cfg: _Text
    multimodal_cfg: _Multimodal | None = None
    custom_text: Flag = None
    quick_gelu: Flag = None
    init_logit_scale: Number | None = None
    init_logit_bias: Number | None = None
    nonscalar_logit_scale: Flag = None


class _Preprocess(_Section):
    size: Pixels | None = None
    mode: Literal["RGB"] | None = None
    mean: Annotated[list[Number], Field(min_length=3, max_length=3)] | None = None
    std: (
        Annotated[list[Annotated[float, Field(gt=1e-6, le=1e4)]], Field(min_length=3, max_length=3)]
        | None
    ) = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class ModelConfig(_Section):
    """A whole ``open_clip_config.json``."""

    model_cfg: _Model
    preprocess_cfg: _Preprocess | None = None


def check_model(name: str) -> None:
    """See that the files of a folder or hub model choose nothing that they may not.

    Args:
        name: of a model; those that open_clip describes itself have nothing to check.

    Raises:
        ModelError: they do (the first such entry is named), are no configs, or do not fit together.
        OSError: they cannot be had, or are pipes or devices, which may have no end.
    """
    from open_clip.factory import _find_checkpoint_in_dir
    from open_clip.pretrained import download_pretrained_from_hf as fetch

    if not name.startswith(SCHEMAS):
        return
    schema, _, address = name.partition(":")
    folder = Path(address)
    if schema == "local-dir" and not folder.is_dir():
        raise ModelError(f"there is no folder {address!r} for model '{name}'{seen_from(folder)}")
    path = folder / CONFIG if schema == "local-dir" else Path(fetch(address, CONFIG))
    config: ModelConfig = _checked(TypeAdapter(ModelConfig), path, name)
    found = _find_checkpoint_in_dir(folder) if schema == "local-dir" else fetch(address)
    if not found:
        raise ModelError(f"cannot load model '{name}': there are no weights beside {CONFIG}")
    _check_weights(Path(found), name)
    if not (tokenizer := config.model_cfg.text_cfg.hf_tokenizer_name):
        return
    for file in TOKENIZER_FILES:
        with contextlib.suppress(FileNotFoundError):  # not every tokenizer has both
            path = folder / file if schema == "local-dir" else Path(fetch(tokenizer, file))
            _check_tokenizer(path, name)


@contextlib.contextmanager
def no_foreign_code() -> Iterator[None]:
    """Keep transformers from asking whether a model's own Python may run: it may not."""
    from open_clip.hf_model import transformers

    with contextlib.ExitStack() as stack:
        if transformers is not None:
            modules: Any = importlib.import_module("transformers.dynamic_module_utils")
            stack.callback(setattr, modules, "TIME_OUT_REMOTE_CODE", modules.TIME_OUT_REMOTE_CODE)
            modules.TIME_OUT_REMOTE_CODE = 0
        yield


def _check_tokenizer(path: Path, model: str) -> None:
    for key, value in _checked(TypeAdapter(dict[str, Any]), path, model).items():
        if key not in TOKENIZER_KEYS or (key == "sp_model_kwargs" and value):
            raise _refused(path, model, f"sets {key}, which a model's files may not choose")


def _check_weights(weights: Path, model: str) -> None:
    """That the weights can be what the config describes: building that takes the memory."""
    import open_clip

    size = regular(weights, math.inf).st_size
    with torch.device("meta"):  # where parameters take no memory
        built = open_clip.create_model(
            model, load_weights=False, pretrained_text=False, device="meta"
        )
    parameters = sum(parameter.numel() for parameter in built.parameters())
    if size < parameters:  # of a byte at the very least
        raise ModelError(
            f"model '{model}': {CONFIG} describes {parameters:,} parameters, but {weights.name} "
            f"has {size:,} bytes; is the file complete and made for this model?"
        )


def _checked(kind: TypeAdapter[Any], path: Path, model: str) -> Any:
    regular(path, MAX_BYTES)
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        faults = {
            "extra_forbidden": f"sets {place}, which a model's files may not choose",
            "missing": f"lacks {place}",
        }
        value = repr(first["input"])[:60]
        fault = f"sets {place} to {value}: {first['msg']}" if place else f"is none: {first['msg']}"
        fault = faults.get(first["type"], fault)
        raise _refused(path, model, fault) from error


def _refused(path: Path, model: str, fault: str) -> ModelError:
    return ModelError(
        f"model '{model}': {path.name} {fault} (in {path}); nothing was loaded. If you trust the "
        "model, take that entry out of a copy of its folder and use --model local-dir:PATH"
    )

"""The result file of the command-line contract, as types."""

from __future__ import annotations

from typing import Any

NUMBER = (int, float)
MAYBE = (int, float, type(None))
PAIR = [NUMBER]

TEMPLATE = {
    "text": str,
    "weight": NUMBER,
    "train_accuracy": NUMBER,
    "train_logprob": NUMBER,
    "val_accuracy": MAYBE,
}
FIGURES = {
    "top1": NUMBER,
    "top5": MAYBE,
    "mean_per_class_recall": NUMBER,
    "macro_f1": NUMBER,
    "ece": MAYBE,
    "reliability": (list, type(None)),
}
# Keys that are there only where there is something to say.
OPTIONAL = {"result.task": {"notes": [str], "skipped": dict}}
RESULT: dict[str, Any] = {
    "schema": int,
    "run": str,
    "status": str,
    "stop_reason": str,
    "task": {
        "dataset": str,
        "classes": int,
        "shots": int,
        "seed": int,
        "train_images": int,
        "val_images": int,
        "test_images": int,
        "split_sha256": str,
    },
    "model": {"name": str, "pretrained": str, "access": str, "weights_sha256": str},
    "optimizer": {"name": str, "settings": dict},
    "baseline": {
        "template": str,
        "train_accuracy": NUMBER,
        "val_accuracy": MAYBE,
        "test_accuracy": MAYBE,
    },
    "best": {
        "templates": [TEMPLATE],
        "soft_prompt": (dict, type(None)),
        "head": (dict, type(None)),
        "fallback": bool,
        "train_accuracy": NUMBER,
        "val_accuracy": MAYBE,
        "test_accuracy": MAYBE,
        "test_accuracy_ci95": PAIR,
    },
    "gain": {"test_accuracy": NUMBER, "ci95": PAIR, "p_value": NUMBER},
    "ledger": {
        "image_encodings": int,
        "text_encodings": int,
        "soft_prompt_encodings": int,
        "pairs_scored": int,
        "black_box_calls": int,
        "llm_calls": int,
        "llm_tokens_in": int,
        "llm_tokens_out": int,
        "llm_usd": MAYBE,
        "labelled_images": int,
        "cache_hits": int,
    },
    "metrics": {"start": FIGURES, "best": FIGURES},
    "per_class": [
        {
            "class": str,
            "images": int,
            "start_recall": MAYBE,
            "recall": MAYBE,
            "precision": MAYBE,
            "f1": MAYBE,
        }
    ],
    "baselines": dict,
    "seconds": {"total": NUMBER, "llm": NUMBER, "black_box": NUMBER},
    "versions": dict,
    "machine": {
        "processor": str,
        "instructions": (str, type(None)),
        "threads": int,
        "device": (str, type(None)),
        "precision": (str, type(None)),
        "precision_because": (str, type(None)),
        "tf32": (bool, type(None)),
        "same_elsewhere": bool,
        "because": str,
    },
}


def check(value: Any, schema: Any, where: str = "result") -> None:
    """Fail where a value is not of its schema; more keys than the schema's are fine."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        for name, inner in schema.items():
            assert name in value, f"{where}.{name} is missing"
            check(value[name], inner, f"{where}.{name}")
        for name in OPTIONAL.get(where, {}).keys() & value.keys():
            check(value[name], OPTIONAL[where][name], f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        assert value, f"{where} is empty"
        for index, item in enumerate(value):
            check(item, schema[0], f"{where}[{index}]")
    else:
        assert isinstance(value, schema), f"{where} is {value!r}"
        kinds = schema if isinstance(schema, tuple) else (schema,)
        assert isinstance(value, bool) <= (bool in kinds), f"{where} is {value!r}"

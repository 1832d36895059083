from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmopt.doctor import Check, _devices, examine, registries
from llmopt.figures import plain
from llmopt.registry import Registry
from llmopt.runs.result import versions
from llmopt.vision.device import abilities

SECRET = "sk-test-4f8a1c9d2b7e6f3a5d0c"


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_it_looks_at_everything_a_run_needs(tmp_path: Path) -> None:
    found = by_name(examine(tmp_path))
    assert set(versions()) <= set(found)
    for name in ("torch", "open_clip_torch", "device", "embedded model", "feature cache", "keys"):
        assert found[name].ok
        assert found[name].found


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    found = examine(tmp_path)
    assert SECRET not in repr(found)
    assert SECRET[:6] not in repr(found)
    assert "OPENAI_API_KEY is set" in by_name(found)["keys"].found
    assert "HF_TOKEN is set" in by_name(found)["keys"].found


def test_without_keys_it_says_what_works(tmp_path: Path) -> None:
    keys = by_name(examine(tmp_path))["keys"]
    assert keys.found == "none is set"
    assert "--llm builtin" in keys.remedy


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMOPT_CACHE", str(tmp_path / "file" / "cache"))
    cache = by_name(examine(tmp_path))["feature cache"]
    assert not cache.ok
    assert str(tmp_path / "file" / "cache") in cache.found
    assert "LLMOPT_CACHE" in cache.remedy


def test_a_torn_embedded_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from llmopt.vision import shapes_tiny

    torn = tmp_path / "weights.safetensors"
    torn.write_bytes(shapes_tiny.weights_path().read_bytes()[:1000])
    monkeypatch.setattr(shapes_tiny, "weights_path", lambda: torn)
    model = by_name(examine(tmp_path))["embedded model"]
    assert not model.ok
    assert "truncated" in model.found
    assert model.remedy


def test_data_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "caltech-101").mkdir()
    assert "caltech-101" in by_name(examine(tmp_path))["data"].found
    monkeypatch.setenv("LLMOPT_DATA", str(tmp_path / "nowhere"))
    missing = by_name(examine())["data"]
    assert str(tmp_path / "nowhere") in missing.found
    assert "--data-root" in missing.remedy


def test_plug_ins_are_listed_and_the_broken_ones_marked(
    install_package: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = {"plug_boxes": "def open_mine(address): ..."}
    points = {"mine": "plug_boxes:open_mine", "broken": "plug_boxes:open_theirs"}
    install_package("plug-boxes", {"black_boxes": points}, modules)
    boxes: Registry[Any] = Registry("kind of black box", "black_boxes", {})
    monkeypatch.setattr("llmopt.doctor.registries", lambda: (boxes,))
    found = by_name(examine(tmp_path))
    mine, broken = (found[f"plug-in: kind of black box {name}"] for name in ("mine", "broken"))
    assert (mine.ok, mine.found) == (True, "from the plug-in package plug-boxes 1.0")
    assert not broken.ok
    assert "cannot be used: AttributeError" in broken.found
    assert broken.remedy == "update plug-boxes or uninstall it; everything else works"
    told = [check["plugin"] for check in plain(examine(tmp_path)) if "plugin" in check]
    assert told == plain(boxes.plugins())


def test_every_kind_of_plug_in_is_looked_at() -> None:
    groups = [registry.group for registry in registries()]
    assert len(set(groups)) == len(groups)
    for kind in (
        "optimizers",
        "heads",
        "data_sources",
        "black_boxes",
        "chat_providers",
        "exports",
        "trackers",
    ):
        assert f"llmopt.{kind}" in groups


def test_a_size_of_the_cache_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOPT_CACHE_SIZE", "plenty")
    cache = by_name(examine(tmp_path))["feature cache"]
    assert not cache.ok
    assert "'plenty'" in cache.found
    assert "LLMOPT_CACHE_SIZE" in cache.remedy


def test_it_leaves_no_file(tmp_path: Path, cache_dir: Path) -> None:
    examine(tmp_path)
    assert list(tmp_path.iterdir()) == list(cache_dir.iterdir()) == []


def test_each_device_says_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmopt.vision import decoders, device

    card = {"free": 60 * 2**30, "memory": 80 * 2**30, "rates": {"fp32": 5e13, "fp16": 6.5e14}}
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "available", lambda: [torch.device("cuda", 0), cpu])
    monkeypatch.setattr(device, "abilities", lambda one: card if one != cpu else {"rates": {}})
    monkeypatch.setattr(device, "name", lambda one: "a card" if one != cpu else "CPU")
    monkeypatch.setattr(decoders, "why_no_nvjpeg", lambda one: "")
    found = by_name(_devices())
    said = "a card; 60.0 of 80.0 GiB free; matrix products, TFLOP/s: fp32 50, fp16 650"
    assert found["device"].found == f"{said}; decoder nvjpeg: ready"
    assert found["device cpu"].found.startswith(f"CPU; {torch.get_num_threads()} threads")


def test_the_rates_of_this_machine_are_measured() -> None:
    rates = abilities(torch.device("cpu"))["rates"]
    assert {"fp64", "fp32"} <= set(rates)
    assert all(rate > 1e6 for rate in rates.values())

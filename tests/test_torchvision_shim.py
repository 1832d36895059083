from __future__ import annotations

import pytest
import torch

from llmopt import _torchvision


class _Recorder:
    """Stands in for ``torch.library.Library``."""

    def __init__(self, namespace: str, kind: str) -> None:
        self.namespace, self.kind = namespace, kind
        self.schemas: list[str] = []

    def define(self, schema: str) -> None:
        self.schemas.append(schema)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(_torchvision, "_library", None)
    monkeypatch.setattr(torch.library, "Library", _Recorder)
    return monkeypatch


def test_declares_both_operators_where_the_extension_is_absent(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(_torchvision, "_declared", lambda: False)
    fresh.setattr(_torchvision, "_extension_loads", lambda: False)
    _torchvision.ensure_operators()
    first = _torchvision._library
    assert isinstance(first, _Recorder)
    assert first.namespace == "torchvision"
    assert [schema.partition("(")[0] for schema in first.schemas] == ["nms", "qnms"]
    _torchvision.ensure_operators()
    assert _torchvision._library is first


@pytest.mark.parametrize("present", ["_declared", "_extension_loads"])
def test_leaves_a_working_torchvision_alone(fresh: pytest.MonkeyPatch, present: str) -> None:
    for name in ("_declared", "_extension_loads"):
        fresh.setattr(_torchvision, name, lambda name=name: name == present)
    _torchvision.ensure_operators()
    assert _torchvision._library is None


def test_nothing_to_do_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torchvision, "find_spec", lambda name: None)
    assert _torchvision._extension_loads()


def test_torchvision_imports_here() -> None:
    _torchvision.ensure_operators()
    from torchvision.transforms import Compose

    assert Compose([]) is not None

"""Black boxes by address."""

from __future__ import annotations

import pytest

from llmopt.errors import ConfigError
from llmopt.vision import OpenClipBlackBox
from llmopt.vision.boxes import BLACK_BOXES, open_black_box
from llmopt.vision.services.http import HttpBlackBox


def test_a_model_in_this_process() -> None:
    box = open_black_box("open_clip:shapes-tiny")
    assert isinstance(box, OpenClipBlackBox)
    assert box.info.name == "shapes-tiny"


@pytest.mark.parametrize("kind", ["", "llmopt:"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://example.org/box", "HTTP://x"])
def test_a_url_with_and_without_its_kind(kind: str, url: str) -> None:
    assert isinstance(open_black_box(kind + url), HttpBlackBox)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "is not of the form http://HOST:PORT or KIND:ADDRESS"),
        ("127.0.0.1:8000", "is not of the form http://HOST:PORT or KIND:ADDRESS"),
        ("open_clip:", "something must follow the colon"),
        ("openclip:x", "unknown kind of black box 'openclip'; did you mean 'open_clip'?"),
        ("user:secret@host", "unknown kind of black box 'user'"),
    ],
)
def test_what_is_no_address(address: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_black_box(address)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)


def test_kinds_are_listed_without_loading_one() -> None:
    assert BLACK_BOXES.names()[:2] == ["open_clip", "llmopt"]

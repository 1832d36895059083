"""What a remote box answers is checked before anything is made of it."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import fuzz
from hypothesis import strategies as st
from remote_box import HASH, RemoteBox, listening

from llmopt.errors import LlmoptError, MalformedResponse, ServiceError
from llmopt.testing.world import NAMES, FakeBox, pictures
from llmopt.vision.answers import embedding_std, info, numbers, places
from llmopt.vision.base import Access
from llmopt.vision.feature_cache import FeatureCache, cache_key
from llmopt.vision.services.http import HttpBlackBox
from llmopt.vision.wire import pack_array, read_object, unpack_array

IMAGES = pictures("test", 1).images
PROMPTS = ["a dark ring.", "a light ring.", "a photo"]
N, M = len(IMAGES), len(PROMPTS)

Use = Callable[[HttpBlackBox], Any]
LABELS: Use = lambda box: box.labels(IMAGES, PROMPTS)  # noqa: E731
SCORES: Use = lambda box: box.scores(IMAGES, PROMPTS)  # noqa: E731
TEXTS: Use = lambda box: box.text_features(PROMPTS)  # noqa: E731
SOFT: Use = lambda box: box.soft_features(torch.zeros(2, 2, 9), NAMES)  # noqa: E731


def ask(box: RemoteBox, use: Use, **options: Any) -> Any:
    with listening(box):
        client = HttpBlackBox(box.url, pause=0.001, **options)
        try:
            return use(client)
        finally:
            client.close()


def instead(path: str, answer: Any) -> RemoteBox:
    """A box of all levels that answers so there, and rightly elsewhere."""
    return RemoteBox(Access.SOFT, lambda asked, right: answer if asked == path else right)


def grid(*shape: int, fill: float = 0.0) -> np.ndarray:
    return np.full(shape, fill, dtype=np.float32)


WRONG: list[tuple[Use, str, Any, str]] = [
    (SCORES, "scores", grid(N, M, fill=np.nan), "gave a number that is not finite"),
    (SCORES, "scores", grid(N, M, fill=-np.inf), "gave a number that is not finite"),
    (SCORES, "scores", grid(N - 1, M), rf"must give an array of shape \({N}, {M}\), not"),
    (SCORES, "scores", grid(M, N), "must give an array of shape"),
    (SCORES, "scores", grid(N * M), "must give an array of shape"),
    (SCORES, "scores", grid(N, M, 1), "must give an array of shape"),
    (LABELS, "labels", np.full(N, -1), f"labels that are places among the {M} prompts"),
    (LABELS, "labels", np.full(N, M), "labels that are places among"),
    (LABELS, "labels", grid(N, fill=0.5), "labels that are places among"),
    (LABELS, "labels", np.zeros(N + 1, dtype=int), rf"shape \({N},\), not \({N + 1},\)"),
    (LABELS, "labels", np.full(N, 2**62), "labels that are places among"),
    (TEXTS, "features", grid(M - 1, 12), rf"shape \({M}, d\), not"),
    (TEXTS, "features", grid(M, 0), rf"shape \({M}, d\), not"),
    (TEXTS, "features", grid(M, 5000), rf"shape \({M}, d\), not"),
    (TEXTS, "features", grid(M, 12, fill=np.nan), "not finite"),
    (SOFT, "features", grid(2, 12), rf"shape \(2, {len(NAMES)}, d\), not"),
    (lambda box: box.embed_text("a"), "vectors", grid(9), r"shape \(d, d\), not \(9,\)"),
]


@pytest.mark.parametrize(("use", "name", "array", "says"), WRONG)
def test_a_wrong_array_names_the_box_and_what_was_asked(
    use: Use, name: str, array: Any, says: str
) -> None:
    spoil = {"labels", "scores", "features", "vectors"}
    box = RemoteBox(
        Access.SOFT, lambda path, right: {name: pack_array(array)} if spoil & set(right) else right
    )
    with pytest.raises(ServiceError, match=says) as raised:
        ask(box, use)
    assert raised.value.exit_code == 4
    assert f"black box {box.url}, asked for " in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "there is no 'scores' in its answer"),
        ({"scores": [[0.0]]}, "not an array"),
        ({"scores": None}, "not an array"),
        ({"scores": {"dtype": "float64", "shape": [1], "data": ""}}, "not an array"),
        ({"scores": {"dtype": "float32", "shape": ["3"], "data": ""}}, "no array has the shape"),
        ({"scores": {"dtype": "float32", "shape": [2.5], "data": ""}}, "no array has the shape"),
        ({"scores": {"dtype": "float32", "shape": [0, 10**30], "data": ""}}, "no array has"),
        ({"scores": {"dtype": "float32", "shape": [-1, -1], "data": ""}}, "no array has"),
        ({"scores": {"dtype": "float32", "shape": [0] * 99, "data": ""}}, "no array has"),
        ({"scores": {"dtype": "float32", "shape": [5, 3], "data": "AAAA"}}, "do not fill"),
        ({"scores": {"dtype": "float32", "shape": [1], "data": "ä"}}, "not an array"),
        ({"scores": {"dtype": ["x"], "shape": [1], "data": ""}}, "not an array"),
    ],
)
def test_what_is_no_array_is_refused(answer: Any, says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        ask(instead("/scores", answer), SCORES)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"<html>hello</html>", "its answer is not JSON"),
        (b"", "its answer is not JSON"),
        (b"\xff\xfe", "its answer is not JSON"),
        (b"[" * 60_000, "its answer is nested too deeply"),
        (b'{"a":' * 12_000, "its answer is nested too deeply"),
        (b"[1, 2]", "its answer is list, not a JSON object"),
        (b"9" * 60_000, "its answer is not JSON"),
        (b'{"scores": "' + b"A" * 2**20 + b'"}', "its answer is longer than"),
        (b" " * 300 * 2**20, "its answer is longer than"),
    ],
)
def test_answers_are_bounded_while_they_are_read(answer: bytes, says: str) -> None:
    with pytest.raises(MalformedResponse, match=says):
        ask(instead("/scores", answer), SCORES)


def test_an_error_is_bounded_too_and_cannot_paint_the_screen() -> None:
    def refusing(path: str, right: Any) -> Any:
        return 400 if path == "/scores" else right

    with pytest.raises(ServiceError, match="no"):
        ask(RemoteBox(spoil=refusing), SCORES)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights_sha256": "../../x"}, "weights_sha256 is '../../x': must be 64 hexadecimal"),
        ({"weights_sha256": "/etc/" + "a" * 59}, "must be 64 hexadecimal digits"),
        ({"weights_sha256": HASH + "\n"}, "must be 64 hexadecimal digits"),
        ({"weights_sha256": "é" * 64}, "must be 64 hexadecimal digits"),
        ({"weights_sha256": None}, "its weights_sha256 is None"),
        ({"logit_scale": float("nan")}, "its logit_scale is nan"),
        ({"logit_scale": float("inf")}, "its logit_scale is inf"),
        ({"logit_scale": 0.0}, "its logit_scale is 0.0"),
        ({"logit_scale": -5.0}, "its logit_scale is -5.0"),
        ({"logit_scale": "100"}, "its logit_scale is '100'"),
        ({"logit_bias": float("-inf")}, "its logit_bias is -inf"),
        ({"access": 4}, "its access is 4"),
        ({"access": True}, "its access is True"),
        ({"access": "soft"}, "its access is 'soft'"),
        ({"name": "x" * 10_000}, "its name is 'xxx"),
        ({"name": "\x1b[2J"}, "its name is .* cannot be shown"),
        ({"detail": "a\nb"}, "its detail is .* cannot be shown"),
        ({"name": {"a": []}}, "its name is"),
    ],
)
def test_what_a_box_says_of_itself_is_believed_only_so_far(
    changes: dict[str, Any], says: str
) -> None:
    box = RemoteBox(spoil=lambda path, right: right | changes if path == "/info" else right)
    with pytest.raises(ServiceError, match=says):
        ask(box, lambda client: client.info)


def test_a_soft_box_without_a_spread_says_so() -> None:
    box = RemoteBox(
        Access.SOFT,
        lambda path, right: {k: v for k, v in right.items() if k != "embedding_std"},
    )
    with pytest.raises(ServiceError, match="does not tell its embedding_std"):
        ask(box, lambda client: client.embedding_std)


def test_features_of_two_lengths_are_refused() -> None:
    def widening(path: str, right: Any) -> Any:
        return {"features": pack_array(grid(N, 7))} if path == "/images" else right

    with pytest.raises(ServiceError, match=rf"shape \({N}, 12\), not \({N}, 7\)"):
        ask(
            RemoteBox(Access.FEATURES, widening),
            lambda box: (box.text_features(PROMPTS), box.image_features(IMAGES)),
        )


def test_compressed_answers_are_not_unpacked() -> None:
    import httpx

    transport = httpx.MockTransport(
        lambda request: httpx.Response(
            200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b" " * 10**7)
        )
    )
    box = HttpBlackBox("http://box", pause=0.001)
    box._client = httpx.Client(base_url="http://box", transport=transport)
    with pytest.raises(MalformedResponse, match="is compressed"):
        _ = box.info


@pytest.mark.parametrize("url", ["http://h:99999", "http://h:x", "http://[::1", "http://a b\x00/"])
def test_a_url_that_cannot_be_one_is_the_users(url: str) -> None:
    from llmopt.errors import ConfigError

    with pytest.raises(ConfigError, match="HOST:PORT"):
        HttpBlackBox(url)


def test_a_remote_box_fills_no_cache_but_its_own(tmp_path: Path) -> None:
    local = FakeBox()
    assert cache_key(local) == "f" * 32

    def claiming(path: str, right: Any) -> Any:
        return right | {"weights_sha256": "f" * 64} if path == "/info" else right

    for _ in range(2):
        with listening(RemoteBox(Access.FEATURES, claiming)) as box:
            client = HttpBlackBox(box.url)
            FeatureCache(tmp_path).features(IMAGES, client)
            client.close()
    FeatureCache(tmp_path).features(IMAGES, local)
    assert local.asked["image_encodings"] == N
    folders = {path.name for path in (tmp_path / "features").iterdir()}
    assert "f" * 32 in folders
    assert len(folders) == 3  # two addresses
    assert len({name for name in folders if name.startswith("remote-")}) == 2


@pytest.mark.parametrize("claimed", ["../../x", "/tmp/x", "F" * 64, "", "f" * 63])
def test_a_hash_that_is_none_is_no_folder(tmp_path: Path, claimed: str) -> None:
    import dataclasses

    class Claiming(FakeBox):
        @property
        def info(self) -> Any:
            return dataclasses.replace(super().info, weights_sha256=claimed)

    with pytest.raises(LlmoptError, match="64 hexadecimal digits"):
        FeatureCache(tmp_path).features(IMAGES, Claiming())
    assert not list(tmp_path.iterdir())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*RemoteBox().info(), "dtype", "shape", "data", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
ARRAYS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["float32", "int64", "float64", None]),
        "shape": st.lists(st.integers(-2, 5) | st.integers() | JSON, max_size=6) | JSON,
        "data": st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode()) | JSON,
    }
)


@fuzz(value=JSON | ARRAYS, shape=st.lists(st.none() | st.integers(0, 4), max_size=3))
def test_any_array_is_as_asked_or_refused(value: Any, shape: list[int | None]) -> None:
    """Nothing but ValueError, and what passes is finite and of the shape."""
    for read in (unpack_array, lambda told: told):
        try:
            found = numbers(read(value), tuple(shape))
        except ValueError:
            continue
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert all(want in (None, n) for n, want in zip(found.shape, shape, strict=True))
    try:
        found = places(unpack_array(value), 3, 2)
    except ValueError:
        return
    assert set(found.tolist()) <= {0, 1}


@fuzz(raw=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    """As is whatever a box says of itself."""
    try:
        said = read_object(raw)
        found = info(said, "http://x")
        embedding_std(said)
    except ValueError:
        return
    assert 0 < found.logit_scale < float("inf")


@fuzz(said=st.fixed_dictionaries({key: JSON | st.just(right) for key, right in
                                  RemoteBox(Access.SOFT).info().items()}))  # fmt: skip
def test_any_field_of_info_is_as_told_or_refused(said: dict[str, Any]) -> None:
    """Half of the fields are right."""
    try:
        found = info(said, "http://x")
    except ValueError:
        return
    assert found.name.isprintable()
    assert len(found.name) < 400
    assert len(found.weights_sha256) == 64
    assert int(found.weights_sha256, 16) >= 0

"""A black box served over HTTP is the black box itself, and offers no more than it was told to."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fakes import write_folder
from PIL import Image
from served import serving

from llmopt.data.shapes import ShapesDataset
from llmopt.errors import (
    AccessError,
    AuthenticationFailed,
    BadRequest,
    ConfigError,
    ConnectionLost,
    MalformedResponse,
    ServiceError,
    ServiceUnavailable,
)
from llmopt.vision.base import Access
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.server.bounds import Bounds
from llmopt.vision.server.keys import Keys
from llmopt.vision.services.http import HttpBlackBox
from llmopt.vision.wire import pack_array, unpack_array

PROMPTS = ["a small circle.", "a large star.", "a heart"]


@pytest.fixture(scope="module")
def box() -> OpenClipBlackBox:
    return OpenClipBlackBox()


@pytest.fixture(scope="module")
def images() -> list[Any]:
    return ShapesDataset("shapes-small").split("test")[0][:5]


@contextmanager
def remote(url: str, **options: Any) -> Iterator[HttpBlackBox]:
    client = HttpBlackBox(url, pause=0.01, **options)
    try:
        yield client
    finally:
        client.close()


def test_a_served_box_answers_as_the_box_itself(box: OpenClipBlackBox, images: list[Any]) -> None:
    with serving(box) as url, remote(url) as client:
        assert client.info.access == Access.SOFT
        assert client.info.weights_sha256 == box.info.weights_sha256
        assert client.info.logit_scale == pytest.approx(box.info.logit_scale)
        assert client.embedding_std == pytest.approx(box.embedding_std)
        np.testing.assert_allclose(
            client.image_features(images), box.image_features(images), atol=1e-6
        )
        np.testing.assert_allclose(
            client.text_features(PROMPTS), box.text_features(PROMPTS), atol=1e-6
        )
        np.testing.assert_allclose(
            client.scores(images, PROMPTS) / box.info.logit_scale,
            box.scores(images, PROMPTS) / box.info.logit_scale,
            atol=1e-5,
        )
        assert client.labels(images, PROMPTS).tolist() == box.labels(images, PROMPTS).tolist()
        context = torch.from_numpy(client.embed_text("a small"))[None]
        names = ["circle", "star"]
        torch.testing.assert_close(
            client.soft_features(context, names), box.soft_features(context, names)
        )


def test_a_certificate_that_is_not_trusted_is_named(
    box: OpenClipBlackBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"

    def distrust(*_: Any, **__: Any) -> Any:
        raise httpx.ConnectError(said)

    with serving(box) as url, remote(url) as client:
        monkeypatch.setattr(client._client, "stream", distrust)
        with pytest.raises(ServiceError, match=r"is not trusted here.*SSL_CERT_FILE"):
            client.text_features(PROMPTS)


@pytest.mark.parametrize("jobs", ["auto", "2"])
def test_who_sends_words_and_pictures_never_imports_torch(
    box: OpenClipBlackBox, jobs: str, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('somebody imports torch')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    data = write_folder(tmp_path / "data", 2, 1, 2)
    with serving(box) as url:
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from llmopt.cli.app import main; main()", "compare"),
                *("--blackbox", url, "--dataset", f"folder:{data}", "--seed", "1-2"),
                *("--optimizer", "random,evaluations=4,head=auto", "--jobs", jobs),
                *("--runs", str(tmp_path / "runs"), "--quiet"),
            ],
            env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_images_are_held_by_name(box: OpenClipBlackBox, images: list[Any]) -> None:
    with serving(box) as url, remote(url) as client:
        assert client.to_send(images) == 5
        first = client.scores(images, PROMPTS)
        assert client.to_send([*images, *images[:2]]) == 0
        np.testing.assert_array_equal(client.scores(images, PROMPTS), first)
        assert client.labels(images[:2], PROMPTS).tolist() == first[:2].argmax(axis=1).tolist()


def test_what_is_held_no_longer_is_sent_again(box: OpenClipBlackBox, images: list[Any]) -> None:
    room = 3 * box.image_features(images[:1]).nbytes
    with serving(box, bounds=Bounds(held=room)) as url, remote(url) as client:
        first = client.scores(images, PROMPTS)
        with pytest.raises(ServiceUnavailable, match="not held any more"):
            client.scores(images, PROMPTS)
        assert client.to_send(images) == 5
        np.testing.assert_allclose(client.scores(images, PROMPTS), first, atol=1e-4)


@pytest.mark.parametrize("level", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_a_server_gives_no_more_than_its_level(
    box: OpenClipBlackBox, images: list[Any], level: Access
) -> None:
    asks = {
        Access.SCORES: ("/scores", {"images": [], "prompts": PROMPTS}),
        Access.FEATURES: ("/texts", {"prompts": PROMPTS}),
        Access.SOFT: ("/embed", {"text": "a photo"}),
    }
    with serving(box, level) as url, remote(url) as client:
        assert client.info.access == level
        for needed, (path, body) in asks.items():
            status = httpx.post(url + path, json=body).status_code
            assert (status == 403) == (needed > level)
        if level < Access.FEATURES:
            with pytest.raises(AccessError, match="does not give features"):
                client.image_features(images)


def test_a_token_is_asked_for_and_never_shown(box: OpenClipBlackBox) -> None:
    secret = "tok-4f9a1c"
    with serving(box, keys=Keys(token=secret)) as url:
        with remote(url) as client, pytest.raises(AuthenticationFailed) as refused:
            _ = client.info
        assert secret not in str(refused.value)
        with remote(url.replace("//", f"//user:{secret}@"), token=secret) as client:
            assert secret not in client.info.name
            assert secret not in repr(client)


def sent(form: str, size: tuple[int, int] = (48, 48)) -> str:
    """A picture as a client may send it."""
    buffer = BytesIO()
    Image.new("L", size).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/texts", {"prompts": []}),
        ("/texts", {"prompts": "one text"}),
        ("/texts", {}),
        ("/images", {"images": ["no picture"]}),
        ("/images", {"images": [None]}),
        ("/images", {"images": [sent("EPS")]}),
        ("/images", {"images": [sent("JPEG")]}),
        ("/images", {"images": [sent("PNG", (1, 100_000))]}),
        ("/images", {"images": [sent("PNG", (10_000, 10_000))]}),
        ("/soft", {"contexts": {"dtype": "float32", "shape": [9, 9], "data": ""}}),
    ],
)
def test_bad_requests_are_refused_not_crashed_on(
    box: OpenClipBlackBox, path: str, body: dict[str, Any]
) -> None:
    with serving(box) as url:
        answer = httpx.post(url + path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "request"
        assert httpx.post(url + path, content=b"{").status_code == 400
        assert httpx.get(url + "/info").status_code == 200


def test_a_wrong_address_is_the_users_to_mend(box: OpenClipBlackBox) -> None:
    with serving(box) as url:
        assert httpx.post(url + "/nowhere", json={}).status_code == 404
        with remote(f"{url}/nowhere") as client, pytest.raises(ConfigError, match="nothing at /no"):
            _ = client.info


class _Faulty(BaseHTTPRequestHandler):
    """Fails as often as told, then answers as told."""

    failures = 0
    body: bytes = b"{}"
    seen = 0

    def do_GET(self) -> None:
        type(self).seen += 1
        failing = type(self).seen <= self.failures
        self.send_response(503 if failing else 200)
        data = b"busy" if failing else self.body
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _faulty(failures: int, body: bytes) -> HTTPServer:
    handler = type("Handler", (_Faulty,), {"failures": failures, "body": body, "seen": 0})
    return HTTPServer(("127.0.0.1", 0), handler)


def test_faults_that_pass_are_retried(box: OpenClipBlackBox) -> None:
    said = {
        "name": "x", "pretrained": "", "access": 1, "weights_sha256": "0" * 64, "logit_scale": 1.0,
        "logit_bias": 0.0, "detail": "",
    }  # fmt: skip
    server = _faulty(2, json.dumps(said).encode())
    with serving(server) as url, remote(url) as client:
        assert client.info.access == Access.SCORES
        assert server.RequestHandlerClass.seen == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("failures", "body", "error"),
    [
        (99, b"", ServiceUnavailable),
        (0, b"<html>", MalformedResponse),
        (0, b"[]", MalformedResponse),
        (0, b'{"name": "x"}', ServiceError),
    ],
)
def test_faults_that_stay_are_reported(failures: int, body: bytes, error: type[Exception]) -> None:
    with serving(_faulty(failures, body)) as url, remote(url) as client, pytest.raises(error):
        _ = client.info


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(status: int) -> None:
    class Moved(_Faulty):
        def do_GET(self) -> None:
            type(self).seen += 1
            self.send_response(status)
            self.send_header(
                "Location", "https://me:pass-phrase@other.example/box/my-phrase?t=phrase"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()

    said = r"sends to https://other\.example/box/\[secret\],"
    server = HTTPServer(("127.0.0.1", 0), Moved)
    with serving(server) as url, remote(url, token="my-phrase") as client:
        with pytest.raises(ConfigError, match=said) as refused:
            _ = client.info
        assert Moved.seen == 1
    assert "phrase" not in str(refused.value)


def test_nobody_listens() -> None:
    with (
        remote("http://127.0.0.1:9") as client,
        pytest.raises(ConnectionLost, match="llmopt serve"),
    ):
        _ = client.info


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host", "http://"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        HttpBlackBox(url)


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), np.arange(4), np.zeros((0, 2))])
def test_arrays_survive_the_wire(array: Any) -> None:
    np.testing.assert_array_equal(unpack_array(json.loads(json.dumps(pack_array(array)))), array)


def test_bad_status_is_a_bad_request(box: OpenClipBlackBox) -> None:
    with serving(box) as url, remote(url) as client:
        _ = client.info
        with pytest.raises(BadRequest):
            client.text_features([])

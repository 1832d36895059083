"""A server lets in whom it should, takes what it can, and speaks as other tools' clients do."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from fuzz import fuzz
from hypothesis import strategies as st
from patience import HUNG
from PIL import Image
from schema_bodies import requests
from served import serving

import llmopt
from llmopt.data.shapes import ShapesDataset
from llmopt.errors import ConfigError
from llmopt.testing.world import FakeBox, pictures
from llmopt.vision.base import Access
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.server import connections
from llmopt.vision.server import keys as keyring
from llmopt.vision.server.app import build
from llmopt.vision.server.bounds import Bounds
from llmopt.vision.server.keys import Caller, Keys
from llmopt.vision.server.run import BlackBoxServer
from llmopt.vision.server.service import Protection
from llmopt.vision.services.http import HttpBlackBox
from llmopt.vision.wire import TOKEN_VARIABLE, pack_array, pack_image, unpack_array

PROMPTS = ["a circle.", "a star.", "a heart."]
TIGHT = Bounds(body=200_000, pixels=20_000, images=4, prompts=5, letters=30, reading=0.3)


@pytest.fixture(scope="module")
def box() -> OpenClipBlackBox:
    return OpenClipBlackBox()


@pytest.fixture(scope="module")
def picture() -> str:
    return pack_image(ShapesDataset("shapes-small").split("test")[0][0].load())


@pytest.fixture(scope="module")
def url(box: OpenClipBlackBox) -> Iterator[str]:
    with serving(box) as address:
        yield address


@pytest.fixture(scope="module")
def tight(box: OpenClipBlackBox) -> Iterator[str]:
    with serving(box, bounds=TIGHT) as address:
        yield address


def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(url: str, path: str, body: Any, key: str = "none") -> httpx.Response:
    return httpx.post(url + path, json=body, headers={"Authorization": f"Bearer {key}"})


# Keys


def test_a_key_is_kept_as_its_hash_and_spends_up_to_its_quota(
    tmp_path: Path, box: OpenClipBlackBox, picture: str
) -> None:
    file = tmp_path / "keys.json"
    key = keyring.add(file, "ada", Access.SCORES, None, {"queries": 5})
    other = keyring.add(file, "bob", Access.SOFT, None, {})
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    pairs = {"images": [picture], "prompts": PROMPTS}
    with serving(box, keys=Keys(file)) as url:
        assert ask(url, "/scores", pairs).status_code == 401
        assert ask(url, "/scores", pairs, key[:-1]).status_code == 401
        assert ask(url, "/scores", pairs, key).status_code == 200
        assert ask(url, "/texts", {"prompts": PROMPTS}, key).json()["error"]["type"] == "access"
        assert ask(url, "/texts", {"prompts": PROMPTS}, other).status_code == 200
        refused = ask(url, "/scores", pairs, key)
        assert (refused.status_code, refused.json()["error"]["type"]) == (403, "quota")
    with serving(box, keys=Keys(file)) as url:  # what was spent outlives the server
        assert ask(url, "/scores", pairs, key).status_code == 403
        said = httpx.get(f"{url}/usage", headers={"Authorization": f"Bearer {key}"}).json()
    assert said["spent"]["text_encodings"] == 3
    assert said["quotas"] == {"queries": 5}


def test_requests_come_no_faster_than_a_key_may(tmp_path: Path, box: OpenClipBlackBox) -> None:
    file = tmp_path / "keys.json"
    key = keyring.add(file, "ada", Access.SOFT, 2, {})
    with serving(box, keys=Keys(file)) as url:
        answers = [ask(url, "/texts", {"prompts": PROMPTS}, key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 30


def test_metrics_of_all_are_for_those_who_may(tmp_path: Path, box: OpenClipBlackBox) -> None:
    file = tmp_path / "keys.json"
    ada = keyring.add(file, "ada", Access.SOFT, None, {})
    watcher = keyring.add(file, "prometheus", Access.LABELS, None, {}, metrics=True)
    with serving(box, keys=Keys(file)) as url:
        ask(url, "/texts", {"prompts": PROMPTS}, ada)
        headers = [{"Authorization": f"Bearer {key}"} for key in (ada, watcher)]
        refused, told = (httpx.get(f"{url}/metrics", headers=one) for one in headers)
    assert (refused.status_code, told.status_code) == (403, 200)
    assert "ada" not in refused.text
    assert 'key="ada"' in told.text


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path, box: OpenClipBlackBox) -> None:
    file = tmp_path / "keys.json"
    keyring.write(file, [])
    with serving(box, keys=Keys(file)) as url:
        assert httpx.get(f"{url}/info").status_code == 401
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(Path())


def test_a_bucket_fills_with_time() -> None:
    now = [0.0]
    caller = Caller("a", per_minute=60, clock=lambda: now[0])
    assert [caller.wait() for _ in range(60)] == [0.0] * 60
    assert caller.wait() == pytest.approx(1.0)
    now[0] = 2.5
    assert [caller.wait() for _ in range(2)] == [0.0, 0.0]
    assert caller.wait() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a file of keys"),
        ('{"keys": [{"name": "a", "sha256": "xx"}]}', "sha256"),
        ('{"keys": [{"name": "../a", "sha256": "%s"}]}' % ("ab" * 32), "name"),
        ('{"keys": [{"name": "a", "sha256": "%s", "access": "all"}]}' % ("ab" * 32), "access"),
        ('{"keys": [{"name": "a", "sha256": "%s", "quotas": {"usd": 1}}]}' % ("ab" * 32), "'usd'"),
        (json.dumps({"keys": [{"name": "a", "sha256": "ab" * 32}] * 2}), "same name"),
    ],
)
def test_a_wrong_file_of_keys_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        Keys(file)


def test_beyond_this_machine_a_key_is_needed(box: OpenClipBlackBox, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a key is needed"):
        BlackBoxServer(box, ("0.0.0.0", 0))
    server = BlackBoxServer(box, ("0.0.0.0", 0), keys=Keys(token="long-secret"))
    server.server_close()
    with pytest.raises(ConfigError, match="certificate"):
        BlackBoxServer(box, ("127.0.0.1", 0), tls=(tmp_path / "no", tmp_path / "no"))


# What is given away


def test_scores_are_rounded_and_cut(box: OpenClipBlackBox, picture: str) -> None:
    with serving(box, Access.SCORES, protection=Protection(decimals=1, top_k=2)) as url:
        told = ask(url, "/scores", {"images": [picture], "prompts": PROMPTS}).json()
        labels = ask(url, "/labels", {"images": [picture], "prompts": PROMPTS}).json()
        assert httpx.get(f"{url}/info").json()["top_k"] == 2
    (scores,) = unpack_array(told["scores"])
    assert np.allclose(scores, np.round(scores, 1), atol=1e-6)
    low, second, best = np.sort(scores)
    assert low == second < best
    assert unpack_array(labels["labels"]) == [scores.argmax()]


@pytest.mark.parametrize(
    "level", [Access.SCORES, *(pytest.param(one, marks=pytest.mark.slow) for one in Access)]
)
def test_the_server_counts_what_its_client_does(
    box: OpenClipBlackBox, tmp_path: Path, level: Access
) -> None:
    with serving(box, level) as url:
        done = llmopt.run(
            dataset="shapes-small", optimizer="random", blackbox=url, llm="builtin",
            max_queries=200, runs=tmp_path,
        )  # fmt: skip
        counted = httpx.get(f"{url}/usage").json()["spent"]
    spent = {
        name: sum(done.result[part][name] for part in ("ledger", "evaluation"))
        for name in ("image_encodings", "text_encodings", "black_box_calls")
    }
    assert {name: counted[name] for name in spent} == spent


def test_a_run_over_the_wire_finds_what_it_finds_in_the_process(
    box: OpenClipBlackBox, tmp_path: Path
) -> None:
    asked = {"dataset": "shapes-small", "optimizer": "random", "settings": {"evaluations": 30}}
    asked |= {"llm": "builtin", "baselines": "none", "head": "bias"}
    here = llmopt.run(model=box, runs=tmp_path / "here", **asked).result
    with serving(box) as url:
        there = llmopt.run(blackbox=url, runs=tmp_path / "there", **asked).result
    assert there["best"] == here["best"]
    assert there["gain"] == here["gain"]


def test_the_server_and_its_client_count_alike_where_a_rate_is_limited(
    box: OpenClipBlackBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keyring.add(tmp_path / "k.json", "ada", Access.SCORES, None, {})
    monkeypatch.setenv(TOKEN_VARIABLE, key)
    known = Keys(tmp_path / "k.json")
    (ada,) = known.callers()
    turns = itertools.count()
    monkeypatch.setattr(ada, "wait", lambda: float(next(turns) in (3, 9)))
    with serving(box, keys=known) as url:
        done = llmopt.run(
            dataset="shapes-small", optimizer="zeroshot", baselines="none", blackbox=url,
            runs=tmp_path / "runs",
        )  # fmt: skip
    for name in ("image_encodings", "text_encodings", "pairs_scored"):
        assert ada.ledger[name] == sum(done.result[p][name] for p in ("ledger", "evaluation"))
    calls = sum(done.result[p]["black_box_calls"] for p in ("ledger", "evaluation"))
    assert calls == ada.ledger["black_box_calls"] + 2  # those that came too soon were sent, too


# What other tools' clients say


def test_openai_client(box: OpenClipBlackBox, url: str, picture: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")
    for form in ("float", "base64"):
        said = client.embeddings.create(model="clip", input=PROMPTS, encoding_format=form)
        found = [one.embedding for one in said.data]
        if form == "float":
            np.testing.assert_allclose(found, box.text_features(PROMPTS), atol=1e-6)
    said = client.embeddings.create(
        model="clip",
        input=[f"data:image/png;base64,{picture}"],
        extra_body={"modality": "image"},
    )
    seen = HttpBlackBox(url).image_features(ShapesDataset("shapes-small").split("test")[0][:1])
    np.testing.assert_allclose([said.data[0].embedding], seen, atol=1e-6)
    client.close()


def test_hugging_face_client(url: str, picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # 127.0.0.1 only

    client = InferenceClient(model=f"{url}/zero-shot-image-classification")
    ranked = client.zero_shot_image_classification(
        base64.b64decode(picture),
        candidate_labels=["circle", "star", "heart"],
        hypothesis_template="a {}.",
    )
    assert sum(one.score for one in ranked) == pytest.approx(1)
    assert [one.score for one in ranked] == sorted((o.score for o in ranked), reverse=True)
    told = ask(url, "/scores", {"images": [picture], "prompts": PROMPTS}).json()
    best = unpack_array(told["scores"]).argmax()
    assert f"a {ranked[0].label}." == PROMPTS[best]


def test_cohere_client(box: OpenClipBlackBox, url: str, picture: str) -> None:
    import cohere

    http = httpx.Client()
    client = cohere.ClientV2(api_key="any", base_url=url, httpx_client=http)
    said = client.embed(
        model="clip", texts=PROMPTS, input_type="classification", embedding_types=["float"]
    )
    np.testing.assert_allclose(said.embeddings.float_, box.text_features(PROMPTS), atol=1e-6)
    said = client.embed(
        model="clip",
        images=[f"data:image/png;base64,{picture}"],
        input_type="image",
        embedding_types=["float"],
    )
    assert np.linalg.norm(said.embeddings.float_[0]) == pytest.approx(1, abs=1e-5)
    http.close()


def test_texts_and_images_come_back_in_order(url: str, picture: str) -> None:
    items = [{"text": "a star."}, {"image": picture}, {"text": "a heart."}]
    mixed = ask(url, "/v1/embeddings", {"input": items}).json()["data"]
    singly = [ask(url, "/v1/embeddings", {"input": [one]}).json()["data"][0] for one in items]
    np.testing.assert_allclose(
        [one["embedding"] for one in mixed], [one["embedding"] for one in singly], atol=1e-6
    )
    message = {"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    ]}  # fmt: skip
    said = ask(url, "/v1/embeddings", {"messages": [message]}).json()["data"]
    np.testing.assert_allclose(said[0]["embedding"], mixed[1]["embedding"], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {}),
        ("/v1/embeddings", {"input": [{"text": "a", "image": "b"}]}),
        ("/v1/embeddings", {"input": ["http://169.254.169.254/"], "modality": "image"}),
        ("/v1/embeddings", {"input": ["file:///etc/passwd"], "modality": "image"}),
        ("/v1/embeddings", {"input": ["a"], "dimensions": 3}),
        ("/v1/embeddings", {"input": ["a"], "dimensions": False}),
        ("/v2/embed", {"texts": ["a"], "output_dimension": "0"}),
        ("/soft", {"contexts": {"dtype": "float32", "shape": [True, 1, 1], "data": "AAAAAA=="},
                   "classnames": ["a"]}),
        ("/v2/embed", {"images": ["data:text/plain,abc"]}),
        ("/zero-shot-image-classification", {"inputs": "x", "parameters": {}}),
        (
            "/zero-shot-image-classification",
            {"inputs": png(8, 8), "parameters": {"candidate_labels": ["a"],
             "hypothesis_template": "{0.__class__} {}"[:15]}},
        ),
    ],
)  # fmt: skip
def test_what_no_client_should_say(url: str, path: str, body: Any) -> None:
    answer = ask(url, path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


# Hostile clients


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/texts", {"prompts": ["a"] * 6}, 413),
        ("/texts", {"prompts": ["a" * 31]}, 413),
        ("/images", {"images": [png(200, 200)]}, 413),
        ("/images", {"images": [png(8, 8)] * 5}, 413),
        ("/scores", {"images": [{"sha256": "ab" * 32}], "prompts": ["a"]}, 409),
        ("/scores", {"images": [png(8, 8)], "prompts": {"sha256": "ab" * 32}}, 409),
        ("/images", {"images": [png(1, 1)]}, 200),
        ("/texts", {"prompts": ["\ud800"]}, 200),
        ("/texts", {"prompts": [""]}, 200),
    ],
)
def test_more_than_a_server_takes(tight: str, path: str, body: Any, status: int) -> None:
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    assert httpx.post(tight + path, content=content, headers=headers).status_code == status


def test_bodies_that_are_too_long_or_never_end(tight: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    for content in (b"x" * 300_000, chunks()):
        with contextlib.suppress(httpx.TransportError):  # it may close while more is being sent
            assert httpx.post(f"{tight}/texts", content=content).status_code == 413
    host, port = tight.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"POST /texts HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in slow.recv(1000)
    deep = '{"prompts": ' + "[" * 50_000 + "]" * 50_000 + "}"
    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{tight}/texts", content=deep, headers=headers).status_code == 400
    assert httpx.get(f"{tight}/health").json() == {"status": "ok"}


def test_whoever_does_not_ask_makes_room(
    box: OpenClipBlackBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither silence nor half a head keeps others out, and both end by themselves."""
    monkeypatch.setattr(connections, "MOST", 8)
    half = b"POST /scores HTTP/1.1\r\nHost: a\r\n"
    with serving(box, bounds=TIGHT) as url, contextlib.ExitStack() as held:
        host, port = url.removeprefix("http://").split(":")
        idle = []
        for number in range(30):
            one = held.enter_context(socket.create_connection((host, int(port)), timeout=HUNG))
            one.sendall(half if number % 2 else b"")
            idle.append(one)
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        for one in idle:
            with contextlib.suppress(ConnectionError):
                assert one.recv(1000) == b""


def test_a_head_that_drips_is_not_waited_for(tight: str) -> None:
    host, port = tight.removeprefix("http://").split(":")

    def drip(slow: socket.socket) -> None:
        for letter in b"GET /health HTTP/1.1\r\n" + b"x" * 1000:
            slow.sendall(bytes([letter]))
            time.sleep(0.02)

    address = (host, int(port))
    with socket.create_connection(address, timeout=HUNG) as slow, pytest.raises(ConnectionError):
        drip(slow)
    with httpx.Client() as client:  # a connection that asks again and again is kept
        for _ in range(5):
            assert client.get(f"{tight}/health").status_code == 200
            time.sleep(0.1)


def test_only_so_many_requests_are_in_progress(box: OpenClipBlackBox) -> None:
    bounds = Bounds(requests=2, reading=5)
    with serving(box, bounds=bounds) as url, contextlib.ExitStack() as held:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(2):
            one = held.enter_context(socket.create_connection((host, int(port)), timeout=HUNG))
            one.sendall(b"POST /texts HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        while (answer := httpx.get(f"{url}/health")).status_code == 200:
            time.sleep(0.01)  # both are on their way
        assert answer.json()["error"]["type"] == "busy"
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_bodies_and_pictures_never_wait_for_each_other(box: OpenClipBlackBox) -> None:
    """Eight requests that come at once, of a quarter of the room each, are all answered."""
    bounds = Bounds(body=2**20, room=2**20, reading=HUNG)
    noise = np.random.default_rng(0).integers(0, 256, (8, 280, 280, 3), np.uint8)
    bodies = [{"images": [pack_image(Image.fromarray(one))]} for one in noise]
    assert len(json.dumps(bodies[0])) > bounds.room / 4
    with serving(box, bounds=bounds) as url, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(httpx.post, f"{url}/images", json=b, timeout=HUNG) for b in bodies]
        assert [one.result().status_code for one in asked] == [200] * 8


def test_who_finds_no_room_comes_again(box: OpenClipBlackBox) -> None:
    bounds = Bounds(body=1000, room=1000, reading=0.5)
    with serving(box, bounds=bounds) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=HUNG) as slow:
            slow.sendall(b"POST /texts HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{")
            time.sleep(0.2)
            answer = ask(url, "/texts", {"prompts": ["a" * 300]})
            assert answer.status_code in (200, 503)  # the slow one may be out by then
        assert ask(url, "/texts", {"prompts": ["a"]}).status_code == 200


def test_what_is_said_of_a_picture_is_for_its_sender(url: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    noise = pack_image(Image.fromarray(pixels))
    for sent, told in {
        "bm90IGEgcGljdHVyZQ==": "number 2 is not an image of a format that is read",
        noise[: len(noise) // 8 * 4]: "image number 2 is damaged",
        "\u00e9" * 8: "an image is not base64 of a file",
    }.items():
        said = ask(url, "/images", {"images": [png(9, 9), sent]})
        assert said.status_code == 400
        assert told in said.json()["error"]["message"]
        assert "--" not in said.json()["error"]["message"]


def test_contexts_that_are_not_finite(url: str, box: OpenClipBlackBox) -> None:
    contexts = box.embed_text("a small")[None]
    contexts[0, 0, 0] = np.nan
    body = {"contexts": pack_array(contexts), "classnames": ["circle"]}
    assert ask(url, "/soft", body).status_code == 400
    body["contexts"] = pack_array(np.zeros((1, 2, 3), np.float32))
    assert ask(url, "/soft", body).status_code == 400


def _any_client() -> Any:
    app = build(FakeBox(Access.SOFT), bounds=TIGHT)
    return TestClient(app, base_url="http://test", raise_server_exceptions=False)


HOSTILE = _any_client()
SEEN = pack_image(pictures("test", 1).images[0].load())
KNOWN = st.sampled_from(
    [SEEN, f"data:image/png;base64,{SEEN}", "ab" * 32, "a circle.", "float32", "AAAAAA=="]
)


@fuzz(asked=requests(HOSTILE.app.openapi(), KNOWN))
def test_every_path_of_its_page_answers_any_body_as_the_page_says(asked: Any) -> None:
    path, body = asked
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    answer = HOSTILE.post(path, content=content, headers=headers)
    told = HOSTILE.app.openapi()["paths"][path]["post"]["responses"]
    assert str(answer.status_code) in told
    assert answer.status_code < 500
    for never in ("Traceback", "site-packages", "llmopt/", ".py"):
        assert never not in answer.text


def test_others_are_served_while_somebody_asks_for_nonsense(tight: str) -> None:
    good = {"images": [png(8, 8)], "prompts": ["a"]}
    nonsense: list[tuple[str, Any, int]] = [
        ("/texts", {"prompts": ["a"] * 10_000}, 413),
        ("/images", {"images": [png(8, 8), "bm90IGEgcGljdHVyZQ==", png(1, 1)]}, 400),
        ("/images", {"images": [png(200, 200)]}, 413),
        ("/scores", {"images": "x", "prompts": 3}, 400),
    ]
    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(ask, tight, path, body) for path, body, _ in nonsense * 5]
        served = [pool.submit(ask, tight, "/scores", good) for _ in range(20)]
    assert [one.result().status_code for one in served] == [200] * 20
    assert [one.result().status_code for one in refused] == [code for *_, code in nonsense * 5]
    assert httpx.get(f"{tight}/health").json() == {"status": "ok"}


def test_a_fault_of_the_server_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeBox):
        def text_features(self, prompts: Any) -> Any:
            raise RuntimeError(f"secret path /home/x {prompts}")

    with serving(Broken(Access.FEATURES)) as url:
        answer = ask(url, "/texts", {"prompts": PROMPTS})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert httpx.get(f"{url}/health").status_code == 500


def test_nothing_of_the_content_is_logged(
    box: OpenClipBlackBox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "llmopt.serve"), serving(box, keys=Keys(token="s3cret")) as url:
        answer = ask(url, "/texts", {"prompts": ["a very private thing"]}, "s3cret")
        metrics = httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer s3cret"}).text
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/openapi.json").status_code == 200
    said = json.loads(caplog.records[0].getMessage())
    assert abs(datetime.now(UTC) - datetime.fromisoformat(said["time"])) < timedelta(hours=1)
    assert said["request"] == answer.headers["x-request-id"]
    assert (said["key"], said["path"], said["status"]) == ("token", "/texts", 200)
    assert "private" not in caplog.text + metrics
    assert "s3cret" not in caplog.text + metrics
    assert 'llmopt_spent{currency="text_encodings",key="token"} 1.0' in metrics


def test_a_server_ends_with_what_is_in_progress_answered(box: OpenClipBlackBox) -> None:
    began = time.monotonic()
    with serving(box) as url:
        assert ask(url, "/texts", {"prompts": PROMPTS * 100}).status_code == 200
    assert time.monotonic() - began < HUNG

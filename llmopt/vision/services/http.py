"""A black box behind HTTP, such as ``llmopt serve`` offers (see :mod:`llmopt.vision.wire`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx
import numpy as np
import numpy.typing as npt
import tenacity

from llmopt.errors import (
    AccessError,
    AuthenticationFailed,
    BadRequest,
    ConfigError,
    ConnectionLost,
    MalformedResponse,
    RateLimited,
    RetryableError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)
from llmopt.images import Image
from llmopt.task import FloatArray
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.wire import TOKEN_VARIABLE, pack_array, pack_image, unpack_array

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_BATCH = 64
_ATTEMPTS = 5


class HttpBlackBox(BlackBox):
    """A remote black box.

    Args:
        url: where it listens. Credentials in it are used, if there is no token, and never shown.
        token: bearer token; by default ``$LLMOPT_BLACKBOX_TOKEN``.
        timeout: seconds for one request.
        pause: seconds before the second try; doubles from try to try.

    Raises:
        ServiceError: it does not answer, or not as a black box would.
    """

    gives_gradients = False

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 300.0, pause: float = 0.5
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--blackbox {url!r} is not of the form http://HOST:PORT")
        host = parts.hostname + (f":{parts.port}" if parts.port else "")
        self._shown = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        token = token or os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = self._shown if token else url.rstrip("/")
        self._client = httpx.Client(base_url=base, timeout=timeout, headers=headers)
        self._pause = pause

    @cached_property
    def info(self) -> BoxInfo:
        """What the server says of its box."""
        said = self._call("GET", "/info")
        return self._expect(
            lambda: BoxInfo(
                name=f"{said['name']} at {self._shown}",
                pretrained=str(said["pretrained"]),
                access=Access(int(said["access"])),
                weights_sha256=str(said["weights_sha256"]),
                logit_scale=float(said["logit_scale"]),
                logit_bias=float(said["logit_bias"]),
                detail=f"remote: {said['detail']}",
            )
        )

    @cached_property
    def embedding_std(self) -> float:
        """Spread of the token-embedding table."""
        self._require(Access.SOFT, "token vectors")
        said = self._call("GET", "/info")
        return self._expect(lambda: float(said["embedding_std"]))

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) predictions."""
        return self._pairs("/labels", "labels", images, prompts)

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) logits."""
        self._require(Access.SCORES, "scores")
        return self._pairs("/scores", "scores", images, prompts)

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) features."""
        self._require(Access.FEATURES, "features")
        rows = [
            self._array("/images", "features", {"images": [pack_image(i.load()) for i in batch]})
            for batch in _batches(images)
        ]
        return np.concatenate(rows)

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, d) features."""
        self._require(Access.FEATURES, "features")
        rows = [
            self._array("/texts", "features", {"prompts": list(batch)})
            for batch in _batches(prompts, 16 * _BATCH)
        ]
        return np.concatenate(rows)

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        """(B, K, d) features; a wall lets no gradient through."""
        import torch

        self._require(Access.SOFT, "features of soft prompts")
        if grad:
            raise AccessError(f"{self.info.name} is remote: it gives no gradients; use --model")
        body = {"contexts": pack_array(contexts.cpu().numpy()), "classnames": list(classnames)}
        return torch.from_numpy(self._array("/soft", "features", body))

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) token vectors."""
        self._require(Access.SOFT, "token vectors")
        return self._array("/embed", "vectors", {"text": text})

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __repr__(self) -> str:
        return f"HttpBlackBox({self._shown!r})"

    def _pairs(
        self, path: str, name: str, images: Sequence[Image], prompts: Sequence[str]
    ) -> npt.NDArray[Any]:
        rows = [
            self._array(
                path,
                name,
                {"images": [pack_image(i.load()) for i in batch], "prompts": list(prompts)},
            )
            for batch in _batches(images)
        ]
        return np.concatenate(rows)

    def _array(self, path: str, name: str, body: dict[str, Any]) -> npt.NDArray[Any]:
        said = self._call("POST", path, body)
        return self._expect(lambda: unpack_array(said[name]))

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=self._pause, max=30),
            reraise=True,
        )
        return retrying(self._once, method, path, body)

    def _once(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path.lstrip("/"), json=body)
        except httpx.TimeoutException as error:
            raise ServiceTimeout(f"{self._shown} did not answer in time") from error
        except httpx.TransportError as error:
            raise ConnectionLost(
                f"no connection to {self._shown} ({type(error).__name__}); is 'llmopt serve' up?"
            ) from error
        if answer.status_code != 200:
            raise self._refusal(answer)
        try:
            said = answer.json()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise MalformedResponse(f"{self._shown} did not answer in JSON") from error
        if not isinstance(said, dict):
            raise MalformedResponse(f"{self._shown} did not answer with a JSON object")
        return said

    def _refusal(self, answer: httpx.Response) -> Exception:
        status = answer.status_code
        try:
            message = str(answer.json()["error"]["message"])[:300]
        except (ValueError, KeyError, TypeError):
            message = f"status {status}"
        text = f"{self._shown}: {message}"
        if status == 401:
            return AuthenticationFailed(f"{text}; set ${TOKEN_VARIABLE}", status=status)
        if status == 403:
            return AccessError(text)
        if status == 404:
            return ConfigError(f"{text}; give the address that 'llmopt serve' printed")
        if status == 429:
            return RateLimited(text, status=status)
        if status in (408, 409, 425) or status >= 500:
            return ServiceUnavailable(text, status=status)
        return BadRequest(text, status=status)

    def _expect(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(
                f"{self._shown} does not answer as a black box would ({error}); "
                "is it 'llmopt serve' of this version?"
            ) from error


def _batches(items: Sequence[Any], size: int = _BATCH) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]

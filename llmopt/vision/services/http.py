"""A black box behind HTTP, such as ``llmopt serve`` offers (see :mod:`llmopt.vision.wire`).

Each method sends one request, once: :class:`~llmopt.vision.metered.MeteredBox` splits what is too
much for one, counts every try and tries again. Nothing that comes back is believed before
:mod:`llmopt.vision.answers` has seen it, and no more of it is read than the answer can need.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx
import numpy as np
import numpy.typing as npt

from llmopt.errors import (
    AccessError,
    AuthenticationFailed,
    BadRequest,
    ConfigError,
    ConnectionLost,
    MalformedResponse,
    RateLimited,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
)
from llmopt.images import Image
from llmopt.remote import waits
from llmopt.task import FloatArray
from llmopt.vision import answers
from llmopt.vision.answers import WIDEST, numbers, places
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.services.bounded import read_bounded
from llmopt.vision.wire import (
    MOST_BYTES,
    TOKEN_VARIABLE,
    array_bytes,
    image_name,
    pack_array,
    pack_image,
    prompts_name,
    read_object,
    unpack_array,
)

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_DISTRUST: Final = "CERTIFICATE_VERIFY_FAILED"
_SHORT: Final = 2**16
"""Bytes of an answer that holds no array."""


class HttpBlackBox(BlackBox):
    """A remote black box.

    Args:
        url: where it listens. Credentials in it are used, if there is no token, and never shown.
        token: bearer token; by default ``$LLMOPT_BLACKBOX_TOKEN``.
        timeout: seconds for one request, however slowly its answer drips in.
        pause: seconds before the second try; doubles from try to try.

    Raises:
        ConfigError: the URL is none.
        ServiceError: when it is used, if it does not answer, or not as a black box would.
    """

    gives_gradients = False

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 300.0, pause: float = 0.5
    ) -> None:
        self._token = token or os.environ.get(TOKEN_VARIABLE) or ""
        headers = {"Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("no host")
            self.address = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
            base = self.address if self._token else url.rstrip("/")
            self._client = httpx.Client(base_url=base, timeout=timeout, headers=headers)
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigError(f"--blackbox {url!r} is not of the form http://HOST:PORT") from error
        weakref.finalize(self, self._client.close)  # a run opens it and just lets it go
        self._timeout = timeout
        self._dim: int | None = None
        self._held: dict[str, str] = {}
        self._prompts: set[str] = set()
        self.pause = pause

    @cached_property
    def info(self) -> BoxInfo:
        """What the server says of its box."""
        return self._read("what it is", lambda: answers.info(self._told, self.address))

    @cached_property
    def holds_images(self) -> bool:  # type: ignore[override]
        """Whether the server takes the name of an image it has seen in place of the image."""
        return self._told.get("holds_images") is True

    @cached_property
    def holds_prompts(self) -> bool:
        """Whether the server takes the name of a list of prompts it has seen in its place."""
        return self._told.get("holds_prompts") is True

    def to_send(self, images: Sequence[Image]) -> int:
        """How many of these images the server does not hold yet."""
        if not self.holds_images:
            return len(images)
        return len({image.key() for image in images} - self._held.keys())

    @cached_property
    def embedding_std(self) -> float:
        """Spread of the token-embedding table."""
        self._require(Access.SOFT, "token vectors")
        return self._read("what it is", lambda: answers.embedding_std(self._told))

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) predictions."""
        n, m = len(images), len(prompts)
        what = f"labels of {n} images and {m} prompts"
        return self._pairs(what, "labels", images, prompts, (n,), lambda told: places(told, n, m))

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) logits."""
        self._require(Access.SCORES, "scores")
        shape = len(images), len(prompts)
        what = f"scores of {shape[0]} images and {shape[1]} prompts"
        return self._pairs(
            what, "scores", images, prompts, shape, lambda told: numbers(told, shape)
        )

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) features."""
        self._require(Access.FEATURES, "features")
        what = f"features of {len(images)} images"
        return self._features(what, "images", {"images": _pictures(images)}, len(images))

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, d) features."""
        self._require(Access.FEATURES, "features")
        what = f"features of {len(prompts)} prompts"
        return self._features(what, "texts", {"prompts": list(prompts)}, len(prompts))

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        """(B, K, d) features; a wall lets no gradient through."""
        import torch

        self._require(Access.SOFT, "features of soft prompts")
        if grad:
            raise AccessError(f"{self.info.name} is remote: it gives no gradients; use --model")
        shape = len(contexts), len(classnames)
        body = {"contexts": pack_array(contexts.cpu().numpy()), "classnames": list(classnames)}
        what = f"features of {shape[0]} soft prompts and {shape[1]} classes"
        return torch.from_numpy(self._features(what, "soft", body, *shape))

    def logits(self, image_features: Any, text_features: Any) -> Any:
        """Logits of feature arrays, if they are of one length."""
        lengths = image_features.shape[-1], text_features.shape[-1]
        if lengths[0] != lengths[1]:  # some are from the cache
            raise ServiceError(
                f"black box {self.address} gave features of {lengths[0]} numbers for images and of "
                f"{lengths[1]} for prompts; is another model behind it by now?"
            )
        return super().logits(image_features, text_features)

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) token vectors."""
        self._require(Access.SOFT, "token vectors")
        shape = None, None
        return self._numbers("the vectors of a text", "embed", {"text": text}, "vectors", shape)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __repr__(self) -> str:
        return f"HttpBlackBox({self.address!r})"

    @cached_property
    def _told(self) -> dict[str, Any]:
        retrying = self.retry.retrying(time.sleep)
        return retrying(lambda: self._once("GET", "info", None, "what it is", _SHORT))

    def _pairs(
        self,
        what: str,
        name: str,
        images: Sequence[Image],
        prompts: Sequence[str],
        shape: tuple[int, ...],
        check: Callable[[npt.NDArray[Any]], T],
    ) -> T:
        """The answer to images and prompts together; images that are held go by name."""
        sent: dict[str, str] = {}
        pictures: list[str | dict[str, str]] = []
        for image in images:
            if not self.holds_images:
                pictures.append(pack_image(image.load()))
            elif (key := image.key()) in self._held or key in sent:
                pictures.append({"sha256": sent.get(key) or self._held[key]})
            else:
                picture = pack_image(image.load())
                pictures.append(picture)
                sent[key] = image_name(picture)
        texts, called = list(prompts), prompts_name(prompts)
        by_name = called in self._prompts
        body = {"images": pictures, "prompts": {"sha256": called} if by_name else texts}
        found = self._ask(what, name, body, name, shape, check)
        self._held.update(sent)
        if self.holds_prompts:
            self._prompts.add(called)
        return found

    def _features(self, what: str, path: str, body: dict[str, Any], *rows: int) -> FloatArray:
        """Features, all of the length of the first ones."""
        found = self._numbers(what, path, body, "features", (*rows, self._dim))
        self._dim = found.shape[-1]
        return found

    def _numbers(
        self, what: str, path: str, body: dict[str, Any], name: str, shape: tuple[int | None, ...]
    ) -> FloatArray:
        return self._ask(what, path, body, name, shape, lambda told: numbers(told, shape))

    def _ask(
        self,
        what: str,
        path: str,
        body: dict[str, Any],
        name: str,
        shape: tuple[int | None, ...],
        check: Callable[[npt.NDArray[Any]], T],
    ) -> T:
        """The array ``name`` of an answer, which may be of that shape, checked."""
        most = min(array_bytes(*(WIDEST if n is None else n for n in shape)), MOST_BYTES)
        said = self._once("POST", path, body, what, most)

        def read() -> T:
            if name not in said:
                raise ValueError(f"there is no {name!r} in its answer")
            return check(unpack_array(said[name]))

        return self._read(what, read)

    def _read(self, what: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except ValueError as error:
            raise ServiceError(
                f"black box {self.address}, asked for {what}: {error}; "
                "is it 'llmopt serve' of this version?"
            ) from error

    def _once(
        self, method: str, path: str, body: dict[str, Any] | None, what: str, most: int
    ) -> dict[str, Any]:
        """The JSON object that one request is answered with, of at most so many bytes."""
        try:
            with self._client.stream(method, path, json=body) as answer:
                if answer.status_code != 200:
                    raise self._refusal(answer)
                return read_object(read_bounded(answer, most, self._timeout))
        except (httpx.TimeoutException, TimeoutError) as error:
            raise ServiceTimeout(f"{self.address} did not answer in time") from error
        except httpx.TransportError as error:
            if _DISTRUST in str(error):
                raise ServiceError(
                    f"the certificate of {self.address} is not trusted here; if it should be, set "
                    "SSL_CERT_FILE to a file with that of whoever signed it"
                ) from error
            raise ConnectionLost(
                f"no connection to {self.address} ({type(error).__name__}); is 'llmopt serve' up?"
            ) from error
        except ValueError as error:
            raise MalformedResponse(
                f"black box {self.address}, asked for {what}: its answer {error}"
            ) from error

    def _refusal(self, answer: httpx.Response) -> Exception:
        status = answer.status_code
        try:
            said = read_object(read_bounded(answer, _SHORT, self._timeout))
            message = str(said["error"]["message"])[:300]
        except (ValueError, KeyError, TypeError, TimeoutError):
            message = f"status {status}"
        if redirects := 300 <= status < 400:
            to = urlsplit(urljoin(str(answer.url), answer.headers.get("Location", "")))
            place = urlunsplit((to.scheme, to.netloc.rpartition("@")[2], to.path, "", ""))
            message = (
                f"it sends to {place[:300]}, which is not followed; "
                "if you trust that, give its address"
            )
        if self._token:
            message = message.replace(self._token, "[secret]")
        text = f"{self.address}: {''.join(c if c.isprintable() else ' ' for c in message)}"
        if redirects:
            return ConfigError(text)
        if status == 401:
            return AuthenticationFailed(f"{text}; set ${TOKEN_VARIABLE}", status=status)
        if status == 403:
            return AccessError(text)
        if status == 404:
            return ConfigError(f"{text}; give the address that 'llmopt serve' printed")
        if status == 409:  # it holds the images or prompts no longer
            self._held.clear()
            self._prompts.clear()
        if status == 429:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return RateLimited(text, status=status, retry_after=waits.asked(headers))
        if status in (408, 409, 425) or status >= 500:
            return ServiceUnavailable(text, status=status)
        return BadRequest(text, status=status)


def _pictures(images: Sequence[Image]) -> list[str]:
    return [pack_image(image.load()) for image in images]

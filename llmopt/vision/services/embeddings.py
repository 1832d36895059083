"""Services that give features: each says what its requests and answers look like.

Vectors are normalised here, whatever a service says of them, and their order is checked where it
is told. Texts are sent as they were written. What all boxes share is in
:mod:`llmopt.vision.services.web`.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from llmopt.errors import ConfigError, MalformedResponse, ServiceError
from llmopt.images import Image, PixelImage
from llmopt.remote.failures import may_be_billed
from llmopt.task import FloatArray
from llmopt.vision.answers import WIDEST
from llmopt.vision.services.pictures import data_uri, packed
from llmopt.vision.services.web import WebBox

Request = tuple[str, dict[str, Any]]
_TENTH: Final = 0.1
"""Of a second; Roboflow charges no less."""


class FeaturesBox(WebBox):
    """A service that gives features."""

    def texts_request(self, texts: Sequence[str]) -> Request:
        """Path and body that ask for features of texts."""
        raise NotImplementedError

    def images_request(self, images: Sequence[Image]) -> Request:
        """Path and body that ask for features of pictures."""
        raise NotImplementedError

    def vectors(self, told: Any) -> Sequence[Any]:
        """The vectors in an answer, in the order of what was asked."""
        raise NotImplementedError

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) features."""
        return self._features(images, self.images_per_call, self.images_request, "image")

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, d) features."""
        forms = [str(form) for form in self.normal_forms(prompts)]
        return self._features(forms, self.prompts_per_call, self.texts_request, "text")

    def _features(
        self, items: Sequence[Any], most: int, request: Callable[..., Request], kind: str
    ) -> FloatArray:
        def read(told: Any) -> FloatArray:
            rows = np.asarray([_vector(one) for one in self.vectors(told)], dtype=np.float64)
            with np.errstate(over="ignore"):
                lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
            if rows.ndim != 2 or not 0 < rows.shape[1] <= WIDEST:
                raise ValueError("other vectors than were asked for")
            if not (np.isfinite(lengths).all() and lengths.all()):
                raise ValueError("vectors without a direction")
            return np.asarray(rows / lengths, dtype=np.float32)

        found = []
        for start in range(0, len(items), most):
            some = items[start : start + most]
            path, body = request(some)
            found.append(self.ask(path, body, read, kind))
            if len(found[-1]) != len(some):
                counts = f"{len(found[-1])} vectors came where {len(some)} were asked for"
                raise MalformedResponse(f"{self.address}: {counts}")
        return np.concatenate(found)


class CohereBox(FeaturesBox):
    """``cohere:MODEL``: Cohere's embed, version 2."""

    kind = "cohere"

    def texts_request(self, texts: Sequence[str]) -> Request:
        """Texts as what pictures are searched with."""
        return "/embed", self._body("search_query", texts=list(texts))

    def images_request(self, images: Sequence[Image]) -> Request:
        """One picture a call."""
        uris = [data_uri(image, self.settings.side) for image in images]
        return "/embed", self._body("image", images=uris)

    def vectors(self, told: Any) -> Sequence[Any]:
        """Lists of floats."""
        return list(told["embeddings"]["float"])

    def tokens(self, told: Any) -> int | None:
        """Of texts, and of pictures where it counts those."""
        units = _table(_table(told.get("meta")).get("billed_units"))
        counts = [_count(units.get(name)) for name in ("input_tokens", "image_tokens")]
        return sum(count for count in counts if count is not None) or None

    def _body(self, kind: str, **inputs: list[str]) -> dict[str, Any]:
        return {"model": self.model, "input_type": kind, "embedding_types": ["float"], **inputs}


class VoyageBox(FeaturesBox):
    """``voyage:MODEL``: Voyage's multimodal embeddings."""

    kind = "voyage"

    def texts_request(self, texts: Sequence[str]) -> Request:
        """A text an input."""
        return self._request([{"type": "text", "text": text} for text in texts])

    def images_request(self, images: Sequence[Image]) -> Request:
        """A picture an input."""
        uris = [data_uri(image, self.settings.side) for image in images]
        return self._request([{"type": "image_base64", "image_base64": uri} for uri in uris])

    def vectors(self, told: Any) -> Sequence[Any]:
        """By their index."""
        return _by_index(told["data"])

    def tokens(self, told: Any) -> int | None:
        """Of texts and pictures together."""
        return _count(_table(told.get("usage")).get("total_tokens"))

    def _request(self, parts: list[dict[str, Any]]) -> Request:
        inputs = [{"content": [part]} for part in parts]
        return "/multimodalembeddings", {
            "model": self.model, "inputs": inputs, "truncation": False
        }  # fmt: skip


class GeminiBox(FeaturesBox):
    """``gemini:MODEL``: Google's embeddings behind an API key."""

    kind = "gemini"

    def texts_request(self, texts: Sequence[str]) -> Request:
        """A request a text, in one call."""
        return self._request([{"text": text} for text in texts])

    def images_request(self, images: Sequence[Image]) -> Request:
        """A request a picture; several parts in one would become one vector."""
        parts = [packed(image, self.settings.side) for image in images]
        return self._request(
            [{"inline_data": {"mime_type": kind, "data": content}} for kind, content in parts]
        )

    def vectors(self, told: Any) -> Sequence[Any]:
        """Values of each."""
        return [one["values"] for one in told["embeddings"]]

    def tokens(self, told: Any) -> int | None:
        """As its metadata says."""
        return _count(_table(told.get("usageMetadata")).get("promptTokenCount"))

    def _request(self, parts: list[dict[str, Any]]) -> Request:
        name = f"models/{self.model}"
        requests = [{"model": name, "content": {"parts": [part]}} for part in parts]
        return f"/{name}:batchEmbedContents", {"requests": requests}


class VertexBox(FeaturesBox):
    """``vertex:PROJECT/LOCATION``: Google Cloud's multimodal embeddings."""

    kind = "vertex"

    def split(self, address: str) -> tuple[str, dict[str, str]]:
        """Project, location and perhaps a model, with slashes between."""
        project, location, model, *more = [*address.split("/"), "", ""][: address.count("/") + 3]
        if not project or not location or any(more):
            raise ConfigError(f"--blackbox vertex:{address} is not vertex:PROJECT/LOCATION")
        return model or self.service.model, {"project": project, "location": location}

    def texts_request(self, texts: Sequence[str]) -> Request:
        """An instance a text."""
        return self._request([{"text": text} for text in texts])

    def images_request(self, images: Sequence[Image]) -> Request:
        """An instance a picture."""
        contents = [packed(image, self.settings.side)[1] for image in images]
        return self._request([{"image": {"bytesBase64Encoded": one}} for one in contents])

    def vectors(self, told: Any) -> Sequence[Any]:
        """Of whichever it was asked for."""
        return [
            one["textEmbedding"] if "textEmbedding" in one else one["imageEmbedding"]
            for one in told["predictions"]
        ]

    def _request(self, instances: list[dict[str, Any]]) -> Request:
        return f"/{self.model}:predict", {"instances": instances}


class RoboflowBox(FeaturesBox):
    """``roboflow:VERSION``: CLIP as Roboflow serves it, hosted or on a machine of one's own.

    Scores are made from its features: ``/clip/compare`` gives the cosine of the same vectors, eight
    prompts a call, and nothing of it could be kept for the next template.
    """

    kind = "roboflow"

    def texts_request(self, texts: Sequence[str]) -> Request:
        """All texts."""
        return "/clip/embed_text", {"clip_version_id": self.model, "text": list(texts)}

    def images_request(self, images: Sequence[Image]) -> Request:
        """All pictures."""
        contents = [packed(image, self.settings.side)[1] for image in images]
        pictures = [{"type": "base64", "value": content} for content in contents]
        return "/clip/embed_image", {"clip_version_id": self.model, "image": pictures}

    def vectors(self, told: Any) -> Sequence[Any]:
        """In order."""
        return list(told["embeddings"])

    def seconds(self, told: Mapping[str, float]) -> float | None:
        """A tenth at least; where a model elsewhere was asked, its time and a tenth."""
        remote = told.get("x-remote-processing-time")
        if remote is not None:
            return _TENTH + remote
        here = told.get("x-processing-time")
        return None if here is None else max(here, _TENTH)


def _openai_message(uri: str) -> list[dict[str, Any]]:
    content = [{"type": "image_url", "image_url": {"url": uri}}]
    return [{"role": "user", "content": content}]


DIALECTS: Final[Mapping[str, Callable[[list[str]], dict[str, Any]]]] = {
    "jina": lambda uris: {"input": [{"image": uri} for uri in uris]},
    "infinity": lambda uris: {"input": uris, "modality": "image"},
    "vllm": lambda uris: {"messages": _openai_message(uris[0])},
    "litellm": lambda uris: {"input": uris},
}
"""What pictures look like to servers of OpenAI's embeddings, by those that read them so."""
_REFUSED: Final = (400, 404, 415, 422, 500)
"""What servers answer to a picture in a dialect they do not know."""


class OpenAIEmbeddingsBox(FeaturesBox):
    """``openai-embeddings:MODEL``: vLLM, Infinity, Jina, LiteLLM and whoever speaks as they do."""

    kind = "openai-embeddings"
    ones: ClassVar = ("vllm",)

    def __init__(self, address: str = "", settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(address, settings)
        dialect = self.settings.dialect
        if dialect and dialect not in DIALECTS:
            raise ConfigError(f"setting dialect={dialect} must be one of {', '.join(DIALECTS)}")
        if not dialect or dialect in self.ones:  # until it is known, as in the narrowest
            self.images_per_call = 1

    @property
    def probes(self) -> int:  # type: ignore[override]
        """Three pictures in each dialect, where none is given."""
        return 0 if self.settings.dialect else 3 * len(DIALECTS)

    def notes(self) -> list[str]:
        """Besides, what finding out its dialect takes."""
        if not self.probes:
            return super().notes()
        return [
            *super().notes(),
            f"How it takes pictures is found out with {self.probes} small ones at most; "
            "--blackbox-set dialect=NAME, once known, saves them.",
        ]

    def decided(self, probe: Callable[[Callable[[], Any]], Any]) -> dict[str, Any]:
        """The dialect in which the server sees pictures, found out by asking.

        A server sees them if two files of one picture come out alike and another picture does not:
        who reads the file as a text tells all three apart, or none.

        Raises:
            ConfigError: it sees none.
        """
        if not self.probes:
            return {}
        said = ""
        for dialect in DIALECTS:
            settings = dataclasses.replace(self.settings, dialect=dialect)
            guess = type(self)(self.model, dataclasses.asdict(settings))
            guess._bill = self._bill
            seen: list[FloatArray] = []
            for one in _probes():
                told: FloatArray | str = probe(partial(guess._seen, one))
                if isinstance(told, str):
                    said = told
                    break
                seen.append(told)
            else:
                if _sees(*seen):
                    self.tell(f"{self.address} takes pictures as {dialect} does")
                    return {"dialect": dialect}
        raise ConfigError(
            f"{self.address} gives no features of pictures in any dialect known "
            f"({', '.join(DIALECTS)}){f'; the last answer: {said}' if said else ''}"
        )

    def texts_request(self, texts: Sequence[str]) -> Request:
        """As OpenAI's clients send them, or as Jina's do."""
        jina = self.settings.dialect == "jina"
        return self._request({"input": [{"text": t} for t in texts] if jina else list(texts)})

    def images_request(self, images: Sequence[Image]) -> Request:
        """In the server's dialect."""
        return self._uris([data_uri(image, self.settings.side) for image in images])

    def vectors(self, told: Any) -> Sequence[Any]:
        """By their index."""
        return _by_index(told["data"])

    def tokens(self, told: Any) -> int | None:
        """As its usage says."""
        return _count(_table(told.get("usage")).get("total_tokens"))

    def _seen(self, uri: str) -> FloatArray | str:
        """(d,) features of a picture, or what is said where it is not taken for one."""
        try:
            features: FloatArray = self._features([uri], 1, self._uris, "image")[0]
        except ServiceError as error:
            if error.status not in _REFUSED and not isinstance(error, MalformedResponse):
                raise
            if not may_be_billed(error):
                self._bill.told = {}
            return str(error)
        return features

    def _uris(self, uris: Sequence[str]) -> Request:
        return self._request(DIALECTS[self.settings.dialect or "jina"](list(uris)))

    def _request(self, inputs: dict[str, Any]) -> Request:
        return "/embeddings", {"model": self.model, "encoding_format": "float", **inputs}


def _sees(same: FloatArray, again: FloatArray, other: FloatArray) -> bool:
    """Whether features are of pictures: of two files of one, and of another."""
    return same.shape == again.shape == other.shape and bool(same @ again > 0.999 > same @ other)


def _probes() -> tuple[str, str, str]:
    """A picture, the same in another file, and another one."""
    half = np.zeros((64, 64, 3), dtype=np.uint8)
    half[:, :32] = 255
    same, other = (
        data_uri(PixelImage("half", pixels), 64) for pixels in (half, np.rot90(half) // 2)
    )
    head, _, content = same.partition("base64,")
    # Bytes after a PNG file's end are passed over by whoever reads pictures.
    raw = base64.b64decode(content) + b"llmopt looks whether this is read as a picture"
    return same, f"{head}base64,{base64.b64encode(raw).decode('ascii')}", other


def _vector(value: Any) -> Any:
    """A list of numbers, and no text or truth value among them."""
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise ValueError("no vector")
    return value


def _by_index(data: Any) -> list[Any]:
    """Embeddings in the order that their indices tell."""
    if sorted(one["index"] for one in data) != list(range(len(data))):
        raise ValueError("indices of something else")
    return [one["embedding"] for one in sorted(data, key=lambda one: one["index"])]


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int | None:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return int(value) if whole else None

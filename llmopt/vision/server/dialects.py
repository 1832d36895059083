"""Paths in the dialects that other tools' clients speak.

``POST /v1/embeddings``, ``/embeddings``
    OpenAI's, with images as Infinity (``modality``), Jina (``{"image": …}``) and vLLM
    (``messages``) take them; images are data URIs or base64, never addresses to fetch.
``POST /v2/embed``
    Cohere's, ``texts`` or ``images``.
``POST /zero-shot-image-classification``
    Hugging Face's: one image, ``candidate_labels`` and ``hypothesis_template``.
"""

from __future__ import annotations

import base64
import uuid
from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, StrictInt

from llmopt.task import FloatArray
from llmopt.vision.base import Access
from llmopt.vision.server.errors import Refusal
from llmopt.vision.server.keys import Caller
from llmopt.vision.server.service import PHOTOS, Service, Who

HYPOTHESIS: Final = "This is a photo of {}."
"""Hugging Face's default."""


class Address(BaseModel):
    """A data URI."""

    url: str


class Part(BaseModel):
    """A text or an image in a message."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Address | None = None


class Message(BaseModel):
    """A message whose one part is embedded."""

    role: str
    content: str | Annotated[list[Part], Field(min_length=1, max_length=1)]


class Item(BaseModel):
    """A text or an image."""

    text: str | None = None
    image: str | None = None


class Embeddings(BaseModel):
    """A request for embeddings, of one kind or the other."""

    input: str | Annotated[list[str | Item], Field(min_length=1)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=1)] | None = None
    modality: Literal["text", "image"] = "text"
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: StrictInt | None = None

    def items(self) -> list[Item]:
        """What is to be embedded, in order."""
        if self.messages:
            content = self.messages[0].content
            if isinstance(content, str):
                return [Item(text=content)]
            address = content[0].image_url
            return [Item(text=content[0].text, image=address.url if address else None)]
        given = [self.input] if isinstance(self.input, str) else self.input or []
        kind = self.modality
        return [one if isinstance(one, Item) else Item(**{kind: one}) for one in given]


class Embed(BaseModel):
    """A request in Cohere's dialect."""

    model: str | None = None
    input_type: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = None
    embedding_types: list[Literal["float"]] | None = None
    output_dimension: StrictInt | None = None

    def items(self) -> list[Item]:
        """What is to be embedded, in order."""
        texts, images = self.texts or [], self.images or []
        return [*(Item(text=one) for one in texts), *(Item(image=one) for one in images)]


class Parameters(BaseModel):
    """Of a zero-shot classification."""

    candidate_labels: Annotated[list[str], Field(min_length=1)]
    hypothesis_template: str = HYPOTHESIS


class ZeroShot(BaseModel):
    """An image, as base64 or data URI, and its possible labels."""

    inputs: str
    parameters: Parameters


class Ranked(BaseModel):
    """A label and its probability."""

    label: str
    score: float


def add(app: FastAPI, service: Service) -> None:
    """Add the paths."""
    name = service.box.info.name

    async def embeddings(body: Embeddings, caller: Who) -> Response:
        """Embeddings in OpenAI's form."""
        found = await _embedded(service, caller, body.items(), body.dimensions)
        data = [
            {"object": "embedding", "index": index, "embedding": _said(row, body.encoding_format)}
            for index, row in enumerate(found)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        said = {"object": "list", "model": name, "data": data, "usage": usage}
        return JSONResponse(said)

    for path in ("/v1/embeddings", "/embeddings"):
        app.post(path, name=path, dependencies=service.needs(Access.FEATURES))(embeddings)

    @app.post("/v2/embed", dependencies=service.needs(Access.FEATURES))
    async def embed(body: Embed, caller: Who) -> Response:
        """Embeddings in Cohere's form."""
        found = await _embedded(service, caller, body.items(), body.output_dimension)
        said = {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type",
            "embeddings": {"float": found.tolist()},
            "texts": body.texts or [],
            "meta": {"api_version": {"version": "2"}},
        }
        return JSONResponse(said)

    @app.post(
        "/zero-shot-image-classification",
        response_model=list[Ranked],
        dependencies=service.needs(Access.SCORES),
    )
    async def zero_shot(body: ZeroShot, caller: Who) -> Response:
        """Probabilities of an image's possible labels, best first."""
        labels, template = body.parameters.candidate_labels, body.parameters.hypothesis_template
        if template.count("{}") != 1:
            raise Refusal(400, "request", "hypothesis_template must have exactly one {}")
        prompts = [template.replace("{}", label) for label in labels]
        (scores,) = await service.scores(caller, [_base64(body.inputs)], prompts, PHOTOS)
        shares = np.exp(scores.astype(np.float64) - scores.max())
        shares /= shares.sum()
        order = np.argsort(-shares, kind="stable")
        return JSONResponse([{"label": labels[k], "score": float(shares[k])} for k in order])


async def _embedded(
    service: Service, caller: Caller, items: list[Item], dimensions: int | None
) -> FloatArray:
    """(N, d) float32 features of texts and images."""
    if not items or any((one.text is None) == (one.image is None) for one in items):
        raise Refusal(400, "request", "each input must be one text or one image")
    texts = [one.text for one in items if one.text is not None]
    images = [_base64(one.image) for one in items if one.image is not None]
    rows = []
    if texts:
        rows.append(await service.text_features(caller, texts))
    if images:
        rows.append(await service.image_features(caller, images, PHOTOS))
    found = np.concatenate(rows)
    if dimensions not in (None, 0, found.shape[1]):
        message = f"this model gives {found.shape[1]} dimensions, not {dimensions}"
        raise Refusal(400, "request", message)
    places = [i for i, one in enumerate(items) if one.text is not None]
    places += [i for i, one in enumerate(items) if one.text is None]
    return found[np.argsort(places)]


def _base64(sent: str) -> str:
    """The base64 of a data URI, or of what is base64 already."""
    if sent.startswith("data:"):
        head, _, sent = sent.partition(",")
        if not head.endswith(";base64"):
            raise Refusal(400, "request", "a data URI must be in base64")
    elif "://" in sent[:20]:
        raise Refusal(400, "request", "addresses are not fetched; send the image as a data URI")
    return sent


def _said(row: FloatArray, form: str | None) -> Any:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    return row.tolist()

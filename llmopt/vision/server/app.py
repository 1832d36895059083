"""The paths of a server in the tool's own protocol (see :mod:`llmopt.vision.wire`).

The server gives no more than the access level it was told to give, whatever the model could.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field, StrictInt, StringConstraints
from starlette.exceptions import HTTPException

from llmopt._version import __version__
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.server import dialects
from llmopt.vision.server.bounds import Bounds
from llmopt.vision.server.errors import STATUSES, Refusal
from llmopt.vision.server.guard import OPEN, Guard, Metrics
from llmopt.vision.server.keys import Keys
from llmopt.vision.server.service import Held, Protection, Service, Who
from llmopt.vision.wire import pack_array, unpack_array

SAVING: Final = 10.0
"""Seconds between two times that what keys have spent is kept."""

FRESH: Final = 5.0
"""Seconds for which a model that has worked is taken to work."""


class Named(BaseModel):
    """The name of an image or of a list of prompts that was sent before."""

    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]

    def held(self) -> Held:
        """For the service."""
        return Held(self.sha256)


class Array(BaseModel):
    """Numbers: base64 of little-endian bytes."""

    dtype: str
    shape: Annotated[list[StrictInt], Field(max_length=4)]
    data: str


Prompts = Annotated[list[str], Field(min_length=1)]
Pictures = Annotated[list[str | Named], Field(min_length=1)]


class Pairs(BaseModel):
    """Images, as base64 of PNG files or by name, and prompts."""

    images: Pictures
    prompts: Prompts | Named


class Images(BaseModel):
    """Images, as base64 of PNG files or by name."""

    images: Pictures


class Texts(BaseModel):
    """Prompts."""

    prompts: Prompts


class Text(BaseModel):
    """One text."""

    text: str


class Soft(BaseModel):
    """Soft prompts: (B, m, e) float32 token vectors, and the names of classes after them."""

    contexts: Array
    classnames: Prompts


class Labels(BaseModel):
    """(N,) int64 places among the prompts."""

    labels: Array


class Scores(BaseModel):
    """(N, M) float32 logits."""

    scores: Array


class Features(BaseModel):
    """(N, d) or (B, K, d) float32, of length 1."""

    features: Array


class Vectors(BaseModel):
    """(L, e) float32."""

    vectors: Array


def build(
    box: BlackBox,
    access: Access | None = None,
    keys: Keys | None = None,
    bounds: Bounds | None = None,
    protection: Protection | None = None,
) -> FastAPI:
    """A black box as an ASGI application.

    Args:
        box: the model; one thread asks it.
        access: the level to offer; at most the box's own, which is the default.
        keys: who may come in; by default everyone.
        bounds: of requests.
        protection: of scores.
    """
    keys, bounds = keys or Keys(), bounds or Bounds()
    offered = min(box.info.access, box.info.access if access is None else access)
    service = Service(box, offered, bounds, protection or Protection())
    metrics = Metrics(keys)

    @contextlib.asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        async def saving() -> None:
            while True:
                await asyncio.sleep(SAVING)
                await asyncio.to_thread(keys.save)

        task = asyncio.create_task(saving())
        yield
        task.cancel()
        await asyncio.to_thread(service.inference.close)
        keys.save()

    said: dict[int | str, dict[str, Any]] = {
        status: {"description": text} for status, text in STATUSES.items()
    }
    app = FastAPI(
        title=f"{box.info.name} as a black box", version=__version__, lifespan=living,
        responses=said, redoc_url=None,
    )  # fmt: skip
    _errors(app)
    _paths(app, service, keys, metrics)
    dialects.add(app, service)
    paths = frozenset(app.openapi()["paths"]) | set(OPEN)
    app.add_middleware(
        Guard, keys=keys, bounds=bounds, room=service.room, metrics=metrics, paths=paths
    )
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or "the body"
        return _answer(Refusal(400, "request", f"{where[:100]}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def lost(request: Request, error: HTTPException) -> Response:
        kind = {404: "path", 405: "method"}.get(error.status_code, "request")
        message = f"there is nothing at {request.url.path}" if kind == "path" else error.detail
        return _answer(Refusal(error.status_code, kind, message))

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return _answer(error)


def _answer(refused: Refusal) -> Response:
    return JSONResponse(refused.content(), refused.status, refused.headers())


def _paths(app: FastAPI, service: Service, keys: Keys, metrics: Metrics) -> None:
    box = service.box
    told = dataclasses.asdict(box.info)
    worked = 0.0
    needs = service.needs

    @app.get("/info")
    async def info(caller: Who) -> dict[str, Any]:
        """What the box says of itself."""
        level = min(service.access, caller.access)
        said = told | {"access": int(level), "holds_images": True, "holds_prompts": True}
        if level < Access.FEATURES:
            said |= {k: v for k, v in dataclasses.asdict(service.protection).items() if v}
        if level >= Access.SOFT:
            said["embedding_std"] = box.embedding_std
        return said

    @app.get("/usage")
    async def usage(caller: Who) -> dict[str, Any]:
        """What the caller has spent, and its quotas."""
        caps = dataclasses.asdict(caller.ledger.caps)
        return {
            "key": caller.name,
            "access": str(min(service.access, caller.access)),
            "spent": {name: count for name, count in caller.ledger.state().items() if count},
            "quotas": {name: cap for name, cap in caps.items() if cap is not None},
        }

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the model works: it is asked, every few seconds at most."""
        nonlocal worked
        if time.monotonic() - worked > FRESH or not worked:
            async with asyncio.timeout(service.bounds.reading):
                await service.check()
            worked = time.monotonic()
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus(caller: Who) -> Response:
        """Counts for Prometheus, of all keys."""
        if not caller.metrics:
            message = "/metrics tells of all keys; this one was not added with --metrics"
            raise Refusal(403, "access", message)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/labels", response_model=Labels)
    async def labels(caller: Who, body: Pairs) -> Response:
        """The predicted prompt of each image."""
        found = await service.labels(caller, _sent(body.images), _sent_prompts(body.prompts))
        return JSONResponse({"labels": pack_array(found)})

    @app.post("/scores", response_model=Scores, dependencies=needs(Access.SCORES))
    async def scores(caller: Who, body: Pairs) -> Response:
        """A logit for each image and prompt."""
        found = await service.scores(caller, _sent(body.images), _sent_prompts(body.prompts))
        return JSONResponse({"scores": pack_array(found)})

    @app.post("/images", response_model=Features, dependencies=needs(Access.FEATURES))
    async def images(caller: Who, body: Images) -> Response:
        """Features of images."""
        found = await service.image_features(caller, _sent(body.images))
        return JSONResponse({"features": pack_array(found)})

    @app.post("/texts", response_model=Features, dependencies=needs(Access.FEATURES))
    async def texts(caller: Who, body: Texts) -> Response:
        """Features of prompts."""
        found = await service.text_features(caller, body.prompts)
        return JSONResponse({"features": pack_array(found)})

    @app.post("/soft", response_model=Features, dependencies=needs(Access.SOFT))
    async def soft(caller: Who, body: Soft) -> Response:
        """Features of soft prompts."""
        contexts = unpack_array(body.contexts.model_dump())
        found = await service.soft_features(caller, contexts, body.classnames)
        return JSONResponse({"features": pack_array(found)})

    @app.post("/embed", response_model=Vectors, dependencies=needs(Access.SOFT))
    async def embed(caller: Who, body: Text) -> Response:
        """The token vectors of a text."""
        return JSONResponse({"vectors": pack_array(await service.embed_text(caller, body.text))})


def _sent(images: list[str | Named]) -> list[str | Held]:
    return [image.held() if isinstance(image, Named) else image for image in images]


def _sent_prompts(prompts: list[str] | Named) -> list[str] | Held:
    return prompts.held() if isinstance(prompts, Named) else prompts

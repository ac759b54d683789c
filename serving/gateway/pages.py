"""Everything at the door but generating: models, health, and the answer to whatever is not there."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serving.chat import House
from serving.errors import DomicileError, Failed, Reason, Refused
from serving.gateway.problems import problem
from serving.gateway.request import headers_of, language_of, new_request_id
from serving.replicas.table import Table
from serving.types import Caller
from tenants.country import Country, Model


def pages(country: Country, house: House, table: Table, told: Callable[[DomicileError], None]) -> FastAPI:
    """The FastAPI application behind the door of one country.

    Args:
        told: hears of each refusal and failure.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    created = int(time.time())

    def caller_of(request: Request) -> Caller:
        headers = headers_of(request.scope)
        caller = house.authenticate(headers)
        house.residency.site_for(caller, headers)
        return caller

    def listed(model: Model) -> dict[str, str | int]:
        return {"id": model.id, "object": "model", "created": created, "owned_by": f"domicile-{country.code}"}

    @app.get("/v1/models")
    async def list_models(request: Request) -> JSONResponse:
        caller = caller_of(request)
        return JSONResponse(
            {"object": "list", "data": [listed(model) for model in country.models if caller.may_use(model.id)]}
        )

    @app.get("/v1/models/{id}")
    async def one_model(request: Request, id: str) -> JSONResponse:
        caller = caller_of(request)
        model = country.model(id)
        if model is None or not caller.may_use(id):
            raise Refused(Reason.MODEL_NOT_FOUND, param="model", model=id)
        return JSONResponse(listed(model))

    @app.api_route("/v1/responses/{id}", methods=["GET", "DELETE"])
    @app.get("/v1/responses/{id}/input_items")
    @app.post("/v1/responses/{id}/cancel")
    async def one_response(request: Request, id: str) -> JSONResponse:
        # Nothing is stored, so there is no id that anybody could own.
        caller_of(request)
        raise Refused(Reason.RESPONSE_NOT_FOUND, param="id")

    @app.get("/healthz")
    async def alive() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> JSONResponse:
        if house.residency.cell.strangers:
            return JSONResponse({"status": "stopped", "reason": house.residency.cell.told}, status_code=503)
        missing = sorted({model.id for model in country.models if model.replicas} - table.models())
        if missing:
            return JSONResponse({"status": "starting", "missing": missing}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def tell(request: Request, error: Exception) -> Response:
        language = language_of(headers_of(request.scope), country)
        ours = _ours(error)
        told(ours)
        answer = problem(ours, language, new_request_id())
        response = Response(answer.body, answer.status)
        response.raw_headers = [header for header in answer.headers if header[0] != b"x-request-id"]
        return response

    for kind in (DomicileError, HTTPException, Exception):
        app.add_exception_handler(kind, tell)
    return app


def _ours(error: Exception) -> DomicileError:
    """Starlette's own refusals are the paths and methods that nobody serves."""
    if not isinstance(error, HTTPException):
        return error if isinstance(error, DomicileError) else Failed(Reason.INTERNAL_ERROR)
    if error.status_code == 405:
        return Refused(Reason.METHOD_NOT_ALLOWED, allow=_allowed(error))
    return Refused(Reason.UNKNOWN_PATH) if error.status_code == 404 else Failed(Reason.INTERNAL_ERROR)


def _allowed(error: HTTPException) -> str:
    return ", ".join(sorted((error.headers or {})["Allow"].split(", ")))

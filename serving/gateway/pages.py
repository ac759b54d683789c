"""Everything at the door but generating: models, health, and the answer to whatever is not there."""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serving.chat import House
from serving.errors import DomicileError, Failed, Reason, Refused
from serving.gateway.problems import problem
from serving.gateway.request import REQUEST_ID, headers_of, language_of
from serving.records.journal import Journal
from serving.records.receipt_store import ReceiptNotFound
from serving.records.receipts import ID as RECEIPT_ID
from serving.replicas.table import Table
from serving.types import Caller
from tenants.country import Country, Model

KEYS_FRESH_S = 300
"""How long a verifier may keep the public keys; a new one signs at once."""
RECEIPT_TRIES = 20
RECEIPT_PAUSE_S = 0.05


def pages(country: Country, house: House, table: Table) -> FastAPI:
    """The FastAPI application behind the door of one country."""
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

    @app.get("/v1/receipts/{id}")
    async def one_receipt(request: Request, id: str) -> JSONResponse:
        organisation = caller_of(request).organisation
        token = await receipt_of(house.record.journal, id, organisation)
        return JSONResponse({"id": id, "object": "receipt", "receipt": token}, headers={"cache-control": "no-store"})

    @app.get("/.well-known/jwks.json")
    async def keys() -> JSONResponse:
        jwks = await asyncio.to_thread(house.record.journal.jwks)
        return JSONResponse(jwks, headers={"cache-control": f"public, max-age={KEYS_FRESH_S}"})

    @app.get("/healthz")
    async def alive() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def ready() -> JSONResponse:
        if house.residency.cell.strangers:
            return JSONResponse({"status": "stopped", "reason": house.residency.cell.told}, status_code=503)
        if not house.record.journal.healthy:
            return JSONResponse({"status": "records unavailable"}, status_code=503)
        missing = sorted({model.id for model in country.models if model.replicas} - table.models())
        if missing:
            return JSONResponse({"status": "starting", "missing": missing}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def tell(request: Request, error: Exception) -> Response:
        language = language_of(headers_of(request.scope), country)
        ours, id = _ours(error), request.scope[REQUEST_ID]
        house.record.refused(id, ours)
        told = problem(ours, language, id)
        response = Response(told.body, told.status)
        response.raw_headers = [header for header in told.headers if header[0] != b"x-request-id"]
        return response

    for kind in (DomicileError, HTTPException, Exception):
        app.add_exception_handler(kind, tell)
    return app


async def receipt_of(journal: Journal, id: str, organisation: str) -> str:
    """The signed receipt.

    An answer's receipt is written a moment after its last byte, by whichever gateway gave it: one that is asked for at
    once is waited for.

    Raises:
        Refused: the organisation has none of that id, whether or not another one has.
    """
    for _ in range(RECEIPT_TRIES if RECEIPT_ID.fullmatch(id) else 0):
        try:
            return await asyncio.to_thread(journal.receipt, id, organisation)
        except ReceiptNotFound:
            await asyncio.sleep(RECEIPT_PAUSE_S)
    raise Refused(Reason.RECEIPT_NOT_FOUND, param="id")


def _ours(error: Exception) -> DomicileError:
    """Starlette's own refusals are the paths and methods that nobody serves."""
    if isinstance(error, DomicileError):
        return error
    if not isinstance(error, HTTPException):
        return Failed(Reason.INTERNAL_ERROR)
    if error.status_code == 405:
        return Refused(Reason.METHOD_NOT_ALLOWED, allow=_allowed(error))
    return Refused(Reason.UNKNOWN_PATH) if error.status_code == 404 else Failed(Reason.INTERNAL_ERROR)


def _allowed(error: HTTPException) -> str:
    return ", ".join(sorted((error.headers or {})["Allow"].split(", ")))

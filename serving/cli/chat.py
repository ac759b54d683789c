"""``domicile chat``: talk to a country's model in the terminal, as any caller would, over its own address."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import unicodedata
from collections.abc import Generator
from contextlib import closing
from typing import Annotated
from urllib.parse import urlsplit

import typer

from serving.cli.output import USAGE, console, fail, note
from serving.cli.tenancy import CountryCode, country_named
from serving.settings import Settings
from tenants.country import Country

CONNECT_TIMEOUT_S = 10.0
MAX_LINE = 1024 * 1024

Message = dict[str, str]


class Unanswered(Exception):
    """The country did not answer, or stopped: its error's code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")


def chat(
    cc: CountryCode,
    model: Annotated[str | None, typer.Option(help="Model id.", show_default="the country's first")] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="DOMICILE_KEY", help="API key.", show_default="the demo key", show_envvar=True),
    ] = None,
    once: Annotated[str | None, typer.Option(metavar="TEXT", help="Ask this, print the answer, leave.")] = None,
) -> None:
    """Chat with a country. Ctrl-C stops an answer, Ctrl-D leaves."""
    country = country_named(cc)
    model = model or country.models[0].id
    key = key or _demo_key(country)
    if not (key.isascii() and key.isprintable()):
        fail("that is no API key: it has characters that no key has", USAGE)
    if once is not None:
        try:
            _answer(country, key, model, [{"role": "user", "content": once}])
        except Unanswered as error:
            fail(str(error))
        return
    note(f"{model} in {country.english_name}, {country.address}. Ctrl-C stops an answer, Ctrl-D leaves.")
    _converse(country, key, model)


def _converse(country: Country, key: str, model: str) -> None:
    messages: list[Message] = []
    while True:
        try:
            text = console.input("[bold]> [/]").strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print()
            continue
        if not text:
            continue
        question = {"role": "user", "content": text}
        try:
            answer = _answer(country, key, model, [*messages, question])
        except Unanswered as error:
            note(str(error))
            continue
        if answer:
            messages += [question, {"role": "assistant", "content": answer}]


def _answer(country: Country, key: str, model: str, messages: list[Message]) -> str:
    """Print an answer as it comes and return it, or what there was of it when Ctrl-C stopped it."""
    pieces: list[str] = []
    try:
        with closing(stream(country, key, model, messages)) as answer:
            for piece in answer:
                pieces.append(piece)
                sys.stdout.write(_harmless(piece))
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" …")
    finally:
        sys.stdout.write("\n")
    return "".join(pieces)


def stream(country: Country, key: str, model: str, messages: list[Message]) -> Generator[str, None, None]:
    """The answer's text, piece by piece. Raises :class:`Unanswered`. Closing it ends the answer at the country."""
    body = json.dumps({"model": model, "messages": messages, "stream": True})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with closing(_connect(country)) as connection:
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            if connection.sock is not None:
                connection.sock.settimeout(country.slo.request_s)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refusal(response.status, response.read(MAX_LINE))
            yield from _pieces(response)
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered("unreachable", f"{country.address}: {str(error) or type(error).__name__}") from error


def _pieces(response: http.client.HTTPResponse) -> Generator[str, None, None]:
    while line := response.readline(MAX_LINE):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        yield from _text(data)
    raise Unanswered("stream_interrupted", "the answer ended before it was complete")


def _text(data: bytes) -> list[str]:
    """The text in one frame of the stream."""
    try:
        frame = json.loads(data)
        if "error" not in frame:
            return [choice["delta"].get("content") or "" for choice in frame["choices"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unanswered("invalid_answer", "the answer is not what the API promises") from error
    raise _refusal(http.client.OK, data)


def _refusal(status: int, body: bytes) -> Unanswered:
    try:
        error = json.loads(body)["error"]
        return Unanswered(str(error["code"] or status), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return Unanswered(str(status), http.client.responses.get(status, "not an answer of the API"))


def _connect(country: Country) -> http.client.HTTPConnection:
    address = urlsplit(country.address)
    if country.gateway.tls is None:
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=CONNECT_TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=str(country.gateway.tls.certificate))
    except OSError as error:
        raise Unanswered("certificate_unreadable", str(error)) from error
    # The country's own certificate is what is trusted, whoever signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return http.client.HTTPSConnection(address.hostname or "", address.port, timeout=CONNECT_TIMEOUT_S, context=context)


def _demo_key(country: Country) -> str:
    path = Settings.from_environment().country(country.code) / "demo.key"
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        fail(f"no key: give --key or DOMICILE_KEY (make one with domicile key create {country.code} --org ORG)")


def _harmless(text: str) -> str:
    """Without control characters: a model must not steer the terminal."""
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc")

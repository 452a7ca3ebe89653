"""Access control. Only requests from this computer's own page are accepted or, on any other address, those of whoever has the
token. Uploads must be real pictures, not too large, and stay in their folder."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mupvss.data.images import SUFFIXES, read_image
from mupvss.errors import DataError, UserError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
COOKIE = "mupvss-token"
POLICY = "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; frame-ancestors 'none'"


def new_token() -> str:
    return secrets.token_urlsafe(24)


class Guard:
    """ASGI middleware: checks Host, Origin and, if there is one, the token, before anything else sees the request.

    A page elsewhere can neither reach us through a name that points here (Host), nor make the browser send a change (Origin).
    """

    def __init__(self, app: ASGIApp, port: int, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in LOOPBACK} | {f"{host}:{port}"}
        self.any_host = token is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(headers, scope["method"])
        if refusal is None and self.token is not None:
            (asked, *_) = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
            if secrets.compare_digest(asked.encode(), self.token.encode()):
                response = RedirectResponse(scope["path"], 303)
                response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
                return await response(scope, receive, send)
            if not secrets.compare_digest(cookie_parser(headers.get("cookie", "")).get(COOKIE, "").encode(), self.token.encode()):
                refusal = "this studio needs the token that it printed when it started: open the address with ?token=..."
        if refusal is not None:
            return await JSONResponse({"error": refusal}, 403)(scope, receive, send)

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                more = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *more, (b"referrer-policy", b"no-referrer")]
            await send(message)

        return await self.app(scope, receive, with_headers)  # type: ignore[arg-type]

    def _refusal(self, headers: Headers, method: str) -> str | None:
        host = headers.get("host", "")
        if not self.any_host and host not in self.hosts:
            return f"the address '{host[:80]}' is not this studio's; open it under the one it printed"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"requests from {origin[:80]} are not taken"
        if headers.get("sec-fetch-site") == "cross-site" and method != "GET":
            return "requests from other sites are not taken"
        return None


MAX_BYTES = 64 * 2**20
NAME = re.compile(r"[\w][\w .()+-]{0,150}")
"""Letters, digits and a few signs; no separator, no leading dot."""


class TooLargeError(ValueError):
    """More bytes than are accepted."""


def checked_name(name: str) -> str:
    """A plain file name with a picture's suffix. UserError for a name that could lead elsewhere, or is not a picture's."""
    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(f"'{name[:80]}' is not a plain file name; letters, digits, spaces and . ( ) + - _ are accepted")
    if Path(name).suffix.lower() not in SUFFIXES:
        raise UserError(f"'{name}' is not a picture's name; {', '.join(sorted(SUFFIXES))} are accepted")
    return name


def check_length(announced: str | None) -> None:
    """Raises TooLargeError before any byte is read, if the announced length is too large."""
    if announced is not None and announced.isdigit() and int(announced) > MAX_BYTES:
        raise TooLargeError(f"{int(announced) / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB per picture are accepted")


async def store(name: str, body: AsyncIterator[bytes], folder: Path) -> Path:
    """Streams an upload to a temporary file, checks that it is a picture, then moves it to a free name in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = _free(folder, checked_name(name))
    temporary = folder / f".{target.name}.part{target.suffix}"
    try:
        size = 0
        with temporary.open("xb") as stream:
            async for part in body:
                size += len(part)
                if size > MAX_BYTES:
                    raise TooLargeError(f"over {MAX_BYTES // 2**20} MB; no larger picture is accepted")
                stream.write(part)
        try:
            read_image(temporary)
        except DataError as error:
            raise UserError(str(error).replace(str(temporary), name)) from None
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _free(folder: Path, name: str) -> Path:
    stem, suffix, number = Path(name).stem, Path(name).suffix.lower(), 1
    target = folder / f"{stem}{suffix}"
    while any(folder.glob(f"{target.stem}.*")):
        number += 1
        target = folder / f"{stem}-{number}{suffix}"
    return target

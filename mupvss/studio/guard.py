"""Access control. Only requests from this computer's own page are accepted or, on any other address, those of whoever has the
token. Uploads must be real pictures, not too large, and stay in their folder."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import AsyncIterator, Container
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mupvss.data.images import SUFFIXES, check_image
from mupvss.errors import DataError, UserError
from mupvss.export.pictures import UNFIT

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
LONGEST = 180
"""Longest name of an upload in bytes, without suffix; longer ones are cut."""


class TooLargeError(ValueError):
    """More bytes than are accepted."""


def checked_name(name: str) -> str:
    """An upload's name made safe for every file system: letters of any script and punctuation stay; folder separators and
    forbidden characters become underscores. UserError if it is not a picture's name."""
    plain = unicodedata.normalize("NFC", name)
    if Path(plain).suffix.lower() not in SUFFIXES:
        raise UserError(f"'{name[:80]}' is not a picture's name; {', '.join(sorted(SUFFIXES))} are accepted")
    suffix = Path(plain).suffix.lower()
    stem = "".join("_" if unicodedata.category(sign)[0] == "C" else sign for sign in plain[: -len(suffix)])
    stem = UNFIT.sub("_", stem).strip(" .").encode()[:LONGEST].decode(errors="ignore").strip(" .") or "picture"
    return f"_{stem}{suffix}" if stem.split(".")[0].upper() in RESERVED else f"{stem}{suffix}"


RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})
"""Names that Windows gives to devices."""


def check_length(announced: str | None) -> None:
    """Raises TooLargeError before any byte is read, if the announced length is too large."""
    if announced is not None and announced.isdigit() and int(announced) > MAX_BYTES:
        raise TooLargeError(f"{int(announced) / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB per picture are accepted")


async def receive_file(body: AsyncIterator[bytes], folder: Path) -> Path:
    """Streams an upload to a temporary file in `folder`. TooLargeError, with nothing left behind, if it is too large."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(8)}.part"
    size = 0
    try:
        with temporary.open("xb") as stream:
            async for part in body:
                size += len(part)
                if size > MAX_BYTES:
                    raise TooLargeError(f"over {MAX_BYTES // 2**20} MB; no larger picture is accepted")
                stream.write(part)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def stored(temporary: Path, name: str, taken: Container[str]) -> Path:
    """Gives a received picture a free name in its folder. taken: names without suffix that are in use. If it is not a picture,
    the file is deleted and UserError raised."""
    try:
        wanted = checked_name(name)
        try:
            check_image(temporary)
        except DataError as error:
            raise UserError(str(error).replace(str(temporary), name)) from None
        target = _free(temporary.parent, wanted, taken)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _free(folder: Path, name: str, taken: Container[str]) -> Path:
    """NAME, or NAME-2 and so on if a picture of the studio or a file in the folder has that name, with any suffix."""
    stem, suffix, number = Path(name).stem, Path(name).suffix, 1
    beside = {path.stem for path in folder.iterdir()} | {path.name for path in folder.iterdir()}
    found = stem
    while found in taken or found in beside:
        number += 1
        found = f"{stem}-{number}"
    return folder / f"{found}{suffix}"

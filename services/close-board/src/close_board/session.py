"""How a browser shows who it is: the token in a cookie that no script reads and no other site sends."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

COOKIE: Final = "close-board-token"
LARGEST_TOKEN: Final = 3800
"""A browser keeps cookies of up to 4096 bytes."""
_LARGEST_FORM: Final = 16 * 1024
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""On every answer. No script or style but our own files, and nothing from elsewhere."""


class BadForm(Exception):
    """A form is not one of this page's, or not whole; nothing was done. The text says what to do."""


def csrf_of(token: str) -> str:
    """What each form of this viewer carries: nobody makes it without the token, and it does not give the token away."""
    return sha256(b"close-board form " + token.encode()).hexdigest()


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that this site's own page sent. Raises BadForm."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise BadForm("The form came from another site; open the board itself.")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise BadForm("The form came from another site; open the board itself.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _LARGEST_FORM:
            raise BadForm("The form is too large; write less.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=10)
    except ValueError:
        raise BadForm("The form cannot be read; open it again.") from None
    return {name: values[-1] for name, values in fields.items()}


def check_csrf(form: dict[str, str], token: str) -> None:
    """Raises BadForm where the form was not made for this viewer."""
    if not compare_digest(form.get("csrf", "").encode(), csrf_of(token).encode()):
        raise BadForm("The form is of another login; open it again.")


def keep_token(answer: Response, token: str, *, secure: bool) -> None:
    """Until the browser is closed; what the token allows ends with it."""
    answer.set_cookie(COOKIE, token, path="/", secure=secure, httponly=True, samesite="strict")


def forget_token(answer: Response, *, secure: bool) -> None:
    """Log out."""
    answer.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="strict")

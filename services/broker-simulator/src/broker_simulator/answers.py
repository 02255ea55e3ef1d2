"""HTTP answers, good and spoiled ones."""

from typing import Literal
from uuid import uuid4

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import Refusal

Spoil = Literal["reset", "server_error", "html", "truncated", "redirect", "foreign"]

HTML_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


class Json(Response):
    """Anything that orjson writes, as an HTTP answer."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Decimals have to be text by then."""
        return orjson.dumps(content)


def refusal_answer(refusal: Refusal) -> Response:
    """The refusal as Alpaca sends it; Retry-After in whole seconds, rounded up."""
    headers = dict(refusal.headers)
    if refusal.retry_after_s is not None:
        # Whole seconds, rounded up: a header may not be sooner than what was meant.
        headers["Retry-After"] = str(-int(-refusal.retry_after_s // 1))
    return Json(refusal.body(), refusal.status, headers)


async def hang(receive: Receive) -> None:
    """Answer nothing until the client gives up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def spoil(how: Spoil, scope: Scope, receive: Receive, send: Send, body: bytes = b'{"id": "0"}') -> None:
    """Answer with something that is no answer; `truncated` and `foreign` are made from the right `body`."""
    match how:
        case "reset":
            scope["state"]["transport"].abort()
            await hang(receive)
        case "server_error":
            answer = Json({"code": 50010000, "message": "internal server error occurred"}, 500)
            await answer(scope, receive, send)
        case "html":
            await Response(HTML_PAGE, 502, media_type="text/html")(scope, receive, send)
        case "redirect":
            await Response(status_code=307, headers={"location": "/elsewhere"})(scope, receive, send)
        case "foreign":
            other = {**orjson.loads(body), "id": str(uuid4()), "client_order_id": "somebody-else"}
            await Json(other)(scope, receive, send)
        case "truncated":
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            scope["state"]["transport"].close()
            await hang(receive)


class SpoiledAnswer(Response):
    """An answer whose content is `body`, and which fails on its way in the given manner."""

    def __init__(self, how: Spoil, body: bytes) -> None:
        super().__init__(body)
        self._how = how

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is left of the answer once it is spoiled."""
        await spoil(self._how, scope, receive, send, bytes(self.body))


class NoAnswer(Response):
    """Nothing, until the client gives up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say nothing until the caller hangs up."""
        await hang(receive)

"""close-api as its contract says, in memory: enough to close, replay, follow and list positions over REST."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .answers import event, position_body, problem, request_body


class FakeCloseApi(ThreadingHTTPServer):
    """Positions 1 to `count` of the account ACC, each with 10 shares; a close is completed when it is looked at."""

    daemon_threads = True

    def __init__(self, count: int) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.positions = range(1, count + 1)
        self.requests: dict[int, list[dict[str, Any]]] = {}
        """By position, in the order in which they were accepted."""
        self.keys: dict[tuple[int, str], dict[str, Any]] = {}
        self.calls = 0
        self.before_answer: Callable[[], None] = lambda: None
        """Is called when a call has had its effect, before its answer is written."""
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close_position(self, position_id: int, key: str) -> tuple[int, dict[str, Any], bool]:
        """Status, body, and whether it is a replay."""
        with self.lock:
            if (position_id, key) in self.keys:
                return 200, self.keys[position_id, key], True
            if position_id not in self.positions:
                return 404, problem("not_found", 404), False
            accepted = self.requests.setdefault(position_id, [])
            if accepted:
                active = accepted[-1]["close_request_id"]
                return 409, problem("position_already_closing", 409, active_close_request_id=active), False
            made = request_body(close_request_id=str(uuid.uuid4()), position_id=position_id)
            accepted.append(made)
            self.keys[position_id, key] = made
            return 201, made, False

    def look(self, request_id: str) -> dict[str, Any] | None:
        """A close request, as it is after this look."""
        with self.lock:
            for one in self.keys.values():
                if one["close_request_id"] == request_id:
                    one |= {"close_request_status": "completed", "position_status": "closed"}
                    one |= {"filled_qty": 10, "remaining_qty": 0, "completed_at": "2026-03-02T15:00:01Z"}
                    return dict(one)
        return None


@contextmanager
def fake_close_api(count: int = 100) -> Iterator[FakeCloseApi]:
    """The server for as long as the block runs."""
    server = FakeCloseApi(count)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # An answer is one write.
    server: FakeCloseApi

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""

    def do_POST(self) -> None:
        """Close one or many, or cancel."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        parts = urlsplit(self.path).path.split("/")
        self.server.calls += 1
        if parts[-1] == "positions:batchClose":
            results = [self._result(one) for one in body["closes"]]
            return self._say(200, {"results": results})
        if parts[-1] == "close" and body.get("dry_run"):
            order = {"symbol": "AAPL", "side": "sell", "quantity": 10, "order_type": "limit", "limit_price": None}
            plan = {"position_id": int(parts[3]), "dry_run": True, "order": order | {"time_in_force": "day"}}
            return self._say(200, plan)
        if parts[-1] == "close":
            status, said, replayed = self.server.close_position(int(parts[3]), self.headers["idempotency-key"])
            return self._say(status, said, {"idempotency-replayed": "true"} if replayed else {})
        return self._request(parts[3])

    def do_GET(self) -> None:
        """Close requests and positions, one or all."""
        parts = urlsplit(self.path)
        words = parts.path.split("/")
        if words[-1] == "watch":
            return self._watch(words[3])
        if words[2] == "close-requests" and len(words) == 4:
            return self._request(words[3])
        if words[2] == "positions" and len(words) == 4:
            return self._say(200, position_body(position_id=int(words[3])))
        if words[2] == "positions":
            return self._page("positions", [position_body(position_id=n) for n in self.server.positions])
        accepted = [self.server.look(one["close_request_id"]) for one in list(self.server.keys.values())]
        return self._page("close_requests", accepted)

    def _result(self, close: dict[str, Any]) -> dict[str, Any]:
        status, said, replayed = self.server.close_position(close["position_id"], f'"{close["idempotency_key"]}"')
        body = "close_request" if status < 300 else "error"
        return {"position_id": close["position_id"], "status": status, "replayed": replayed, body: said}

    def _request(self, request_id: str) -> None:
        found = self.server.look(request_id)
        self._say(200 if found else 404, found or problem("not_found", 404))

    def _watch(self, request_id: str) -> None:
        found = self.server.look(request_id) or {}
        body = event("e1", **found | {"close_request_status": "pending"}) + event("e2", **found)
        self._write(200, body, {"content-type": "text/event-stream"})

    def _page(self, name: str, items: list[Any]) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        begin, size = int(asked.get("page_token", ["0"])[0]), int(asked.get("page_size", ["50"])[0])
        token = str(begin + size) if begin + size < len(items) else ""
        self._say(200, {name: items[begin : begin + size], "next_page_token": token})

    def _say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._write(status, json.dumps(body).encode(), {"content-type": "application/json"} | (headers or {}))

    def _write(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.server.before_answer()
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

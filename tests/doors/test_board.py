"""The board's pages of what topics say, in a browser, beside a real close-api: evil names, poison, and other accounts.

The topics are of the test's own; what is published to them is what the outbox has.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

import devstack
from close_board.__main__ import show
from close_board.follow import TOPICS, Follower
from close_board.read_model import Record
from close_board.settings import CloseBoardSettings
from closeflow.kafka import ensure_topics
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.producer import Outgoing, open_producer
from closeflow.kafka.topics import TopicSpec, open_admin
from closeflow.settings import read
from demo.services import free_port
from tests.aside import run_aside
from tests.browser import PATIENCE_MS, browsing, launched

from .conftest import MINE, Desk, Running

expect.set_options(timeout=PATIENCE_MS)
EVIL: Final = "<img src=x onerror=alert(1)>\"'<script>alert(2)</script>"
EVENTS: Final = "SELECT topic, key, payload::text FROM outbox_events ORDER BY xact_id, position_version"


@dataclass
class Boarded:
    """A board in a thread of its own, on topics of its own; `restart` has it lose its state."""

    connection: KafkaConnection
    topics: dict[str, str]
    settings: CloseBoardSettings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.http_port}"

    def publish(self, topic: str, key: str, value: bytes) -> None:
        async def publish() -> None:
            async with open_producer(self.connection) as producer:
                await producer.publish_many([Outgoing(topic=self.topics[topic], key=key.encode(), value=value)])

        run_aside(publish())

    def publish_outbox(self, desk: Desk) -> None:
        """All that the outbox has, again too."""
        for topic, key, payload in desk.run(EVENTS):
            self.publish(topic, key, payload.encode())

    @contextmanager
    def running(self) -> Iterator[None]:
        models: dict[str, type[Record]] = {self.topics[name]: model for name, model in TOPICS.items()}
        stop, ended = asyncio.Event(), list[Exception]()
        loops = queue.Queue[asyncio.AbstractEventLoop]()

        async def shown() -> None:
            loops.put(asyncio.get_running_loop())
            await show(self.settings, Follower(self.connection, models), stop)

        def run() -> None:
            try:
                asyncio.run(shown())
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        loop = loops.get(timeout=60)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(60)
            assert ended == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture
def board(stack: devstack.Stack, api: Running) -> Iterator[Boarded]:
    connection = KafkaConnection(stack.kafka_bootstrap_servers)
    topics = {name: f"test-{uuid.uuid4().hex[:12]}-{name}" for name in TOPICS}
    specs = [TopicSpec(name=one, partitions=2, config={}) for one in topics.values()]
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers,
        "CLOSE_API_URL": api.url,
        "INSTANCE": "test <b>instance</b>",
        "HTTP_PORT": str(free_port()),
        "REFRESH_S": "0.3",
    }
    run_aside(ensure_topics(connection, specs))
    try:
        yield Boarded(
            connection, topics, read(CloseBoardSettings, {f"CLOSE_BOARD_{key}": one for key, one in settings.items()})
        )
    finally:
        run_aside(_remove(connection, [*topics.values()]))


async def _remove(connection: KafkaConnection, topics: list[str]) -> None:
    async with open_admin(connection) as admin:
        await admin.delete_topics(topics)


def closing(desk: Desk, api: Running, account: str, *, symbol: str) -> tuple[int, str]:
    """A close that waits for a quote, of an account of its own."""
    desk.run("INSERT INTO accounts (account_id, broker) VALUES (%s, 'sim') ON CONFLICT DO NOTHING", account)
    (position,) = desk.open_positions(1, account=account)
    desk.run("UPDATE positions SET symbol = %s WHERE id = %s", symbol, position)
    headers = {"Authorization": f"Bearer {desk.issuer.token(account)}", "Idempotency-Key": "k"}
    answer = httpx.post(f"{api.url}/v1/positions/{position}/close", headers=headers, json={"reason": EVIL})
    assert answer.status_code == 201, answer.text
    request = answer.json()["close_request_id"]
    waits = (
        "UPDATE close_requests SET reason = 'no_fresh_quote', deferred_since = now() - interval '1 min' WHERE id = %s"
    )
    desk.run(waits, request)
    return position, request


def open_board(page: Page, board: Boarded, token: str) -> None:
    page.goto(f"{board.url}/login#token={token}")
    expect(page.locator("h1")).to_have_text("What is not closing")


def test_evil_names_are_text_and_poison_is_counted_until_the_next_event(
    desk: Desk, api: Running, board: Boarded, browser: Browser
) -> None:
    position, request = closing(desk, api, EVIL, symbol=f"S{EVIL}")
    desk.run(
        "INSERT INTO incidents (kind, severity, position_id, close_request_id, detail)"
        " VALUES ('gap', 'critical', %s, %s, jsonb_build_object('text', %s::text))",
        position,
        request,
        EVIL,
    )
    everyone = desk.issuer.token(subject=EVIL, accounts="*")
    with board.running(), browsing(browser) as context:
        page = context.new_page()
        open_board(page, board, everyone)
        stuck = page.locator(f"#close-{request}")
        expect(stuck).to_contain_text("not published yet")
        board.publish_outbox(desk)
        expect(stuck).to_contain_text("order asked for")
        assert f"S{EVIL}" in stuck.inner_text()
        assert EVIL in page.locator(".who").inner_text()
        expect(page.locator("#incidents")).to_contain_text(EVIL)
        board.publish("position-events", str(position), b'{"no": "event"}' + EVIL.encode())
        expect(page.locator("#unreadable-total")).to_have_text("1")
        expect(stuck).to_contain_text("an event of it could not be read")
        page.click(f"#open-{request}")
        expect(page.locator("#state")).to_contain_text("this may be behind")
        expect(page.locator("#timeline")).to_contain_text("event SUBMIT_CLOSE_ORDER")
        assert page.locator("main img, main script, main b b").count() == 0
        before = board_of(page, board)
    with board.running(), browsing(browser) as context:  # Without its state, it is the same.
        page = context.new_page()
        open_board(page, board, everyone)
        expect(page.locator("#unreadable-total")).to_have_text("1")
        assert board_of(page, board) == before
        headers = {"Authorization": f"Bearer {desk.issuer.token(EVIL)}"}
        httpx.post(f"{api.url}/v1/close-requests/{request}/cancel", headers=headers).raise_for_status()
        board.publish_outbox(desk)
        expect(page.locator(f"#close-{request}")).to_have_count(0)  # Withdrawn, and no more in doubt.
        expect(page.locator("[data-stage='failed']")).to_have_text("1")
        expect(page.locator("#unread")).not_to_contain_text("may be behind")


def board_of(page: Page, board: Boarded) -> list[str]:
    page.goto(board.url)
    expect(page.locator("#reading")).to_have_text("")
    return [page.locator(one).inner_text() for one in ("#funnel", "#stuck-summary", "#unread", "#incidents b")]


def test_a_viewer_sees_the_accounts_of_the_token_only(
    desk: Desk, api: Running, board: Boarded, browser: Browser
) -> None:
    _, mine = closing(desk, api, MINE, symbol="MINE-1")
    _, other = closing(desk, api, "OTHER", symbol="OTHER-1")
    with board.running(), browsing(browser, viewport={"width": 390, "height": 800}) as context:
        board.publish_outbox(desk)
        page = context.new_page()
        open_board(page, board, desk.issuer.token(MINE, scope="close:read"))
        expect(page.locator(f"#close-{mine}")).to_contain_text("MINE-1")
        expect(page.locator("#open-total")).to_have_text("1")
        expect(page.locator(".accounts")).to_have_text(f"account {MINE}")
        for _ in range(3):
            assert "OTHER" not in page.content()
            page.wait_for_timeout(400)  # The page is sent anew meanwhile.
        assert page.locator("#halt-1").count() == 0
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(wide), "it does not fit a narrow screen"
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        answer = page.goto(f"{board.url}/closes/{other}")
        assert answer is not None
        assert answer.status == 404
        page.goto(f"{board.url}/closes/{mine}")
        assert page.locator("#act-retry, #act-abandon").count() == 0
        assert not page.evaluate(wide)

"""A key closes once: over both doors, over two processes, through kill -9, and for whoever hung up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event
from typing import Final
from uuid import UUID

import httpx
import pytest

from closeflow_client import AsyncClient, Client, CloseflowError, CloseRequest
from demo.services import free_port

from .conftest import MINE, Desk, Running

KILLS: Final = int(os.environ.get("DOOR_KILLS", "5"))
"""Twenty take a minute and a half."""
UP_S: Final = 1.5
"""For how long it runs before it is killed, so that those who wait between two attempts get their turn too."""
WORKERS: Final = 8


def addresses(api: Running) -> tuple[str, str]:
    return api.url, f"grpc://{api.grpc_target}"


async def outcomes(desk: Desk, closes: list[tuple[str, int, str]]) -> list[CloseRequest | CloseflowError]:
    """What these closes, each (address, position, key), get when all are asked for at once."""
    token = desk.issuer.token(MINE)
    async with AsyncExit() as opened:
        clients = {address: await opened.enter(AsyncClient(address, token)) for address in {one[0] for one in closes}}

        async def close(address: str, position: int, key: str) -> CloseRequest | CloseflowError:
            try:
                return await clients[address].close(position, key=key)
            except CloseflowError as error:
                return error

        return await asyncio.gather(*(close(*one) for one in closes))


class AsyncExit:
    """Leaves clients that were entered, the last first."""

    def __init__(self) -> None:
        self._opened: list[AsyncClient] = []

    async def __aenter__(self) -> AsyncExit:
        return self

    async def enter(self, client: AsyncClient) -> AsyncClient:
        self._opened.append(await client.__aenter__())
        return client

    async def __aexit__(self, *_: object) -> None:
        for client in reversed(self._opened):
            await client.__aexit__(None, None, None)


async def test_fifty_calls_with_one_key_half_over_each_door_are_one_close(desk: Desk, api: Running) -> None:
    (position,) = desk.open_positions(1)
    found = await outcomes(desk, [(addresses(api)[n % 2], position, "one key") for n in range(50)])
    accepted = [one for one in found if isinstance(one, CloseRequest)]
    assert len(accepted) == 50, Counter(str(one) for one in found)
    assert Counter(one.replayed for one in accepted) == {False: 1, True: 49}
    assert len({one.close_request_id for one in accepted}) == 1
    assert desk.requests() == 1


async def test_of_fifty_keys_over_two_doors_of_two_processes_one_is_accepted(desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    with desk.api() as one, desk.api() as two:
        ways = (*addresses(one), *addresses(two))
        found = await outcomes(desk, [(ways[n % 4], position, f"key {n}") for n in range(50)])
    accepted = [each for each in found if isinstance(each, CloseRequest)]
    refused = [each for each in found if isinstance(each, CloseflowError)]
    assert (len(accepted), len(refused)) == (1, 49)
    assert {each.code for each in refused} == {"position_already_closing"}
    assert desk.requests() == 1


@pytest.mark.timeout(300)
def test_every_key_has_one_request_after_kills_under_load_and_its_answer_names_it(desk: Desk) -> None:
    """Clients over both doors close one position after the other and retry; close-api is killed under them and started
    again at the same address."""
    ports = (free_port(), free_port())
    token = desk.issuer.token(MINE)
    positions = desk.open_positions(20_000)
    killed_all = Event()

    def closing(worker: int) -> dict[int, UUID]:
        address = f"http://127.0.0.1:{ports[0]}" if worker % 2 else f"grpc://127.0.0.1:{ports[1]}"
        answered: dict[int, UUID] = {}
        with Client(address, token, timeout=5.0, retry_for=120.0) as client:
            for position in positions[worker::WORKERS]:
                if killed_all.is_set():
                    return answered
                answered[position] = client.close(position, key=f"k {position}").close_request_id
        raise AssertionError("there were too few positions")

    with ThreadPoolExecutor(WORKERS) as pool:
        working = [pool.submit(closing, worker) for worker in range(WORKERS)]
        try:
            for kill in range(KILLS + 1):
                with desk.api(ports=ports) as running:
                    before, began = desk.requests(), time.monotonic()
                    while desk.requests() < before + 20 or time.monotonic() < began + UP_S + 0.01 * kill:
                        assert time.monotonic() < began + 60, "nothing is accepted"
                        time.sleep(0.002)
                    if kill < KILLS:
                        running.service.process.send_signal(signal.SIGKILL)
                        running.service.process.wait()
                        continue
                    killed_all.set()
                    answers = [one.result(60) for one in working]
        finally:
            killed_all.set()
    answered = {position: request for one in answers for position, request in one.items()}
    rows = desk.run("SELECT position_id, idempotency_key, id FROM close_requests")
    assert len(answered) > KILLS * 20
    assert {position: request for position, _, request in rows} == answered
    assert len(rows) == len(answered)
    assert all(key == f"k {position}" for position, key, _ in rows)


@pytest.fixture
def hung_up(desk: Desk, api: Running) -> Iterator[tuple[list[int], httpx.Client]]:
    """Positions, and a client that looks afterwards."""
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {desk.issuer.token(MINE)}"}) as rest:
        yield desk.open_positions(40), rest


def test_who_hangs_up_finds_at_most_one_effect_again_with_the_key(
    desk: Desk, api: Running, hung_up: tuple[list[int], httpx.Client]
) -> None:
    positions, rest = hung_up
    token = desk.issuer.token(MINE)
    with ExitStack() as lines:
        for position in positions:
            line = lines.enter_context(socket.create_connection(("127.0.0.1", api.http_port)))
            line.sendall(
                f"POST /v1/positions/{position}/close HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                "Idempotency-Key: k\r\n\r\n".encode()
            )
            line.close()
    for position in positions:
        answer = rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k"})
        assert answer.status_code in (200, 201)
    assert desk.requests() == len(positions)
    assert desk.run("SELECT count(DISTINCT position_id) FROM close_requests") == [(len(positions),)]


async def test_a_deadline_of_a_millisecond_or_a_cancelled_call_has_at_most_one_effect(desk: Desk, api: Running) -> None:
    positions = desk.open_positions(40)
    token = desk.issuer.token(MINE)
    async with AsyncClient(addresses(api)[1], token, timeout=0.001, retry_for=0) as hasty:
        await asyncio.gather(*(hasty.close(one, key="k") for one in positions[:20]), return_exceptions=True)
    async with AsyncClient(addresses(api)[1], token) as client:
        calls = [asyncio.create_task(client.close(one, key="k")) for one in positions[20:]]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        found = [await client.close(one, key="k") for one in positions]
    assert len({one.close_request_id for one in found}) == len(positions)
    assert desk.requests() == len(positions)

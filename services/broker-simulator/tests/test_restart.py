"""What was accepted survives kill -9, and what was scripted goes on."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from broker_simulator.__main__ import read_settings
from broker_simulator.control import AcceptSilently, Behaviour, FillInParts, NeverFill, NonTrade, Reject
from broker_simulator.probe import RestProbe, listening
from broker_simulator.process import DidNotStart, SimulatorProcess
from broker_simulator.settings import ActivityIds, Settings


def test_orders_survive_and_scripted_parts_go_on(mortal_simulator: SimulatorProcess) -> None:
    broker = RestProbe(mortal_simulator)
    with mortal_simulator.control() as control:
        control.script(Behaviour(execution=FillInParts(parts=5, every_s=0.3)), client_order_id="cf-parts")
        control.script(Behaviour(execution=NeverFill()), client_order_id="cf-open")
        control.script(Behaviour(answer=Reject(message="later")), client_order_id="cf-later", count=1)
        control.pin_quote("TSLA", "19.90", "20.10")
    orders = {name: broker.post(name).json() for name in ("cf-parts", "cf-open", "cf-done")}
    broker.await_status("cf-done", "filled")
    part = broker.await_status("cf-parts", "partially_filled")
    before = broker.get("/v2/account/activities/FILL", direction="asc")

    mortal_simulator.kill()
    mortal_simulator.start()

    assert {name: broker.find(name)["id"] for name in orders} == {name: o["id"] for name, o in orders.items()}
    assert broker.await_status("cf-parts", "filled")["updated_at"] > part["updated_at"]
    assert broker.find("cf-open")["status"] == "new"
    after = broker.get("/v2/account/activities/FILL", direction="asc")
    assert after[: len(before)] == before
    assert len(after) == 6
    assert broker.get("/v2/positions/AAPL")["qty"] == "100"
    assert broker.get("/v2/stocks/quotes/latest", symbols="TSLA")["quotes"]["TSLA"]["bp"] == 19.9
    assert broker.post("cf-parts").json()["message"] == "client_order_id must be unique"
    assert broker.post("cf-later").json()["message"] == "later"
    with mortal_simulator.control() as control:
        assert [post.outcome for post in control.order("cf-done").posts] == ["accepted"]


def test_an_order_accepted_just_before_the_kill_is_executed_after_it(mortal_simulator: SimulatorProcess) -> None:
    broker = RestProbe(mortal_simulator)
    accepted = [broker.post(f"cf-{n}", qty="1").json()["id"] for n in range(20)]
    mortal_simulator.kill()
    mortal_simulator.start()
    assert [broker.await_status(f"cf-{n}", "filled")["id"] for n in range(20)] == accepted
    assert broker.get("/v2/positions/AAPL")["qty"] == "100"
    fills = broker.get("/v2/account/activities/FILL")
    assert sorted(fill["order_id"] for fill in fills) == sorted(accepted)


def test_a_broker_that_was_told_to_behave_otherwise_does_so_after_a_restart(mortal_simulator: SimulatorProcess) -> None:
    broker = RestProbe(mortal_simulator)

    def listed() -> list[str]:
        return [one["id"] for one in broker.get("/v2/account/activities/FILL", direction="asc")]

    named_as: dict[str, ActivityIds] = {"cf-1": "different", "cf-2": "same"}
    for name, ids in named_as.items():
        with mortal_simulator.control() as control:
            control.set_capabilities(activity_ids=ids, deduplication="none", reversals="unlisted", oversell="allow")
        broker.post(name, qty="1")
        broker.await_status(name, "filled")
    named = listed()
    mortal_simulator.kill()
    mortal_simulator.start()
    assert listed() == named
    assert broker.post("cf-2", qty="200").status_code == httpx.codes.OK  # taken again, and beyond what is held
    with mortal_simulator.control() as control:
        control.bust(control.order("cf-1").orders[0].executions[0].execution_id)
        assert listed()[: len(named)] == named
        control.reset()
    assert broker.post("cf-2", qty="1").status_code == httpx.codes.OK
    assert broker.post("cf-2", qty="1").json()["message"] == "client_order_id must be unique"


def test_what_happened_without_an_order_is_listed_by_page_and_survives(mortal_simulator: SimulatorProcess) -> None:
    option = "AAPL261218C00200000"
    broker = RestProbe(mortal_simulator)
    with mortal_simulator.control() as control:
        done = [NonTrade(activity_type="OPASN", symbol=option, quantity=Decimal(-1))]
        done += [NonTrade(activity_type="DIV", symbol="AAPL", quantity=Decimal(120), date="2026-03-20", moves=False)]
        ids = [control.book_non_trade(one) for one in done]
    mortal_simulator.kill()
    mortal_simulator.start()

    def listed(**params: str) -> list[str]:
        found = broker.get("/v2/account/activities", category="non_trade_activity", direction="asc", **params)
        return [one["id"] for one in found]

    assert listed() == ids
    assert listed(page_size="1", page_token=ids[0]) == ids[1:]
    assert listed(after="2026-03-21T00:00:00Z") == ids[:1]
    assert broker.get("/v2/account/activities/FILL") == []
    held = {symbol: broker.get(f"/v2/positions/{symbol}")["qty"] for symbol in (option, "AAPL")}
    assert held == {option: "2", "AAPL": "120"}


def test_it_stops_gracefully_and_says_so(mortal_simulator: SimulatorProcess) -> None:
    assert mortal_simulator.stop() == 0
    assert '"stopped"' in mortal_simulator.log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--host", "0.0.0.0"], [], "the default secret is only for loopback"),
        (["--port", "99999"], [], "port: Input should be less than"),
        (["--deduplication", "sometimes"], [], "deduplication: Input should be 'forever'"),
        ([], ["BROKER_SIMULATOR_SED"], "unknown setting BROKER_SIMULATOR_SED"),
    ],
)
def test_an_impossible_setting_stops_the_start(
    capsys: pytest.CaptureFixture[str], arguments: list[str], environment: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read_settings(arguments, environment)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_missing_positions_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="No such file"):
        SimulatorProcess(tmp_path, {"positions_csv": "/nowhere.csv"}).start()


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], [])
    text = capsys.readouterr().out
    missing = [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in text]
    assert not missing
    assert "/control/rules" in text


def test_a_stop_cuts_off_those_who_wait_for_an_answer(mortal_simulator: SimulatorProcess) -> None:
    broker = RestProbe(mortal_simulator)
    with mortal_simulator.control() as control:
        control.script(Behaviour(answer=AcceptSilently()))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(broker.post, "cf-1")
        broker.await_status("cf-1", "filled")
        assert mortal_simulator.stop() == 0
        assert isinstance(waiting.exception(timeout=5), httpx.TransportError)
    lines = [json.loads(line) for line in mortal_simulator.log.read_text().splitlines()]
    assert not [line for line in lines if "exception" in line]


def test_text_frames_and_overselling_are_settings(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, {"stream_frames": "text", "oversell": "allow"}) as simulator:
        broker = RestProbe(simulator)
        with listening(simulator) as listener:
            broker.post("cf-1")
            message = listener.socket.recv(timeout=5)
        assert isinstance(message, str)
        broker.await_status("cf-1", "filled")
        assert broker.get("/v2/positions/AAPL")["qty"] == "-10"


def test_two_simulators_cannot_share_a_memory(mortal_simulator: SimulatorProcess) -> None:
    second = SimulatorProcess(mortal_simulator.directory, {"port": "0"})
    with pytest.raises(DidNotStart, match="Is another simulator running on it"):
        second.start()

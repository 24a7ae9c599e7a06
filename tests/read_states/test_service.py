"""The service through real connections, on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvicorn

from read_states import app
from read_states.app import FailureError, Operations, Service, UnavailableError, make_app
from read_states.bodies import ReadState
from slabcache import RowsRejected
from support.read_states_service import (
    ENVIRONMENT,
    Instance,
    check_round_trip,
    get,
    hosted,
    post,
    running,
    started,
    state,
)
from support.sqlite_file import execute

LARGEST = 2**63 - 1


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/states.db"


@contextlib.contextmanager
def away(store: str) -> Iterator[None]:
    """For a while something else is where the database was."""
    file = Path(store.removeprefix("sqlite:"))
    elsewhere = file.rename(file.with_suffix(".away"))
    file.write_text("this is no database" * 1000)
    try:
        yield
    finally:
        elsewhere.rename(file)


@contextlib.contextmanager
def locked(store: str) -> Iterator[None]:
    """Somebody else is writing to the database all the time."""
    connection = sqlite3.connect(store.removeprefix("sqlite:"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


@pytest.mark.parametrize("cache", ["slabcache", "objects"])
def test_every_operation_and_a_restart(store: str, cache: str) -> None:
    check_round_trip(store, "--cache", cache)


@pytest.mark.parametrize("cache", ["slabcache", "objects"])
def test_many_clients_in_a_cache_that_is_far_too_small(store: str, cache: str) -> None:
    """Acknowledged writes are seen by every later read, wherever they are meanwhile."""
    options = ["--cache", cache, "--capacity", "20", "--max-pending", "10", "--flush-interval", "0.05"]

    async def client_of(url: str, user: int) -> None:
        async with aiohttp.ClientSession(url) as client:
            for message in range(1, 30):
                channel = message % 7
                while True:
                    async with client.post(
                        f"/users/{user}/channels/{channel}/ack", json={"message_id": message}
                    ) as response:
                        if response.status == 200:
                            break
                        assert response.status == 503
                        assert response.headers["Retry-After"] == "1"
                    await asyncio.sleep(0.01)
                assert await get(client, f"/users/{user}/channels/{channel}") == state(message)

    async def main(url: str) -> None:
        await asyncio.gather(*[client_of(url, user) for user in range(12)])

    with running(store, *options) as instance:
        asyncio.run(main(instance.url))
    rows = execute(store.removeprefix("sqlite:"), "SELECT * FROM read_states")
    last = {
        channel: max(message for message in range(1, 30) if message % 7 == channel) for channel in range(7)
    }
    assert {row[:3] for row in rows} == {
        (user, channel, last[channel]) for user in range(12) for channel in range(7)
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/users/x/channels/1", None, 400, "user must be a number"),
        ("GET", "/users/-1/channels/1", None, 400, "user must be a number"),
        ("GET", f"/users/{LARGEST + 1}/channels/1", None, 400, "user must be a number"),
        ("GET", "/users/1/channels/" + "9" * 5000, None, 400, "channel must be a number"),
        ("GET", "/users/1/channels/%D9%A1", None, 400, "channel must be a number"),
        ("GET", "/users/1", None, 404, "Not Found"),
        ("GET", "/mentions", None, 405, "Method Not Allowed"),
        ("POST", "/users/1/channels:batch", '{"channels":' + str([1] * 1001) + "}", 400, "length <= 1000"),
        ("POST", "/users/1/channels:batch", '{"channels": [1.5]}', 400, "$.channels[0]"),
        ("POST", "/users/1/channels:batch", '{"channels": ["1"]}', 400, "$.channels[0]"),
        ("POST", "/users/1/channels:batch", '{"chanels": [1]}', 400, "unknown field `chanels`"),
        ("POST", "/users/1/channels:batch", "{", 400, "truncated"),
        ("POST", "/users/1/channels:batch", b"\xff", 400, "malformed"),
        ("POST", "/users/1/channels:batch", " " * 70_000, 413, "larger than 65536 bytes"),
        ("POST", "/users/1/channels:batch", None, 400, "the body is empty"),
        ("POST", "/users/1/channels/1/ack", b'{"\xff": 1}', 400, "utf-8"),
        ("GET", "/users/" + "0" * 20 + "9" * 30 + "/channels/1", None, 400, "user must be a number"),
        ("GET", "/users/" + "0" * 5000 + "1/channels/1", None, 400, "user must be a number"),
        ("POST", "/users/1/channels/1/ack", "{}", 400, "missing required field `message_id`"),
        ("POST", "/users/1/channels/1/ack", '{"message_id": 9223372036854775808}', 400, "$.message_id"),
        ("POST", "/users/1/channels/1/pin", '{"pin_ts": 4294967296}', 400, "$.pin_ts"),
        ("POST", "/mentions", '{"channel": 1, "users": [1], "count": 0}', 400, "$.count"),
    ],
)
def test_bad_input_is_told_its_reason(
    instance: Instance, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    async def main() -> None:
        async with (
            aiohttp.ClientSession(instance.url) as client,
            client.request(method, path, data=body) as answer,
        ):
            assert answer.status == status
            assert reason in (await answer.json())["error"]

    asyncio.run(main())


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(instance: Instance) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            yield b" " * 10_000
            sent += 1

    async def main() -> None:
        async with aiohttp.ClientSession(instance.url) as client:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.post("/mentions", data=endless()) as answer:
                    assert answer.status == 413
        assert sent < 5000

    asyncio.run(main())


@pytest.mark.parametrize("cache", ["slabcache", "objects"])
def test_a_full_count_of_mentions_stays_as_it_is(store: str, cache: str) -> None:
    full = 2**32 - 3

    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url) as client:
            assert await get(client, "/users/1/channels/3") == state(0, full)
            for _ in range(2):
                answer = await post(client, "/mentions", channel=3, users=[7, 1, 8, 1, 9], count=5)
                assert answer == {"refused": []}
            for user, count in [(1, full), (7, 10), (8, 10), (9, 10)]:
                assert await get(client, f"/users/{user}/channels/3") == state(0, count)

    with running(store):
        pass
    execute(store.removeprefix("sqlite:"), f"INSERT INTO read_states VALUES (1, 3, 0, {full}, 0)")
    with running(store, "--cache", cache) as instance:
        asyncio.run(main(instance.url))


def test_rows_that_the_database_refuses_are_said(store: str) -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url) as client:
            for user in range(1, 4):
                await post(client, f"/users/{user}/channels/1/ack", message_id=5)

    with running(store):
        pass
    execute(
        store.removeprefix("sqlite:"),
        "CREATE TRIGGER never BEFORE INSERT ON read_states WHEN new.user_id = 2 "
        "BEGIN SELECT RAISE(ABORT, 'never'); END",
    )
    with started(store) as instance:
        asyncio.run(main(instance.url))
        assert instance.terminate() == 1
        assert "refused rows 1 times; all else is saved" in "".join(instance.log)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--store", "mysql:x?password=SECRET"], "store must be"),
        (["--store", "cassandra://me:SECRET@127.0.0.1:1/ks"], "CASSANDRA_PASSWORD"),
        (["--store", "sqlite:/nowhere/at/all.db"], "/nowhere/at/all.db"),
        (["--port", "99999"], "must be from 1 to 65535"),
        (["--deadline", "nan"], "must be from 0"),
        (["--capacity", "0"], "must be from 1"),
        (["--ring", "/nowhere/ring.json"], "/nowhere/ring.json"),
        (["--cache", "objects", "--ring", "ring.json"], "needs --cache slabcache"),
        (["--host", "192.0.2.1"], "192.0.2.1"),  # of nobody
    ],
)
def test_wrong_options_are_told_in_a_line(tmp_path: Path, options: list[str], reason: str) -> None:
    command = [sys.executable, "-m", "read_states", "serve", "--store", f"sqlite:{tmp_path}/s.db", *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stderr


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with running(f"sqlite:{tmp_path_factory.mktemp('service')}/states.db") as service:
        yield service


def test_a_session_ends_with_a_reason(instance: Instance) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(instance.url) as client:
            async with client.ws_connect("/users/1/session") as session:
                await session.send_str('{"read": ["1"]}')
                message = await session.receive()
                assert (message.data, message.extra) == (1008, "Expected `int`, got `str` - at `$.read[0]`")
            async with client.ws_connect("/users/x/session") as session:
                assert (await session.receive()).data == 1008
            async with client.ws_connect("/users/1/session") as session:
                await session.send_bytes(b'{"read": [1]}')
                assert json.loads((await session.receive()).data) == {"states": [state(0)]}
                await session.send_str('{"' + "\u20ac" * 200 + '": 1}')
                assert (await session.receive()).data == 1008

    asyncio.run(main())


def test_health_and_figures(instance: Instance) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(instance.url) as client:
            await get(client, "/users/77/channels/1")
            async with client.get("/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with client.get("/metrics") as answer:
                text = await answer.text()
        for name in (
            "slabcache_size",
            "read_states_gc_longest_pause_seconds",
            "process_resident_memory_bytes",
        ):
            assert f"\n{name}" in text

    asyncio.run(main())


def test_a_database_that_is_away_is_missed_only_where_it_is_needed(store: str) -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:
            await post(client, "/users/1/channels/1/ack", message_id=5)
            with away(store):
                calls = [client.get(f"/users/{user}/channels/1") for user in range(2, 702)]
                waiting = asyncio.gather(*calls)
                await asyncio.sleep(0.2)
                assert await post(client, "/users/1/channels/1/ack", message_id=6) == state(6)
                assert await get(client, "/users/1/channels/1") == state(6)
                for answer in await waiting:
                    assert answer.status == 503, await answer.text()
                    assert answer.headers["Retry-After"] == "1"
                assert (await post(client, "/mentions", channel=1, users=[1, 900]))["refused"] == [900]
                assert await get(client, "/users/1/channels/1") == state(6, 1)
            while True:
                async with client.get("/users/2/channels/1") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.1)

    with running(store) as instance:
        asyncio.run(main(instance.url))


@pytest.mark.parametrize("cache", ["slabcache", "objects"])
def test_what_could_not_be_saved_is_said(store: str, cache: str) -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url) as client:
            for channel in range(3):
                await post(client, f"/users/1/channels/{channel}/ack", message_id=5)

    with started(store, "--deadline", "1", "--cache", cache) as instance:
        asyncio.run(main(instance.url))
        with locked(store):
            assert instance.terminate() == 1
        assert "3 rows are not in the store" in "".join(instance.log)


def test_as_many_connections_as_the_system_allows(store: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
    try:
        with running(store) as instance:
            limits = Path(f"/proc/{instance.process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4]


def test_sessions_leave_room_for_requests(store: str) -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url) as client:
            sessions = [await client.ws_connect(f"/users/{user}/session") for user in range(6)]
            for _ in range(2):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                    await client.ws_connect("/users/7/session")
                assert refusal.value.status == 503
                assert refusal.value.headers is not None
                assert refusal.value.headers["Retry-After"] == "1"
            assert await get(client, "/users/7/channels/1") == state()
            await sessions.pop().close()
            sessions.append(await client.ws_connect("/users/7/session"))
            await sessions[-1].send_json({"read": [1]})
            assert await sessions[-1].receive_json() == {"states": [state()]}
            for session in sessions:
                await session.close()

    with running(store, "--max-connections", "8") as instance:
        asyncio.run(main(instance.url))


@pytest.mark.parametrize("in_fleet", [False, True])
def test_a_crowd_is_told_to_come_back_until_it_is_smaller(tmp_path: Path, store: str, in_fleet: bool) -> None:
    async def main(url: str) -> None:
        address = urlsplit(url)
        async with (
            aiohttp.ClientSession(url) as client,
            client.ws_connect("/users/1/session") as session,
        ):
            await post(client, "/users/1/channels/1/ack", message_id=5)
            idle = [await asyncio.open_connection(address.hostname, address.port) for _ in range(4)]
            for reader, writer in idle:  # until the server has accepted it
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await client.ws_connect("/users/2/session")
            for _ in range(2):
                async with client.get("/users/1/channels/1") as answer:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                    assert answer.headers["Connection"] == "close"
                    assert await answer.json() == {"error": "too many connections"}
            async with client.post("/mentions", json={"channel": 1, "users": [1]}) as answer:
                assert answer.status == 503
            for path in ("/healthz", "/metrics", *(["/fleet/status"] if in_fleet else [])):
                async with client.get(path) as answer:
                    assert answer.status == 200
            await session.send_json({"read": [1]})
            assert (await session.receive()).data == 1013
            for _, writer in idle:
                writer.close()
                await writer.wait_closed()
            while True:
                async with client.get("/users/1/channels/1") as answer:
                    if answer.status == 200:
                        assert await answer.json() == state(5)
                        return

    ring = tmp_path / "ring.json"
    ring.write_text('{"ring": ["me"]}')
    options = ["--ring", str(ring), "--instance", "me"] if in_fleet else []
    with running(store, "--max-connections", "4", *options) as instance:
        asyncio.run(main(instance.url))


def test_who_leaves_while_a_session_waits_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow:
        asked = 0

        async def read_many(self, user: int, channels: list[int]) -> list[ReadState]:
            self.asked += 1
            await asyncio.sleep(3600)
            raise AssertionError

    async def main() -> None:
        slow = Slow()
        service = Service(cast(Operations, slow), (), 100)
        server = uvicorn.Server(uvicorn.Config(make_app(service), log_config=None))
        async with (
            hosted(server) as (host, port),
            aiohttp.ClientSession(f"http://{host}:{port}") as client,
        ):
            session = await client.ws_connect("/users/1/session")
            await session.send_json({"read": [1]})
            while not slow.asked:
                await asyncio.sleep(0.01)
            await session.close()
            while server.server_state.tasks:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(app, "PATIENCE", 0.3)
    asyncio.run(main())
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("error", "cause", "told"),
    [
        (sqlite3.OperationalError("locked"), None, UnavailableError),
        (RuntimeError("of its own"), sqlite3.OperationalError("locked"), UnavailableError),
        (RowsRejected("damaged"), ValueError("damaged"), FailureError),
        (RowsRejected("never"), sqlite3.IntegrityError("never"), FailureError),
        (TypeError("a mistake"), None, FailureError),
    ],
)
def test_a_load_that_fails_is_told_by_what_the_store_has_raised(
    error: Exception, cause: Exception | None, told: type[Exception]
) -> None:
    async def load() -> None:
        raise error from cause

    service = Service(cast(Operations, None), (sqlite3.Error,), 100)
    with pytest.raises(told) as raised:
        asyncio.run(service.run(load()))
    assert raised.type is told

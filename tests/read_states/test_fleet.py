"""A fleet behind a real nginx, on SQLite: who serves whom, and changes of the ring under load."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from zlib import crc32

import aiohttp
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from measuring.ports import free_port
from read_states.app import UnavailableError
from read_states.fleet import machine
from read_states.fleet.change import ChangeError
from read_states.fleet.gateway import Gateway
from read_states.fleet.machine import Fleet, FleetError
from read_states.fleet.member import Change, Member, Rings
from read_states.fleet.ring import Ring, crc32_of_digits
from read_states.rows import KEY, VALUE
from read_states.states import SlabStates
from support.faulty_store import FaultyStore
from support.read_states_fleet import ask, live_through_changes
from support.read_states_service import ENVIRONMENT, get, hosted, post, state


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/states.db"


# ---- the ring ---------------------------------------------------------------------------------------


@asynccontextmanager
async def echoes(count: int) -> AsyncIterator[list[str]]:
    """Servers that answer everything with their address."""

    async def answer(request: Request) -> Response:
        host, port = request.scope["server"]
        return Response(f"{host}:{port}")

    config = uvicorn.Config(
        Starlette(routes=[Route("/{path:path}", answer)]), log_config=None, timeout_keep_alive=3600
    )
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(hosted(uvicorn.Server(config))) for _ in range(count)]
        yield [f"{host}:{port}" for host, port in servers]


async def compare_with_nginx(folder: Path) -> None:
    numbers = random.Random(2)
    users = [*range(1000), *(numbers.getrandbits(numbers.randint(1, 63)) for _ in range(2000)), 2**63 - 1]
    async with echoes(5) as addresses:
        gateway = Gateway(folder, f"127.0.0.1:{free_port()}")
        gateway.start(Ring(addresses))
        try:
            async with aiohttp.ClientSession(f"http://{gateway.address}") as http:

                async def owner(path: str) -> str:
                    async with http.get(path) as response:
                        assert response.status == 200
                        return await response.text()

                for count in (5, 4, 1):
                    ring = Ring(addresses[:count])
                    gateway.reload(ring)
                    for user in users:
                        assert await owner(f"/users/{user}/channels/1") == ring.owner(user)
                    for path in ("007", "%37", "0000000000000000000000007"):
                        assert await owner(f"/users/{path}/channels/1") == ring.owner(7)
                    assert await owner("/users/000/session") == ring.owner(0)
                    names = [ring.instances[place] for place in ring.owners(users)]
                    assert names == [ring.owner(user) for user in users]
                    others = {await owner("/mentions") for _ in range(200)}
                    assert others == set(ring.instances)  # whoever: it passes them on
                async with http.get("/fleet/status") as response:
                    assert response.status == 404
        finally:
            gateway.stop()


def test_users_belong_to_whom_nginx_sends_them_to(tmp_path: Path) -> None:
    asyncio.run(compare_with_nginx(tmp_path / "nginx"))


def test_many_users_are_hashed_as_one() -> None:
    edges = [10**power + step for power in range(1, 20) for step in (-1, 0, 1)]
    users = np.array([*range(20_000), *edges, 2**64 - 1], np.uint64)
    assert crc32_of_digits(users).tolist() == [crc32(b"%d" % user) for user in users.tolist()]


# ---- one instance -----------------------------------------------------------------------------------


def make_member(store: FaultyStore, ring: list[str]) -> Member:
    states = SlabStates(store, capacity=100, max_pending=10, flush_interval=3600)
    return Member("127.0.0.1:1", Rings(ring), states)


ALONE, GONE = ["127.0.0.1:1"], ["127.0.0.1:2"]


def test_a_change_waits_for_requests_under_way() -> None:
    """What is acknowledged after the change has begun is in the database when it has been prepared."""

    async def main() -> None:
        store = FaultyStore(KEY, VALUE)
        member = make_member(store, ALONE)
        store.gate.clear()
        requests = asyncio.gather(member.ack(7, 8, 50), member.mention(8, [9, 10], 2))
        await asyncio.to_thread(store.loading.wait)
        change = asyncio.create_task(member.prepare(Change(ALONE, GONE)))
        while member.status().coming is None:
            await asyncio.sleep(0)
        refused = asyncio.gather(member.read(7, 8), member.mention(8, [7], 1), return_exceptions=True)
        await asyncio.sleep(0.05)
        was_done = change.done()
        store.gate.set()
        error, users = await refused
        assert isinstance(error, UnavailableError)
        assert (was_done, users, (await requests)[1]) == (False, [7], [])
        status = await change
        assert (status.records, status.unsaved) == (0, 0)
        assert store.rows == {(7, 8): (50, 0, 0), (9, 8): (0, 2, 0), (10, 8): (0, 2, 0)}
        await member.close()

    asyncio.run(main())


def test_a_load_that_was_given_up_brings_nothing_back() -> None:
    async def main() -> None:
        store = FaultyStore(KEY, VALUE, {(7, 8): (1, 0, 0)})
        member = make_member(store, ALONE)
        store.gate.clear()
        reading = asyncio.create_task(member.read(7, 8))
        await asyncio.to_thread(store.loading.wait)
        reading.cancel()
        await asyncio.wait([reading])
        await member.prepare(Change(ALONE, GONE))
        await member.commit(Change(ALONE, GONE))
        store.rows[7, 8] = (2, 0, 0)  # by its next instance
        await member.prepare(Change(GONE, ALONE))
        await member.commit(Change(GONE, ALONE))
        reading = asyncio.create_task(member.read(7, 8))
        await asyncio.sleep(0.05)
        store.gate.set()
        assert (await reading).last_message_id == 2
        await member.close()

    asyncio.run(main())


def test_a_change_that_is_abandoned_early_is_not_prepared_later() -> None:
    """An instance may still be saving what it has when the others have given up."""

    async def main() -> None:
        store = FaultyStore(KEY, VALUE)
        member = make_member(store, ALONE)
        await member.ack(7, 8, 50)
        store.gate.clear()
        change = asyncio.create_task(member.prepare(Change(ALONE, GONE)))
        await asyncio.to_thread(store.saving.wait)
        await member.abandon(Change(ALONE, GONE))
        store.gate.set()
        with pytest.raises(UnavailableError, match="abandoned"):
            await change
        assert (await member.read(7, 8)).last_message_id == 50
        await member.close()

    asyncio.run(main())


def test_only_rows_of_users_that_stay_remain() -> None:
    async def main() -> None:
        store = FaultyStore(KEY, VALUE)
        member = make_member(store, ALONE)
        both = Ring([*ALONE, *GONE])
        for user in range(50):
            await member.ack(user, 1, 5)
        await member.prepare(Change(ALONE, both.instances))
        stay = {user for user in range(50) if both.owner(user) == member.name}
        assert 0 < len(stay) < 50
        left = np.concatenate(list(member._states.cache.scan_keys()))["user_id"]
        assert set(left.tolist()) == stay
        await member.abandon(Change(ALONE, both.instances))
        for user in range(50):
            assert (await member.read(user, 1)).last_message_id == 5
        await member.close()

    asyncio.run(main())


# ---- the fleet --------------------------------------------------------------------------------------


@asynccontextmanager
async def fleet_of(folder: Path, store: str, instances: int) -> AsyncIterator[Fleet]:
    fleet = Fleet(folder, store, free_port(), "--flush-interval", "3600")
    try:
        await fleet.start(instances)
        yield fleet
    finally:
        await fleet.stop()


@pytest.mark.parametrize("capacity", [100_000, 40])
def test_nothing_is_lost_or_stale_while_instances_come_and_go(
    tmp_path: Path, store: str, capacity: int
) -> None:
    asyncio.run(live_through_changes(tmp_path / "fleet", store, "--capacity", str(capacity)))


def test_an_instance_serves_its_own_users_alone(tmp_path: Path, store: str) -> None:
    async def check(http: aiohttp.ClientSession, user: int) -> None:
        """It is nobody's here."""
        path = f"/users/{user}/channels"
        for method, where, body in [
            ("GET", f"{path}/1", None),
            ("POST", f"{path}:batch", {"channels": [1]}),
            ("POST", f"{path}/1/ack", {"message_id": 9}),
            ("POST", f"{path}/1/pin", {"pin_ts": 9}),
        ]:
            async with http.request(method, where, json=body) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
        async with http.ws_connect(f"/users/{user}/session") as session:
            await session.send_json({"read": [1]})
            assert (await session.receive()).data == 1013
        assert await post(http, "/fleet/mentions", channel=1, users=[user]) == {"refused": [user]}

    async def main() -> None:
        async with (
            fleet_of(tmp_path / "fleet", store, 2) as fleet,
            aiohttp.ClientSession(f"http://{fleet.gateway.address}") as gateway,
        ):
            ring = Ring(fleet.processes)
            left, right = ring.instances
            mine = next(user for user in range(100) if ring.owner(user) == left)
            other = next(user for user in range(100) if ring.owner(user) == right)
            async with aiohttp.ClientSession(f"http://{left}") as http:
                await check(http, other)
                assert await post(http, f"/users/{mine}/channels/1/ack", message_id=5) == state(5)
                # mentions are passed on, once
                assert await post(http, "/mentions", channel=1, users=[mine, other]) == {"refused": []}
                assert await get(gateway, f"/users/{mine}/channels/1") == state(5, 1)
                assert await get(gateway, f"/users/{other}/channels/1") == state(0, 1)
                session = await gateway.ws_connect(f"/users/{mine}/session")
                await session.send_json({"read": [1]})
                assert await session.receive_json() == {"states": [state(5, 1)]}
                # whom it had until a moment ago is another's, too, also in a session that is open
                change = {"old": [left, right], "new": [right]}
                await post(http, "/fleet/prepare", **change)
                await check(http, mine)
                await session.send_json({"ack": {"channel": 1, "message_id": 9}})
                assert (await session.receive()).data == 1013
                await post(http, "/fleet/abandon", **change)
                assert await get(http, f"/users/{mine}/channels/1") == state(5, 1)
                async with http.post("/fleet/commit", json=change) as response:
                    assert "not prepared" in (await response.json())["error"]
                async with http.post("/fleet/prepare", json={"old": [left], "new": [left]}) as response:
                    assert "the ring here is" in (await response.json())["error"]
                names = [f"instance-{number:04}.read-states.example:8000" for number in range(1000)]
                async with http.post("/fleet/prepare", json={"old": names, "new": names[1:]}) as response:
                    assert "the ring here is" in (await response.json())["error"]

    asyncio.run(main())


def test_an_instance_that_hangs_holds_up_no_mentions_of_others(tmp_path: Path, store: str) -> None:
    async def main() -> None:
        async with fleet_of(tmp_path / "fleet", store, 3) as fleet:
            ring = Ring(fleet.processes)
            asked, hanging, _ = ring.instances
            users = {
                name: [user for user in range(99) if ring.owner(user) == name] for name in ring.instances
            }
            unlimited = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(f"http://{asked}", connector=unlimited) as http:
                fleet.processes[hanging].send_signal(signal.SIGSTOP)
                try:
                    waiting = [
                        asyncio.create_task(post(http, "/mentions", channel=1, users=users[hanging][:1]))
                        for _ in range(250)
                    ]
                    await asyncio.sleep(0.5)
                    for name in set(ring.instances) - {hanging}:
                        assert await post(http, "/mentions", channel=1, users=users[name]) == {"refused": []}
                    assert not any(task.done() for task in waiting)
                    for task in waiting:
                        assert await task == {"refused": users[hanging][:1]}
                    rows = {row["instance"]: row for row in await fleet.status()}
                    assert [name for name, row in rows.items() if "error" in row] == [hanging]
                finally:
                    fleet.processes[hanging].send_signal(signal.SIGCONT)

    asyncio.run(main())


def test_an_instance_that_does_not_start_is_forgotten(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        fleet = Fleet(tmp_path / "fleet", store, free_port())
        try:
            await fleet.start(1)
            with socket.create_server(("127.0.0.1", 0)) as taken:
                monkeypatch.setattr(machine, "free_port", lambda: taken.getsockname()[1])
                monkeypatch.setattr(fleet, "_is_healthy", unhealthy)
                with pytest.raises(FleetError, match="has ended"):
                    await fleet.add()
        finally:
            saved = await fleet.stop()
        assert saved

    async def unhealthy(name: str) -> bool:
        return False

    asyncio.run(main())


def test_a_change_that_an_instance_cannot_prepare_is_abandoned(tmp_path: Path, store: str) -> None:
    async def main() -> None:
        async with (
            fleet_of(tmp_path / "fleet", store, 3) as fleet,
            aiohttp.ClientSession(f"http://{fleet.gateway.address}") as http,
        ):
            ring = Ring(fleet.processes)
            dead = ring.instances[0]
            living = [user for user in range(60) if ring.owner(user) != dead]
            for user in living:
                await ask(http, "POST", f"/users/{user}/channels/1/ack", message_id=5)
            fleet.processes[dead].kill()
            await fleet.processes[dead].wait()
            with pytest.raises(ChangeError, match=dead):
                await fleet.add()
            assert sorted(fleet.processes) == ring.instances
            assert Rings.read(tmp_path / "fleet" / "ring.json") == Rings(list(fleet.processes))
            for user in living:
                assert await get(http, f"/users/{user}/channels/1") == state(5)
            # its users go to nobody else
            orphan = next(user for user in range(60) if ring.owner(user) == dead)
            async with http.get(f"/users/{orphan}/channels/1") as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert "the instance of this user is not there" in await response.text()
            assert await post(http, "/fleet/../mentions", channel=1, users=[orphan]) == {"refused": [orphan]}

    asyncio.run(main())


def test_the_commands(tmp_path: Path, store: str) -> None:
    """Start, add, status, remove, and the end by SIGTERM."""
    command = [sys.executable, "-m", "read_states", "fleet"]
    folder = ["--folder", str(tmp_path / "fleet")]

    def tell(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, *words, *folder], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert tell("status") == (1, f"no fleet runs in {folder[1]}\n")
    options = ["--instances", "1", "--port", str(free_port()), "--store", store, *folder]
    process = subprocess.Popen([*command, *options], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert "the database is sqlite:" in lines[0]
        assert "an instance listens at " in lines[1]
        assert "the gateway listens at " in lines[2]
        first = lines[1].split()[4].rstrip(",")
        code, said = tell("remove", first)
        assert (code, json.loads(said)) == (1, {"error": f"{first} is the last instance"})
        for name in ("a/b", ".", "x?y"):
            code, said = tell("remove", name)
            assert (code, json.loads(said)) == (1, {"error": f"{name} is no instance of {[first]}"})
        for words in (["start", first], ["add", first], ["remove"]):
            code, said = tell(*words)
            assert (code, said.count("\n"), "and nothing else" in said) == (1, 1, True)
        code, said = tell("add")
        assert code == 0, said
        second = json.loads(said)["added"]
        code, said = tell("remove", first)
        assert (code, json.loads(said)) == (0, {"removed": first})
        code, said = tell("status")
        rows = json.loads(said)
        with urllib.request.urlopen(f"http://{lines[2].split()[4].rstrip(',')}/users/7/channels/8") as answer:
            assert json.load(answer) == state()  # the gateway has heard of it
        assert [(row["instance"], row["ring"]) for row in rows] == [(second, [second])]
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not Path(f"/proc/{rows[0]['process']}").exists()
    finally:
        process.terminate()  # so that it ends its children, also when the test has failed
        process.wait()
        process.stdout.close()

"""The Read States service on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from read_states.rows import open_store
from slabcache import stores
from support.read_states_service import check_round_trip, get, post, running, state
from tools.cassandra.node import Node


def test_every_operation_and_a_restart(url: str) -> None:
    check_round_trip(url)


def test_a_server_that_hangs_is_missed_only_where_it_is_needed(node: Node, url: str) -> None:
    async def main(url: str) -> None:
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:
            await post(client, "/users/1/channels/1/ack", message_id=5)
            node.halt()
            waiting = asyncio.gather(*[client.get(f"/users/{user}/channels/1") for user in range(2, 702)])
            await asyncio.sleep(0.5)
            assert await post(client, "/users/1/channels/1/ack", message_id=6) == state(6)
            assert await post(client, "/mentions", channel=1, users=[1]) == {"refused": []}
            async with client.post("/mentions", json={"channel": 1, "users": [1, 900]}) as answer:
                assert answer.status == 503  # and nobody was counted
            answers = await waiting
            assert {answer.status for answer in answers} == {503}
            shed = [answer for answer in answers if "slow" in (await answer.json())["error"]]
            assert len(shed) == len(answers)
            node.resume()
            while (await client.get("/users/2/channels/1")).status != 200:
                await asyncio.sleep(0.1)
            assert await get(client, "/users/1/channels/1") == state(6, 1)

    with running(url) as instance:
        asyncio.run(main(instance.url))


def test_a_password_comes_from_the_environment_where_there_is_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str | None, str | None]] = []

    def store(*_: Any, username: str | None, password: str | None, **__: Any) -> object:
        given.append((username, password))
        return object()

    monkeypatch.setattr(stores, "CassandraStore", store)
    monkeypatch.setenv("CASSANDRA_PASSWORD", "secret")
    for options in ("", "?username=me", "?username=me&password=another"):
        open_store(f"cassandra://127.0.0.1:1/read_states{options}")
    assert given == [(None, None), ("me", "secret"), ("me", "another")]

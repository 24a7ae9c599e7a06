"""What goes over the wire, as JSON."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "ID_MAX",
    "Ack",
    "Batch",
    "Id",
    "Mention",
    "Pin",
    "ReadState",
    "Refused",
    "SessionMessage",
    "States",
]

ID_MAX = 2**63 - 1  # users, channels and messages are snowflakes, of 63 bits
CHANNELS_MAX = 1000  # of one batch, and users of one mention

Id = Annotated[int, Meta(ge=0, le=ID_MAX)]


class ReadState(Struct, frozen=True, gc=False):
    """How far a user has read a channel; zeros where the channel was never seen."""

    last_message_id: int = 0
    mention_count: int = 0
    last_pin_ts: int = 0  # seconds since 1970


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    channels: Annotated[list[Id], Meta(max_length=CHANNELS_MAX)]


class States(Struct, frozen=True, gc=False):
    """In the order of the channels asked for."""

    states: list[ReadState]


class Ack(Struct, frozen=True, forbid_unknown_fields=True):
    message_id: Id


class Pin(Struct, frozen=True, forbid_unknown_fields=True):
    pin_ts: Annotated[int, Meta(ge=0, lt=2**32)]


class Mention(Struct, frozen=True, forbid_unknown_fields=True):
    channel: Id
    users: Annotated[list[Id], Meta(max_length=CHANNELS_MAX)]
    count: Annotated[int, Meta(ge=1, le=1000)] = 1


class Refused(Struct, frozen=True, gc=False):
    """The users whose mentions were not counted: try again with these alone."""

    refused: list[int]


class ChannelAck(Struct, frozen=True, forbid_unknown_fields=True):
    channel: Id
    message_id: Id


class SessionMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client says in its session: what it has read now, then which channels it wants to see."""

    ack: ChannelAck | None = None
    read: Annotated[list[Id], Meta(max_length=CHANNELS_MAX)] = []

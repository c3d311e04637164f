from typing import Any

__all__ = [
    "FORM",
    "is_incomplete",
    "pack_body",
    "pack_request",
    "pack_requests",
    "read_reply",
    "receive_reply",
    "take_replies",
]

FORM: int

def pack_body(method: str, params: Any) -> bytes | None: ...
def pack_request(
    msgid: int,
    method: str,
    params: Any,
    seconds: float | None = None,
    max_size: int = ...,
    max_depth: int = ...,
) -> bytes | None: ...
def pack_requests(
    msgids: list[int], bodies: list[bytes], before: bytes, behind: bytes
) -> tuple[bytes, list[int]] | None: ...
def read_reply(data: bytes, msgid: int, max_size: int) -> list[Any] | None: ...
def receive_reply(descriptor: int, milliseconds: int, max_size: int, msgid: int) -> list[Any] | bytes | None: ...
def take_replies(data: bytes, table: dict[int, Any], ended: list[Any], answered: Any, max_size: int) -> int: ...
def is_incomplete(data: bytes, max_size: int) -> bool: ...

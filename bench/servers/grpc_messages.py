"""The protobuf messages of the grpcio peer, described in Python: no compiler for .proto files is needed.

Imported by the peer's server and by its load.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "SERVICE"]

SERVICE = "bench.Calls"
_INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
_BYTES = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_FIELDS = {
    "SumRequest": [("left", _INT64), ("right", _INT64)],
    "SumReply": [("result", _INT64)],
    "EchoRequest": [("value", _BYTES)],
    "EchoReply": [("result", _BYTES)],
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            optional = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=optional)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}")) for name in _FIELDS}


_MESSAGES = _messages()
#: method → (request class, reply class)
METHODS = {method: (_MESSAGES[f"{method}Request"], _MESSAGES[f"{method}Reply"]) for method in ("Sum", "Echo")}

"""Messages of the Open Inference Protocol over gRPC, built from their fields without a compiler.

Those of the protocol are in https://github.com/kserve/open-inference-protocol
(open_inference_grpc.proto, Apache-2.0), those of its repositories in Triton's grpc_service.proto
(https://github.com/triton-inference-server/common, BSD-3-Clause), those of health checks in gRPC's
own health.proto (https://github.com/grpc/grpc-proto, Apache-2.0). On the wire a message has numbers
and no names, so nested types stand beside the others here. They are in a pool of their own: what
other packages generated of the same files can be imported in the same process.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from serving.errors import Refusal

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
_MOST_FIELDS = 2000  # of a message; each takes memory, however few bytes it has
_MOST_NUMBERS = 4_000_000  # bytes of its lists of numbers, which take up to eight times as much

_TENSOR = "string name = 1; string datatype = 2; repeated int64 shape = 3;"
_PARAMETERS = "map<string, InferParameter> parameters"
_CHANGE = (
    "string repository_name = 1; string model_name = 2; "
    "map<string, ModelRepositoryParameter> parameters = 3"
)
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelMetadataRequest": "string name = 1; string version = 2",
    "ModelMetadataResponse": "string name = 1; repeated string versions = 2; string platform = 3; "
    "repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5",
    "TensorMetadata": _TENSOR,
    "ModelInferRequest": "string model_name = 1; string model_version = 2; string id = 3; "
    f"{_PARAMETERS} = 4; repeated InferInputTensor inputs = 5; "
    "repeated InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7",
    "InferInputTensor": f"{_TENSOR} {_PARAMETERS} = 4; InferTensorContents contents = 5",
    "InferRequestedOutputTensor": f"string name = 1; {_PARAMETERS} = 2",
    "ModelInferResponse": "string model_name = 1; string model_version = 2; string id = 3; "
    f"{_PARAMETERS} = 4; repeated InferOutputTensor outputs = 5; "
    "repeated bytes raw_output_contents = 6",
    "InferOutputTensor": f"{_TENSOR} {_PARAMETERS} = 4; InferTensorContents contents = 5",
    "InferParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; "
    "oneof string string_param = 3; oneof double double_param = 4; oneof uint64 uint64_param = 5",
    "InferTensorContents": "repeated bool bool_contents = 1; repeated int32 int_contents = 2; "
    "repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4; "
    "repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6; "
    "repeated double fp64_contents = 7; repeated bytes bytes_contents = 8",
    "HealthCheckRequest": "string service = 1",
    "HealthCheckResponse": "int32 status = 1",  # an enumeration there
    "RepositoryIndexRequest": "string repository_name = 1; bool ready = 2",
    "RepositoryIndexResponse": "repeated ModelIndex models = 1",
    "ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4",
    "RepositoryModelLoadRequest": _CHANGE,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _CHANGE,
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; "
    "oneof string string_param = 3; oneof bytes bytes_param = 4",
}
_TEXTS = (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)
_FIELD = re.compile(r"(?:(repeated|oneof) )?(?:map<string, (\w+)>|(\w+)) (\w+) = (\d+)")


@functools.cache
def message_classes() -> dict[str, Any]:
    """Returns the class of each message by its name."""
    file = FileDescriptorProto(name="pocketnets.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for modifier, valued, kind, field, number in _FIELD.findall(fields):
            if modifier == "oneof" and not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
            repeated = modifier == "repeated" or bool(valued)
            added = _add(message, field, int(number), kind, repeated=repeated)
            if modifier == "oneof":
                added.oneof_index = 0
            if valued:  # a map is a list of entries
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _add(entry, "key", 1, "string")
                _add(entry, "value", 2, valued)
                added.type_name = f".{PACKAGE}.{name}.{entry.name}"
    pool = DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in _MESSAGES)
    return {each.name: GetMessageClass(each) for each in found}


def _add(
    message: DescriptorProto, name: str, number: int, kind: str, *, repeated: bool = False
) -> FieldDescriptorProto:
    labels = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    field = message.field.add(name=name, number=number, label=labels[repeated])
    plain = f"TYPE_{kind.upper()}"
    if plain in FieldDescriptorProto.Type.keys():  # noqa: SIM118 - no dict
        field.type = FieldDescriptorProto.Type.Value(plain)
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    return field


def parse(kind: Any, body: bytes) -> Any:
    """Returns the message of class ``kind`` in ``body``.

    Raises:
        Refusal: it is none, or has more fields or numbers than any request needs.
    """
    _check(memoryview(body), kind.DESCRIPTOR, _Room())
    try:
        return kind.FromString(body)
    except DecodeError:
        raise _broken(kind.DESCRIPTOR) from None


def parameters_of(values: Any) -> dict[str, Any]:
    """Returns the parameters of a message, by name; None for one without a value."""
    return {name: _value(each) for name, each in values.items()}


def _value(parameter: Message) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


@dataclass(slots=True)
class _Room:
    """How many fields, and bytes of lists of numbers, a message may still have."""

    fields: int = _MOST_FIELDS
    numbers: int = _MOST_NUMBERS


def _check(data: memoryview, kind: Any, room: _Room) -> None:
    """Takes what is in ``data`` from ``room``.

    An empty field of two bytes takes up to a hundred in memory, so it is counted before anything is
    read: https://protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(data):
        room.fields -= 1
        if room.fields < 0:
            raise Refusal(400, "bad_message", f"the message has more than {_MOST_FIELDS} fields")
        tag, at = _varint(data, at, kind)
        wire, field = tag & 7, kind.fields_by_number.get(tag >> 3)
        if wire == 0:
            _, at = _varint(data, at, kind)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at, kind)
            if field is not None and field.message_type is not None:
                _check(data[at : at + size], field.message_type, room)
            elif field is not None and field.type not in _TEXTS:
                room.numbers -= size
                if room.numbers < 0:
                    raise too_many_numbers()
            at += size
        else:
            raise _broken(kind)


def too_many_numbers() -> Refusal:
    """Returns the refusal of a message whose numbers would take too long to read."""
    detail = "the message holds too many numbers: send the tensor as raw bytes"
    return Refusal(400, "bad_message", detail)


def _varint(data: memoryview, at: int, kind: Any) -> tuple[int, int]:
    """Returns the number that begins at ``at``, seven bits a byte, and where it ends."""
    number = 0
    for place, byte in enumerate(data[at : at + 10]):
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number, at + place + 1
    raise _broken(kind)


def _broken(kind: Any) -> Refusal:
    return Refusal(400, "bad_message", f"the message cannot be read as a {kind.name}")

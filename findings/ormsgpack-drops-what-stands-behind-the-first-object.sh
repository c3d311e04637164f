#!/usr/bin/env bash
# ormsgpack 1.13.1, msgpack 1.2.4, msgspec 0.22.0: two messages that came with one read are a valid stream of
# MessagePack. `unpackb` of msgpack and `decode` of msgspec raise for what stands behind the first object, as orjson,
# whose interface ormsgpack has, does for JSON. `ormsgpack.unpackb` returns the first object and says nothing of the
# rest, and there is no way to learn where it ended: whoever changes to it for its speed loses each second message.
#
# Seen:
#   msgpack: ExtraData
#   msgspec: DecodeError
#   ormsgpack: {'call': 1}
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'ormsgpack==1.13.1' 'msgpack==1.2.4' 'msgspec==0.22.0' 2>/dev/null
found=$("$folder/venv/bin/python" - <<'PYTHON'
import msgpack
import msgspec
import ormsgpack

stream = msgpack.packb({"call": 1}) + msgpack.packb({"call": 2})
unpackers = {"msgpack": msgpack.unpackb, "msgspec": msgspec.msgpack.decode, "ormsgpack": ormsgpack.unpackb}
for name, unpack in unpackers.items():
    try:
        print(f"{name}: {unpack(stream)}")
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
PYTHON
)
echo "$found"
test "$found" = "msgpack: ExtraData
msgspec: DecodeError
ormsgpack: {'call': 1}"

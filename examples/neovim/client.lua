-- Buys at the shop from Neovim, which speaks MessagePack-RPC itself: see README.md
local address = vim.fn.argc() > 0 and vim.fn.argv(0) or "127.0.0.1:18800"
local channel = vim.fn.sockconnect("tcp", address, { rpc = true })

local function say(...)
  io.stdout:write(table.concat(vim.tbl_map(tostring, { ... }), " "), "\n")
end

-- The reply, or nil and the server's error. It waits without a limit: the server needs a call_timeout.
local function call(method, ...)
  local is_done, result = pcall(vim.rpcrequest, channel, method, ...)
  if is_done then
    return result
  end
  return nil, result
end

say("An apple costs", call("price", "apple"))
say("Ordered:", call("order", { pear = 2, plum = 1 }))
local _, refused = call("price", "melon")
say("Refused:", refused)

-- As a command of the editor: :Price apple
vim.api.nvim_create_user_command("Price", function(command)
  say("A " .. command.args .. " costs", call("price", command.args))
end, { nargs = 1 })
vim.cmd("Price plum")

vim.rpcnotify(channel, "order", { plum = 1 }) -- has no reply
vim.fn.chanclose(channel)
vim.cmd("qall!")

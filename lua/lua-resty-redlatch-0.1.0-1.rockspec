rockspec_format = "3.0"
package = "lua-resty-redlatch"
version = "0.1.0-1"
source = {
  url = "git+https://github.com/redlatch/redlatch.git",
  tag = "v0.1.0",
  dir = "redlatch/lua",
}
description = {
  summary = "Distributed locks on Redis for nginx and OpenResty",
  detailed = "Leases with fences, a fair queue without polling, one connection per worker, and the very scripts that the "
    .. "Rust crate and the command line redlatch run.",
  homepage = "https://github.com/redlatch/redlatch",
  license = "MIT",
}
dependencies = { "lua ~> 5.1" }
build = {
  type = "builtin",
  modules = {
    ["resty.redlatch"] = "lib/resty/redlatch.lua",
    ["resty.redlatch.acquire"] = "lib/resty/redlatch/acquire.lua",
    ["resty.redlatch.agenda"] = "lib/resty/redlatch/agenda.lua",
    ["resty.redlatch.bundle"] = "lib/resty/redlatch/bundle.lua",
    ["resty.redlatch.call"] = "lib/resty/redlatch/call.lua",
    ["resty.redlatch.calls"] = "lib/resty/redlatch/calls.lua",
    ["resty.redlatch.clock"] = "lib/resty/redlatch/clock.lua",
    ["resty.redlatch.copies"] = "lib/resty/redlatch/copies.lua",
    ["resty.redlatch.driver"] = "lib/resty/redlatch/driver.lua",
    ["resty.redlatch.echo"] = "lib/resty/redlatch/echo.lua",
    ["resty.redlatch.errand"] = "lib/resty/redlatch/errand.lua",
    ["resty.redlatch.errors"] = "lib/resty/redlatch/errors.lua",
    ["resty.redlatch.hand_off"] = "lib/resty/redlatch/hand_off.lua",
    ["resty.redlatch.healing"] = "lib/resty/redlatch/healing.lua",
    ["resty.redlatch.held"] = "lib/resty/redlatch/held.lua",
    ["resty.redlatch.hex"] = "lib/resty/redlatch/hex.lua",
    ["resty.redlatch.lease"] = "lib/resty/redlatch/lease.lua",
    ["resty.redlatch.lock"] = "lib/resty/redlatch/lock.lua",
    ["resty.redlatch.loop"] = "lib/resty/redlatch/loop.lua",
    ["resty.redlatch.mutex"] = "lib/resty/redlatch/mutex.lua",
    ["resty.redlatch.options"] = "lib/resty/redlatch/options.lua",
    ["resty.redlatch.owner"] = "lib/resty/redlatch/owner.lua",
    ["resty.redlatch.phases"] = "lib/resty/redlatch/phases.lua",
    ["resty.redlatch.plain"] = "lib/resty/redlatch/plain.lua",
    ["resty.redlatch.pool"] = "lib/resty/redlatch/pool.lua",
    ["resty.redlatch.random"] = "lib/resty/redlatch/random.lua",
    ["resty.redlatch.reader"] = "lib/resty/redlatch/reader.lua",
    ["resty.redlatch.refusals"] = "lib/resty/redlatch/refusals.lua",
    ["resty.redlatch.replies"] = "lib/resty/redlatch/replies.lua",
    ["resty.redlatch.resp"] = "lib/resty/redlatch/resp.lua",
    ["resty.redlatch.scripts"] = "lib/resty/redlatch/scripts.lua",
    ["resty.redlatch.server_clock"] = "lib/resty/redlatch/server_clock.lua",
    ["resty.redlatch.single_flight"] = "lib/resty/redlatch/single_flight.lua",
    ["resty.redlatch.stats"] = "lib/resty/redlatch/stats.lua",
    ["resty.redlatch.timers"] = "lib/resty/redlatch/timers.lua",
    ["resty.redlatch.wire"] = "lib/resty/redlatch/wire.lua",
    ["resty.redlatch.words"] = "lib/resty/redlatch/words.lua",
  },
}

max_line_length = 120
files["lua/scripts"] = {
  std = "lua51",
  read_globals = { "redis", "KEYS", "ARGV" },
}
files["lua/lib"] = { std = "ngx_lua" }
files["src"] = { std = "ngx_lua" }
files["tests"] = { std = "ngx_lua" }
files["tests/torture/resource.lua"] = {
  std = "lua51",
  read_globals = { "redis", "KEYS", "ARGV" },
}
-- Generated: each script is one line.
files["lua/lib/resty/redlatch/scripts.lua"] = { std = "ngx_lua", max_line_length = false }
files["tests/nginx/spec"] = { std = "ngx_lua+busted" }

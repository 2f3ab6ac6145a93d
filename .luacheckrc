max_line_length = 120
-- Checked where the scripts have them.
exclude_files = { "lua/parts" }
files["lua/scripts"] = {
  std = "lua51",
  read_globals = { "redis", "KEYS", "ARGV", "struct" },
  -- A part sets more than every script with it reads.
  ignore = { "211", "231", "311" },
}
files["lua/lib"] = { std = "ngx_lua" }
files["src"] = { std = "ngx_lua" }
files["tests"] = { std = "ngx_lua" }
files["tests/torture/resource.lua"] = {
  std = "lua51",
  read_globals = { "redis", "KEYS", "ARGV", "struct" },
}
-- Generated: each script is one line.
files["lua/lib/resty/redlatch/scripts.lua"] = { std = "ngx_lua", max_line_length = false }
files["tests/nginx/spec"] = { std = "ngx_lua+busted" }

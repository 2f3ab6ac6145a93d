-- The scripts by name, each one proved against its digest when the module is loaded. Loaded in init_by_lua, a package
-- whose bytes were changed on the way does not let nginx start, or reload: the old workers go on.
-- (`nginx -t` does not run init_by_lua.)
local scripts = require "resty.redlatch.scripts"
local hex = require "resty.redlatch.hex"

for name, script in pairs(scripts) do
  if name ~= "bundle" then
    local digest = hex(ngx.sha1_bin(script.source))
    if digest ~= script.digest then
      error("redlatch: the bytes of script " .. name .. " have the digest " .. digest .. " where " .. script.digest
        .. " is expected: install the package again", 0)
    end
  end
end

return scripts

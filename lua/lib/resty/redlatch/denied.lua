-- What an ACL denies: the one right that a user lacks, and the role that has it.
local bundle = require "resty.redlatch.bundle"

local find, gsub, gmatch, lower, match, upper =
  string.find, string.gsub, string.gmatch, string.lower, string.match, string.upper

local load_the_script = "the script is not on this server, and this user may not load it: run `redlatch load` as a user"
  .. " who may, or grant +script|load"

local _M = {}

-- Up to 7.0 servers name the line of a script and not the command. What a script catches and gives back has no line:
-- that is how each begins to read.
local function command_in(name, line_number)
  local source = bundle[name] and bundle[name].source
  if not source then
    return nil
  elseif not line_number then
    return match(source, "redis%.pcall%('(%u+)'")
  end
  local number = 0
  for line in gmatch(source, "([^\n]*)\n") do
    number = number + 1
    if number == line_number then
      return match(line, "call%('(%u+)'")
    end
  end
end

local function escaped(text)
  return (gsub(text, "[%*%?%[%]\\]", "\\%0"))
end

-- @return a pattern for the key, and what `acl print` has to be told of it
local function pattern_of(key)
  local namespace = match(key, "^([^:]+):[mv]1:")
  if not namespace then
    return escaped(gsub(key, "%c", "?")), " --plain PATTERN"
  end
  return escaped(namespace) .. ":*", namespace ~= "redlatch" and " --namespace " .. namespace or ""
end

-- @param text what the server says, without the code
-- @param line_number the line of the script, where the server names it
-- @param asked table with user, command, and script, key and strict where those are known
-- @return what to do
function _M.advice(text, line_number, asked)
  local said, user = lower(text), asked.user and "user " .. gsub(asked.user, "%c", "?") or "this user"
  local named = match(said, "to run the '([%l|_-]+)'")
  if named == "script|load" or named == "script" then
    return load_the_script
  end
  local of_a_command = named or find(said, "can't run this command", 1, true)
  local denied, rule, options
  if not of_a_command and find(said, "channel", 1, true) then
    local key = asked.channel or asked.key
    denied, rule = "use this channel", "&" .. escaped(key and match(key, "^[^:]+") or "redlatch") .. ":inbox:*"
  elseif not of_a_command and find(said, "key", 1, true) and asked.key then
    local pattern
    pattern, options = pattern_of(asked.key)
    denied, rule = "use this key", "~" .. pattern
  else
    local command = lower(named or find(said, "^the user executing") and command_in(asked.script, line_number)
      or asked.command or "evalsha")
    denied, rule = "run " .. upper(gsub(command, "|", " ")), "+" .. command
  end
  local role = asked.strict and "strict" or "caller"
  return user .. " may not " .. denied .. "; grant " .. rule .. "; role " .. role .. " has it: `redlatch acl print "
    .. role .. (options or "") .. "`"
end

return _M

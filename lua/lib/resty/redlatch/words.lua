-- The word for the first integer of a reply.
local replies = require "resty.redlatch.replies"

local words = {}
for script, numbers in pairs(replies) do
  words[script] = {}
  for word, number in pairs(numbers) do
    words[script][number] = word
  end
end

return words

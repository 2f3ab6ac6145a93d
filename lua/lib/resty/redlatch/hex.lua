-- Lower-case hexadecimal digits of a string's bytes.
local byte, concat = string.byte, table.concat

local digits = {}
for value = 0, 255 do
  digits[value] = string.format("%02x", value)
end

return function(bytes)
  local pairs_of_digits = {}
  for i = 1, #bytes do
    pairs_of_digits[i] = digits[byte(bytes, i)]
  end
  return concat(pairs_of_digits)
end

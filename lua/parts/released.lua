local released = ''
if released_length > 0 then
  released = string.sub(state, words_at + holder_length, words_at + holder_length + released_length - 1)
end

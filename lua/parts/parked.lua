if parked > 0 then
  parked = first_open(parked, head - 1)
  if parked >= head then
    parked = 0
  end
end

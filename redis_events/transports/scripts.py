"""What must happen in one step on the server."""

CLAIM = """
-- Take one entry over from the consumer that had it, and count this as a start.
-- KEYS: stream. ARGV: group, our consumer, the owner as last seen, entry id, milliseconds it must have been idle.
-- One step: two survivors with stale lists would take entries from each other (2,830 double runs of 20,000).
local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[4], 1, ARGV[3])
if #seen == 0 or tonumber(seen[1][3]) < tonumber(ARGV[5]) then return false end
local entries = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[4])
if #entries == 0 or not entries[1] then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[4])
  return {seen[1][4], false}
end
return {seen[1][4], entries[1][2]}
"""

UNDO = """
-- Take back the start that was counted for an entry which we claimed and did not run.
-- KEYS: stream. ARGV: group, our consumer, entry id, the delivery count it had.
-- One step: whoever has taken it over meanwhile counts its own starts.
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2]) == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
"""

LEASE = """
-- Renew what is pending under our name: its idle time starts again, its delivery count stays.
-- KEYS: stream. ARGV: group, our consumer, where to begin, most to renew. Returns where to go on, '' at the end.
-- One step: a blind XCLAIM lets a thawed zombie steal an entry back from whoever took it over.
local own = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])
for _, entry in ipairs(own) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'JUSTID')
end
return #own < tonumber(ARGV[4]) and '' or '(' .. own[#own][1]
"""

GIVE = """
-- Give pending entries to another consumer: how often they were delivered stays. Returns how many were.
-- KEYS: stream. ARGV: group, the consumer that gets them, the one that must have them now ('': anybody), entry ids.
-- One step: what was settled since it was listed must not become pending again.
local given = 0
for at = 4, #ARGV do
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[at], ARGV[at], 1)
  if #seen > 0 and (ARGV[3] == '' or seen[1][2] == ARGV[3]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[at], 'JUSTID')
    given = given + 1
  end
end
return given
"""

TURN = """
-- Keep, or take, the turn of writing down what is heard on pub/sub. Returns 1 when it is ours.
-- KEYS: who has the turn. ARGV: our name, seconds it lasts.
-- One step: whoever was away for longer than its turn must not take it back from another.
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""

ADDED = """
-- How many entries a stream has ever had; nothing where there is none, or where Redis does not count them (before 7).
-- KEYS: stream.
-- A script, for XINFO brings the bodies of the first and the last entry along, of up to 16 MB each.
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info['err'] then return false end
for at = 1, #info, 2 do
  if info[at] == 'entries-added' then return info[at + 1] end
end
return false
"""

BURY = """
-- Remove a consumer that has nothing pending. Returns 1 when it is gone.
-- KEYS: stream. ARGV: group, consumer.
-- One step: DELCONSUMER drops what is pending, and something may have become so since we looked.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

_BEFORE = """
-- Whether one entry id comes before another. As text: they are larger than the numbers of Lua.
local function before(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)')
  local bm, bs = string.match(b, '(%d+)-(%d+)')
  if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
  return #as < #bs or (#as == #bs and as < bs)
end
"""

CUT = (
    """
-- Remove the oldest entries of a stream that is longer than it may be.
-- KEYS: stream. ARGV: most entries it may have, most to remove now, the group that marks how far unsettled entries were
-- removed (for the relays: those are not lost). Returns how many were removed, and how many of them some group had not
-- settled.
-- One step: what is counted and marked must be what is removed.
"""
    + _BEFORE
    + """
local length = redis.call('XLEN', KEYS[1])
local over = math.min(length - tonumber(ARGV[1]), tonumber(ARGV[2]))
if over <= 0 then return {0, 0} end
local groups = {}
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #facts, 2 do group[facts[at]] = facts[at + 1] end
  if string.sub(group['name'], 1, 1) ~= '~' then
    local pending = group['pending'] > 0 and redis.call('XPENDING', KEYS[1], group['name'])[2]
    table.insert(groups, {pending = pending, delivered = group['last-delivered-id']})
  end
end
local lost, last = 0, nil
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', over)) do
  for _, group in ipairs(groups) do
    if before(group.delivered, entry[1]) or (group.pending and not before(entry[1], group.pending)) then
      lost, last = lost + 1, entry[1]
      break
    end
  end
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', length - over)
if last then
  redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[3], last)
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[3], last)
end
return {over, lost}
"""
)

TRIM = (
    """
-- Remove entries that are older than the retention and settled by every group.
-- KEYS: stream. ARGV: the first entry id inside the retention.
-- One step: the floors must be those of the moment of trimming, so no lock is needed.
"""
    + _BEFORE
    + """
local low = ARGV[1]
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #facts, 2 do group[facts[at]] = facts[at + 1] end
  if string.sub(group['name'], 1, 1) ~= '~' then
    local keep = group['last-delivered-id']
    if group['pending'] > 0 then keep = redis.call('XPENDING', KEYS[1], group['name'])[2] end
    if before(keep, low) then low = keep end
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', low)
"""
)

ADVANCE = (
    """
-- Move a relay's marker to the end of what it has seen to be there. Returns 1 when it is.
-- KEYS: stream. ARGV: the marker's group, where it was seen, where it goes.
-- One step: a stream lost since it was seen has no marker, or one that another relay has put further back; then
-- whoever moves it on would hide the loss.
"""
    + _BEFORE
    + """
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info['err'] then return 0 end
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' and before(info[at + 1], ARGV[3]) then return 0 end
end
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for at = 1, #facts, 2 do group[facts[at]] = facts[at + 1] end
  if group['name'] == ARGV[1] and group['last-delivered-id'] == ARGV[2] then
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[3])
    return 1
  end
end
return 0
"""
)

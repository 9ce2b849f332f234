-- Limits shared by many processes. One call carries a batch of operations and is atomic.
--
-- KEYS[1] `<prefix>holds`; every other key begins with the same prefix, which has one hash tag, so that a cluster
-- keeps them together. ARGV[1] is MessagePack: {now_us or 0, hold_ttl_ms, operations}. The answer is MessagePack:
-- {now_us, results}.
--
--   <prefix>holds       hash: hold id -> MessagePack {nusd, tokens, at_ms, swept, scopes as they were reserved}
--   <prefix>expiry      sorted set: hold id by the millisecond at which a sweeper may settle it
--   <prefix>s:<scope>   MessagePack {running, requests used, as of ms, tokens used, as of ms, {window id: money}}, where
--                       money is {spent, held, chunks}: spent + chunks * 2^52 nano-dollars are spent
--
-- A scope is one value, read and written whole: few calls are what makes this quick. Lua's numbers are doubles, exact
-- up to 2^53: larger limits are refused before they come here, and larger sums are carried into `chunks`. Meters
-- count units times a minute's milliseconds.

local prefix = string.sub(KEYS[1], 1, -6)
local HOLDS, EXPIRY = KEYS[1], prefix .. 'expiry'
local CHUNK = 2 ^ 52
local MINUTE_MS = 60000
local LATE_MS = 86400000 -- how long a swept hold can still be settled truly
local IDLE_MS = 90000000 -- a scope not asked for this long may be forgotten: longer than any hold lasts
local TOMB = 'x' -- in place of a hold that must not be taken any more

local input = cmsgpack.unpack(ARGV[1])
local now_us = input[1]
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local now = math.floor(now_us / 1000)
local ttl = input[2]

local function whole(number)
  return string.format('%.0f', number)
end

local function drained(used, at, limit)
  if used == 0 or limit < 0 then return 0 end
  return math.max(0, used - math.max(0, now - at) * limit)
end

local views = {} -- of this batch, by key; written back at its end

-- A scope is {key, rpm or -1, tpm or -1, slots or -1, windows, when it may be forgotten in ms or 0}; a window is
-- {id, hard limit or -1}. Its view is what is stored of it, with its meters drained to this moment.
local function view_of(scope)
  local key = prefix .. 's:' .. scope[1]
  local view = views[key]
  if not view then
    local packed = redis.call('GET', key)
    view = packed and cmsgpack.unpack(packed) or { 0, 0, now, 0, now, {} }
    views[key] = view
    if view[3] > now then view.forget = scope[6] end -- the clock was set back: drain from now on
  end
  view[2], view[3] = drained(view[2], view[3], scope[2]), now
  view[4], view[5] = drained(view[4], view[5], scope[3]), now
  return view
end

local function views_of(scopes)
  local found = {}
  for i, scope in ipairs(scopes) do found[i] = view_of(scope) end
  return found
end

local function save(view, scope)
  view.forget = scope[6]
end

local function write_back()
  for key, view in pairs(views) do
    local forget = view.forget
    if forget then
      view.forget = nil
      local packed = cmsgpack.pack(view)
      if forget == 0 then
        redis.call('SET', key, packed)
      else
        redis.call('SET', key, packed, 'PX', whole(math.max(forget - now, IDLE_MS)))
      end
    end
  end
end

-- A new window begins: of those of its kind (ids of one length) that are over, keep only the last, and those in which
-- money is held.
local function begin_window(all, id)
  local past = {}
  for other in pairs(all) do
    if #other == #id and other < id then past[#past + 1] = other end
  end
  table.sort(past)
  for i = 1, #past - 1 do
    if all[past[i]][2] == 0 then all[past[i]] = nil end
  end
  all[id] = { 0, 0, 0 }
  return all[id]
end

local NONE = { 0, 0, 0 }

-- {{spent, held, chunks}...} over all windows of all scopes in order
local function money_of(scopes, views)
  local money = {}
  for i, scope in ipairs(scopes) do
    for _, window in ipairs(scope[5]) do
      local sum = views[i][6][window[1]] or NONE
      money[#money + 1] = { sum[1], sum[2], sum[3] } -- as it is now: later operations of the batch go on
    end
  end
  return money
end

-- (granted, left of the tightest hard budget before it); nil when refused
local function grant(scopes, views, wanted, least, freed)
  local left
  for i, scope in ipairs(scopes) do
    for _, window in ipairs(scope[5]) do
      if window[2] >= 0 then
        local money = views[i][6][window[1]] or NONE
        local rest = window[2] - money[1] - money[2] - money[3] * CHUNK + freed
        if left == nil or rest < left then left = rest end
      end
    end
  end
  if left == nil or wanted == 0 or left >= wanted then return wanted, left end
  if left < least then return nil end
  return left, left
end

local METERS = { requests = { 2, 2 }, tokens = { 3, 4 } } -- its place in a scope and in a view

-- The fullest of one kind of meter: {kind, scope's number, wait in ms, used}; nil when all have room for `more`
local function fullest(kind, scopes, views, more)
  local limit_at, at = unpack(METERS[kind])
  local worst
  for i, scope in ipairs(scopes) do
    local limit, used = scope[limit_at], views[i][at]
    if limit >= 0 and used + more * MINUTE_MS > limit * MINUTE_MS then
      local wait = limit == 0 and MINUTE_MS or math.ceil((used + more * MINUTE_MS) / limit - MINUTE_MS)
      if not worst or wait > worst[3] then worst = { kind, i, wait, used } end
    end
  end
  return worst
end

local function too_large(scopes, tokens)
  for i, scope in ipairs(scopes) do
    if scope[3] >= 0 and tokens > scope[3] then return { 'large', i } end
  end
end

local function too_many(scopes, views)
  for i, scope in ipairs(scopes) do
    if scope[4] >= 0 and views[i][1] >= scope[4] then return { 'slots', i } end
  end
end

local function take(view, scope, tokens, granted)
  view[1] = view[1] + 1
  if scope[2] >= 0 then view[2] = view[2] + MINUTE_MS end
  if scope[3] >= 0 then view[4] = view[4] + tokens * MINUTE_MS end
  for _, window in ipairs(scope[5]) do
    local money = view[6][window[1]] or begin_window(view[6], window[1])
    money[2] = money[2] + granted
  end
  save(view, scope)
  return { view[2], view[4] }
end

local operations = {}

-- {'reserve', id, from_us, until_us, wanted, least, tokens, scopes, whether to tell where the budgets then stand}
function operations.reserve(op)
  local id, wanted, least, tokens, scopes = op[2], op[5], op[6], op[7], op[8]
  if now_us < op[3] or now_us >= op[4] then return { 'window' } end
  local views = views_of(scopes)
  local refused = too_large(scopes, tokens)
    or fullest('requests', scopes, views, 1)
    or fullest('tokens', scopes, views, tokens)
    or too_many(scopes, views)
  if refused then return refused end
  local granted, left = grant(scopes, views, wanted, least, 0)
  if not granted then return { 'money', money_of(scopes, views) } end
  if redis.call('HSETNX', HOLDS, id, cmsgpack.pack({ granted, tokens, now, 0, scopes })) == 0 then return { 'cancelled' } end
  redis.call('ZADD', EXPIRY, whole(now + ttl), id)
  local rates = {}
  for i, scope in ipairs(scopes) do rates[i] = take(views[i], scope, tokens, granted) end
  return { 'ok', granted, left or 'none', now_us, rates, op[9] and money_of(scopes, views) or {} }
end

-- {'resize', id, wanted, least, tokens}
function operations.resize(op)
  local id, wanted, least, tokens = op[2], op[3], op[4], op[5]
  local packed = redis.call('HGET', HOLDS, id)
  local hold = packed and packed ~= TOMB and cmsgpack.unpack(packed)
  if not hold or hold[4] == 1 then return { 'gone' } end
  local scopes = hold[5] -- as reserved: in the windows of that moment, however late it is now
  local more, views = tokens - hold[2], views_of(scopes)
  local refused = more > 0 and (too_large(scopes, tokens) or fullest('tokens', scopes, views, more))
  if refused then return refused end
  local granted, left = grant(scopes, views, wanted, least, hold[1])
  if not granted then return { 'money', money_of(scopes, views) } end
  redis.call('HSET', HOLDS, id, cmsgpack.pack({ granted, tokens, hold[3], 0, scopes }))
  for i, scope in ipairs(scopes) do
    local view = views[i]
    if scope[3] >= 0 then view[4] = math.max(0, view[4] + more * MINUTE_MS) end
    for _, window in ipairs(scope[5]) do
      local money = view[6][window[1]]
      money[2] = money[2] + granted - hold[1]
    end
    save(view, scope)
  end
  return { 'ok', granted, left or 'none' }
end

-- Spends `spent` of what was held, `held`, in the hold's windows; the slot and the unused tokens go back if `running`.
local function book(hold, spent, held, tokens, running)
  local views = views_of(hold[5])
  for i, scope in ipairs(hold[5]) do
    local view = views[i]
    if running then view[1] = math.max(0, view[1] - 1) end
    if running and scope[3] >= 0 and tokens >= 0 then
      view[4] = math.max(0, view[4] + (tokens - hold[2]) * MINUTE_MS)
    end
    for _, window in ipairs(scope[5]) do
      local money = view[6][window[1]] or begin_window(view[6], window[1])
      local sum = money[1] + spent
      local carried = math.floor(sum / CHUNK)
      money[1], money[2], money[3] = sum - carried * CHUNK, money[2] - held, money[3] + carried
    end
    save(view, scope)
  end
end

-- {'settle', id, cost or -1, tokens or -1}: once. A hold that was swept in full is corrected to its true cost.
function operations.settle(op)
  local id, cost, tokens = op[2], op[3], op[4]
  local packed = redis.call('HGET', HOLDS, id)
  if not packed or packed == TOMB then return { 'gone' } end
  local hold = cmsgpack.unpack(packed)
  redis.call('HDEL', HOLDS, id)
  redis.call('ZREM', EXPIRY, id)
  if cost < 0 then cost = hold[1] end
  if hold[4] == 0 then
    book(hold, cost, hold[1], tokens, true)
    return { 'ok' }
  end
  book(hold, cost - hold[1], 0, -1, false)
  return { 'late' }
end

-- {'cancel', id}: a reservation whose answer was lost, or whose request is not made. It costs nothing, its request
-- is not counted, and it is refused should it still come.
function operations.cancel(op)
  local packed = redis.call('HGET', HOLDS, op[2])
  if packed and packed ~= TOMB then
    for _, scope in ipairs(cmsgpack.unpack(packed)[5]) do
      local view = view_of(scope)
      view[2] = math.max(0, view[2] - MINUTE_MS)
    end
    return operations.settle({ 'settle', op[2], 0, 0 })
  end
  redis.call('HSET', HOLDS, op[2], TOMB)
  redis.call('ZADD', EXPIRY, whole(now + ttl), op[2])
  return { 'ok' }
end

-- {'renew', ids}: their process lives
function operations.renew(op)
  for _, id in ipairs(op[2]) do redis.call('ZADD', EXPIRY, 'XX', 'GT', whole(now + ttl), id) end
  return { 'ok' }
end

-- {'sweep', at most}: settles in full what a dead process left, and forgets what nobody can settle any more
function operations.sweep(op)
  local ids = redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', whole(now), 'LIMIT', 0, op[2])
  local swept = 0
  for _, id in ipairs(ids) do
    local packed = redis.call('HGET', HOLDS, id)
    local hold = packed and packed ~= TOMB and cmsgpack.unpack(packed)
    if hold and hold[4] == 0 then
      book(hold, hold[1], hold[1], -1, true)
      hold[4] = 1
      swept = swept + 1
      redis.call('HSET', HOLDS, id, cmsgpack.pack(hold))
      redis.call('ZADD', EXPIRY, whole(now + LATE_MS), id)
    else
      redis.call('HDEL', HOLDS, id)
      redis.call('ZREM', EXPIRY, id)
    end
  end
  return { 'ok', swept, #ids }
end

-- {'money', scopes}: where every budget stands
function operations.money(op)
  return { 'ok', money_of(op[2], views_of(op[2])) }
end

local results = {}
for i, op in ipairs(input[3]) do
  local done, result = pcall(operations[op[1]], op)
  if not done then
    result = { 'error', type(result) == 'table' and result.err or tostring(result) }
  end
  results[i] = result
end
local answer = cmsgpack.pack({ now_us, results })
write_back()
return answer

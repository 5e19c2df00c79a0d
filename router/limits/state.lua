-- The account of a key in Redis, which all workers share. Each call is one atomic step.
--
-- KEYS[1]: hash of the account in one month (UTC). `born`: the run of Redis and a random part; `since`: microseconds
--   since 1970; for the month and each day `ledger` (spent by requests that ended before `since`), `spent` (by those
--   that ended later) and `held` (by those under way), in nano-dollars.
-- KEYS[2]: sorted set of holds "id day nano-dollars"; the score is the deadline in microseconds, or LOST or SETTLED.
-- KEYS[3]: hash of the buckets of a minute: what is left of requests and tokens, the limit of each, and the time.
-- ARGV: the operation, the run of Redis, the number of the day; then what the operation takes.

local LOST = 9e15 -- the score of a hold past its deadline: its worker died, and it counts as spent in full
local SETTLED = -1 -- the score of a hold that was settled and had not been here

local operation, run, today = ARGV[1], ARGV[2], ARGV[3]
local born = redis.call('HGET', KEYS[1], 'born')
if born and string.sub(born, 1, #run) ~= run then
  born = false -- data of an earlier run may be old
end

local function add(kind, day, amount)
  local text = string.format('%.0f', amount + 0) -- which makes no -0 of it
  redis.call('HINCRBY', KEYS[1], kind .. ':' .. day, text)
  redis.call('HINCRBY', KEYS[1], kind .. ':month', text)
end

local function parts(member)
  local day, usd = string.match(member, '^%S+ (%S+) (%S+)$')
  return day, tonumber(usd)
end

-- Spent and held, of a day or the month.
local function sums(period)
  local found = redis.call('HMGET', KEYS[1], 'ledger:' .. period, 'spent:' .. period, 'held:' .. period)
  return tonumber(found[1] or 0) + tonumber(found[2] or 0), tonumber(found[3] or 0)
end

local function lapse(now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], 0, now, 'LIMIT', 0, 100)) do
    local day, usd = parts(member)
    add('held', day, -usd)
    add('spent', day, usd)
    redis.call('ZADD', KEYS[2], LOST, member)
  end
end

-- What is left of a minute, as `Bucket.fill` of router/limits/account.py counts it.
local function filled(kind, limit, now)
  local found = redis.call('HMGET', KEYS[3], kind .. ':left', kind .. ':limit', kind .. ':at')
  if not found[1] then
    return limit, now
  end
  local left, before, at = tonumber(found[1]), tonumber(found[2]), tonumber(found[3])
  if limit > before then
    left = left + limit - before
  end
  if now > at then
    left = left + (now - at) * limit / 60000000
  end
  if now > at or at - now > 60000000 then -- the clocks of workers differ a little; one that was put back, by more
    at = now
  end
  return math.min(left, limit), at
end

local function keep(kind, limit, left, at)
  redis.call('HSET', KEYS[3], kind .. ':left', string.format('%.17g', left), kind .. ':limit', limit,
    kind .. ':at', string.format('%.0f', at))
end

-- now, member, deadline, nano-dollars, whether it is billed, budgets of day and month, limits of requests and tokens
-- (-1: none), tokens with the longest answer, tokens as expected, when the month's data may go (seconds)
local function hold()
  local now, member, deadline, usd, billed = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
  local budgets = {tonumber(ARGV[9]), tonumber(ARGV[10])}
  local requests, tokens, largest = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
  if not born and (budgets[1] >= 0 or budgets[2] >= 0) then
    return {'unknown'}
  end
  lapse(now)
  local day_spent, day_held = sums(today)
  local month_spent, month_held = sums('month')
  local requests_left, tokens_left, taken, requests_at, tokens_at = 0, 0, 0, 0, 0
  local verdict = 'held'
  local function over(budget, spent, held)
    return billed and budget >= 0 and (spent + held + usd > budget or spent >= budget)
  end
  if requests >= 0 then
    requests_left, requests_at = filled('requests', requests, now)
  end
  if tokens >= 0 then
    tokens_left, tokens_at = filled('tokens', tokens, now)
    taken = largest < tokens and largest or math.max(tonumber(ARGV[14]), tokens)
  end
  if over(budgets[1], day_spent, day_held) then
    verdict = 'day'
  elseif over(budgets[2], month_spent, month_held) then
    verdict = 'month'
  elseif requests >= 0 and requests_left < 1 then
    verdict = 'requests'
  elseif tokens >= 0 and tokens_left < taken then
    verdict = 'tokens'
  else
    requests_left, tokens_left = requests_left - 1, tokens_left - taken
    if born then
      add('held', today, usd)
      redis.call('ZADD', KEYS[2], deadline, member)
      redis.call('EXPIREAT', KEYS[2], ARGV[15])
      day_held, month_held = day_held + usd, month_held + usd
    end
  end
  if requests >= 0 then
    keep('requests', requests, requests_left, requests_at)
  end
  if tokens >= 0 then
    keep('tokens', tokens, tokens_left, tokens_at)
  end
  if requests >= 0 or tokens >= 0 then
    redis.call('EXPIRE', KEYS[3], 7200) -- a bucket that owes more than its limit takes longer than a minute
  end
  return {verdict, born or '', day_spent, day_held, month_spent, month_held,
    string.format('%.17g', requests_left), string.format('%.17g', tokens_left), taken}
end

local function settled()
  local day_spent, day_held = sums(today)
  local month_spent, month_held = sums('month')
  return {'settled', day_spent, day_held, month_spent, month_held}
end

-- member, the `born` under which it was held, nano-dollars spent, when it ended, tokens to give back, when the data
-- may go
local function settle()
  local member, cost, ended, back = ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  if back ~= 0 then
    local found = redis.call('HMGET', KEYS[3], 'tokens:left', 'tokens:limit')
    if found[1] then
      local left = math.min(tonumber(found[1]) + back, tonumber(found[2]))
      redis.call('HSET', KEYS[3], 'tokens:left', string.format('%.17g', left))
    end
  end
  if not born then
    return {'unknown'}
  end
  local score = tonumber(redis.call('ZSCORE', KEYS[2], member) or 0)
  if score == SETTLED or (score == 0 and ARGV[5] == born) then
    return settled()
  end
  local day, usd = parts(member)
  if score == LOST then
    add('spent', day, -usd)
  elseif score > 0 then
    add('held', day, -usd)
  end
  if ended >= tonumber(redis.call('HGET', KEYS[1], 'since')) then
    add('spent', day, cost)
  end
  if ARGV[5] == born then
    redis.call('ZREM', KEYS[2], member)
  else -- it would be new to a second attempt
    redis.call('ZADD', KEYS[2], SETTLED, member)
    redis.call('EXPIREAT', KEYS[2], ARGV[9])
  end
  return settled()
end

-- `born` and `since` of a new account (empty: make none), nano-dollars of its ledger on the day and in the month, when
-- the data may go, the deadline of the holds; then the open holds of a worker, each with the `born` it was held under
local function renew()
  if not born and ARGV[4] == '' then
    return {'unknown'}
  end
  if not born then
    born = ARGV[4]
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 'born', born, 'since', ARGV[5], 'ledger:' .. today, ARGV[6], 'ledger:month', ARGV[7])
    redis.call('EXPIREAT', KEYS[1], ARGV[8])
  end
  for index = 10, #ARGV, 2 do
    local member, before = ARGV[index], ARGV[index + 1]
    local score = tonumber(redis.call('ZSCORE', KEYS[2], member) or 0)
    local day, usd = parts(member)
    if score == LOST or (score == 0 and before ~= born) then
      add('held', day, usd)
    end
    if score == LOST then
      add('spent', day, -usd)
    end
    if score > 0 or (score == 0 and before ~= born) then
      redis.call('ZADD', KEYS[2], ARGV[9], member)
    end
  end
  redis.call('EXPIREAT', KEYS[2], ARGV[8])
  return {'renewed', born}
end

-- `born`, nano-dollars of the ledger on the day and in the month: what other replicas recorded late is in it now
local function correct()
  if born ~= ARGV[4] then
    return {'unknown'}
  end
  for index, period in ipairs({today, 'month'}) do
    local field, found = 'ledger:' .. period, tonumber(ARGV[4 + index])
    if found > tonumber(redis.call('HGET', KEYS[1], field) or 0) then
      redis.call('HSET', KEYS[1], field, ARGV[4 + index])
    end
  end
  return {'corrected'}
end

return ({hold = hold, settle = settle, renew = renew, correct = correct})[operation]()

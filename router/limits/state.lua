-- The accounts of keys and teams in Redis, shared by all workers. Each call is atomic. `hold` takes one or more accounts;
-- the other operations take one.
--
-- For each account, KEYS[1]: hash of one month (UTC). `born`: the run id of Redis and a random part; `since`: microseconds
--   since 1970; for the month and each day `ledger` (spent by requests that ended before `since`), `spent` (by those
--   that ended later) and `held` (by those in progress), in nano-dollars.
-- KEYS[2]: sorted set of holds "id day nano-dollars"; the score is the deadline in microseconds, or LOST or SETTLED.
-- KEYS[3]: hash of the buckets of a minute: requests and tokens left, the limit of each, and the time.
-- ARGV: the operation, the run id of Redis, the day of the month; then the arguments of the operation.

local LOST = 9e15 -- the score of a hold past its deadline: its worker died, so it counts as spent in full
local SETTLED = -1 -- the score of a hold that was settled before it existed here

local operation, run, today = ARGV[1], ARGV[2], ARGV[3]

local function account(number)
  local at = 3 * number
  local born = redis.call('HGET', KEYS[at - 2], 'born')
  if born and string.sub(born, 1, #run) ~= run then
    born = false -- data of an earlier run may be outdated
  end
  return {sums = KEYS[at - 2], holds = KEYS[at - 1], minute = KEYS[at], born = born}
end

local function add(of, kind, day, amount)
  local text = string.format('%.0f', amount + 0) -- adding 0 avoids -0
  redis.call('HINCRBY', of.sums, kind .. ':' .. day, text)
  redis.call('HINCRBY', of.sums, kind .. ':month', text)
end

local function parts(member)
  local day, usd = string.match(member, '^%S+ (%S+) (%S+)$')
  return day, tonumber(usd)
end

-- Dollars spent and held in a day or the month.
local function sums(of, period)
  local found = redis.call('HMGET', of.sums, 'ledger:' .. period, 'spent:' .. period, 'held:' .. period)
  return tonumber(found[1] or 0) + tonumber(found[2] or 0), tonumber(found[3] or 0)
end

local function lapse(of, now)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', of.holds, 0, now, 'LIMIT', 0, 100)) do
    local day, usd = parts(member)
    add(of, 'held', day, -usd)
    add(of, 'spent', day, usd)
    redis.call('ZADD', of.holds, LOST, member)
  end
end

-- The amount left in a bucket; the same formula as `Bucket.fill` in router/limits/account.py.
local function filled(of, kind, limit, now)
  local found = redis.call('HMGET', of.minute, kind .. ':left', kind .. ':limit', kind .. ':at')
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
  if now > at or at - now > 60000000 then -- clocks of workers differ slightly; a larger step back means a reset clock
    at = now
  end
  return math.min(left, limit), at
end

local function keep(of, kind, limit, left, at)
  redis.call('HSET', of.minute, kind .. ':left', string.format('%.17g', left), kind .. ':limit', limit,
    kind .. ':at', string.format('%.0f', at))
end

-- Check whether a request fits the limits of an account.
local function look(of, now, usd, billed, largest, expected)
  local requests, tokens = of.requests, of.tokens
  of.verdict, of.taken, of.requests_left, of.tokens_left = 'fits', 0, 0, 0
  lapse(of, now)
  of.day_spent, of.day_held = sums(of, of.today)
  of.month_spent, of.month_held = sums(of, 'month')
  local function over(budget, spent, held)
    return billed and budget >= 0 and (spent + held + usd > budget or spent >= budget)
  end
  if requests >= 0 then
    of.requests_left, of.requests_at = filled(of, 'requests', requests, now)
  end
  if tokens >= 0 then
    of.tokens_left, of.tokens_at = filled(of, 'tokens', tokens, now)
    of.taken = largest < tokens and largest or math.max(expected, tokens)
  end
  if over(of.usd_a_day, of.day_spent, of.day_held) then
    of.verdict = 'day'
  elseif over(of.usd_a_month, of.month_spent, of.month_held) then
    of.verdict = 'month'
  elseif requests >= 0 and of.requests_left < 1 then
    of.verdict = 'requests'
  elseif tokens >= 0 and of.tokens_left < of.taken then
    of.verdict = 'tokens'
  end
end

local function take(of, usd, deadline)
  of.requests_left, of.tokens_left = of.requests_left - 1, of.tokens_left - of.taken
  if of.born then
    add(of, 'held', of.today, usd)
    redis.call('ZADD', of.holds, deadline, of.member)
    redis.call('EXPIREAT', of.holds, of.expires)
    of.day_held, of.month_held = of.day_held + usd, of.month_held + usd
  end
end

-- Store the buckets, and return the state of the account.
local function told(of)
  if of.requests >= 0 then
    keep(of, 'requests', of.requests, of.requests_left, of.requests_at)
  end
  if of.tokens >= 0 then
    keep(of, 'tokens', of.tokens, of.tokens_left, of.tokens_at)
  end
  if of.requests >= 0 or of.tokens >= 0 then
    redis.call('EXPIRE', of.minute, 7200) -- a bucket below zero needs more than a minute to refill
  end
  return {of.verdict, of.born or '', of.day_spent, of.day_held, of.month_spent, of.month_held,
    string.format('%.17g', of.requests_left), string.format('%.17g', of.tokens_left), of.taken}
end

-- Arguments: now, deadline, nano-dollars, whether it is billed, tokens with the longest answer, expected tokens; then for
-- each account: member, expiry of the month's data (seconds), budgets of day and month, limits of requests and tokens
-- (-1: none). All accounts take the hold, or none does.
local function hold()
  local now, deadline, usd, billed = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
  local largest, expected = tonumber(ARGV[8]), tonumber(ARGV[9])
  local accounts, verdicts, known, fits, answers = {}, {}, true, true, {}
  for number = 1, #KEYS / 3 do
    local of, at = account(number), 6 * number + 4
    of.member, of.expires, of.today = ARGV[at], ARGV[at + 1], parts(ARGV[at])
    of.usd_a_day, of.usd_a_month = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    of.requests, of.tokens = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
    local unknown = not of.born and (of.usd_a_day >= 0 or of.usd_a_month >= 0)
    accounts[number], verdicts[number], known = of, {unknown and 'unknown' or 'fits'}, known and not unknown
  end
  if not known then
    return verdicts
  end
  for _, of in ipairs(accounts) do
    look(of, now, usd, billed, largest, expected)
    fits = fits and of.verdict == 'fits'
  end
  for number, of in ipairs(accounts) do
    if fits then
      take(of, usd, deadline)
    end
    answers[number] = told(of)
  end
  return answers
end

local function settled(of)
  local day_spent, day_held = sums(of, today)
  local month_spent, month_held = sums(of, 'month')
  return {'settled', day_spent, day_held, month_spent, month_held}
end

-- Arguments: member, the `born` under which it was held, nano-dollars spent, end of the request, tokens to return, expiry
-- of the data
local function settle()
  local of, member, cost, ended, back = account(1), ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  if back ~= 0 then
    local found = redis.call('HMGET', of.minute, 'tokens:left', 'tokens:limit')
    if found[1] then
      local left = math.min(tonumber(found[1]) + back, tonumber(found[2]))
      redis.call('HSET', of.minute, 'tokens:left', string.format('%.17g', left))
    end
  end
  if not of.born then
    return {'unknown'}
  end
  local score = tonumber(redis.call('ZSCORE', of.holds, member) or 0)
  if score == SETTLED or (score == 0 and ARGV[5] == of.born) then
    return settled(of)
  end
  local day, usd = parts(member)
  if score == LOST then
    add(of, 'spent', day, -usd)
  elseif score > 0 then
    add(of, 'held', day, -usd)
  end
  if ended >= tonumber(redis.call('HGET', of.sums, 'since')) then
    add(of, 'spent', day, cost)
  end
  if ARGV[5] == of.born then
    redis.call('ZREM', of.holds, member)
  else -- so that a second attempt finds it settled
    redis.call('ZADD', of.holds, SETTLED, member)
    redis.call('EXPIREAT', of.holds, ARGV[9])
  end
  return settled(of)
end

-- Arguments: `born` and `since` of a new account (empty: create none), nano-dollars of its ledger on the day and in the
-- month, expiry of the data, deadline of the holds; then the open holds of a worker, each with the `born` it was held under
local function renew()
  local of = account(1)
  local born = of.born
  if not born and ARGV[4] == '' then
    return {'unknown'}
  end
  if not born then
    born = ARGV[4]
    redis.call('DEL', of.sums, of.holds)
    redis.call('HSET', of.sums, 'born', born, 'since', ARGV[5], 'ledger:' .. today, ARGV[6], 'ledger:month', ARGV[7])
    redis.call('EXPIREAT', of.sums, ARGV[8])
  end
  for index = 10, #ARGV, 2 do
    local member, before = ARGV[index], ARGV[index + 1]
    local score = tonumber(redis.call('ZSCORE', of.holds, member) or 0)
    local day, usd = parts(member)
    if score == LOST or (score == 0 and before ~= born) then
      add(of, 'held', day, usd)
    end
    if score == LOST then
      add(of, 'spent', day, -usd)
    end
    if score > 0 or (score == 0 and before ~= born) then
      redis.call('ZADD', of.holds, ARGV[9], member)
    end
  end
  redis.call('EXPIREAT', of.holds, ARGV[8])
  return {'renewed', born}
end

-- Arguments: `born`, nano-dollars of the ledger on the day and in the month, now with late records of other replicas
local function correct()
  local of = account(1)
  if of.born ~= ARGV[4] then
    return {'unknown'}
  end
  for index, period in ipairs({today, 'month'}) do
    local field, found = 'ledger:' .. period, tonumber(ARGV[4 + index])
    if found > tonumber(redis.call('HGET', of.sums, field) or 0) then
      redis.call('HSET', of.sums, field, ARGV[4 + index])
    end
  end
  return {'corrected'}
end

return ({hold = hold, settle = settle, renew = renew, correct = correct})[operation]()

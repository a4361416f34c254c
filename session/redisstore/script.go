package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// script is one that servers know by its hash.
type script struct{ source, hash string }

func newScript(source string) *script {
	// SHA-1 is how Redis names scripts. Whoever finds two with one name could run
	// them, so he could run any.
	sum := sha1.Sum([]byte(source))
	return &script{source, hex.EncodeToString(sum[:])}
}

// call runs the script. The keys are of one slot, and the script adds to their
// partition's base the names that it finds out itself.
func (sc *script) call(keys []string, args ...string) command {
	return func(b rueidis.Builder, whole bool) rueidis.Completed {
		if whole {
			return b.Eval().Script(sc.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
		}
		return b.Evalsha().Sha1(sc.hash).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
}

// The answers of scripts begin with one of these.
const (
	done     = "done"
	absent   = "absent"
	ended    = "ended" // and the reason
	exists   = "exists"
	conflict = "conflict"
	lost     = "lost"
)

// verdict reads the answer of a script: what follows "done", or the error of the
// contract.
func verdict(op string, r rueidis.RedisResult) ([]rueidis.RedisMessage, error) {
	parts, err := r.ToArray()
	if err != nil {
		return nil, unknown(op, err)
	}
	if len(parts) == 0 {
		return nil, unknown(op, errAnswer)
	}
	word, err := parts[0].ToString()
	if err != nil {
		return nil, unknown(op, err)
	}
	switch word {
	case done:
		return parts[1:], nil
	case absent:
		return nil, session.ErrAbsent
	case exists:
		return nil, session.ErrExists
	case conflict:
		return nil, session.ErrConflict
	case lost:
		return nil, session.ErrLeaseLost
	case ended:
		if len(parts) == 2 {
			if reason, err := parts[1].ToString(); err == nil {
				return nil, &session.Ended{Reason: session.Reason(reason)}
			}
		}
	}
	return nil, unknown(op, errAnswer)
}

// Parts of scripts. Where a partition is at stake, KEYS[1] to KEYS[3] are its sets
// of live sessions and ARGV[1] is its base.
//
// Redis undoes nothing of a script that fails. Two orders see to it that what
// fails has written nothing, or nothing that matters:
//
//   - A server that is out of memory refuses the first write of a script only, and
//     only if that takes memory.
//   - A Cluster that is moving a slot refuses keys that are not there, or not any
//     more. A script has all that it names first, or it does not run. The records
//     that it finds out it reads before it writes them. Only the set of a tag may be
//     gone, or one that the script itself has emptied: hence pcall. A name that
//     is left in a tag's set is removed when it is met, as its session ended.
var (
	// keep makes a key last at least so many milliseconds.
	keep = `
local function keep(key, ttl)
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
`
	// reading is of a record, and its begin.
	reading = strings.NewReplacer("$FIXED", fmt.Sprint(fixed)).Replace(`
local function head(key) return redis.pcall('GETRANGE', key, 0, $FIXED - 1) end
local function state(head)
  if type(head) == 'table' then return head end
  if head == '' then return {'absent'} end
  local kind = string.sub(head, 1, 1)
  if kind == 'T' then return {'ended', string.sub(head, 2)} end
  if kind ~= 'L' then return redis.error_reply('ERR a record that this version does not read') end
end
local function version(head) return string.sub(head, 2, 21) end
local function began(head) return string.sub(head, 22, 41) end
local function length(head) return tonumber(string.sub(head, 42, 51)) end
local function binding(head) return string.sub(head, 56, 87) end
`)
	// burial ends sessions. A session of an index whose record is not there, and
	// cannot have expired, is one that is on its way from another node: not over.
	burial = strings.NewReplacer("$FIXED", fmt.Sprint(fixed), "$SLACK", millis(sweepSlack),
		"$LAST", micros(session.TombstoneGrace+sweepSlack)).Replace(`
local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function moving(id)
  local expires = redis.pcall('ZSCORE', KEYS[3], id)
  if type(expires) ~= 'string' then return expires end
  return tonumber(expires) + $LAST > micros()
end
local function astray(id, gone) return gone.err or gone[1] == 'absent' and moving(id) end
local function unlist(id)
  for i = 1, 3 do redis.pcall('ZREM', KEYS[i], id) end
end
local function bury(id, key, head, reason)
  local n = tonumber(string.sub(head, 52, 55))
  local tags = redis.call('GETRANGE', key, $FIXED, $FIXED + 32 * n - 1)
  local ttl = redis.call('PTTL', key) - $SLACK
  unlist(id)
  for i = 1, n do
    redis.pcall('ZREM', ARGV[1] .. 'tag:' .. string.sub(tags, 32 * i - 31, 32 * i), id)
  end
  if ttl > 0 then redis.call('SET', key, 'T' .. reason, 'PX', ttl) else redis.call('UNLINK', key) end
end
`)
)

// createScript: KEYS[4] is the record's. ARGV: base, id, record, time to live,
// began, scores of used, created and expires, tags.
var createScript = newScript(keep + `
local id, ttl = ARGV[2], tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[4]) == 1 then return {'exists'} end
for i = 9, #ARGV do
  local mark = redis.call('GET', ARGV[1] .. 'mark:' .. ARGV[i])
  if mark and ARGV[5] < string.sub(mark, 1, 20) then return {'ended', string.sub(mark, 21)} end
end
redis.call('SET', KEYS[4], ARGV[3], 'PX', ttl)
for i = 1, 3 do
  redis.call('ZADD', KEYS[i], ARGV[i + 5], id)
  keep(KEYS[i], ttl)
end
for i = 9, #ARGV do
  local set = ARGV[1] .. 'tag:' .. ARGV[i]
  for _, other in ipairs(redis.call('ZRANDMEMBER', set, 2)) do
    if redis.call('EXISTS', ARGV[1] .. 'session:' .. other) == 0 then redis.call('ZREM', set, other) end
  end
  redis.call('ZADD', set, 0, id)
  keep(set, ttl)
end
return {'done'}
`)

// replaceScript: KEYS[1] is the record's. ARGV: version, next version, data. The
// first write takes no memory.
var replaceScript = newScript(reading + `
local key = KEYS[1]
local head = head(key)
local gone = state(head)
if gone then return gone end
if version(head) ~= ARGV[1] then return {'conflict'} end
local rest = redis.call('GETRANGE', key, 21, length(head) - 1)
local ttl = math.max(1, redis.call('PTTL', key))
redis.call('PEXPIRE', key, ttl)
redis.call('SET', key, 'L' .. ARGV[2] .. rest .. ARGV[3], 'PX', ttl)
return {'done'}
`)

// endScript: KEYS[4] is the record's. ARGV: base, id, reason, version or "",
// score of unused since or "".
var endScript = newScript(reading + burial + `
local id, key = ARGV[2], KEYS[4]
local head = head(key)
local gone = state(head)
if gone then return gone end
if ARGV[4] ~= '' and version(head) ~= ARGV[4] then return {'conflict'} end
local used = redis.call('ZSCORE', KEYS[1], id) or '0'
if ARGV[5] ~= '' and tonumber(used) > tonumber(ARGV[5]) then return {'conflict'} end
local value = redis.call('GET', key)
bury(id, key, head, ARGV[3])
return {'done', value, used}
`)

// endTaggedScript: KEYS[4] is the tag's set. ARGV: base, reason, begin of the
// range, how many, began before or "", spared ids. It returns whom it came to
// last if there may be more, how many it could neither end nor spare, and id and
// binding of each it ended.
var endTaggedScript = newScript(reading + burial + `
local spared, answer = {}, {'done', '', 0}
for i = 6, #ARGV do spared[ARGV[i]] = true end
local ids = redis.call('ZRANGEBYLEX', KEYS[4], ARGV[3], '+', 'LIMIT', 0, ARGV[4])
for _, id in ipairs(ids) do
  local key = ARGV[1] .. 'session:' .. id
  local head = head(key)
  local gone = state(head)
  if gone and astray(id, gone) then
    answer[3] = answer[3] + 1
  elseif gone then
    redis.call('ZREM', KEYS[4], id)
  elseif not spared[id] and (ARGV[5] == '' or began(head) < ARGV[5]) then
    bury(id, key, head, ARGV[2])
    answer[#answer + 1] = id
    answer[#answer + 1] = binding(head)
  end
end
if #ids == tonumber(ARGV[4]) then answer[2] = ids[#ids] end
return answer
`)

// taggedScript: KEYS[4] is the tag's set. ARGV: base, begin of the range, how
// many. It returns id, use and record but for its data of each.
var taggedScript = newScript(reading + burial + `
local answer, want, from = {'done'}, tonumber(ARGV[3]), ARGV[2]
while want > 0 do
  local ids = redis.call('ZRANGEBYLEX', KEYS[4], from, '+', 'LIMIT', 0, want)
  if #ids == 0 then break end
  for _, id in ipairs(ids) do
    local key = ARGV[1] .. 'session:' .. id
    local head = head(key)
    local gone = state(head)
    if gone and astray(id, gone) then return redis.error_reply('ERR a record that cannot be read') end
    if gone then
      redis.call('ZREM', KEYS[4], id)
    else
      answer[#answer + 1] = id
      answer[#answer + 1] = redis.call('ZSCORE', KEYS[1], id) or '0'
      answer[#answer + 1] = redis.call('GETRANGE', key, 0, length(head) - 1)
      want = want - 1
    end
  end
  from = '(' .. ids[#ids]
end
return answer
`)

// sweepScript: ARGV: base, how many, then for each of the sets that limits
// concern: its number, the greatest score of what is over, now, the reason. It
// returns whether there may be more, how many records it could not read, and id,
// binding and reason of each it ended. The earlier of the caller's clock and the
// server's counts.
//
// A record that is on its way from another node does not leave the sets, and will be
// swept there.
var sweepScript = newScript(reading + burial + `
local left, answer = tonumber(ARGV[2]), {'done', '', 0}
local now = micros()
for i = 3, #ARGV, 4 do
  local fast = math.max(0, tonumber(ARGV[i + 2]) - now)
  local bound = string.format('%.0f', tonumber(ARGV[i + 1]) - fast)
  local passed = 0
  while left > 0 and passed < 1000 do
    local ids = redis.pcall('ZRANGEBYSCORE', KEYS[tonumber(ARGV[i])], '-inf', bound, 'LIMIT', passed, left)
    if ids.err or #ids == 0 then break end
    for _, id in ipairs(ids) do
      local key = ARGV[1] .. 'session:' .. id
      local head = head(key)
      local gone = state(head)
      if type(head) == 'table' or gone and gone[1] == 'absent' and moving(id) then
        answer[3] = answer[3] + 1
        passed = passed + 1
      elseif gone then
        if gone.err then answer[3] = answer[3] + 1 end -- or no sweep would get past it
        unlist(id)
        left = left - 1
      else
        bury(id, key, head, ARGV[i + 3])
        answer[#answer + 1] = id
        answer[#answer + 1] = binding(head)
        answer[#answer + 1] = ARGV[i + 3]
        left = left - 1
      end
    end
  end
  if left == 0 then
    answer[2] = 'more'
    break
  end
end
return answer
`)

// markScript: KEYS[1] is the mark's, KEYS[2] the directory's, if there is one.
// ARGV: began before, reason, time to live. It returns the places. The first write
// takes no memory.
var markScript = newScript(`
local before, reason, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local former = redis.call('GET', KEYS[1])
if former then
  if string.sub(former, 1, 20) > before then
    before, reason = string.sub(former, 1, 20), string.sub(former, 21)
  end
  ttl = math.max(ttl, redis.call('PTTL', KEYS[1]))
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('SET', KEYS[1], before .. reason, 'PX', ttl)
local answer = {'done'}
if KEYS[2] then
  for _, place in ipairs(redis.call('SMEMBERS', KEYS[2])) do answer[#answer + 1] = place end
end
return answer
`)

// announceScript: KEYS[1] is the mark's, KEYS[2] the directory's. ARGV: began,
// place, time to live.
var announceScript = newScript(keep + `
local mark = redis.call('GET', KEYS[1])
if mark and ARGV[1] < string.sub(mark, 1, 20) then return {'ended', string.sub(mark, 21)} end
redis.call('SADD', KEYS[2], ARGV[2])
keep(KEYS[2], tonumber(ARGV[3]))
return {'done'}
`)

// touchScript: KEYS[1] is the set of uses. ARGV: score and id of each. It adds no
// session, and moves none's use back. The first write takes no memory.
var touchScript = newScript(`
redis.call('ZREM', KEYS[1], '')
redis.call('ZADD', KEYS[1], 'XX', 'GT', unpack(ARGV))
return {'done'}
`)

// acquireScript: KEYS[1] is the lease's. ARGV: token, time to live. It returns how
// long somebody else has it. The first write takes no memory.
var acquireScript = newScript(`
local left = redis.call('PTTL', KEYS[1])
if left ~= -2 then return {'done', math.max(1, left)} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {'done', 0}
`)

var renewScript = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lost'} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'done'}
`)

var releaseScript = newScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'done'}
`)

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

var _ session.Portable = (*Store)(nil)

// takeScript imports a live record: KEYS[4] is the record's. ARGV are those of
// createScript, but the tags come after the version.
var takeScript = newScript(keep + reading + `
local id, ttl, key = ARGV[2], tonumber(ARGV[4]), KEYS[4]
local head = head(key)
local gone = state(head)
if gone and gone[1] ~= 'absent' then return gone end
if not gone then
  redis.call('ZADD', KEYS[1], 'XX', 'GT', ARGV[6], id)
  if version(head) >= ARGV[9] then return {'done', 'kept'} end
  redis.call('SET', key, ARGV[3], 'PX', math.max(ttl, redis.call('PTTL', key)))
  return {'done', 'renewed'}
end
for i = 10, #ARGV do
  local mark = redis.call('GET', ARGV[1] .. 'mark:' .. ARGV[i])
  if mark and ARGV[5] < string.sub(mark, 1, 20) then return {'ended', string.sub(mark, 21)} end
end
redis.call('SET', key, ARGV[3], 'PX', ttl)
for i = 1, 3 do
  redis.call('ZADD', KEYS[i], ARGV[i + 5], id)
  keep(KEYS[i], ttl)
end
for i = 10, #ARGV do
  local set = ARGV[1] .. 'tag:' .. ARGV[i]
  redis.call('ZADD', set, 0, id)
  keep(set, ttl)
end
return {'done', 'added'}
`)

// takeTombstoneScript: KEYS[4] is the record's. ARGV: base, id, reason, time to
// live.
var takeTombstoneScript = newScript(reading + burial + `
local key = KEYS[4]
local head = head(key)
local gone = state(head)
if not gone then
  bury(ARGV[2], key, head, ARGV[3])
  return {'done', 'ended'}
end
if gone[1] == 'ended' then return {'done', 'kept'} end
if gone[1] ~= 'absent' then return gone end
redis.call('SET', key, 'T' .. ARGV[3], 'PX', ARGV[4])
return {'done', 'added'}
`)

var fates = map[string]session.Fate{
	"kept": session.FateKept, "added": session.FateAdded, "renewed": session.FateRenewed, "ended": session.FateEnded,
}

// Import adds what is missing. In a Cluster sessions are announced first, as by
// Create.
func (s *Store) Import(ctx context.Context, items []session.Item) ([]session.Fate, error) {
	ahead, err := s.ahead(ctx, "import")
	if err != nil {
		return nil, err
	}
	all := make([]session.Fate, len(items))
	var records []int // those of items that are live
	var cmds []command
	var of []int
	for i, item := range items {
		switch {
		case item.Over(s.opts.now()):
			all[i] = session.FateOver
		case item.Record != nil:
			records = append(records, i)
		case item.Ended != "":
			p := s.layout.of(item.Key)
			cmds, of = append(cmds, takeTombstoneScript.call([]string{p.used, p.created, p.expires, p.session(item.Key)},
				p.base, string(item.Key[:]), string(item.Ended), millis(s.opts.until(item.Until)))), append(of, i)
		case item.Mark != nil:
			if all[i], err = s.takeMark(ctx, session.Tag(item.Key), *item.Mark); err != nil {
				return nil, err
			}
		default:
			if all[i], err = s.takeClaim(ctx, item); err != nil {
				return nil, err
			}
		}
	}
	barred, err := s.announceAll(ctx, items, records, ahead)
	if err != nil {
		return nil, err
	}
	for _, i := range records {
		if barred[i] {
			all[i] = session.FateOver
			continue
		}
		cmds, of = append(cmds, s.takeLive(items[i], ahead)), append(of, i)
	}
	if len(cmds) == 0 {
		return all, nil
	}
	answers, err := s.write(ctx, "import", cmds)
	if err != nil {
		return nil, err
	}
	for n, i := range of {
		if all[i], err = fate(answers[n]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func fate(answer rueidis.RedisResult) (session.Fate, error) {
	parts, err := verdict("import", answer)
	var end *session.Ended
	if errors.As(err, &end) {
		return session.FateOver, nil
	}
	if err != nil {
		return 0, err
	}
	if len(parts) != 1 {
		return 0, unknown("import", errAnswer)
	}
	word, err := parts[0].ToString()
	f, ok := fates[word]
	if err != nil || !ok {
		return 0, unknown("import", errAnswer)
	}
	return f, nil
}

func (s *Store) takeLive(item session.Item, ahead time.Duration) command {
	rec := shifted(*item.Record, -ahead)
	p := s.layout.of(item.Key)
	args := []string{
		p.base, string(item.Key[:]), encode(rec), s.life(item), nanos(rec.Began),
		score(rec.Used), score(rec.Created), score(rec.Expires), fmt.Sprintf("%020d", rec.Version),
	}
	for _, tag := range rec.Tags {
		args = append(args, string(tag[:]))
	}
	return takeScript.call([]string{p.used, p.created, p.expires, p.session(item.Key)}, args...)
}

func (s *Store) life(item session.Item) string {
	return millis(s.opts.until(item.Record.Expires) + session.TombstoneGrace + sweepSlack)
}

// announceAll enters the sessions into the directories of a Cluster, and tells which
// ones a mark of a directory refuses.
func (s *Store) announceAll(ctx context.Context, items []session.Item, records []int, ahead time.Duration) (map[int]bool, error) {
	barred := map[int]bool{}
	if !s.layout.spread() {
		return barred, nil
	}
	var cmds []command
	var of []int
	for _, i := range records {
		rec := shifted(*items[i].Record, -ahead)
		for _, tag := range rec.Tags {
			d := s.layout.directory(tag)
			cmds, of = append(cmds, announceScript.call([]string{d.mark, d.places},
				nanos(rec.Began), strconv.Itoa(s.layout.number(items[i].Key)), s.life(items[i]))), append(of, i)
		}
	}
	if len(cmds) == 0 {
		return barred, nil
	}
	answers, err := s.write(ctx, "import", cmds)
	if err != nil {
		return nil, err
	}
	for n, i := range of {
		_, err := verdict("import", answers[n])
		var end *session.Ended
		if errors.As(err, &end) {
			barred[i] = true
		} else if err != nil {
			return nil, err
		}
	}
	return barred, nil
}

func (s *Store) takeMark(ctx context.Context, tag session.Tag, m session.Mark) (session.Fate, error) {
	mark := s.layout.in(0).mark(tag)
	if s.layout.spread() {
		mark = s.layout.directory(tag).mark
	}
	answers, err := s.read(ctx, "import", []command{
		func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Exists().Key(mark).Build() },
	})
	if err != nil {
		return 0, err
	}
	there, err := answers[0].AsBool()
	if err != nil {
		return 0, unknown("import", err)
	}
	if err := s.Mark(ctx, tag, m); err != nil {
		return 0, err
	}
	if there {
		return session.FateKept, nil // or both are one now
	}
	return session.FateAdded, nil
}

func (s *Store) takeClaim(ctx context.Context, item session.Item) (session.Fate, error) {
	err := s.Once(ctx, item.Key, item.Until)
	if errors.Is(err, session.ErrExists) {
		return session.FateKept, nil
	}
	return session.FateAdded, err
}

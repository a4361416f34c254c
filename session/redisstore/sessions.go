package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// sweepSlack is how much longer than its tombstone a live record lasts. Within
// that time some process has swept it, and its indexes with it.
const sweepSlack = 24 * time.Hour

// touchBatch is the most touches in one command.
const touchBatch = 500

// run runs a script that writes, and reads its verdict.
func (s *Store) run(ctx context.Context, op string, cmd command) ([]rueidis.RedisMessage, error) {
	answers, err := s.write(ctx, op, []command{cmd})
	if err != nil {
		return nil, err
	}
	return verdict(op, answers[0])
}

// Create adds a session.
func (s *Store) Create(ctx context.Context, key session.Key, rec session.Record) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	ahead, err := s.ahead(ctx, "create")
	if err != nil {
		return err
	}
	ttl := millis(s.opts.until(rec.Expires) + session.TombstoneGrace + sweepSlack)
	rec = shifted(rec, -ahead)
	if s.layout.spread() {
		if err := s.announce(ctx, key, rec, ttl); err != nil {
			return err
		}
	}
	return s.add(ctx, key, rec, ttl)
}

// add writes the record, unless a mark of the partition refuses it.
func (s *Store) add(ctx context.Context, key session.Key, rec session.Record, ttl string) error {
	rec.Version = 1
	p := s.layout.of(key)
	args := []string{
		p.base, string(key[:]), encode(rec), ttl, nanos(rec.Began),
		score(rec.Used), score(rec.Created), score(rec.Expires),
	}
	for _, tag := range rec.Tags {
		args = append(args, string(tag[:]))
	}
	_, err := s.run(ctx, "create", createScript.call([]string{p.used, p.created, p.expires, p.session(key)}, args...))
	return err
}

// bounded bounds a call of several steps. A process that was stopped between two
// of them does not go on with what it found before.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, 2*s.opts.Timeout, errSilent)
}

// Load returns a live session's record.
func (s *Store) Load(ctx context.Context, key session.Key) (session.Record, error) {
	p := s.layout.of(key)
	// The record is read last: when it is live, the use before was one of it.
	answers, err := s.readTracked(ctx, "load", s.layout.number(key), p.session(key),
		func(b rueidis.Builder, _ bool) rueidis.Completed {
			return b.Zscore().Key(p.used).Member(string(key[:])).Build()
		})
	if err != nil {
		return session.Record{}, err
	}
	ahead, err := s.ahead(ctx, "load")
	if err != nil {
		return session.Record{}, err
	}
	value, err := answers[1].ToString()
	if rueidis.IsRedisNil(err) {
		return session.Record{}, session.ErrAbsent
	}
	if err != nil {
		return session.Record{}, unknown("load", err)
	}
	used, err := answers[0].AsFloat64()
	if err != nil && !rueidis.IsRedisNil(err) {
		return session.Record{}, unknown("load", err)
	}
	return s.decoded("load", value, used, ahead)
}

// decoded is decode with errors of the contract, as told by a clock that is ahead
// by so much. The use of a session that was created while it was read is its
// creation.
func (s *Store) decoded(op, value string, used float64, ahead time.Duration) (session.Record, error) {
	rec, err := decode(value, used)
	if err == errDamaged {
		return session.Record{}, unknown(op, err)
	}
	if err == nil && used == 0 {
		rec.Used = rec.Created
	}
	return shifted(rec, ahead), err
}

// Replace writes data if the session is live and at the version.
func (s *Store) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	_, err := s.run(ctx, "replace", replaceScript.call([]string{s.layout.of(key).session(key)},
		fmt.Sprintf("%020d", version), fmt.Sprintf("%020d", version+1), string(data)))
	return err
}

// End turns a live session that meets the condition into a tombstone.
func (s *Store) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	ahead, err := s.ahead(ctx, "end")
	if err != nil {
		return session.Record{}, err
	}
	p := s.layout.of(key)
	version, unused := "", ""
	if c.Version != 0 {
		version = fmt.Sprintf("%020d", c.Version)
	}
	if !c.UnusedSince.IsZero() {
		unused = score(c.UnusedSince.Add(-ahead))
	}
	answer, err := s.run(ctx, "end", endScript.call([]string{p.used, p.created, p.expires, p.session(key)},
		p.base, string(key[:]), string(reason), version, unused))
	if err != nil {
		return session.Record{}, err
	}
	if len(answer) != 2 {
		return session.Record{}, unknown("end", errAnswer)
	}
	value, err := answer[0].ToString()
	if err != nil {
		return session.Record{}, unknown("end", err)
	}
	used, err := answer[1].AsFloat64()
	if err != nil {
		return session.Record{}, unknown("end", err)
	}
	return s.decoded("end", value, used, ahead)
}

// Touch moves Used forward. A set of uses has live sessions only.
func (s *Store) Touch(ctx context.Context, touches []session.Touch) error {
	if len(touches) == 0 {
		return ctx.Err()
	}
	ahead, err := s.ahead(ctx, "touch")
	if err != nil {
		return err
	}
	parts := map[int][]session.Touch{}
	for _, t := range touches {
		n := s.layout.number(t.Key)
		parts[n] = append(parts[n], session.Touch{Key: t.Key, At: shift(t.At, -ahead)})
	}
	var cmds []command
	for n, part := range parts {
		for len(part) > 0 {
			batch := part[:min(touchBatch, len(part))]
			part = part[len(batch):]
			cmds = append(cmds, touch(s.layout.in(n).used, batch))
		}
	}
	answers, err := s.ask(ctx, "touch", cmds)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if _, err := verdict("touch", a); err != nil {
			return err
		}
	}
	return nil
}

func touch(set string, batch []session.Touch) command {
	var args []string
	for _, t := range batch {
		args = append(args, score(t.At), string(t.Key[:]))
	}
	return touchScript.call([]string{set}, args...)
}

// Once claims a key until a time.
func (s *Store) Once(ctx context.Context, key session.Key, until time.Time) error {
	name, life := s.layout.of(key).once(key), s.opts.until(until)
	send := s.write
	cmd := func(b rueidis.Builder, _ bool) rueidis.Completed {
		return b.Arbitrary("SET").Keys(name).Args("1", "NX", "PX", millis(life)).Build()
	}
	if life <= 0 { // it has run out: there is nothing to keep, but somebody's claim may be in the way
		cmd = func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Exists().Key(name).Build() }
		send = s.ask
	}
	answers, err := send(ctx, "once", []command{cmd})
	if err != nil {
		return err
	}
	taken, err := answers[0].ToMessage()
	switch {
	case rueidis.IsRedisNil(err):
		return session.ErrExists
	case err != nil:
		return unknown("once", err)
	case life > 0:
		return nil
	}
	if n, err := taken.ToInt64(); err != nil {
		return unknown("once", err)
	} else if n > 0 {
		return session.ErrExists
	}
	return nil
}

// follows begins a range of a tag's set after a key.
func follows(key session.Key) string { return "(" + string(key[:]) }

// key reads a session's key.
func key(m rueidis.RedisMessage) (session.Key, error) {
	id, err := m.ToString()
	if err != nil || len(id) != len(session.Key{}) {
		return session.Key{}, errAnswer
	}
	return session.Key([]byte(id)), nil
}

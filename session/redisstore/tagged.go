package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// step is the most sessions that end in one script, so that others get their
// turn: the server does nothing else meanwhile.
const step = 100

// atOnce is how many partitions are asked at a time where it may be all of them.
const atOnce = 64

// announce enters a session's partition into the directories of its tags, where
// marks may refuse it.
func (s *Store) announce(ctx context.Context, key session.Key, rec session.Record, ttl string) error {
	var cmds []command
	for _, tag := range rec.Tags {
		d := s.layout.directory(tag)
		cmds = append(cmds, announceScript.call([]string{d.mark, d.places},
			nanos(rec.Began), strconv.Itoa(s.layout.number(key)), ttl))
	}
	if len(cmds) == 0 {
		return nil
	}
	answers, err := s.write(ctx, "create", cmds)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if _, err := verdict("create", a); err != nil {
			return err
		}
	}
	return nil
}

// places are the partitions in which there may be sessions that carry the tag, in
// their order.
func (s *Store) places(ctx context.Context, op string, tag session.Tag) ([]int, error) {
	if !s.layout.spread() {
		return []int{0}, nil
	}
	name := s.layout.directory(tag).places
	answers, err := s.read(ctx, op, []command{
		func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Smembers().Key(name).Build() },
	})
	if err != nil {
		return nil, err
	}
	members, err := answers[0].AsIntSlice()
	if err != nil {
		return nil, unknown(op, err)
	}
	return s.sorted(op, members)
}

func (s *Store) sorted(op string, members []int64) ([]int, error) {
	places := make([]int, len(members))
	for i, n := range members {
		if n < 0 || n >= int64(s.layout.partitions) {
			return nil, unknown(op, errAnswer)
		}
		places[i] = int(n)
	}
	slices.Sort(places)
	return places, nil
}

// Mark marks a tag: its directory first, so that no session can be announced any
// more that the marks of the partitions would miss.
func (s *Store) Mark(ctx context.Context, tag session.Tag, m session.Mark) error {
	life := s.opts.until(m.Until)
	if life <= 0 { // it counts for nothing
		if err := s.enter(ctx); err != nil {
			return err
		}
		s.mu.RUnlock()
		return nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	args := []string{nanos(m.BeganBefore), string(m.Reason), millis(life)}
	places := []int{0}
	if s.layout.spread() {
		var err error
		d := s.layout.directory(tag)
		if places, err = s.markDirectory(ctx, d, args); err != nil {
			return err
		}
	}
	cmds := make([]command, len(places))
	for i, n := range places {
		cmds[i] = markScript.call([]string{s.layout.in(n).mark(tag)}, args...)
	}
	if len(cmds) == 0 {
		return nil
	}
	answers, err := s.write(ctx, "mark", cmds)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if _, err := verdict("mark", a); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) markDirectory(ctx context.Context, d directory, args []string) ([]int, error) {
	answer, err := s.run(ctx, "mark", markScript.call([]string{d.mark, d.places}, args...))
	if err != nil {
		return nil, err
	}
	members := make([]int64, len(answer))
	for i, m := range answer {
		if members[i], err = m.AsInt64(); err != nil {
			return nil, unknown("mark", err)
		}
	}
	return s.sorted("mark", members)
}

// EndTagged ends the live sessions that carry the tag.
func (s *Store) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	places, err := s.places(ctx, "end tagged", tag)
	if err != nil {
		return nil, err
	}
	spared := map[int][]string{}
	for _, key := range sc.Except {
		n := s.layout.number(key)
		spared[n] = append(spared[n], string(key[:]))
	}
	began := ""
	if !sc.BeganBefore.IsZero() {
		began = nanos(sc.BeganBefore)
	}
	return s.walk(ctx, "end tagged", places, func(n int, from string) command {
		p := s.layout.in(n)
		if from == "" {
			from = "-"
		} else {
			from = "(" + from
		}
		args := append([]string{p.base, string(reason), from, strconv.Itoa(step), began}, spared[n]...)
		return endTaggedScript.call([]string{p.used, p.created, p.expires, p.tag(tag)}, args...)
	}, func(parts []rueidis.RedisMessage) ([]session.Ending, error) {
		return endings(parts, 2, func([]rueidis.RedisMessage) (session.Reason, error) { return reason, nil })
	})
}

// walk runs a script that ends sessions in each of some partitions, a few of them at
// once, until it says that there is nothing more, and tells of all that ended. A
// step is not left alone when ctx ends: its endings would be lost.
func (s *Store) walk(ctx context.Context, op string, places []int, next func(n int, from string) command,
	read func([]rueidis.RedisMessage) ([]session.Ending, error),
) ([]session.Ending, error) {
	var all []session.Ending
	var failed error
	from := make(map[int]string, len(places))
	for len(places) > 0 {
		if ctx.Err() != nil {
			return all, unknown(op, errors.Join(over(ctx), failed))
		}
		some := places[:min(atOnce, len(places))]
		var cmds []command
		for _, n := range some {
			cmds = append(cmds, next(n, from[n]))
		}
		answers, err := s.write(context.WithoutCancel(ctx), op, cmds)
		if err != nil {
			return all, err
		}
		var unfinished []int
		for i, n := range some {
			cursor, ended, err := stepped(op, answers[i], read)
			all = append(all, ended...)
			if err != nil {
				failed = err
			}
			if cursor != "" {
				from[n] = cursor
				unfinished = append(unfinished, n)
			}
		}
		places = append(unfinished, places[len(some):]...)
	}
	return all, failed
}

// stepped reads what a step of walk did: where to go on, and whom it ended.
func stepped(op string, r rueidis.RedisResult, read func([]rueidis.RedisMessage) ([]session.Ending, error)) (string, []session.Ending, error) {
	parts, err := verdict(op, r)
	if err != nil {
		return "", nil, err
	}
	if len(parts) < 2 {
		return "", nil, unknown(op, errAnswer)
	}
	cursor, err1 := parts[0].ToString()
	unread, err2 := parts[1].ToInt64()
	ended, err3 := read(parts[2:])
	if err := errors.Join(err1, err2, err3); err != nil {
		return "", ended, unknown(op, err)
	}
	if unread > 0 {
		return cursor, ended, unknown(op, fmt.Errorf("%d times %w", unread, errDamaged))
	}
	return cursor, ended, nil
}

// endings reads whom a script ended, each told of in some parts: id, binding, and
// what the reason is read from.
func endings(parts []rueidis.RedisMessage, each int, reason func([]rueidis.RedisMessage) (session.Reason, error)) ([]session.Ending, error) {
	var all []session.Ending
	for ; len(parts) >= each; parts = parts[each:] {
		id, err1 := key(parts[0])
		binding, err2 := parts[1].ToString()
		why, err3 := reason(parts)
		if err := errors.Join(err1, err2, err3); err != nil || len(binding) != 32 {
			return all, errAnswer
		}
		all = append(all, session.Ending{Key: id, Binding: [32]byte([]byte(binding)), Reason: why})
	}
	return all, nil
}

// Tagged lists live sessions that carry the tag.
func (s *Store) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	ahead, err := s.ahead(ctx, "tagged")
	if err != nil {
		return nil, err
	}
	places, err := s.places(ctx, "tagged", tag)
	if err != nil {
		return nil, err
	}
	first, _ := slices.BinarySearch(places, s.layout.number(after))
	places = places[first:]
	var all []session.Listed
	for len(places) > 0 && len(all) < limit {
		some, err := s.enough(ctx, tag, after, limit-len(all), places[:min(atOnce, len(places))])
		if err != nil {
			return nil, err
		}
		page, err := s.page(ctx, tag, after, limit-len(all), places[:some])
		if err != nil {
			return nil, err
		}
		for _, l := range page {
			l.Record = shifted(l.Record, ahead)
			all = append(all, l)
		}
		places = places[some:]
	}
	return all, nil
}

// enough is of how many of the partitions, at least one, a page is made. It spares
// all of them to send a page each.
func (s *Store) enough(ctx context.Context, tag session.Tag, after session.Key, limit int, places []int) (int, error) {
	if len(places) == 1 {
		return 1, nil
	}
	var cmds []command
	for _, n := range places {
		set := s.layout.in(n).tag(tag)
		cmds = append(cmds, func(b rueidis.Builder, _ bool) rueidis.Completed {
			return b.Zlexcount().Key(set).Min(follows(after)).Max("+").Build()
		})
	}
	answers, err := s.read(ctx, "tagged", cmds)
	if err != nil {
		return 0, err
	}
	for i, a := range answers {
		n, err := a.ToInt64()
		if err != nil {
			return 0, unknown("tagged", err)
		}
		if limit -= int(n); limit <= 0 {
			return i + 1, nil
		}
	}
	return len(places), nil
}

// page lists up to limit sessions of some partitions.
func (s *Store) page(ctx context.Context, tag session.Tag, after session.Key, limit int, places []int) ([]session.Listed, error) {
	cmds := make([]command, len(places))
	for i, n := range places {
		p := s.layout.in(n)
		cmds[i] = taggedScript.call([]string{p.used, p.created, p.expires, p.tag(tag)}, p.base, follows(after), strconv.Itoa(limit))
	}
	answers, err := s.read(ctx, "tagged", cmds)
	if err != nil {
		return nil, err
	}
	var all []session.Listed
	for _, a := range answers {
		parts, err := verdict("tagged", a)
		if err != nil {
			return nil, err
		}
		for ; len(parts) >= 3; parts = parts[3:] {
			l, err := s.listed(parts)
			if err != nil {
				return nil, err
			}
			all = append(all, l)
		}
	}
	return all[:min(limit, len(all))], nil
}

func (s *Store) listed(parts []rueidis.RedisMessage) (session.Listed, error) {
	id, err1 := key(parts[0])
	used, err2 := parts[1].AsFloat64()
	value, err3 := parts[2].ToString()
	if err := errors.Join(err1, err2, err3); err != nil {
		return session.Listed{}, unknown("tagged", err)
	}
	rec, err := s.decoded("tagged", value, used, 0)
	if err != nil {
		return session.Listed{}, err
	}
	rec.Data = nil
	return session.Listed{Key: id, Record: rec}, nil
}

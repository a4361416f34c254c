package redisstore

import (
	"context"
	"errors"
	"strconv"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

// Sweep ends what is over by the limits. What else runs out, Redis forgets by
// itself.
func (s *Store) Sweep(ctx context.Context, l session.Limits) ([]session.Ending, error) {
	ahead, err := s.ahead(ctx, "sweep")
	if err != nil {
		return nil, err
	}
	l.Now = l.Now.Add(-ahead)
	over := passes(l)
	var all []session.Ending
	var damage error
	for first := 0; first < s.layout.partitions; first += atOnce {
		var some []int
		for n := first; n < min(first+atOnce, s.layout.partitions); n++ {
			some = append(some, n)
		}
		ended, err := s.walk(ctx, "sweep", some, func(n int, _ string) command {
			p := s.layout.in(n)
			args := append([]string{p.base, strconv.Itoa(step)}, over...)
			return sweepScript.call([]string{p.used, p.created, p.expires}, args...)
		}, func(parts []rueidis.RedisMessage) ([]session.Ending, error) {
			return endings(parts, 3, func(parts []rueidis.RedisMessage) (session.Reason, error) {
				reason, err := parts[2].ToString()
				return session.Reason(reason), err
			})
		})
		all = append(all, ended...)
		if errors.Is(err, errDamaged) {
			damage = err
		} else if err != nil {
			return all, err
		}
	}
	return all, damage
}

// passes are the sets that limits concern, for sweepScript: Lifetime before
// IdleTimeout. An Idle or a Lifetime of 0 limits nothing: a forgotten setting must
// not end every session.
func passes(l session.Limits) []string {
	now := bound(l.Now)
	args := []string{"3", now, now, string(session.Lifetime)}
	if l.Lifetime > 0 {
		args = append(args, "2", bound(l.Now.Add(-l.Lifetime)), now, string(session.Lifetime))
	}
	if l.Idle > 0 {
		args = append(args, "1", bound(l.Now.Add(-l.Idle)), now, string(session.IdleTimeout))
	}
	return args
}

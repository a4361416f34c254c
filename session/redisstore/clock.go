package redisstore

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

const (
	// alike are clocks that differ by less: equal times stay equal where clocks are
	// kept, and nearly right where they are not.
	alike = time.Second
	// drift is by how much the difference has to change to be believed: it is
	// measured over a network.
	drift = 500 * time.Millisecond
	// apart are clocks that somebody should set.
	apart      = 5 * time.Second
	apartPause = time.Minute
)

// clock knows how far this process' clock is ahead of the server's.
type clock struct {
	log   *slog.Logger
	skew  atomic.Int64
	known atomic.Bool

	mu     sync.Mutex // guards warned
	warned time.Time
}

func (c *clock) ahead() time.Duration { return time.Duration(c.skew.Load()) }

// measure reads the answer to a TIME. Of the nodes of a Cluster one is believed,
// the same by all processes.
func (c *clock) measure(asked, answered time.Time, answer rueidis.RedisResult, believed bool) {
	if !believed {
		return
	}
	if skew, err := skew(asked, answered, answer); err == nil {
		c.set(skew, answered.Sub(asked))
	}
}

// set takes a measurement that took so long.
func (c *clock) set(measured, took time.Duration) {
	if took > drift && c.known.Load() {
		return
	}
	c.warn(measured)
	told := measured
	if measured.Abs() < alike {
		told = 0
	}
	if (measured - c.ahead()).Abs() >= drift {
		c.skew.Store(int64(told))
	}
	c.known.Store(true)
}

func (c *clock) warn(measured time.Duration) {
	if measured.Abs() <= apart {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.warned) < apartPause {
		return
	}
	c.warned = time.Now()
	c.log.Warn("the clock of this process and that of the store differ: set them", "event", "clock_skew", "ahead", measured)
}

// skew is by how much this clock is ahead, by the answer to a TIME.
func skew(asked, answered time.Time, answer rueidis.RedisResult) (time.Duration, error) {
	parts, err := answer.AsIntSlice()
	if err != nil {
		return 0, err
	}
	if len(parts) != 2 {
		return 0, errAnswer
	}
	middle := asked.Add(answered.Sub(asked) / 2)
	return middle.Sub(time.Unix(parts[0], parts[1]*1000)), nil
}

// ClockSkew tells by how much the clock of this process is ahead of the server's,
// give or take the time the question takes.
func (s *Store) ClockSkew(ctx context.Context) (time.Duration, error) {
	return s.clockSkew(ctx, "time")
}

func (s *Store) clockSkew(ctx context.Context, op string) (time.Duration, error) {
	asked := s.opts.now()
	answers, err := s.ask(ctx, op, []command{
		func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Time().Build() },
	})
	if err != nil {
		return 0, err
	}
	by, err := skew(asked, s.opts.now(), answers[0])
	if err != nil {
		return 0, unknown(op, err)
	}
	return by, nil
}

// ahead is Ahead once that is known: a record that is written before would have
// times of another clock.
func (s *Store) ahead(ctx context.Context, op string) (time.Duration, error) {
	c := &s.following.clock
	if !c.known.Load() {
		asked := time.Now()
		measured, err := s.clockSkew(ctx, op)
		if err != nil {
			return 0, err
		}
		c.set(measured, time.Since(asked))
	}
	return c.ahead(), nil
}

// shift moves a time, unless it is none.
func shift(t time.Time, by time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(by)
}

// shifted is a record as told by a clock that is ahead by so much.
func shifted(rec session.Record, by time.Duration) session.Record {
	rec.Began, rec.Created = shift(rec.Began, by), shift(rec.Created, by)
	rec.Expires, rec.Used = shift(rec.Expires, by), shift(rec.Used, by)
	return rec
}

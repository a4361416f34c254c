package redisstore

import (
	"context"
	"crypto/rand"
	mrand "math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"sessiongate/session"
)

const (
	// apartBy keeps those apart who wait for the same lease to run out.
	apartBy = 20 * time.Millisecond
	// unheard is the pause of one who cannot be told when a lease is released.
	unheard = 250 * time.Millisecond
)

// Acquire waits for the lease on a key and takes it.
func (s *Store) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	lease := session.Lease{Key: key, Token: rand.Text()}
	for {
		lease.Until = time.Now().Add(ttl)
		held, err := s.take(ctx, lease, ttl)
		if err != nil {
			return session.Lease{}, err
		}
		if held == 0 {
			return lease, nil
		}
		if err := s.sit(ctx, key, held); err != nil {
			return session.Lease{}, err
		}
	}
}

// sit waits until a lease that is held may be free, as it changed or ran out. An
// error tells that there is no use in waiting any more.
func (s *Store) sit(ctx context.Context, key session.Key, held time.Duration) error {
	woken, leave := s.following.waiters.enter(s.layout.of(key).lease(key))
	defer leave()
	left, err := s.leaseLeft(ctx, key)
	if err != nil || !s.following.hears(key) {
		left = min(held, unheard)
	} else if left == 0 {
		return nil
	}
	t := time.NewTimer(left + mrand.N(apartBy))
	defer t.Stop()
	select {
	case <-woken:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return unknown("acquire", over(ctx))
	case <-s.closing:
		return errClosed
	}
}

// leaseLeft is how long a lease may be held, 0 if it is not. From now on its change
// is told.
func (s *Store) leaseLeft(ctx context.Context, key session.Key) (time.Duration, error) {
	name := s.layout.of(key).lease(key)
	answers, err := s.readTracked(ctx, "acquire", s.layout.number(key), name,
		func(b rueidis.Builder, _ bool) rueidis.Completed { return b.Pttl().Key(name).Build() })
	if err != nil {
		return 0, err
	}
	if _, err := answers[1].ToString(); rueidis.IsRedisNil(err) {
		return 0, nil
	} else if err != nil {
		return 0, unknown("acquire", err)
	}
	left, err := answers[0].ToInt64()
	if err != nil {
		return 0, unknown("acquire", err)
	}
	return time.Duration(max(left, 1)) * time.Millisecond, nil
}

// attempt is what became of one: how long the lease may be held by somebody else,
// 0 if it is taken.
type attempt struct {
	held time.Duration
	err  error
}

// take takes the lease if it is free. If not, it returns how long it may be held.
// A lease that is taken when nobody waits any more is given back, and so is one
// whose answer was lost: others would have to wait until it runs out.
func (s *Store) take(ctx context.Context, l session.Lease, ttl time.Duration) (time.Duration, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	outcome := make(chan attempt)
	go func() {
		defer s.mu.RUnlock()
		a := s.attempt(context.WithoutCancel(ctx), l, ttl)
		useless := true
		select {
		case outcome <- a:
			useless = a.err != nil
		case <-ctx.Done():
		}
		if useless && a.held == 0 {
			s.giveBack(context.WithoutCancel(ctx), l)
		}
	}()
	select {
	case a := <-outcome:
		return a.held, a.err
	case <-ctx.Done():
		return 0, unknown("acquire", over(ctx))
	}
}

// giveBack is Release for a call that was admitted.
func (s *Store) giveBack(ctx context.Context, l session.Lease) {
	for range 2 {
		answers, err := s.exchange(ctx, "release", s.plain([]command{s.release(l)}))
		if err != nil || !broken(answers) || !pause(ctx, repeat) {
			return
		}
	}
}

func (s *Store) attempt(ctx context.Context, l session.Lease, ttl time.Duration) attempt {
	cmd := acquireScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token, millis(ttl))
	answers, err := s.exchange(ctx, "acquire", s.plain([]command{cmd}))
	if err != nil {
		return attempt{err: err}
	}
	parts, err := verdict("acquire", answers[0])
	if err != nil {
		return attempt{err: err}
	}
	if len(parts) != 1 {
		return attempt{err: unknown("acquire", errAnswer)}
	}
	held, err := parts[0].ToInt64()
	if err != nil {
		return attempt{err: unknown("acquire", err)}
	}
	return attempt{held: time.Duration(held) * time.Millisecond}
}

// Renew makes a held lease last ttl from now.
func (s *Store) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	// Nobody waits for replicas: a failover may end a lease.
	answers, err := s.ask(ctx, "renew", []command{
		renewScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token, millis(ttl)),
	})
	if err != nil {
		return err
	}
	_, err = verdict("renew", answers[0])
	return err
}

// Release gives a lease back, even if ctx is over: the others need it. So it is
// sent once more where the connection broke; nobody else's has its token.
func (s *Store) Release(ctx context.Context, l session.Lease) error {
	answers, err := s.read(context.WithoutCancel(ctx), "release", []command{s.release(l)})
	if err != nil {
		return err
	}
	_, err = verdict("release", answers[0])
	return err
}

func (s *Store) release(l session.Lease) command {
	return releaseScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token)
}

package redisstore

import (
	"context"
	"crypto/rand"
	mrand "math/rand/v2"
	"time"

	"sessiongate/session"
)

// The pauses of one that waits for a lease: twice as long each time, so that a
// provider that is slow is no storm on the store.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Acquire waits for the lease on a key and takes it. An attempt whose answer was
// lost may have taken it: it is waited for like anybody's.
func (s *Store) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	lease := session.Lease{Key: key, Token: rand.Text()}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		held, err := s.take(ctx, lease, ttl)
		if err != nil {
			return session.Lease{}, err
		}
		if held == 0 {
			return lease, nil
		}
		if err := s.sit(ctx, min(held, jitter(wait))); err != nil {
			return session.Lease{}, err
		}
	}
}

// take takes the lease if it is free. If not, it returns how long it may be held.
func (s *Store) take(ctx context.Context, l session.Lease, ttl time.Duration) (time.Duration, error) {
	answer, err := s.run(ctx, "acquire", acquireScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token, millis(ttl)))
	if err != nil {
		return 0, err
	}
	if len(answer) != 1 {
		return 0, unknown("acquire", errAnswer)
	}
	held, err := answer[0].ToInt64()
	if err != nil {
		return 0, unknown("acquire", err)
	}
	return time.Duration(held) * time.Millisecond, nil
}

// sit waits, and returns an error if there is no use in that any more.
func (s *Store) sit(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return unknown("acquire", ctx.Err())
	case <-s.closing:
		return errClosed
	}
}

// jitter keeps those apart who began to wait together.
func jitter(d time.Duration) time.Duration { return d/2 + mrand.N(d) }

// Renew makes a held lease last ttl from now.
func (s *Store) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	_, err := s.run(ctx, "renew", renewScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token, millis(ttl)))
	return err
}

// Release gives a lease back, even if ctx is over: the others need it.
func (s *Store) Release(ctx context.Context, l session.Lease) error {
	_, err := s.run(context.WithoutCancel(ctx), "release", releaseScript.call([]string{s.layout.of(l.Key).lease(l.Key)}, l.Token))
	return err
}

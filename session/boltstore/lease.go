package boltstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"sessiongate/session"
)

// leases live in memory on purpose. The file's lock makes this process the only
// one that could hold any, and a crash has to free them: what it wrote down
// would be in the way of the next start.
type leases struct {
	mu   sync.Mutex // guards held and what it holds
	held map[session.Key]*held
}

// held is a lease that somebody has.
type held struct {
	token string
	until time.Time
	timer *time.Timer
	freed chan struct{} // closed when it ends
}

// Acquire waits for the lease on a key and takes it.
func (s *Store) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	if err := s.enter(ctx); err != nil {
		return session.Lease{}, err
	}
	defer s.mu.RUnlock()
	for {
		lease, freed := s.leases.take(key, ttl)
		if freed == nil {
			return lease, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return session.Lease{}, fmt.Errorf("boltstore: waiting for a lease: %w", ctx.Err())
		case <-s.closing:
			return session.Lease{}, errClosed
		}
	}
}

// Renew makes a held lease last ttl from now.
func (s *Store) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	if !s.leases.renew(l, ttl) {
		return session.ErrLeaseLost
	}
	return nil
}

// Release gives a lease back, even if ctx is over: the others need it.
func (s *Store) Release(ctx context.Context, l session.Lease) error {
	if err := s.enter(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	s.leases.release(l)
	return nil
}

// take takes the lease if it is free. If not, it returns what to wait for.
func (ls *leases) take(key session.Key, ttl time.Duration) (session.Lease, <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if h := ls.held[key]; h != nil {
		return session.Lease{}, h.freed
	}
	h := &held{token: rand.Text(), until: time.Now().Add(ttl), freed: make(chan struct{})}
	h.timer = time.AfterFunc(ttl, func() { ls.expire(key, h) })
	ls.held[key] = h
	return session.Lease{Key: key, Token: h.token, Until: h.until}, nil
}

func (ls *leases) renew(l session.Lease, ttl time.Duration) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	h := ls.held[l.Key]
	if h == nil || h.token != l.Token || !time.Now().Before(h.until) {
		return false
	}
	h.until = time.Now().Add(ttl)
	h.timer.Reset(ttl)
	return true
}

func (ls *leases) release(l session.Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if h := ls.held[l.Key]; h != nil && h.token == l.Token {
		h.timer.Stop()
		ls.free(l.Key, h)
	}
}

// expire runs when a lease's timer fires. It may have been renewed or released
// while the timer waited for the lock.
func (ls *leases) expire(key session.Key, h *held) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.held[key] == h && !time.Now().Before(h.until) {
		ls.free(key, h)
	}
}

func (ls *leases) free(key session.Key, h *held) {
	delete(ls.held, key)
	close(h.freed)
}

package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
	"sessiongate/session/storetest"
)

// memory is a store for tests that take many thousand steps: it writes to no disk,
// and several managers can share it, as replicas do.
type memory struct {
	mu         sync.Mutex // guards what follows
	live       map[session.Key]session.Record
	tombstones map[session.Key]tombstone
	marks      map[session.Tag]session.Mark
	claims     map[session.Key]time.Time
	leases     map[session.Key]*memoryLease
	closed     bool
	closing    chan struct{}
}

type tombstone struct {
	reason  session.Reason
	expires time.Time
}

type memoryLease struct {
	token string
	until time.Time
	timer *time.Timer
	freed chan struct{}
}

func newMemory() *memory {
	return &memory{
		live: map[session.Key]session.Record{}, tombstones: map[session.Key]tombstone{}, marks: map[session.Tag]session.Mark{},
		claims: map[session.Key]time.Time{}, leases: map[session.Key]*memoryLease{}, closing: make(chan struct{}),
	}
}

var errClosed = errors.New("memory: closed")

// enter takes the lock; without an error its caller has to unlock.
func (m *memory) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return errClosed
	}
	return nil
}

func clone(rec session.Record) session.Record {
	rec.Tags, rec.Listing, rec.Data = slices.Clone(rec.Tags), bytes.Clone(rec.Listing), bytes.Clone(rec.Data)
	return rec
}

func (m *memory) lookup(key session.Key) (session.Record, error) {
	if rec, ok := m.live[key]; ok {
		return rec, nil
	}
	if end, ok := m.tombstones[key]; ok {
		return session.Record{}, &session.Ended{Reason: end.reason}
	}
	return session.Record{}, session.ErrAbsent
}

func (m *memory) end(key session.Key, reason session.Reason) session.Ending {
	rec := m.live[key]
	delete(m.live, key)
	m.tombstones[key] = tombstone{reason, rec.Expires}
	return session.Ending{Key: key, Binding: rec.Binding, Reason: reason}
}

func (m *memory) Create(ctx context.Context, key session.Key, rec session.Record) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	var end *session.Ended
	if _, err := m.lookup(key); err == nil || errors.As(err, &end) {
		return session.ErrExists
	}
	for _, tag := range rec.Tags {
		mark, ok := m.marks[tag]
		if ok && rec.Began.Before(mark.BeganBefore) && time.Now().Before(mark.Until) {
			return &session.Ended{Reason: mark.Reason}
		}
	}
	rec = clone(rec)
	rec.Version = 1
	m.live[key] = rec
	return nil
}

func (m *memory) Load(ctx context.Context, key session.Key) (session.Record, error) {
	if err := m.enter(ctx); err != nil {
		return session.Record{}, err
	}
	defer m.mu.Unlock()
	rec, err := m.lookup(key)
	return clone(rec), err
}

func (m *memory) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	rec, err := m.lookup(key)
	if err != nil {
		return err
	}
	if rec.Version != version {
		return session.ErrConflict
	}
	rec.Version++
	rec.Data = bytes.Clone(data)
	m.live[key] = rec
	return nil
}

func (m *memory) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	if err := m.enter(ctx); err != nil {
		return session.Record{}, err
	}
	defer m.mu.Unlock()
	rec, err := m.lookup(key)
	switch {
	case err != nil:
		return session.Record{}, err
	case c.Version != 0 && c.Version != rec.Version, !c.UnusedSince.IsZero() && rec.Used.After(c.UnusedSince):
		return session.Record{}, session.ErrConflict
	}
	m.end(key, reason)
	return rec, nil
}

func (m *memory) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []session.Ending
	for key, rec := range m.live {
		spared := slices.Contains(sc.Except, key) || !sc.BeganBefore.IsZero() && !rec.Began.Before(sc.BeganBefore)
		if slices.Contains(rec.Tags, tag) && !spared {
			all = append(all, m.end(key, reason))
		}
	}
	return all, nil
}

func (m *memory) Mark(ctx context.Context, tag session.Tag, mark session.Mark) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if former, ok := m.marks[tag]; ok && time.Now().Before(former.Until) {
		if former.BeganBefore.After(mark.BeganBefore) {
			mark.BeganBefore, mark.Reason = former.BeganBefore, former.Reason
		}
		if former.Until.After(mark.Until) {
			mark.Until = former.Until
		}
	}
	m.marks[tag] = mark
	return nil
}

func (m *memory) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []session.Listed
	for key, rec := range m.live {
		if slices.Contains(rec.Tags, tag) && bytes.Compare(key[:], after[:]) > 0 {
			rec.Data = nil
			all = append(all, session.Listed{Key: key, Record: clone(rec)})
		}
	}
	slices.SortFunc(all, func(p, q session.Listed) int { return bytes.Compare(p.Key[:], q.Key[:]) })
	return all[:min(limit, len(all))], nil
}

func (m *memory) Touch(ctx context.Context, touches []session.Touch) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, touch := range touches {
		if rec, ok := m.live[touch.Key]; ok && touch.At.After(rec.Used) {
			rec.Used = touch.At
			m.live[touch.Key] = rec
		}
	}
	return nil
}

func (m *memory) Once(ctx context.Context, key session.Key, until time.Time) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.claims[key].After(time.Now()) {
		return session.ErrExists
	}
	m.claims[key] = until
	return nil
}

func (m *memory) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	for {
		if err := m.enter(ctx); err != nil {
			return session.Lease{}, err
		}
		held := m.leases[key]
		if held == nil {
			defer m.mu.Unlock()
			l := &memoryLease{token: rand.Text(), until: time.Now().Add(ttl), freed: make(chan struct{})}
			l.timer = time.AfterFunc(ttl, func() { m.expire(key, l) })
			m.leases[key] = l
			return session.Lease{Key: key, Token: l.token, Until: l.until}, nil
		}
		m.mu.Unlock()
		select {
		case <-held.freed:
		case <-m.closing:
			return session.Lease{}, errClosed
		case <-ctx.Done():
			return session.Lease{}, fmt.Errorf("memory: %w", ctx.Err())
		}
	}
}

func (m *memory) expire(key session.Key, l *memoryLease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[key] == l && !time.Now().Before(l.until) {
		delete(m.leases, key)
		close(l.freed)
	}
}

func (m *memory) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	held := m.leases[l.Key]
	if held == nil || held.token != l.Token || !time.Now().Before(held.until) {
		return session.ErrLeaseLost
	}
	held.until = time.Now().Add(ttl)
	held.timer.Reset(ttl)
	return nil
}

func (m *memory) Release(ctx context.Context, l session.Lease) error {
	if err := m.enter(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if held := m.leases[l.Key]; held != nil && held.token == l.Token {
		held.timer.Stop()
		delete(m.leases, l.Key)
		close(held.freed)
	}
	return nil
}

func (m *memory) Sweep(ctx context.Context, l session.Limits) ([]session.Ending, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []session.Ending
	for key, rec := range m.live {
		switch {
		case !l.Now.Before(rec.Expires), l.Lifetime > 0 && !l.Now.Before(rec.Created.Add(l.Lifetime)):
			all = append(all, m.end(key, session.Lifetime))
		case l.Idle > 0 && !l.Now.Before(rec.Used.Add(l.Idle)):
			all = append(all, m.end(key, session.IdleTimeout))
		}
	}
	for key, end := range m.tombstones {
		if !l.Now.Before(end.expires.Add(session.TombstoneGrace)) {
			delete(m.tombstones, key)
		}
	}
	for key, until := range m.claims {
		if !l.Now.Before(until) {
			delete(m.claims, key)
		}
	}
	for tag, mark := range m.marks {
		if !l.Now.Before(mark.Until) {
			delete(m.marks, tag)
		}
	}
	return all, nil
}

func (m *memory) Count(ctx context.Context) (int, error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	return len(m.live), nil
}

func (m *memory) Ping(ctx context.Context) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	return nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.closing)
	}
	return nil
}

// A test that stands on this store is worth as much as the store is.
func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) session.Store { return newMemory() })
}

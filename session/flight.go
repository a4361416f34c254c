package session

import (
	"context"
	"errors"
	"time"
)

var errClosing = errors.New("shutting down")

// flight is one refresh under way. Its waiters are answered once: when it is
// done, or earlier when the store does not answer and it goes on trying alone.
type flight struct {
	answered chan struct{} // closed when o and err are set
	o        *opened
	err      error
}

func (f *flight) answer(o *opened, err error) {
	select {
	case <-f.answered: // an early answer was given
	default:
		f.o, f.err = o, err
		close(f.answered)
	}
}

// refreshing tells whether a refresh of the session is under way.
func (m *Manager) refreshing(key Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flights[key] != nil
}

// refreshAhead starts a refresh that nobody waits for, unless one is under way or
// was tried and failed just now.
func (m *Manager) refreshAhead(s *Session, o *opened, now time.Time) {
	if o.RefreshToken == "" || s.retry.paused(now) != nil || m.refreshing(s.key) {
		return
	}
	m.join(s, o.Generation)
}

// refreshed waits for a token of a generation beyond the given one.
func (m *Manager) refreshed(ctx context.Context, s *Session, beyond uint64) (*AccessToken, error) {
	if err := s.retry.paused(time.Now()); err != nil && !m.refreshing(s.key) {
		return nil, err
	}
	f := m.join(s, beyond)
	select {
	case <-f.answered:
	case <-ctx.Done():
		return nil, ctx.Err() // the refresh goes on (RF-07)
	}
	if f.err != nil {
		return nil, f.err
	}
	return f.o.access, nil
}

// join returns the refresh of the session that is under way, or starts one. It
// runs apart from any request: a browser that hangs up must not cost the session
// the answer of the provider.
func (m *Manager) join(s *Session, beyond uint64) *flight {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.flights[s.key]; f != nil {
		return f
	}
	f := &flight{answered: make(chan struct{})}
	if m.closing {
		f.answer(nil, &Unavailable{time.Second, errClosing})
		return f
	}
	m.flights[s.key] = f
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		r := &refresh{m: m, a: s.app, s: s, f: f, beyond: beyond}
		fill := m.cache.open(s.key)
		o, err := r.run(m.ctx)
		// First out of the map, then known: whoever finds a token of this flight to
		// be no good cannot join the flight that brought it.
		m.mu.Lock()
		delete(m.flights, s.key)
		m.mu.Unlock()
		o, err = r.publish(m.ctx, fill, o, err)
		var down *StoreError
		if errors.As(err, &down) {
			s.retry.failed(time.Now(), err, 0)
		}
		f.answer(o, err)
	}()
	return f
}

package session

import (
	"errors"
	"time"
)

// checkWatched does what the clock asks for at a watched session: it records use
// by those who keep it alive, tells that an end is near, and ends it.
func (m *Manager) checkWatched(key Key, e *watched) {
	if !m.begin() {
		return
	}
	defer m.work.Done()
	m.watches.mu.Lock()
	e.due = time.Time{}
	s, keeping, doubts, doubtful, current := e.s, e.keeping > 0, e.doubts, e.doubts > e.settled, m.watches.of[key] == e
	m.watches.mu.Unlock()
	if !current {
		return
	}
	if keeping {
		s.Use()
	}
	set := m.settings.Load()
	near := s.ends(set, m.touches.pending(key))
	if wait := time.Until(near.told()) - expiringAhead; wait > 0 && !doubtful {
		if keeping {
			wait = min(wait, set.idle/useFraction)
		}
		m.watches.recheck(key, wait)
		return
	}
	// Near its end the store has the word: it may have seen other use, or an end. So
	// it has where an end got no answer.
	rec, err := m.store.Load(m.ctx, key)
	switch {
	case errors.Is(err, ErrAbsent):
		m.gone(s, err)
		return
	case err != nil && !time.Now().Before(near.absolute):
		m.drop(s, &Ended{Lifetime}) // the clock needs no store
		return
	case err != nil:
		m.watches.recheck(key, recheckPause)
		return
	}
	m.watches.believe(e, doubts)
	m.readWatched(s, rec)
	near = s.ends(set, max(rec.Used.UnixNano(), m.touches.pending(key)))
	if reason := near.over(time.Now()); reason != "" {
		m.endWatched(s, reason)
		return
	}
	m.watches.expiring(key, near.told())
	wait := time.Until(near.enforced())
	for _, end := range []time.Time{near.told(), near.absolute} { // use may take the first away
		if outside := time.Until(end) - expiringAhead; outside > 0 {
			wait = min(wait, outside)
		}
	}
	if keeping {
		wait = min(wait, set.idle/useFraction)
	}
	m.watches.recheck(key, wait)
}

// readWatched has the watchers of a session know the tokens that another process
// has brought.
func (m *Manager) readWatched(s *Session, rec Record) {
	if rec.Version <= s.tokens.Load().version {
		return
	}
	d, err := s.app.unseal(s.key, s.id, rec.Data)
	if err != nil || d.Unverified != "" {
		return // a request is told what is wrong with it, or it changes once more
	}
	m.watches.refreshed(s.key, s.app.open(d, rec.Version, s.ends(m.settings.Load(), 0).absolute))
}

// endWatched ends a session whose time is over by the store's own knowledge.
func (m *Manager) endWatched(s *Session, reason Reason) {
	_, err := s.app.expire(m.ctx, s, reason)
	var end *Ended
	switch {
	case errors.As(err, &end):
		m.drop(s, end) // also where the store could not be told
	default:
		m.watches.recheck(s.key, recheckPause)
	}
}

// gone drops a session of which a store says that it is not there any more.
func (m *Manager) gone(s *Session, err error) *Ended {
	var end *Ended
	if !errors.As(err, &end) {
		end = &Ended{Lifetime} // its tombstone is forgotten, too
	}
	m.drop(s, end)
	return end
}

// expiring tells those who do not know yet that an end is near.
func (ws *watches) expiring(key Key, end time.Time) {
	in := time.Until(end)
	if in > expiringAhead {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[key]
	if e == nil {
		return
	}
	for _, w := range e.watchers {
		if w.Expiring == nil || w.warned.Equal(end) {
			continue
		}
		w.warned = end
		w.Expiring(max(0, in))
	}
}

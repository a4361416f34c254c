package session

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Shared is a Store that other processes write to as well. What was read of it
// may be kept in memory for as long as the store tells of their writes.
type Shared interface {
	Store

	// Follow has the store tell f of changes. It is called once, before anything is
	// read, and does not wait for the server.
	Follow(f Follower)

	// Trusted tells whether the store would have told, at a time, of a change of a
	// session that was loaded here. It is on the path of every request: it looks at
	// memory only, and waits for nobody.
	Trusted(key Key, now time.Time) bool

	// Ahead is by how much the clock of this process is ahead of the store's. The
	// store translates the times of records, touches and limits by it; the times that
	// are sealed in Data are the caller's to translate.
	Ahead() time.Duration
}

// Follower is told what others did to sessions. Its methods may be called by any
// goroutine, and return at once without calling the store.
type Follower interface {
	// Changed: the session's record was written, or it ended. Whatever was loaded
	// before is old. It may be called for no reason, and for one's own writes.
	Changed(key Key)
	// Doubt: changes may have been missed, of any session.
	Doubt()
}

// streamPatience is how much longer than answers streams outlive the store's
// silence. Ending them all at each failover would do more harm than the little
// while for which a stream may go on whose session ended elsewhere.
const streamPatience = 30 * time.Second

// follower keeps what a manager has in memory true.
type follower struct{ m *Manager }

func (f follower) Changed(key Key) {
	s := f.m.cache.drop(key, nil)
	if watched := f.m.watches.changed(key); s == nil {
		s = watched // evicted, or put out of the cache by a reload
	}
	if s == nil || f.m.refreshing(key) {
		return // nothing to revoke, or our own writing
	}
	select {
	case f.m.elsewhere <- s:
	default: // so many at once that the store has more to do
	}
}

func (f follower) Doubt() {
	f.m.cache.flush()
	f.m.watches.doubtAll()
}

// maxElsewhere bounds the sessions that wait to be looked at.
const maxElsewhere = 4096

// lookElsewhere gives back the tokens of sessions that others ended without their
// cookie: whoever has one open in memory is the only one who can.
func (m *Manager) lookElsewhere() {
	defer m.work.Done()
	for {
		select {
		case <-m.stop:
			return
		case s := <-m.elsewhere:
			_, err := m.store.Load(m.ctx, s.key)
			var end *Ended
			if errors.As(err, &end) && end.Reason.withoutCookie() {
				m.revokeEnded(s, end.Reason)
			}
		}
	}
}

// withoutCookie tells whether a session may have ended so without its cookie at
// hand. To revoke a token twice does no harm (RFC 7009, section 2.2).
func (r Reason) withoutCookie() bool {
	switch r {
	case Logout, RefreshRejected, TokenExpired:
		return false
	}
	return true
}

// trusts tells whether a session in memory is as it is in the store.
func (m *Manager) trusts(key Key, now time.Time) bool {
	return m.shared == nil || m.shared.Trusted(key, now)
}

// ahead is how far the clock is ahead of the one that sealed times are told by.
func (m *Manager) ahead() time.Duration {
	if m.shared == nil {
		return 0
	}
	return m.shared.Ahead()
}

// changed has the store asked about a watched session at once, and returns the
// session, if it is watched.
func (ws *watches) changed(key Key) *Session {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[key]
	if e == nil {
		return nil
	}
	e.doubts++
	e.wake(0)
	return e.s
}

// doubtAll has the store asked about every watched session soon, but not about
// all at once.
func (ws *watches) doubtAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, e := range ws.of {
		e.doubts++
		e.wake(rand.N(recheckPause))
	}
}

// unproven ends the streams of sessions of which the store has not told anything
// for too long. A listener hears of nothing but the session, and waits.
func (m *Manager) unproven(now time.Time) {
	if m.shared == nil {
		return
	}
	m.watches.mu.Lock()
	defer m.watches.mu.Unlock()
	for key, e := range m.watches.of {
		if m.shared.Trusted(key, now.Add(-streamPatience)) {
			continue
		}
		for _, w := range e.watchers {
			if !w.Listener && !w.over.Load() {
				w.tell(Unproven)
			}
		}
	}
}

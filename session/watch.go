package session

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// expiringAhead is how long before a session's end its listeners are told.
	expiringAhead = time.Minute
	// maxListeners bounds the listeners of one session: a browser needs one.
	maxListeners = 16
	// recheckPause is when to ask a store again that did not answer.
	recheckPause = time.Second
)

// ErrTooManyListeners: the session has as many listeners as one browser could
// have a use for.
var ErrTooManyListeners error = &coded{"too_many_requests", "too many listeners of one session"}

// ErrTooManyStreams: the session has as many streams open as one may have.
var ErrTooManyStreams error = &coded{"too_many_requests", "too many streams of one session"}

// Watcher is told what becomes of a session by whoever has it open for long: a
// stream, an event source.
type Watcher struct {
	// Ended is called once, when the session is over for whatever reason, in a
	// goroutine of its own; with Unproven, if nobody has known for long whether it is.
	Ended func(Reason)
	// Refreshed and Expiring may be nil. They must not block, nor call stop.
	// Expiring tells, once for each end that comes near, how far off it is.
	Refreshed func()
	Expiring  func(in time.Duration)
	// KeepsAlive: the session counts as in use while it is watched.
	KeepsAlive bool
	// Listener: it counts as one of the session's listeners, which are bounded.
	Listener bool
	// Streams bounds the session's watchers that have such a bound, this one
	// included; 0: this one does not count.
	Streams int
}

// watches are the sessions that somebody watches, by key: what is open in memory
// for requests may be evicted, or replaced at a reload, while a stream goes on.
type watches struct {
	mu sync.Mutex // guards of, and what is in it
	of map[Key]*watched
}

// watched is one session, with all who watch it.
type watched struct {
	s         *Session
	watchers  []*watcher
	keeping   int // watchers that keep it alive
	listeners int
	streams   int // those that have a bound
	doubts    int // ends of it of which nobody knew whether they took place
	settled   int // how many of them the store was asked about
	// generation is that of the tokens that the watchers know of.
	generation uint64
	// timer fires when the clock may have something to tell: at due, zero once it
	// has fired.
	timer *time.Timer
	due   time.Time
}

type watcher struct {
	Watcher
	over   atomic.Bool // it was told the end, or does not want to know any more
	warned time.Time   // the end that it was told is near
}

// Watch watches the session until stop is called, or it ends. After stop returned
// no call begins.
//
// *Ended, ErrNone: it is over already. *StoreError: nobody knows.
// ErrTooManyListeners, ErrTooManyStreams.
func (s *Session) Watch(ctx context.Context, w Watcher) (stop func(), err error) {
	m := s.app.m
	own := &watcher{Watcher: w}
	if err := m.watches.add(m, s, own); err != nil {
		return nil, err
	}
	// Whoever ends a session takes it out of the cache and then tells its watchers.
	// One that is still there has not ended without telling this one; any other may
	// have ended before there was a watcher to tell.
	if !m.cache.holds(s) {
		if _, err := m.store.Load(ctx, s.key); err != nil {
			m.watches.remove(s.key, own)
			return nil, m.absent(s.key, err)
		}
	}
	if end := s.end.Load(); end != nil {
		m.watches.remove(s.key, own)
		return nil, end
	}
	m.watches.recheck(s.key, 0)
	return func() { m.watches.remove(s.key, own) }, nil
}

// Streams is how many watchers with a bound the session has.
func (s *Session) Streams() int {
	ws := &s.app.m.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if e := ws.of[s.key]; e != nil {
		return e.streams
	}
	return 0
}

func (ws *watches) add(m *Manager, s *Session, w *watcher) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[s.key]
	if e == nil {
		e = &watched{s: s, generation: s.tokens.Load().Generation}
		e.timer = time.AfterFunc(time.Hour, func() { m.checkWatched(s.key, e) })
		ws.of[s.key] = e
	}
	switch {
	case w.Listener && e.listeners == maxListeners:
		return ErrTooManyListeners
	case w.Streams > 0 && e.streams >= w.Streams:
		return ErrTooManyStreams
	}
	if w.Listener {
		e.listeners++
	}
	if w.Streams > 0 {
		e.streams++
	}
	if w.KeepsAlive {
		e.keeping++
	}
	// What requests have open is of the configuration in force. The one that was
	// opened first may have former tokens.
	if s.adopt(e.s.tokens.Load()); !m.cache.holds(e.s) {
		e.s = s
	}
	e.watchers = append(e.watchers, w)
	return nil
}

// opened has a session watched by what requests have open now.
func (ws *watches) opened(s *Session) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if e := ws.of[s.key]; e != nil {
		s.adopt(e.s.tokens.Load())
		e.s = s
	}
}

func (ws *watches) remove(key Key, w *watcher) {
	w.over.Store(true)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[key]
	if e == nil {
		return
	}
	i := slices.Index(e.watchers, w)
	if i < 0 {
		return // of an end that was told
	}
	e.watchers = slices.Delete(e.watchers, i, i+1)
	if w.Listener {
		e.listeners--
	}
	if w.Streams > 0 {
		e.streams--
	}
	if w.KeepsAlive {
		e.keeping--
	}
	if len(e.watchers) == 0 {
		e.timer.Stop()
		delete(ws.of, key)
	}
}

// ended tells the watchers of a session that it is over, and returns the session,
// if there are any.
func (ws *watches) ended(key Key, reason Reason) *Session {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[key]
	if e == nil {
		return nil
	}
	e.timer.Stop()
	delete(ws.of, key)
	for _, w := range e.watchers {
		w.tell(reason)
	}
	return e.s
}

// tell tells the end, unless it was told or nobody wants to know any more.
func (w *watcher) tell(reason Reason) {
	go func() {
		if w.over.CompareAndSwap(false, true) {
			w.Ended(reason)
		}
	}()
}

// refreshed tells the watchers of a session that it has new tokens. They hear of
// them once, whether a refresh here brought them or the store did.
func (ws *watches) refreshed(key Key, o *opened) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e := ws.of[key]
	if e == nil {
		return
	}
	e.s.adopt(o)
	if o.Generation <= e.generation {
		return
	}
	e.generation = o.Generation
	for _, w := range e.watchers {
		if w.Refreshed != nil {
			w.Refreshed()
		}
	}
}

// recheck has a watched session looked at after a while.
func (ws *watches) recheck(key Key, after time.Duration) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if e := ws.of[key]; e != nil {
		e.wake(after)
	}
}

// wake sets the timer, unless it fires sooner: whoever asks knows of a reason to
// look, and not that others have none.
func (e *watched) wake(after time.Duration) {
	due := time.Now().Add(after)
	if !e.due.IsZero() && !due.Before(e.due) {
		return
	}
	e.due = due
	e.timer.Reset(after)
}

// doubt has the store asked about a watched session until it answers.
func (ws *watches) doubt(key Key) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if e := ws.of[key]; e != nil {
		e.doubts++
		e.wake(recheckPause)
	}
}

// believe settles doubts that were there before the store was asked.
func (ws *watches) believe(e *watched, doubts int) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e.settled = max(e.settled, doubts)
}

// those lists watched sessions.
func (ws *watches) those(are func(*Session) bool) []*Session {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var all []*Session
	for _, e := range ws.of {
		if are(e.s) {
			all = append(all, e.s)
		}
	}
	return all
}

// recheckAll is for when other times are in force.
func (ws *watches) recheckAll() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, e := range ws.of {
		e.wake(0)
	}
}

// close stops the clocks.
func (ws *watches) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, e := range ws.of {
		e.timer.Stop()
	}
}

package session

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what all apps' sessions have in common.
type Config struct {
	Store       Store
	Keys        *Keys
	IdleTimeout time.Duration
	Lifetime    time.Duration
	// CacheSize bounds how many sessions are open in memory; default 50,000.
	CacheSize  int
	Log        *slog.Logger          // default: nothing is logged
	Registerer prometheus.Registerer // default: nothing is exported
}

// Manager keeps the sessions of all apps: one store, one cache of opened
// sessions, one set of refreshes under way.
type Manager struct {
	id       uint64 // tells its attempts at a refresh from others'
	store    Store
	shared   Shared // the store, if others write to it
	log      *slog.Logger
	metrics  *metrics
	settings atomic.Pointer[settings]
	cache    *cache
	touches  touches
	watches  watches
	apps     sync.Map // origin -> *App in force

	// ctx ends when Close gives up waiting; work counts all goroutines.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	stop   chan struct{} // closed by Close: housekeeping ends
	// elsewhere are sessions that were open here when others changed them.
	elsewhere chan *Session

	mu      sync.Mutex // guards what follows
	flights map[Key]*flight
	retired map[[32]byte]*retirement // by binding: those whose sessions may not have ended yet
	closing bool
}

// settings are what a reload may change.
type settings struct {
	keys           *Keys
	codecs         []*securecookie.SecureCookie
	idle, lifetime time.Duration
	former         *Keys // those before the last change: what sessions are tagged by
}

const defaultCacheSize = 50_000

// NewManager starts the housekeeping of a store's sessions. Close ends it.
func NewManager(c Config) (*Manager, error) {
	if c.Store == nil || c.Keys == nil || c.IdleTimeout <= 0 || c.Lifetime <= 0 {
		return nil, errors.New("session: store, keys, idle timeout and lifetime are required")
	}
	if c.CacheSize == 0 {
		c.CacheSize = defaultCacheSize
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		id:  rand.Uint64() | 1, // not 0
		log: c.Log, metrics: newMetrics(c.Registerer, c.Store),
		cache: newCache(c.CacheSize), touches: touches{last: map[Key]int64{}},
		watches: watches{of: map[Key]*watched{}}, stop: make(chan struct{}), flights: map[Key]*flight{}, retired: map[[32]byte]*retirement{},
		elsewhere: make(chan *Session, maxElsewhere),
	}
	m.store = &measured{c.Store, m.metrics}
	m.shared, _ = c.Store.(Shared)
	m.settings.Store(&settings{c.Keys, codecs(c.Keys), c.IdleTimeout, c.Lifetime, c.Keys})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if m.shared != nil {
		m.shared.Follow(follower{m})
		m.work.Add(1)
		go m.lookElsewhere()
	}
	m.work.Add(1)
	go m.housekeeping()
	return m, nil
}

// Reconfigure puts other keys and times in force, for existing sessions too.
func (m *Manager) Reconfigure(keys *Keys, idle, lifetime time.Duration) {
	m.settings.Store(&settings{keys, codecs(keys), idle, lifetime, m.settings.Load().keys})
	m.cache.reset()
	m.watches.recheckAll()
}

// Close stops housekeeping, lets refreshes and revocations finish, and writes the
// last uses, all before ctx ends. The store stays open.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closing {
		m.closing = true
		close(m.stop)
	}
	m.mu.Unlock()
	m.watches.close()
	defer m.cancel()
	done := make(chan struct{})
	go func() {
		m.work.Wait()
		close(done)
	}()
	most, cancel := mostOf(ctx)
	defer cancel()
	var err error
	select {
	case <-done:
	case <-most.Done():
		err = context.Cause(most)
		m.cancel()
		<-done
	}
	return errors.Join(err, m.flushTouches(ctx))
}

// mostOf ends a bit before ctx, so that what took too long does not cost what comes
// after it.
func mostOf(ctx context.Context) (context.Context, context.CancelFunc) {
	end, limited := ctx.Deadline()
	if !limited {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/10))
}

const (
	touchInterval    = time.Second
	maxSweepInterval = time.Minute
)

// housekeeping writes uses and ends what is over, until Close.
func (m *Manager) housekeeping() {
	defer m.work.Done()
	tick := time.NewTicker(touchInterval)
	defer tick.Stop()
	swept, down := time.Now(), false
	for {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			m.unproven(now)
			err := m.flushTouches(m.ctx)
			if err != nil && !down { // one line for an outage
				m.log.Warn("uses of sessions were not stored, keeping them", "event", "store_unavailable", "error", err)
			}
			if down = err != nil; down {
				continue // a sweep would end sessions whose uses are only known here
			}
			m.retireAgain()
			if now.Sub(swept) >= min(maxSweepInterval, m.settings.Load().idle/4) {
				swept = now
				m.sweep(now)
			}
		}
	}
}

// sweep ends sessions that were over at a time by which all uses are written. It
// allows for uses that are not recorded, as over does.
func (m *Manager) sweep(now time.Time) {
	set := m.settings.Load()
	endings, err := m.store.Sweep(m.ctx, Limits{
		Now: now, Idle: set.idle + set.idle/useFraction + touchInterval, Lifetime: set.lifetime,
	})
	m.endings(endings)
	if err != nil && m.ctx.Err() == nil {
		m.log.Error("sweep failed, the store may grow", "event", "sweep_failed", "error", err)
	}
}

// endings spreads the word of sessions that a store ended.
func (m *Manager) endings(endings []Ending) {
	for _, e := range endings {
		m.over(m.appOf(e.Binding), e)
	}
}

// appOf finds the app of a binding, nil if none is in force.
func (m *Manager) appOf(binding [32]byte) (app *App) {
	m.apps.Range(func(_, v any) bool {
		if a := v.(*App); a.binding == binding {
			app = a
		}
		return app == nil
	})
	return app
}

// over forgets a session that ended in the store without its cookie. Its tokens
// can be revoked only if it is open in memory; else they were destroyed with the
// record, and count as unrevoked.
func (m *Manager) over(a *App, e Ending) {
	origin := "unknown"
	if a != nil {
		origin = a.cfg.Origin
	}
	m.ended(origin, e.Key, e.Reason)
	s := m.cache.drop(e.Key, &Ended{e.Reason})
	if watched := m.watches.ended(e.Key, e.Reason); s == nil {
		s = watched // evicted, or put out of the cache by a reload
	}
	switch {
	case s != nil:
		m.revokeEnded(s, e.Reason)
	case a == nil || a.revokes(e.Reason):
		m.metrics.unrevoked.Inc()
	}
}

// revokeEnded gives the tokens back of a session that ended without its cookie.
func (m *Manager) revokeEnded(s *Session, reason Reason) {
	if s.app.revokes(reason) {
		m.revoke(s.app, &s.tokens.Load().Data)
	}
}

// revokes tells whether sessions that end so have tokens to revoke. Those of a
// replaced one are just dropped.
func (a *App) revokes(reason Reason) bool {
	return reason != Replaced && (reason != BackChannel || !a.cfg.KeepTokens)
}

// ended counts and logs an end, once.
func (m *Manager) ended(origin string, key Key, reason Reason) {
	m.metrics.ended.WithLabelValues(origin, string(reason)).Inc()
	m.log.Info("session ended", "event", "session_ended", "app", origin, "session", m.logID(key), "reason", reason)
}

// drop forgets a session that is over. end nil: it may be, the store is to be
// asked again.
func (m *Manager) drop(s *Session, end *Ended) {
	if end != nil {
		s.end.CompareAndSwap(nil, end)
	}
	m.forget(s.key, end)
}

// forget is drop for a session that is not at hand.
func (m *Manager) forget(key Key, end *Ended) {
	m.cache.drop(key, end)
	if end == nil {
		m.watches.doubt(key)
		return
	}
	m.watches.ended(key, end.Reason)
}

// absent is absent for what a store answered about a session. Where another
// process ended it, all who have it open here are told.
func (m *Manager) absent(key Key, err error) error {
	err = absent(err)
	var end *Ended
	if errors.As(err, &end) {
		m.forget(key, end)
	}
	return err
}

// begin admits work that Close waits for, unless it is closing. Whoever was
// admitted calls work.Done.
func (m *Manager) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closing {
		m.work.Add(1)
	}
	return !m.closing
}

// logID stands for a session in logs.
func (m *Manager) logID(key Key) string {
	return m.settings.Load().keys.Hash("log", string(key[:]))
}

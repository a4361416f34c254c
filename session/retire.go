package session

import (
	"context"
	"log/slog"
	"time"
)

// retirement is the removal of an app whose sessions the store has not said to be
// over. The app may come back meanwhile; what was before stays over.
type retirement struct {
	app  *App
	tags []Tag
	at   time.Time
}

// Retire ends all sessions of an app that a reload removed or gave another
// provider or client. On an error it is tried again, for as long as the manager is
// open, and no session that began before is opened.
func (m *Manager) Retire(ctx context.Context, a *App) error {
	m.apps.CompareAndDelete(a.cfg.Origin, a)
	set := m.settings.Load()
	r := &retirement{app: a, at: time.Now()}
	parts := []string{"app", a.cfg.Issuer, a.cfg.ClientID, a.cfg.Origin}
	// The reload that removed the app may have replaced all keys, too.
	for _, mac := range append(set.keys.MACs("tag", parts...), set.former.MACs("tag", parts...)...) {
		r.tags = append(r.tags, Tag(mac))
	}
	m.mu.Lock()
	m.retired[a.binding] = r
	m.mu.Unlock()
	err := m.retire(ctx, r, Scope{})
	if err != nil {
		a.doubt("app", a.cfg.Origin)
	}
	return err
}

// retire ends the sessions of a removed app in the store.
func (m *Manager) retire(ctx context.Context, r *retirement, scope Scope) error {
	for _, tag := range r.tags {
		endings, err := m.store.EndTagged(ctx, tag, Revoked, scope)
		m.endings(endings)
		if err != nil {
			return unknown(err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired[r.app.binding] == r {
		delete(m.retired, r.app.binding)
	}
	return nil
}

// retireAgain is for what a store did not take that was away.
func (m *Manager) retireAgain() {
	m.mu.Lock()
	var all []*retirement
	for _, r := range m.retired {
		all = append(all, r)
	}
	m.mu.Unlock()
	for _, r := range all {
		// It may be back, and have sessions of its own.
		if m.retire(m.ctx, r, Scope{BeganBefore: r.at.Add(-m.ahead())}) == nil {
			m.log.Log(m.ctx, slog.LevelInfo, "sessions of a removed app were ended", "event", "retired", "app", r.app.cfg.Origin)
		}
	}
}

// retires tells whether a session is of a removed app, and not of the same app
// after its return.
func (m *Manager) retires(rec Record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.retired[rec.Binding]
	return r != nil && rec.Began.Before(r.at)
}

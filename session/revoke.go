package session

import (
	"context"
	"errors"
	"time"
)

const (
	// revokeWait is how long a logout waits for the revocation of its tokens.
	revokeWait = 500 * time.Millisecond
	// revokeLife bounds the attempts at one revocation.
	revokeLife = 10 * time.Minute
	// The pauses between them double from the first to the longest; a Retry-After
	// asks for more (RFC 7009, section 2.2.1).
	firstRevokePause   = 2 * time.Second
	longestRevokePause = time.Minute
	// maxRevoking is how many tokens are given back to a provider at once, when
	// many sessions end together.
	maxRevoking = 32
)

// revocation gives the tokens of one ended session back to the provider. Pending
// ones live in memory only and end with the process: the tokens are sealed by a
// cookie that is gone (RV-03).
type revocation struct {
	m               *Manager
	a               *App
	refresh, access string
}

// revoke gives a session's tokens back, and tries on while the provider has an
// outage. The channel is closed when there is nothing more to wait for.
func (m *Manager) revoke(a *App, d *Data) (done <-chan struct{}) {
	over := make(chan struct{})
	if d.RefreshToken == "" && d.AccessToken == "" {
		close(over)
		return over
	}
	if !m.begin() {
		m.metrics.unrevoked.Inc()
		close(over)
		return over
	}
	r := &revocation{m, a, d.RefreshToken, d.AccessToken}
	go func() {
		defer m.work.Done()
		defer close(over)
		r.run()
	}()
	return over
}

func (r *revocation) run() {
	ctx, cancel := context.WithTimeout(r.m.ctx, revokeLife)
	defer cancel()
	for pause := firstRevokePause; ; pause = min(2*pause, longestRevokePause) {
		err := r.try(ctx)
		if err == nil {
			return
		}
		var out *Outage
		if !errors.As(err, &out) || !r.m.wait(ctx, max(pause, out.RetryAfter)) {
			r.m.metrics.unrevoked.Inc()
			r.m.log.Warn("tokens of an ended session were not revoked", "event", "revocation_failed", "app", r.a.cfg.Origin, "error", err)
			return
		}
	}
}

// try makes one attempt, when it is its turn.
func (r *revocation) try(ctx context.Context) error {
	select {
	case r.a.revoking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.a.revoking }()
	ctx, cancel := context.WithTimeout(ctx, r.a.cfg.TokenTimeout)
	defer cancel()
	return r.a.cfg.Refresher.Revoke(ctx, r.refresh, r.access)
}

// wait pauses, and tells whether to go on: not when the manager closes.
func (m *Manager) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.stop:
	case <-ctx.Done():
	}
	return false
}

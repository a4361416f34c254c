package session

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

const (
	// leaseWait bounds the waiting for somebody else's refresh.
	leaseWait = time.Minute
	// answerWait is longer than a process takes that has an answer to store once the
	// store can take it: a call of the store's that has to time out first, and a pause.
	answerWait = 3 * time.Second
)

// refresh is one run of DESIGN.md's section 5.
type refresh struct {
	m      *Manager
	a      *App
	s      *Session
	f      *flight
	hold   *hold
	beyond uint64
}

// run holds the lease on the session while it works.
func (r *refresh) run(ctx context.Context) (*opened, error) {
	begin := time.Now()
	wait, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	ttl := r.a.cfg.TokenTimeout + leaseMargin
	lease, err := r.m.store.Acquire(wait, r.s.key, ttl)
	if err != nil {
		return nil, unknown(err)
	}
	r.m.metrics.leaseWait.Observe(time.Since(begin).Seconds())
	r.hold = newHold(r.m.store, lease, ttl)
	held, stop := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		r.hold.keep(held)
	}()
	defer func() {
		stop()
		<-kept
		r.hold.release(context.WithoutCancel(ctx))
	}()
	return r.locked(ctx)
}

// locked reads the record again, for whoever held the lease before may have
// refreshed it (pains 2), and calls the provider if it still has to.
func (r *refresh) locked(ctx context.Context) (*opened, error) {
	var seen uint64
	var due time.Time // of an answer to somebody else
	for {
		o, err := r.reload(ctx)
		if err != nil {
			return nil, err
		}
		if o.Unverified != "" { // a process died between storing and verifying
			if o, err = r.confirm(ctx, o); err != nil {
				return nil, err
			}
		}
		now := time.Now()
		switch {
		case o.Generation > r.beyond && o.valid(now):
			return o, nil
		case !now.Before(r.end()):
			return nil, r.finish(ctx, o, Lifetime)
		case o.RefreshToken == "":
			return nil, r.finish(ctx, o, TokenExpired)
		}
		if o.version != seen {
			seen, due = o.version, now.Add(r.answerDue(o, now))
		}
		if !due.After(now) {
			if err := r.a.provider.admit(now); err != nil {
				return nil, err
			}
			return r.redeem(ctx, o)
		}
		if !r.m.wait(ctx, min(due.Sub(now), answerWait)) {
			return nil, &Unavailable{time.Second, errClosing}
		}
	}
}

// answerDue is for how long another process may still come with an answer to the
// last attempt. Its lease may have run out while the store was away, or been lost
// by a server that took over from another; whoever is faster than it would send a
// token that is spent. A process that was killed is waited for in vain, once; what a
// manager finds of its own is over, since it has one refresh of a session at a time.
func (r *refresh) answerDue(o *opened, now time.Time) time.Duration {
	if r.m.shared == nil || o.Attempt.IsZero() || o.AttemptBy == 0 || o.AttemptBy == r.m.id {
		return 0
	}
	call := o.Attempt.Add(r.a.cfg.TokenTimeout).Sub(now)
	return min(max(0, call), r.a.cfg.TokenTimeout) + answerWait // clocks may be set
}

// redeem makes the token call, with a durable mark before it.
func (r *refresh) redeem(ctx context.Context, o *opened) (*opened, error) {
	if !o.Attempt.IsZero() {
		r.m.metrics.refresh(r.a, "ambiguous")
		r.log(slog.LevelWarn, "refresh token sent again after an attempt without an answer", "refresh_ambiguous", "first_sent", o.Attempt)
	}
	marked := o.Data
	marked.Attempt, marked.AttemptBy = time.Now(), r.m.id
	o, err := r.replace(ctx, o, marked)
	if errors.Is(err, ErrConflict) {
		return nil, &Unavailable{time.Second, err} // somebody whose lease ran out is still at it
	}
	if err != nil {
		return nil, err // not marked, so not sent
	}
	if !r.hold.held() {
		return nil, r.unsent(ctx, o)
	}
	call, cancel := Within(ctx, r.a.cfg.TokenTimeout)
	defer cancel()
	call, unsent := r.hold.sending(call)
	sent := time.Now()
	token, err := r.a.cfg.Refresher.Refresh(call, o.RefreshToken)
	r.m.metrics.refreshSeconds.Observe(time.Since(sent).Seconds())
	switch lost := unsent(); {
	case lost && err != nil:
		return nil, r.unsent(ctx, o)
	case errors.Is(err, ErrRejected):
		r.answeredByProvider()
		return r.rejected(ctx, o)
	case err != nil:
		return nil, r.outage(ctx, o, sent, err)
	}
	r.answeredByProvider()
	return r.store(ctx, o, token, sent)
}

// unsent is for a lease that was lost before the refresh token was sent: after the
// process stood still, or while the store was away.
func (r *refresh) unsent(ctx context.Context, o *opened) error {
	r.log(slog.LevelWarn, "lease lost before the refresh token was sent, not sending it", "lease_lost")
	r.noAttempt(ctx, o)
	return &Unavailable{time.Second, ErrLeaseLost}
}

// noAttempt takes the mark away of an attempt that certainly was none. If it fails,
// the next call counts as a second sending: safe.
func (r *refresh) noAttempt(ctx context.Context, o *opened) {
	d := o.Data
	d.Attempt, d.AttemptBy = time.Time{}, 0
	r.replace(ctx, o, d)
}

// giveUp lets others know that nobody waits for the attempt's answer any more. If it
// fails, they wait for it: safe, too.
func (r *refresh) giveUp(ctx context.Context, o *opened) {
	d := o.Data
	d.AttemptBy = 0
	r.replace(ctx, o, d)
}

func (r *refresh) answeredByProvider() {
	r.a.provider.succeeded()
	r.s.retry.succeeded()
}

// rejected ends the session, unless the record changed while the provider
// answered: then somebody else's refresh won.
func (r *refresh) rejected(ctx context.Context, o *opened) (*opened, error) {
	now, err := r.reload(ctx)
	if err == nil && now.Generation > o.Generation {
		return now, nil
	}
	r.m.metrics.refresh(r.a, "rejected")
	r.log(slog.LevelInfo, "provider rejected the refresh token", "refresh_failed", "reason", "invalid_grant")
	return nil, r.finish(ctx, o, RefreshRejected)
}

// outage leaves the session as it is and pauses. If the provider certainly did
// not act, the mark goes: the next call is no second sending.
func (r *refresh) outage(ctx context.Context, o *opened, sent time.Time, err error) error {
	var out *Outage
	if !errors.As(err, &out) {
		out = &Outage{Err: err}
	}
	now := time.Now()
	later := r.s.retry.failed(now, out, out.RetryAfter)
	r.a.provider.failed(sent, now, out, out.RetryAfter)
	r.m.metrics.refresh(r.a, "unavailable")
	level := slog.LevelWarn
	if out.Operator {
		level = slog.LevelError // nobody is logged out, but somebody must act (RF-10)
	}
	r.log(level, "refresh failed, the session goes on", "refresh_failed", "reason", "outage", "operator", out.Operator, "error", out.Err)
	switch {
	case out.Answered:
		r.noAttempt(ctx, o)
	case r.m.shared != nil:
		r.giveUp(ctx, o)
	}
	return later
}

// finish ends the session at the version that was judged, and keeps on trying
// while the store does not answer: the reason will not go away.
func (r *refresh) finish(ctx context.Context, o *opened, reason Reason) error {
	for {
		d, err := r.a.end(ctx, r.s, reason, Condition{Version: o.version})
		switch {
		case err == nil:
			if reason == Lifetime { // else the tokens are of no use, or were given back
				r.m.revoke(r.a, d)
			}
			return &Ended{reason}
		case errors.Is(err, ErrConflict), errors.Is(err, ErrAbsent):
			if _, err := r.reload(ctx); err != nil {
				return err
			}
			return &Unavailable{time.Second, ErrConflict}
		}
		r.f.answer(nil, unknown(err))
		if !pause(ctx, writeRetry) {
			return unknown(err)
		}
	}
}

// reload reads the session from the store. A session that is not there any more
// is over in memory too.
func (r *refresh) reload(ctx context.Context) (*opened, error) {
	rec, err := r.m.store.Load(ctx, r.s.key)
	switch {
	case errors.Is(err, ErrAbsent):
		r.m.gone(r.s, err)
		return nil, absent(err)
	case err != nil:
		return nil, unknown(err)
	}
	d, err := r.a.unseal(r.s.key, r.s.id, rec.Data)
	if err != nil {
		return nil, ErrNone // as when it is read for a request
	}
	return r.a.open(d, rec.Version, r.end()), nil
}

// end is the absolute end of the session.
func (r *refresh) end() time.Time { return r.s.ends(r.m.settings.Load(), 0).absolute }

// replace writes Data over the version o. ErrConflict, ErrAbsent (*Ended),
// *StoreError.
func (r *refresh) replace(ctx context.Context, o *opened, d Data) (*opened, error) {
	err := r.m.store.Replace(ctx, r.s.key, o.version, r.a.seal(r.s.key, r.s.id, &d))
	var end *Ended
	switch {
	case err == nil:
		return r.a.open(&d, o.version+1, r.end()), nil
	case errors.As(err, &end):
		r.m.drop(r.s, end)
		return nil, end
	case errors.Is(err, ErrConflict), errors.Is(err, ErrAbsent):
		return nil, err
	}
	return nil, unknown(err)
}

func (r *refresh) log(level slog.Level, msg, event string, args ...any) {
	args = append([]any{"event", event, "app", r.a.cfg.Origin, "session", r.s.LogID()}, args...)
	r.m.log.Log(context.Background(), level, msg, args...)
}

// pause waits, and tells whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

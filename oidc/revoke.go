package oidc

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sessiongate/session"
)

const (
	// revokeWait is how long a logout waits for the revocation of its token.
	revokeWait = 500 * time.Millisecond
	// revokeLife bounds the attempts at one revocation, which are tried again for
	// as long when the provider is unavailable (RFC 7009, section 2.2.1).
	revokeLife  = time.Minute
	revokePause = 2 * time.Second
	// maxRevocations are under way at once; the tokens of logouts beyond are left
	// to run out.
	maxRevocations = 64
)

// revoker revokes the tokens of sessions that were logged out of. Pending
// revocations do not outlive the process (RV-03: best effort).
type revoker struct {
	client *Client
	log    *slog.Logger
	slots  chan struct{}

	mu      sync.Mutex // guards closed, and work against a Wait before its Add
	closed  bool
	closing chan struct{}
	work    sync.WaitGroup
}

// revoke revokes the refresh token, or the access token where there is no other,
// and returns when that is done or the user has waited long enough (RV-02). A
// provider that revokes a refresh token does so for its access tokens
// (RFC 7009, section 2.1).
func (v *revoker) revoke(ctx context.Context, refreshToken, accessToken string) {
	token, hint := refreshToken, "refresh_token"
	if token == "" {
		token, hint = accessToken, "access_token"
	}
	if token == "" {
		return
	}
	done, ok := v.start(context.WithoutCancel(ctx), token, hint)
	if !ok {
		v.log.Warn("too much to revoke; a token is left to run out", "event", "revocation_failed")
		return
	}
	select {
	case <-done:
	case <-time.After(revokeWait):
	}
}

// start revokes in a goroutine, which close waits for.
func (v *revoker) start(ctx context.Context, token, hint string) (done chan struct{}, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, false
	}
	select {
	case v.slots <- struct{}{}:
	default:
		return nil, false
	}
	done = make(chan struct{})
	v.work.Go(func() {
		defer close(done)
		defer func() { <-v.slots }()
		ctx, cancel := context.WithTimeout(ctx, revokeLife)
		defer cancel()
		if err := v.try(ctx, token, hint); err != nil {
			v.log.Warn("a token could not be revoked", "event", "revocation_failed", "error", err)
		}
	})
	return done, true
}

// try goes on while the provider is unavailable and there is time.
func (v *revoker) try(ctx context.Context, token, hint string) error {
	for {
		err := v.client.revoke(ctx, token, hint)
		var out *session.Outage
		if !errors.As(err, &out) || !passing(err) {
			return err
		}
		pause := max(out.RetryAfter, revokePause)
		select {
		case <-time.After(pause):
		case <-v.closing:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// passing tells whether a failure may be over soon.
func passing(err error) bool {
	var failed *callError
	if !errors.As(err, &failed) {
		return false
	}
	return failed.status == 0 || failed.status == 429 || failed.status >= 500
}

func (v *revoker) close(ctx context.Context) error {
	v.mu.Lock()
	if !v.closed {
		v.closed = true
		close(v.closing)
	}
	v.mu.Unlock()
	done := make(chan struct{})
	go func() {
		v.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

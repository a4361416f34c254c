package session

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/oauth2"
)

const (
	// writeRetry is the pause between attempts to store what must not be lost.
	writeRetry = 500 * time.Millisecond
	// logEvery is how many of them share a line in the log: a minute's.
	logEvery = 120
)

// store writes the answer before anybody uses it, then has its ID token verified.
func (r *refresh) store(ctx context.Context, o *opened, token *oauth2.Token, sent time.Time) (*opened, error) {
	d := o.Data
	d.AccessToken, d.TokenIssued, d.TokenExpiry = token.AccessToken, sent, token.Expiry
	d.Attempt, d.AttemptBy, d.Generation = time.Time{}, 0, d.Generation+1
	if token.RefreshToken != "" {
		d.RefreshToken = token.RefreshToken
	}
	d.Unverified, _ = token.Extra("id_token").(string)
	fresh, err := r.persist(ctx, o, d)
	if errors.Is(err, ErrAbsent) {
		r.m.metrics.refresh(r.a, "ended")
		return nil, r.late(d, err)
	}
	if err != nil {
		return nil, err
	}
	if fresh.Unverified != "" {
		if fresh, err = r.confirm(ctx, fresh); err != nil {
			return nil, err
		}
	}
	r.m.metrics.refresh(r.a, "ok")
	r.log(slog.LevelInfo, "refreshed", "refresh")
	return fresh, nil
}

// publish makes known what run returned. A session that ended after it was written
// was ended by somebody who may not have known these tokens.
func (r *refresh) publish(ctx context.Context, f *fill, o *opened, err error) (*opened, error) {
	if err != nil {
		r.m.cache.giveUp(r.s.key, f)
		return nil, err
	}
	r.s.adopt(o)
	r.m.watches.refreshed(r.s.key, o)
	if r.m.cache.publish(r.s.key, o, f) {
		return o, nil
	}
	if _, err := r.reload(ctx); errors.Is(err, ErrAbsent) {
		return nil, r.late(o.Data, err)
	}
	return o, nil
}

// late gives back tokens that came after their session ended: the end wins
// (RF-13). Where a newer login replaced it they are just dropped, as they may be
// of the same grant.
func (r *refresh) late(d Data, err error) error {
	var end *Ended
	if !errors.As(err, &end) || end.Reason != Replaced {
		r.m.revoke(r.a, &d)
	}
	return err
}

// confirm verifies the ID token that came with tokens already stored.
func (r *refresh) confirm(ctx context.Context, o *opened) (*opened, error) {
	call, cancel := context.WithTimeout(ctx, r.a.cfg.TokenTimeout)
	defer cancel()
	d := o.Data
	err := r.a.cfg.Refresher.Confirm(call, d.Unverified, d.IDToken)
	switch {
	case errors.Is(err, ErrForeign):
		r.m.metrics.refresh(r.a, "rejected")
		r.log(slog.LevelWarn, "refresh answer with an ID token that is not this session's", "refresh_failed", "reason", "foreign_id_token", "error", err)
		r.m.revoke(r.a, &d)
		return nil, r.finish(ctx, o, RefreshRejected)
	case err == nil:
		d.IDToken = d.Unverified
	default:
		r.log(slog.LevelWarn, "ID token of the refresh answer could not be verified, keeping the former", "refresh", "error", err)
	}
	d.Unverified = ""
	verified, err := r.replace(ctx, o, d)
	if errors.Is(err, ErrAbsent) {
		return nil, r.late(d, err)
	}
	if err != nil {
		// Stored unverified, it is verified again when it is next read.
		return r.a.open(&d, o.version, r.end()), nil
	}
	return verified, nil
}

// persist writes what a provider's answer brought, until the store takes it or
// says that the session is over: the old refresh token is spent.
func (r *refresh) persist(ctx context.Context, o *opened, d Data) (*opened, error) {
	for attempt := 0; ; attempt++ {
		fresh, err := r.replace(ctx, o, d)
		if errors.Is(err, ErrConflict) {
			now, err := r.reload(ctx)
			switch {
			case err == nil && (now.Generation > d.Generation || now.Generation == d.Generation && now.AccessToken != d.AccessToken):
				return now, nil
			case err == nil:
				// Ours, too, is written again: a write whose answer was lost may be on one
				// server only.
				o = now
				continue
			case errors.Is(err, ErrAbsent):
				return nil, err
			}
		}
		if err == nil || errors.Is(err, ErrAbsent) {
			return fresh, err
		}
		r.f.answer(nil, unknown(err))
		if attempt%logEvery == 0 {
			r.log(slog.LevelError, "store does not take the refreshed token, trying on", "store_unavailable", "error", err)
		}
		if !pause(ctx, writeRetry) {
			return nil, unknown(err)
		}
	}
}

package session

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"
)

// Refresher talks to the provider about the tokens of sessions.
type Refresher interface {
	// Refresh redeems a refresh token (RFC 6749, section 6), once: it never
	// repeats the call by itself. An ID token in the answer is the Token's
	// Extra("id_token"). ErrRejected: the provider refused the token for good.
	// *Outage: anything else.
	Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error)

	// Confirm verifies the raw ID token of a refresh answer and holds it against
	// the session's former one (OpenID Connect Core, section 12.2). ErrForeign: it
	// is verified, and not this session's. Any other error: it is of no use, and
	// says nothing about the session.
	Confirm(ctx context.Context, idToken, former string) error

	// Revoke gives the refresh token back, or the access token where there is no
	// other (RFC 7009). nil, if there is nothing to be done. *Outage: it is worth
	// another try. Any other error: it is not.
	Revoke(ctx context.Context, refreshToken, accessToken string) error
}

// The answers of a Refresher that end a session.
var (
	ErrRejected = errors.New("session: refresh token rejected")
	ErrForeign  = errors.New("session: ID token of somebody else")
)

// Outage is a call that failed without saying anything about the session.
type Outage struct {
	// RetryAfter is what the provider asked for, or 0.
	RetryAfter time.Duration
	// Answered: the provider certainly did not act on the token. Where it is
	// false the token may have been rotated and the answer lost.
	Answered bool
	// Operator: the provider refuses the client, not the user (invalid_client).
	Operator bool
	Err      error
}

func (o *Outage) Error() string { return "session: provider: " + o.Err.Error() }
func (o *Outage) Unwrap() error { return o.Err }

package session

import (
	"errors"
	"fmt"
	"time"
)

// coded is an error with a stable code of the wire contract (DESIGN.md, section
// 7). What status a code has is decided in one place, the proxy.
type coded struct{ code, text string }

func (e *coded) Error() string { return "session: " + e.text }

// Code returns the wire code.
func (e *coded) Code() string { return e.code }

// The errors of a request without a usable session.
var (
	// ErrNone: the request carries no session cookie, one that we did not sign, or
	// one of a session that nothing is known of any more.
	ErrNone error = &coded{"session_required", "none"}

	// ErrAmbiguousCookie: two session cookies in one request. Taking either would
	// let whoever planted one choose (SES-06).
	ErrAmbiguousCookie error = &coded{"ambiguous_cookie", "more than one session cookie"}

	// ErrCookieWithheld is the ErrNone of a cross-site navigation when the cookie
	// is SameSite=Strict: there may be a session, the browser keeps its cookie
	// back until a navigation starts on our own pages.
	ErrCookieWithheld error = withheld{}
)

type withheld struct{}

func (withheld) Error() string        { return "session: cookie withheld by SameSite=Strict" }
func (withheld) Code() string         { return "session_required" }
func (withheld) Is(target error) bool { return target == ErrNone }

// Ended is the error for a session that is over, and says why. To a caller that
// does not care it is ErrAbsent.
type Ended struct{ Reason Reason }

func (e *Ended) Error() string { return "session: ended: " + string(e.Reason) }

// Is makes every Ended an ErrAbsent.
func (e *Ended) Is(target error) bool { return target == ErrAbsent }

// Code returns the wire code.
func (e *Ended) Code() string { return "session_ended" }

// StoreError says that the store did not answer: the session may or may not
// exist. It is never a logout.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return "session: store: " + e.Err.Error() }
func (e *StoreError) Unwrap() error { return e.Err }

// Code returns the wire code.
func (e *StoreError) Code() string { return "store_unavailable" }

// RetryAfter is when to ask again.
func (e *StoreError) RetryAfter() time.Duration { return 2 * time.Second }

// Unavailable says that the access token has run out and that the provider can
// not be had for a new one. The session goes on.
type Unavailable struct {
	After time.Duration
	Err   error
}

func (e *Unavailable) Error() string { return fmt.Sprintf("session: refresh unavailable: %v", e.Err) }
func (e *Unavailable) Unwrap() error { return e.Err }

// Code returns the wire code.
func (e *Unavailable) Code() string { return "refresh_unavailable" }

// RetryAfter is when to ask again.
func (e *Unavailable) RetryAfter() time.Duration { return e.After }

// unknown wraps an error of the store's third kind, once; ErrAbsent and *Ended
// pass.
func unknown(err error) error {
	var down *StoreError
	if err == nil || errors.Is(err, ErrAbsent) || errors.As(err, &down) {
		return err
	}
	return &StoreError{err}
}

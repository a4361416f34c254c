package oidc

import (
	"context"
	"errors"
	"time"
)

// Refusal is the error of an endpoint that is an answer of the wire contract
// (DESIGN.md, section 7). What status a code has, and how it is shown, is the
// proxy's to say.
type Refusal struct {
	code  string
	help  string // for the user; nothing of a request is in it
	after time.Duration
	err   error // for the log
}

func (e *Refusal) Error() string {
	if e.err == nil {
		return "oidc: " + e.code
	}
	return "oidc: " + e.code + ": " + e.err.Error()
}

// Unwrap returns the cause.
func (e *Refusal) Unwrap() error { return e.err }

// Code returns the wire code.
func (e *Refusal) Code() string { return e.code }

// Help tells the user what to do. It is safe to show.
func (e *Refusal) Help() string { return e.help }

// RetryAfter is when it is worth trying again, 0 if waiting does not help.
func (e *Refusal) RetryAfter() time.Duration { return e.after }

func refuseParameter(err error) error {
	return &Refusal{code: "invalid_parameter", help: "A parameter of this address is missing, repeated or malformed.", err: err}
}

func refuseReturnURL(err error) error {
	return &Refusal{code: "invalid_return_url", help: "returnUrl must be a path of this site: at most 1 KiB, and not one of the gateway's own endpoints.", err: err}
}

func refuseLogoutSID() error {
	return &Refusal{code: "invalid_logout_sid", help: "This logout link is not of the session you are in. Log out from within the app."}
}

func refuseProvider(after time.Duration, err error) error {
	return &Refusal{code: "provider_unavailable", help: "The login service cannot be reached just now. Try again in a moment.", after: max(after, time.Second), err: err}
}

func refuseDenied(err error) error {
	return &Refusal{code: "login_denied", help: "The login was cancelled, or you may not use this app.", err: err}
}

func refuseLogin(err error) error {
	return &Refusal{code: "login_refused", help: "This login is over: it took too long, was finished already, or was begun in another browser. Start again.", err: err}
}

func refuseAnswer(err error) error {
	return &Refusal{code: "login_failed", help: "The login service gave an answer that cannot be used. If starting again does not help, tell whoever runs this site.", err: err}
}

func refuseLoop() error {
	return &Refusal{code: "login_loop", help: "You have logged in several times in a minute, and each time your browser did not send the session cookie back. " +
		"Check that cookies are allowed for this site, that the address in the address bar is the one this site is meant to be used at, with https, " +
		"and that no extension and no proxy on the way removes cookies."}
}

func refuseFlood(after time.Duration) error {
	return &Refusal{code: "too_many_requests", help: "Too many logins were started from your network. Wait a moment.", after: after}
}

// refuseExchange tells apart why a code could not be redeemed.
func refuseExchange(err error) error {
	var failed *callError
	if !errors.As(err, &failed) {
		return refuseAnswer(err)
	}
	switch {
	case failed.rejected():
		return refuseLogin(err)
	case failed.status == 0, failed.status >= 500, failed.status == 429, errors.Is(err, context.DeadlineExceeded):
		return refuseProvider(failed.retryAfter, err)
	}
	return refuseAnswer(err)
}

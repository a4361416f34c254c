package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// Callback is where the provider sends the browser back to (RFC 6749, section
// 4.1.2). Whatever can be checked is checked before the code is redeemed. It
// answers with a redirect that has neither code nor state in it (CB-20).
func (e *Endpoints) Callback(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	w.Header().Set("Referrer-Policy", "no-referrer")
	err := e.callback(w, r)
	switch {
	case err == nil, errors.Is(err, session.ErrCookieWithheld):
		return err
	case code(err) == "login_denied":
		e.metrics.login(e.client.cfg.Origin, "denied")
	default:
		e.metrics.login(e.client.cfg.Origin, "failed")
	}
	e.audit(r, slog.LevelWarn, "login_failed", "login failed", slog.String("reason", code(err)), slog.Any("error", err))
	return err
}

func (e *Endpoints) callback(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "state", "code", "iss", "error", "error_description", "error_uri", "session_state")
	if err != nil {
		return err
	}
	f := e.takeFlow(w, r, q.Get("state"))
	if f == nil {
		return e.stale(w, r, "/", errors.New("no login of this browser has this state"))
	}
	if err := e.checkIssuer(r.Context(), q); err != nil {
		return err
	}
	if reason := q.Get("error"); reason != "" {
		return e.providerError(w, r, q, f)
	}
	if q.Get("code") == "" {
		return refuseLogin(errors.New("the callback has neither code nor error"))
	}
	// Add-if-absent in the store, as the cookie can be copied (CB-03).
	switch err := e.app.Once(r.Context(), "state", f.State, f.began().Add(flowLife)); {
	case errors.Is(err, session.ErrExists):
		return e.stale(w, r, f.ReturnURL, errors.New("the state was used before"))
	case err != nil:
		return err
	}
	count := f.Logins + 1
	if count >= loopLogins {
		e.clear(w, r, loginsKind)
		return refuseLoop()
	}
	s, err := e.logIn(w, r, f, q.Get("code"))
	if err != nil {
		return err
	}
	e.countLogin(w, count)
	e.metrics.login(e.client.cfg.Origin, "ok")
	e.audit(r, slog.LevelInfo, "login", "logged in", slog.String("session", s.LogID()))
	return redirect(w, f.ReturnURL, http.StatusSeeOther)
}

// stale answers a callback that no login of this browser waits for: a forged one,
// the back button, a tab that slept. It never leads to a token request (CB-01).
// Whoever is logged in is sent on into the app.
func (e *Endpoints) stale(w http.ResponseWriter, r *http.Request, returnURL string, why error) error {
	_, err := e.app.Session(r)
	var ended *session.Ended
	switch {
	case err == nil:
		return redirect(w, returnURL, http.StatusSeeOther)
	case errors.Is(err, session.ErrCookieWithheld):
		return err // there may be a session: the hop page finds out
	case errors.Is(err, session.ErrNone), errors.As(err, &ended):
		return refuseLogin(why)
	}
	return err
}

// checkIssuer makes sure that it is our provider that answers, with an error as
// with a code (RFC 9207, section 2.4).
func (e *Endpoints) checkIssuer(ctx context.Context, q url.Values) error {
	if q.Has("iss") {
		if q.Get("iss") != e.client.cfg.Issuer {
			return refuseLogin(errors.New("iss is of another provider"))
		}
		return nil
	}
	md, err := e.client.discover(ctx)
	if err != nil {
		return refuseProvider(e.client.metadata.retryAfter(), err)
	}
	if md.IssParameter {
		return refuseLogin(errors.New("iss is missing, and the provider always sends it"))
	}
	return nil
}

// providerError answers an error response (RFC 6749, section 4.1.2.1; Core 1.0,
// section 3.1.2.6). Nothing of what it says is shown.
func (e *Endpoints) providerError(w http.ResponseWriter, r *http.Request, q url.Values, f *flow) error {
	reason := q.Get("error")
	err := fmt.Errorf("the provider says %s: %s", foreign(reason), foreign(q.Get("error_description")))
	switch reason {
	case "access_denied":
		return refuseDenied(err)
	case "login_required", "interaction_required", "consent_required", "account_selection_required":
		if f.PromptNone {
			// That is the answer to the question, and not to be asked again (LOG-20).
			return redirect(w, f.ReturnURL, http.StatusSeeOther)
		}
	case "server_error", "temporarily_unavailable":
		return refuseProvider(0, err)
	}
	return refuseLogin(err)
}

// logIn redeems the code and makes the session.
func (e *Endpoints) logIn(w http.ResponseWriter, r *http.Request, f *flow, code string) (*session.Session, error) {
	ctx := r.Context()
	tok, err := e.client.exchange(ctx, code, f.Verifier)
	if err != nil {
		return nil, refuseExchange(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	id, err := e.client.verifyLogin(ctx, raw, tok.AccessToken, f)
	if errors.Is(err, errUnverifiable) {
		return nil, refuseProvider(e.client.keys.retryAfter(), err)
	}
	if err != nil {
		return nil, refuseAnswer(err)
	}
	s, cookie, err := e.app.Create(ctx, session.Login{
		Subject: id.claims.Subject, SID: id.claims.SID, Claims: e.claims(r, id, tok),
		Token: tok, IDToken: raw,
		Former: e.former(r, f), FlowBegan: f.began(),
		UserAgent: foreign(r.UserAgent()), Address: e.address(r),
	})
	if errors.Is(err, session.ErrNone) {
		return nil, refuseLogin(errors.New("the provider ended the session while it was made"))
	}
	if err != nil {
		return nil, err
	}
	http.SetCookie(w, cookie)
	return s, nil
}

// former are the sessions that the new one replaces: the one the browser had when
// the flow began, and the one it has now.
func (e *Endpoints) former(r *http.Request, f *flow) []session.Key {
	var keys []session.Key
	if len(f.Former) == len(session.Key{}) {
		keys = append(keys, session.Key(f.Former))
	}
	s, err := e.app.Session(r)
	if err == nil && (len(keys) == 0 || keys[0] != s.Key()) {
		keys = append(keys, s.Key())
	}
	return keys
}

// claims are what the SPA may see of the user: from the ID token, and what it
// lacks from UserInfo. A login does not fail for want of a picture.
func (e *Endpoints) claims(r *http.Request, id *idToken, tok *oauth2.Token) []byte {
	names := e.client.cfg.UserClaims
	if !lacking(names, id.payload) {
		return pick(names, id.payload)
	}
	more, err := e.client.userInfo(r.Context(), tok.AccessToken, id.claims.Subject)
	if err != nil {
		e.log.Warn("UserInfo is not used", "event", "userinfo_failed", "error", err)
	}
	return pick(names, id.payload, more)
}

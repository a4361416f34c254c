package oidc

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"

	"sessiongate/session"
)

// Logout ends the session and sends the browser to the provider to end its
// session there (OpenID Connect RP-Initiated Logout 1.0). As it is a link, it
// needs the session's own sid (LO-03).
func (e *Endpoints) Logout(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	out, err := e.logout(r, func(s *session.Session, q url.Values) error {
		if !s.ValidLogoutSID(q.Get("sid")) {
			return refuseLogoutSID()
		}
		return nil
	})
	if err != nil {
		return err
	}
	e.clearSession(w, r, out)
	provider := e.providerLogout(out)
	if provider == nil {
		return redirect(w, out.returnURL, http.StatusSeeOther)
	}
	if err := e.keepReturn(w, returning{provider.Get("state"), out.returnURL}); err != nil {
		return err
	}
	return redirect(w, e.endSessionURL(provider), http.StatusFound)
}

// PostLogout is Logout for a script: the browser is to navigate to the answer's
// redirect_url. The provider's URL, which has the ID token in it, waits in a
// cookie that no script can read.
func (e *Endpoints) PostLogout(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	out, err := e.logout(r, func(*session.Session, url.Values) error { return nil })
	if err != nil {
		return err
	}
	e.clearSession(w, r, out)
	provider := e.providerLogout(out)
	if provider == nil {
		return writeJSON(w, redirection{out.returnURL})
	}
	next := e.continueCookie(e.endSessionURL(provider))
	if next == nil {
		// Browsers drop a cookie of more than 4096 bytes without a word. Without the
		// hint the provider may ask the user whether to log out.
		e.log.Warn("the ID token is too long to go with a logout; logging out without id_token_hint", "event", "logout_hint_dropped")
		provider.Del("id_token_hint")
		next = e.continueCookie(e.endSessionURL(provider))
	}
	if next == nil {
		return writeJSON(w, redirection{out.returnURL})
	}
	http.SetCookie(w, next)
	if err := e.keepReturn(w, returning{provider.Get("state"), out.returnURL}); err != nil {
		return err
	}
	return writeJSON(w, redirection{e.path("logout/continue")})
}

// redirection tells a script where to navigate to.
type redirection struct {
	RedirectURL string `json:"redirect_url"`
}

// ContinueLogout takes the browser to the provider after PostLogout.
func (e *Endpoints) ContinueLogout(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	if provider := e.takeContinue(w, r); provider != "" {
		return redirect(w, provider, http.StatusFound)
	}
	return redirect(w, e.client.cfg.Logout.After, http.StatusSeeOther)
}

// LogoutCallback is where the provider sends the browser after a logout
// (RP-Initiated Logout 1.0, section 3).
func (e *Endpoints) LogoutCallback(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	q, err := query(r, "state")
	if err != nil {
		return err
	}
	returnURL := e.takeReturn(w, r, q.Get("state"))
	if returnURL == "" {
		returnURL = e.client.cfg.Logout.After
	}
	return redirect(w, returnURL, http.StatusSeeOther)
}

// loggedOut is a logout that took place, or had nothing to do.
type loggedOut struct {
	ended     bool   // a session ended now
	returnURL string // where the user goes in the end
	hint      string // the ID token
}

// logout ends the session of a request. It ends here first, then its tokens at the
// provider: it works while the provider is down (LO-01).
func (e *Endpoints) logout(r *http.Request, authorise func(*session.Session, url.Values) error) (loggedOut, error) {
	out := loggedOut{returnURL: e.client.cfg.Logout.After}
	q, err := query(r, "sid", "returnUrl")
	if err != nil {
		return out, err
	}
	asked, err := ReturnURL(q.Get("returnUrl"), e.client.cfg.BasePath)
	if err != nil {
		return out, refuseReturnURL(err)
	}
	s, err := e.app.Session(r)
	if over(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	if err := authorise(s, q); err != nil {
		return out, err
	}
	hint, err := e.app.Logout(r.Context(), s)
	if over(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	e.audit(r, slog.LevelInfo, "logout", "logged out", slog.String("session", s.LogID()))
	out.ended, out.hint = true, hint
	if q.Get("returnUrl") != "" {
		out.returnURL = asked
	}
	return out, nil
}

// over tells whether an error means that there is no session, or none any more.
func over(err error) bool {
	var ended *session.Ended
	return errors.Is(err, session.ErrNone) || errors.As(err, &ended)
}

// clearSession deletes the session cookie if there was one. A request from
// another site brings no Strict cookie, and must not be able to delete it.
func (e *Endpoints) clearSession(w http.ResponseWriter, r *http.Request, out loggedOut) {
	if _, n := session.FindCookie(r.Header, e.app.CookieName()); n > 0 {
		http.SetCookie(w, e.app.ClearSession())
	}
	if out.ended {
		e.clear(w, r, loginsKind)
	}
}

// providerLogout are the parameters of the provider's logout (RP-Initiated Logout
// 1.0, section 2), nil if the provider has none, or its metadata is not known just
// now: a logout waits for nobody.
func (e *Endpoints) providerLogout(out loggedOut) url.Values {
	cfg := &e.client.cfg
	md, known := e.client.metadata.peek()
	if !out.ended || !cfg.Logout.EndSession || !known || md.EndSessionEndpoint == "" {
		return nil
	}
	q := url.Values{
		"client_id":                {cfg.ClientID},
		"post_logout_redirect_uri": {cfg.Origin + e.path("logout/callback")},
		"state":                    {rand.Text()},
	}
	if out.hint != "" && cfg.Logout.IDTokenHint {
		q.Set("id_token_hint", out.hint)
	}
	return q
}

// endSessionURL is the provider's logout with parameters.
func (e *Endpoints) endSessionURL(params url.Values) string {
	md, _ := e.client.metadata.peek() // known, once it was
	u, err := url.Parse(md.EndSessionEndpoint)
	if err != nil {
		return e.client.cfg.Logout.After // parsed when the metadata was checked
	}
	q := u.Query()
	for name, values := range params {
		q[name] = values
	}
	u.RawQuery = q.Encode()
	return u.String()
}

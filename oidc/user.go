package oidc

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"sessiongate/session"
)

// status is the answer of the session endpoint.
type status struct {
	Authenticated bool            `json:"authenticated"`
	Reason        string          `json:"reason,omitempty"`
	User          json.RawMessage `json:"user,omitempty"`
	Session       *sessionStatus  `json:"session,omitempty"`
	AccessToken   *tokenStatus    `json:"access_token,omitempty"`
	LoginURL      string          `json:"login_url"`
	LogoutURL     string          `json:"logout_url,omitempty"`
}

type sessionStatus struct {
	CreatedAt     time.Time `json:"created_at"`
	ExpiresIn     int64     `json:"expires_in"`
	IdleExpiresIn int64     `json:"idle_expires_in"`
}

type tokenStatus struct {
	ExpiresIn int64 `json:"expires_in"`
}

// Session tells whether the browser is logged in, and if not why not. It neither
// counts as use nor refreshes anything (UI-06). An unknown session is an error:
// that the store is silent does not mean that nobody is logged in.
func (e *Endpoints) Session(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	s, err := e.app.Session(r)
	var ended *session.Ended
	switch {
	case err == nil:
		return writeJSON(w, e.authenticated(s))
	case errors.As(err, &ended):
		return writeJSON(w, status{Reason: string(ended.Reason), LoginURL: e.path("login")})
	case errors.Is(err, session.ErrNone):
		return writeJSON(w, status{Reason: "none", LoginURL: e.path("login")})
	}
	return err
}

func (e *Endpoints) authenticated(s *session.Session) status {
	v := s.View()
	token := v.TokenExpiresIn
	if token < 0 {
		token = v.ExpiresIn // it lasts as long as the session
	}
	return status{
		Authenticated: true,
		User:          v.Claims,
		Session: &sessionStatus{
			CreatedAt: wholeSeconds(v.Created), ExpiresIn: seconds(v.ExpiresIn), IdleExpiresIn: seconds(v.IdleExpiresIn),
		},
		AccessToken: &tokenStatus{seconds(token)},
		LoginURL:    e.path("login"),
		LogoutURL:   e.logoutURL(s),
	}
}

// User lists the user's claims as Duende.BFF does. It counts as use unless
// slide=false is asked for.
func (e *Endpoints) User(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	s, err := e.app.Session(r)
	if err != nil {
		return err
	}
	if r.URL.Query().Get("slide") != "false" {
		s.Use()
	}
	v := s.View()
	return writeJSON(w, append(flatten(e.client.cfg.UserClaims, v.Claims),
		typed{"bff:logout_url", e.logoutURL(s)},
		typed{"bff:session_expires_in", seconds(v.ExpiresIn)},
		typed{"bff:session_state", s.State()},
	))
}

// logoutURL is the link that logs out of this session and no other.
func (e *Endpoints) logoutURL(s *session.Session) string {
	return e.path("logout") + "?sid=" + url.QueryEscape(s.LogoutSID())
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	w.Write(append(b, '\n')) // if it fails, there is nobody left to tell
	return nil
}

package oidc

import (
	"log/slog"
	"net/http"
	"time"

	"sessiongate/session"
)

// sessionList is what a user is told of their sessions.
type sessionList struct {
	Sessions []listedSession `json:"sessions"`
}

type listedSession struct {
	ID         string    `json:"id"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	UserAgent  string    `json:"user_agent"`
	Address    string    `json:"address"`
	Current    bool      `json:"current"`
}

// Sessions lists the user's own sessions, the newest first. It does not count as
// use.
func (e *Endpoints) Sessions(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	s, err := e.app.Session(r)
	if err != nil {
		return err
	}
	found, err := e.app.Sessions(r.Context(), s)
	if err != nil {
		return err
	}
	list := sessionList{Sessions: make([]listedSession, 0, len(found))}
	for _, l := range found {
		list.Sessions = append(list.Sessions, listedSession{
			ID: l.ID, CreatedAt: wholeSeconds(l.Created), LastSeenAt: wholeSeconds(l.LastSeen),
			UserAgent: l.UserAgent, Address: l.Address, Current: l.Current,
		})
	}
	return writeJSON(w, list)
}

func wholeSeconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// EndSession ends one of the user's own sessions, also the one that asks.
func (e *Endpoints) EndSession(w http.ResponseWriter, r *http.Request) error {
	return e.endOwn(w, r, func(s *session.Session) (int, error) {
		return 1, e.app.EndListed(r.Context(), s, r.PathValue("id"))
	})
}

// EndOtherSessions ends all of the user's own sessions but the one that asks.
func (e *Endpoints) EndOtherSessions(w http.ResponseWriter, r *http.Request) error {
	return e.endOwn(w, r, func(s *session.Session) (int, error) {
		return e.app.EndOthers(r.Context(), s)
	})
}

func (e *Endpoints) endOwn(w http.ResponseWriter, r *http.Request, end func(*session.Session) (int, error)) error {
	noStore(w)
	s, err := e.app.Session(r)
	if err != nil {
		return err
	}
	n, err := end(s)
	if err != nil {
		return err
	}
	e.audit(r, slog.LevelInfo, "session_revoked", "a user ended own sessions", slog.String("session", s.LogID()), slog.Int("sessions", n))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

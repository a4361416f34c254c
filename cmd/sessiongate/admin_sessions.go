package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

// adminSessions is where operators list and end sessions (DESIGN.md, sections 8
// and 12).
type adminSessions struct {
	server *server
	door   door
}

const sessionsPath = "/sessions"

// has tells whether a path is one of these. There is none unless somebody can
// be let in.
func (a *adminSessions) has(path string) bool {
	admin := a.config().Admin
	return (admin.Token != "" || admin.Socket != "") && (path == sessionsPath || strings.HasPrefix(path, sessionsPath+"/"))
}

func (a *adminSessions) config() *config.Config { return a.server.current.Load().cfg }

// ServeHTTP answers GET and DELETE /sessions, and DELETE /sessions/{id}.
func (a *adminSessions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := a.admit(r); err != nil {
		a.server.log.Warn("somebody was not let at the sessions", "event", "admin_denied", "reason", err.code, "address", a.address(r))
		if err.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750, section 3
		}
		err.write(w)
		return
	}
	id, one := strings.CutPrefix(r.URL.Path, sessionsPath+"/")
	var err error
	switch {
	case one && r.Method == http.MethodDelete:
		err = a.endOne(w, r, id)
	case !one && r.Method == http.MethodGet:
		err = a.list(w, r)
	case !one && r.Method == http.MethodDelete:
		err = a.endAll(w, r)
	default:
		allowed := "GET, DELETE"
		if one {
			allowed = "DELETE"
		}
		w.Header().Set("Allow", allowed)
		err = &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "That is not possible here", "The methods here are " + allowed + "."}
	}
	if err != nil {
		a.refuse(w, err)
	}
}

// admit lets operators in and nobody else. Web pages and names that are not ours
// come first: a page that guessed the token is refused as one that did not.
func (a *adminSessions) admit(r *http.Request) *refusal {
	switch {
	case isFromPage(r):
		return &refusal{http.StatusForbidden, "origin_denied", "Web pages are not let in", "The request has an Origin header, as those of web pages have."}
	case !a.door.admitsToSessions(r.Host):
		return &refusal{http.StatusForbidden, "forbidden", "That host name is not ours", "Use an IP address, localhost, or the host of admin.listen."}
	case !a.door.socket && !isBearer(r.Header["Authorization"], a.config().Admin.Token.Reveal()):
		return &refusal{http.StatusUnauthorized, "token_required", "The admin token is missing or wrong", "Send admin.token as a bearer token, or use admin.socket."}
	}
	return nil
}

// isBearer tells whether an Authorization field carries the token (RFC 6750,
// section 2.1). Without a token nobody has it.
func isBearer(fields []string, token string) bool {
	if len(fields) != 1 || token == "" {
		return false
	}
	scheme, given, _ := strings.Cut(fields[0], " ")
	got, want := sha256.Sum256([]byte(strings.TrimLeft(given, " "))), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// listedSession is how a session is shown to operators.
type listedSession struct {
	ID         string    `json:"id"`
	App        string    `json:"app"`
	Sub        string    `json:"sub"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	UserAgent  string    `json:"user_agent"`
	Address    string    `json:"address"`
	// Current is for the user's own list. No operator asks by a session.
	Current bool `json:"current"`
}

func (a *adminSessions) list(w http.ResponseWriter, r *http.Request) error {
	q, err := a.parameters(r, "app", "sub")
	if err != nil {
		return err
	}
	// One after the other: all of them together may be more than there is memory for.
	first := true
	begin := func() {
		first = false
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"sessions":[`)
	}
	err = a.server.manager.Sessions(r.Context(), q["app"], q["sub"], func(l session.Listing) error {
		if !first {
			_, _ = io.WriteString(w, ",")
		} else {
			begin()
		}
		b, err := json.Marshal(listedSession{
			ID: l.ID, App: l.App, Sub: l.Subject, UserAgent: l.UserAgent, Address: l.Address,
			CreatedAt: l.Created.UTC().Truncate(time.Second), LastSeenAt: l.LastSeen.UTC().Truncate(time.Second),
		})
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
	switch {
	case err != nil && first:
		return err
	case err != nil:
		panic(http.ErrAbortHandler) // nobody is to take a part for the whole
	case first:
		begin()
	}
	_, _ = io.WriteString(w, "]}\n")
	return nil
}

func (a *adminSessions) endOne(w http.ResponseWriter, r *http.Request, id string) error {
	if _, err := a.parameters(r); err != nil {
		return err
	}
	if err := a.server.manager.EndByID(r.Context(), id); err != nil {
		return err
	}
	a.audit(r, "", 1)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// endAllTimeout bounds what goes on when an operator hangs up halfway.
const endAllTimeout = 2 * time.Minute

func (a *adminSessions) endAll(w http.ResponseWriter, r *http.Request) error {
	q, err := a.parameters(r, "app", "sub")
	if err != nil {
		return err
	}
	for _, name := range []string{"app", "sub"} {
		if q[name] == "" {
			return invalidParameter(name + " is missing or empty; app and sub together say whose sessions are to end.")
		}
	}
	// Whoever hangs up has asked for all of them all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), endAllTimeout)
	defer cancel()
	n, err := a.server.manager.EndAll(ctx, q["app"], q["sub"])
	if n > 0 || err == nil {
		a.audit(r, q["app"], n)
	}
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, map[string]int{"ended": n})
	return nil
}

// audit logs that an operator ended sessions. Each session has a line of its own,
// by its hash; whose they were is personal and in neither.
func (a *adminSessions) audit(r *http.Request, app string, n int) {
	args := []any{"event", "admin_sessions_ended", "sessions", n, "address", a.address(r)}
	if app != "" {
		args = append(args, "app", app)
	}
	a.server.log.Info("an operator ended sessions", args...)
}

func (a *adminSessions) address(r *http.Request) string {
	if a.door.socket {
		return "socket"
	}
	return hostOf(r.RemoteAddr)
}

// parameters reads the query, in which nothing but the named may be: who
// misspells a limit must not get all there is. An app has to be one of ours.
func (a *adminSessions) parameters(r *http.Request, names ...string) (map[string]string, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidParameter("The query cannot be read: percent-encode the values.")
	}
	q := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case !slices.Contains(names, name):
			return nil, invalidParameter(fmt.Sprintf("There is no parameter %q here.", name))
		case len(values[name]) > 1:
			return nil, invalidParameter(name + " is given more than once.")
		}
		q[name] = values.Get(name)
	}
	if app := q["app"]; app != "" {
		var origins []string
		for _, a := range a.config().Apps {
			origins = append(origins, a.Origin)
		}
		if !slices.Contains(origins, app) {
			return nil, invalidParameter("app is not the origin of an app. There are " + strings.Join(origins, ", ") + ".")
		}
	}
	return q, nil
}

// refusal is an answer without effect. Its code is of the wire contract.
type refusal struct {
	status              int
	code, title, detail string
}

func (e *refusal) Error() string { return "admin: " + e.code + ": " + e.detail }

func invalidParameter(detail string) *refusal {
	return &refusal{http.StatusBadRequest, "invalid_parameter", "The request cannot be understood", detail}
}

// refuse answers with an error of ours or of package session.
func (a *adminSessions) refuse(w http.ResponseWriter, err error) {
	var own *refusal
	var down *session.StoreError
	switch {
	case errors.As(err, &own):
	case errors.Is(err, session.ErrNoSession):
		own = &refusal{http.StatusNotFound, "no_session", "There is no such session", "It may have ended already. List the sessions again."}
	case errors.As(err, &down):
		a.server.log.Warn("the store does not answer", "event", "store_unavailable", "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(int(down.RetryAfter()/time.Second)))
		own = &refusal{http.StatusServiceUnavailable, "store_unavailable", "Sessions cannot be read right now", "The store does not answer. What was asked may be done in part: ask again."}
	default:
		a.server.log.Error("a request of an operator failed", "event", "request_failed", "error", err)
		own = &refusal{http.StatusInternalServerError, "internal_error", "Something went wrong", "The log says what."}
	}
	own.write(w)
}

// problem is the body of RFC 9457, section 3.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
}

func (e *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(problem{"urn:sessiongate:problem:" + e.code, e.title, e.status, e.detail, e.code})
}

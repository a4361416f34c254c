package oidc_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

type listedSession struct {
	ID         string    `json:"id"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	UserAgent  string    `json:"user_agent"`
	Address    string    `json:"address"`
	Current    bool      `json:"current"`
}

// sessions is what the browser is told of its user's sessions.
func (b *browser) sessions() []listedSession {
	b.t.Helper()
	a := b.get("/bff/sessions")
	var list struct {
		Sessions []listedSession `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.StatusCode != http.StatusOK {
		b.t.Fatalf("sessions: status %d code %s body %q", a.StatusCode, a.code(), a.body)
	}
	return list.Sessions
}

// current is the id that the browser's own session has in the list.
func (b *browser) current() string {
	b.t.Helper()
	for _, s := range b.sessions() {
		if s.Current {
			return s.ID
		}
	}
	b.t.Fatal("the session is not in its own list")
	return ""
}

func TestSessionsListsTheUsersOwn(t *testing.T) { // pains 34
	g := newGateway(t, newProvider(t))
	began := time.Now().Truncate(time.Second)
	first, second, bob := g.logInAs("ada", "s1"), g.logInAs("ada", "s2"), g.logInAs("bob", "s3")
	list := first.sessions()
	if len(list) != 2 || list[0].ID == list[1].ID {
		t.Fatalf("list %+v, want two sessions", list)
	}
	if a := first.current(); a == second.current() {
		t.Error("both sessions have one id")
	}
	for _, s := range list {
		if s.Current != (s.ID == first.current()) || s.Address != "127.0.0.1" || s.UserAgent != "Go-http-client/1.1" {
			t.Errorf("session %+v", s)
		}
		if s.CreatedAt.Before(began) || s.CreatedAt.After(time.Now()) || s.LastSeenAt.Before(s.CreatedAt) {
			t.Errorf("times of %+v", s)
		}
	}
	if list := bob.sessions(); len(list) != 1 || !list[0].Current {
		t.Errorf("bob's list %+v", list)
	}
	a := first.get("/bff/sessions")
	for _, part := range strings.Split(a.body, `_at":"`)[1:] {
		if at, _, _ := strings.Cut(part, `"`); len(at) != len("2026-11-22T13:00:00Z") || !strings.HasSuffix(at, "Z") {
			t.Errorf("time %q, want whole seconds in UTC", at)
		}
	}
	if strings.Contains(a.body, first.cookies()[""]) || strings.Contains(a.body, "canary") {
		t.Errorf("a secret is in %s", a.body)
	}
}

func TestSessionsAreEndedOneByOne(t *testing.T) {
	g := newGateway(t, newProvider(t))
	one, two, bob := g.logInAs("ada", "s1"), g.logInAs("ada", "s2"), g.logInAs("bob", "s3")
	ended := two.current()
	for name, id := range map[string]string{
		"of another user": bob.current(), "unknown": strings.Repeat("A", 43), "no id": "x", "another spelling": ended[:42] + "%20",
	} {
		if a := one.do(http.MethodDelete, "/bff/sessions/"+id); a.code() != "no_session" {
			t.Errorf("%s: status %d code %q, want no_session", name, a.StatusCode, a.code())
		}
	}
	two.wantLoggedIn(true)
	bob.wantLoggedIn(true)
	if a := one.do(http.MethodDelete, "/bff/sessions/"+ended); a.StatusCode != http.StatusNoContent || a.body != "" {
		t.Errorf("status %d code %q, want 204", a.StatusCode, a.code())
	}
	if got := two.status()["reason"]; got != "revoked" {
		t.Errorf("reason = %v, want revoked", got)
	}
	one.wantLoggedIn(true)
	if !g.logged("session_revoked", "INFO", `"sessions":1`) {
		t.Errorf("no audit event:\n%s", g.logs)
	}
	if a := one.do(http.MethodDelete, "/bff/sessions/"+ended); a.code() != "no_session" {
		t.Errorf("again: code %q, want no_session", a.code())
	}
	if a := one.do(http.MethodDelete, "/bff/sessions/"+one.current()); a.StatusCode != http.StatusNoContent {
		t.Errorf("its own: status %d code %q, want 204", a.StatusCode, a.code())
	}
	if got := one.status()["reason"]; got != "revoked" {
		t.Errorf("reason = %v, want revoked", got)
	}
}

func TestAllOtherSessionsAreEnded(t *testing.T) {
	g := newGateway(t, newProvider(t))
	one, two, three, bob := g.logInAs("ada", "s1"), g.logInAs("ada", "s2"), g.logInAs("ada", "s3"), g.logInAs("bob", "s4")
	if a := one.do(http.MethodDelete, "/bff/sessions"); a.StatusCode != http.StatusNoContent {
		t.Errorf("status %d code %q, want 204", a.StatusCode, a.code())
	}
	one.wantLoggedIn(true)
	two.wantLoggedIn(false)
	three.wantLoggedIn(false)
	bob.wantLoggedIn(true)
	if !g.logged("session_revoked", "INFO", `"sessions":2`) {
		t.Errorf("no audit event:\n%s", g.logs)
	}
	if a := one.do(http.MethodDelete, "/bff/sessions"); a.StatusCode != http.StatusNoContent || len(one.sessions()) != 1 {
		t.Errorf("again: status %d code %q, want 204", a.StatusCode, a.code())
	}
}

func TestSessionsNeedALiveSession(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	id := b.current()
	cookie := b.cookies()[""]
	for _, test := range []struct {
		want    string
		prepare func()
	}{
		{"store_unavailable", g.store.fail},
		{"session_ended", func() { g.store.fix(); b.get(b.logoutURL()); b.plant("", cookie) }},
		{"session_required", func() { b.plant("", "x") }},
	} {
		test.prepare()
		for _, a := range []*answer{
			b.get("/bff/sessions"), b.do(http.MethodDelete, "/bff/sessions"), b.do(http.MethodDelete, "/bff/sessions/"+id),
		} {
			if a.code() != test.want {
				t.Errorf("%s %s: status %d code %q, want %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.code(), test.want)
			}
		}
	}
	if g.logged("session_revoked", "INFO") {
		t.Errorf("an audit event of nothing:\n%s", g.logs)
	}
}

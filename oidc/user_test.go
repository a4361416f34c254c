package oidc_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestUI01SessionTellsWhoIsLoggedIn(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	a := b.get("/bff/session")
	if got, want := strings.TrimSpace(a.body), `{"authenticated":false,"reason":"none","login_url":"/bff/login"}`; a.StatusCode != 200 || got != want {
		t.Errorf("anonymous: status %d body %s, want %s", a.StatusCode, got, want)
	}
	b.logIn("")
	a = b.get("/bff/session")
	var s struct {
		Authenticated bool
		Reason        *string
		User          json.RawMessage
		Session       struct {
			CreatedAt     time.Time `json:"created_at"`
			ExpiresIn     int       `json:"expires_in"`
			IdleExpiresIn int       `json:"idle_expires_in"`
		}
		AccessToken struct {
			ExpiresIn int `json:"expires_in"`
		} `json:"access_token"`
		LoginURL  string `json:"login_url"`
		LogoutURL string `json:"logout_url"`
	}
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		t.Fatal(err)
	}
	// In the order of user_claims, without secret_claim (UI-03).
	wantUser := `{"sub":"248289761001","name":"Ada","email":"ada@example.com","email_verified":true,"picture":"https://img.example/ada","roles":["admin","user"]}`
	if string(s.User) != wantUser {
		t.Errorf("user = %s, want %s", s.User, wantUser)
	}
	if !s.Authenticated || s.Reason != nil || s.LoginURL != "/bff/login" || !strings.HasPrefix(s.LogoutURL, "/bff/logout?sid=") ||
		s.Session.ExpiresIn < 43190 || s.Session.ExpiresIn > 43200 || s.Session.IdleExpiresIn < 1790 || s.Session.IdleExpiresIn > 1800 ||
		s.AccessToken.ExpiresIn < 290 || s.AccessToken.ExpiresIn > 300 || time.Since(s.Session.CreatedAt) > time.Minute {
		t.Errorf("body %s", a.body)
	}
	// UI-02, UI-04
	if strings.Contains(a.body, "canary") || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("body %s\nheaders %v", a.body, a.Header)
	}
}

func TestSessionOfATokenWithoutExpiry(t *testing.T) {
	p := newProvider(t)
	p.answer = func(a map[string]any) { delete(a, "expires_in") }
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	if got := b.status()["access_token"].(map[string]any)["expires_in"].(float64); got < 43190 || got > 43200 {
		t.Errorf("expires_in = %v, want the session's", got)
	}
}

func TestSessionIsUnknownWhileTheStoreIsDown(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	g.forget()
	g.store.fail()
	for _, path := range []string{"/bff/session", "/bff/user", "/bff/login"} {
		if a := b.get(path); a.code() != "store_unavailable" || len(a.Header["Set-Cookie"]) != 0 {
			t.Errorf("%s: status %d code %q, want store_unavailable", path, a.StatusCode, a.code())
		}
	}
}

func TestUI06SessionNeitherRefreshesNorCountsAsUse(t *testing.T) {
	p := newProvider(t)
	p.answer = func(a map[string]any) { a["expires_in"] = 1 }
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	eventually(t, "the token runs out", func() bool {
		return b.status()["access_token"].(map[string]any)["expires_in"] == 0.0
	})
	b.get("/bff/user?slide=false")
	if n := len(p.seen("/token")); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

func TestUserIsDuendes(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	if a := b.get("/bff/user"); a.code() != "session_required" {
		t.Errorf("anonymous: code %q, want session_required", a.code())
	}
	b.logIn("")
	a := b.get("/bff/user")
	var list []struct {
		Type  string
		Value any
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	var types []string
	values := map[string]any{}
	for _, c := range list {
		types = append(types, c.Type)
		values[c.Type] = c.Value
	}
	want := []string{"sub", "name", "email", "email_verified", "picture", "roles", "roles", "bff:logout_url", "bff:session_expires_in", "bff:session_state"}
	if !reflect.DeepEqual(types, want) {
		t.Errorf("types = %q, want %q", types, want)
	}
	if values["email_verified"] != true || values["sub"] != subject {
		t.Errorf("values = %v: they must keep their JSON type", values)
	}
	if n, ok := values["bff:session_expires_in"].(float64); !ok || n < 43190 {
		t.Errorf("bff:session_expires_in = %v, want a number of seconds", values["bff:session_expires_in"])
	}
	if a := b.get(values["bff:logout_url"].(string)); a.StatusCode != http.StatusFound {
		t.Errorf("bff:logout_url: status %d", a.StatusCode)
	}
	if a := b.get("/bff/user"); a.code() != "session_required" {
		t.Errorf("after logout: code %q, want session_required", a.code())
	}
}

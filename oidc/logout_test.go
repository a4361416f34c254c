package oidc_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// logoutURL is the link of the browser's session.
func (b *browser) logoutURL() string {
	b.t.Helper()
	return b.status()["logout_url"].(string)
}

func TestLO01LO04LogoutEndsTheSessionHereAndAtTheProvider(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	cookie := b.cookies()[""]
	a := b.get(b.logoutURL() + "&returnUrl=/gone%3Fa%3Db")
	u, err := url.Parse(a.location())
	if a.StatusCode != http.StatusFound || err != nil || u.Path != "/end" {
		t.Fatalf("status %d code %s location %q, want 302 to the provider", a.StatusCode, a.code(), a.location())
	}
	q := u.Query()
	if q.Get("client_id") != clientID || q.Get("post_logout_redirect_uri") != g.URL+"/bff/logout/callback" || q.Get("tenant") != "a" ||
		len(q.Get("state")) < 26 || strings.Count(q.Get("id_token_hint"), ".") != 2 {
		t.Errorf("parameters %v", q)
	}
	if _, ok := b.cookies()[""]; ok {
		t.Error("LO-02: the session cookie is still there")
	}
	thief := g.browser()
	thief.plant("", cookie)
	if got := thief.status()["reason"]; got != "logout" {
		t.Errorf("the cookie again: reason = %v, want logout", got)
	}
	// RV-01
	if calls := p.seen("/revoke"); len(calls) != 1 || !strings.HasPrefix(calls[0].form.Get("token"), "canary-rt-") || calls[0].form.Get("token_type_hint") != "refresh_token" {
		t.Errorf("revocations: %v", calls)
	}
	if a := b.get("/bff/logout/callback?state=" + q.Get("state")); a.StatusCode != http.StatusSeeOther || a.location() != "/gone?a=b" {
		t.Errorf("return: status %d location %q, want 303 /gone?a=b", a.StatusCode, a.location())
	}
	if n := len(b.cookies()); n != 0 {
		t.Errorf("cookies are left: %v", b.cookies())
	}
	if logs := g.logs.String(); strings.Contains(logs, "canary") || strings.Contains(logs, q.Get("id_token_hint")) || !strings.Contains(logs, `"event":"logout"`) {
		t.Errorf("a secret is in the logs, or no audit event:\n%s", logs)
	}
}

func TestLO01LogoutWorksWithoutTheProvider(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	cookie := b.cookies()[""]
	link := b.logoutURL()
	p.Close()
	began := time.Now()
	if a := b.get(link); a.StatusCode != http.StatusFound {
		t.Errorf("status %d code %s", a.StatusCode, a.code())
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("logout took %v", d)
	}
	b.plant("", cookie)
	b.wantLoggedIn(false)
}

func TestLO03LogoutNeedsTheSessionsOwnSID(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b, other := g.browser(), g.browser()
	b.logIn("")
	other.logIn("")
	for _, path := range []string{"/bff/logout", "/bff/logout?sid=", "/bff/logout?sid=x", "/bff/logout?sid=op-session", other.logoutURL(), strings.TrimSuffix(b.logoutURL(), "A") + "%20"} {
		a := b.get(path)
		if a.code() != "invalid_logout_sid" || len(a.Header["Set-Cookie"]) != 0 {
			t.Errorf("%s: code %q, want invalid_logout_sid", path, a.code())
		}
	}
	if a := b.get(b.logoutURL() + "&sid=x"); a.code() != "invalid_parameter" {
		t.Errorf("two sids: code %q, want invalid_parameter", a.code())
	}
	b.wantLoggedIn(true)
	if n := len(p.seen("/revoke")); n != 0 {
		t.Errorf("%d revocations", n)
	}
}

func TestLO03CrossSiteLinkCannotDeleteAWithheldCookie(t *testing.T) {
	g := newGateway(t, newProvider(t))
	a := g.browser().get("/bff/logout", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	if a.StatusCode != http.StatusSeeOther || len(a.Header["Set-Cookie"]) != 0 {
		t.Errorf("status %d cookies %q, want 303 and none", a.StatusCode, a.Header["Set-Cookie"])
	}
}

func TestLO05IDTokenHintCanBeSwitchedOff(t *testing.T) {
	g := newGateway(t, newProvider(t), func(s *setup) { s.Logout.IDTokenHint = false })
	b := g.browser()
	b.logIn("")
	u, _ := url.Parse(b.get(b.logoutURL()).location())
	if u.Query().Has("id_token_hint") || u.Query().Get("client_id") != clientID {
		t.Errorf("parameters %v", u.Query())
	}
}

func TestLO06StateOfTheReturnIsChecked(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	u, _ := url.Parse(b.get(b.logoutURL() + "&returnUrl=/gone").location())
	jar := b.cookies()
	for _, path := range []string{"", "?state=", "?state=x", "?state=" + u.Query().Get("state") + "x"} {
		for name, value := range jar {
			b.plant(name, value)
		}
		if a := b.get("/bff/logout/callback" + path); a.StatusCode != http.StatusSeeOther || a.location() != "/bye" {
			t.Errorf("%q: status %d location %q, want 303 /bye", path, a.StatusCode, a.location())
		}
		if n := len(b.cookies()); n != 0 {
			t.Errorf("%q: cookies are left: %v", path, b.cookies())
		}
	}
	stranger := g.browser()
	if a := stranger.get("/bff/logout/callback?state=" + u.Query().Get("state")); a.location() != "/bye" {
		t.Errorf("another browser: location %q, want /bye", a.location())
	}
}

func TestLO07LogoutIsIdempotent(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	if a := b.get("/bff/logout?sid=x&returnUrl=/gone"); a.StatusCode != http.StatusSeeOther || a.location() != "/bye" {
		t.Errorf("never logged in: status %d location %q, want 303 /bye", a.StatusCode, a.location())
	}
	b.logIn("")
	link, cookie := b.logoutURL(), b.cookies()[""]
	b.get(link)
	b.plant("", cookie)
	a := b.get(link)
	if a.StatusCode != http.StatusSeeOther || a.location() != "/bye" {
		t.Errorf("again: status %d location %q, want 303 /bye", a.StatusCode, a.location())
	}
	if _, ok := b.cookies()[""]; ok {
		t.Error("the stale cookie is still there")
	}
	if n := len(p.seen("/revoke")); n != 1 {
		t.Errorf("%d revocations, want 1", n)
	}
}

func TestLO07ProviderWithoutLogout(t *testing.T) {
	p := newProvider(t)
	p.metadata = func(md map[string]any) { delete(md, "end_session_endpoint"); delete(md, "revocation_endpoint") }
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	if a := b.get(b.logoutURL() + "&returnUrl=/gone"); a.StatusCode != http.StatusSeeOther || a.location() != "/gone" {
		t.Errorf("status %d location %q, want 303 /gone", a.StatusCode, a.location())
	}
	b.logIn("")
	if a := b.do(http.MethodPost, "/bff/logout"); strings.TrimSpace(a.body) != `{"redirect_url":"/bye"}` {
		t.Errorf("POST: body %s", a.body)
	}
	b.wantLoggedIn(false)
}

func TestLogoutCanBeLocal(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p, func(s *setup) { s.Logout.EndSession, s.Logout.Revoke = false, false })
	b := g.browser()
	b.logIn("")
	if a := b.get(b.logoutURL()); a.StatusCode != http.StatusSeeOther || a.location() != "/bye" {
		t.Errorf("status %d location %q, want 303 /bye", a.StatusCode, a.location())
	}
	if n := len(p.seen("/revoke")); n != 0 {
		t.Errorf("%d revocations, want 0", n)
	}
}

func TestPostLogoutHidesTheIDToken(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	a := b.do(http.MethodPost, "/bff/logout?returnUrl=/gone")
	if got, want := strings.TrimSpace(a.body), `{"redirect_url":"/bff/logout/continue"}`; got != want {
		t.Fatalf("code %s body %s, want %s", a.code(), got, want)
	}
	for _, c := range a.Cookies() {
		if strings.HasSuffix(c.Name, "-logout") && (c.MaxAge != 60 || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || !c.Secure) {
			t.Errorf("cookie %s", c)
		}
	}
	b.wantLoggedIn(false)
	a = b.get("/bff/logout/continue")
	u, _ := url.Parse(a.location())
	if a.StatusCode != http.StatusFound || u.Path != "/end" || strings.Count(u.Query().Get("id_token_hint"), ".") != 2 {
		t.Errorf("continue: status %d location %q", a.StatusCode, a.location())
	}
	if a := b.get("/bff/logout/continue"); a.StatusCode != http.StatusSeeOther || a.location() != "/bye" {
		t.Errorf("continue again: status %d location %q, want 303 /bye", a.StatusCode, a.location())
	}
	if a := b.get("/bff/logout/callback?state=" + u.Query().Get("state")); a.location() != "/gone" {
		t.Errorf("return: location %q, want /gone", a.location())
	}
	if a := b.do(http.MethodPost, "/bff/logout"); strings.TrimSpace(a.body) != `{"redirect_url":"/bye"}` {
		t.Errorf("anonymous: body %s", a.body)
	}
}

func TestPostLogoutDropsAHintThatFitsNoCookie(t *testing.T) {
	p := newProvider(t)
	p.claims = func(c map[string]any) {
		var groups []string
		for range 300 {
			groups = append(groups, rand.Text())
		}
		c["groups"] = groups
	}
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	a := b.do(http.MethodPost, "/bff/logout")
	for _, line := range a.Header["Set-Cookie"] {
		if len(line) > 4096 {
			t.Errorf("a cookie of %d bytes", len(line))
		}
	}
	u, _ := url.Parse(b.get("/bff/logout/continue").location())
	if u.Path != "/end" || u.Query().Has("id_token_hint") || u.Query().Get("client_id") != clientID {
		t.Errorf("continue: %v", u)
	}
	if !strings.Contains(g.logs.String(), "logout_hint_dropped") {
		t.Error("nothing in the log")
	}
}

func TestLogoutWithTheStoreDown(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	link := b.logoutURL()
	g.store.fail()
	for _, a := range []*answer{b.get(link), b.do(http.MethodPost, "/bff/logout")} {
		if a.code() != "store_unavailable" || len(a.Header["Set-Cookie"]) != 0 {
			t.Errorf("code %q cookies %q, want store_unavailable and none", a.code(), a.Header["Set-Cookie"])
		}
	}
	if n := len(p.seen("/revoke")); n != 0 {
		t.Errorf("%d revocations of a session that did not end", n)
	}
	g.store.fix()
	b.wantLoggedIn(true)
}

func TestRV02LogoutWaitsForNoRevocation(t *testing.T) {
	p := newProvider(t)
	p.take("/revoke", silence)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	link := b.logoutURL()
	began := time.Now()
	if a := b.get(link); a.StatusCode != http.StatusFound {
		t.Errorf("status %d", a.StatusCode)
	}
	if d := time.Since(began); d < 400*time.Millisecond || d > 900*time.Millisecond {
		t.Errorf("logout took %v, want about 500 ms", d)
	}
}

func TestRV02UnavailableRevocationIsTriedAgain(t *testing.T) {
	p := newProvider(t)
	p.take("/revoke", func(w http.ResponseWriter, r *http.Request) {
		p.take("/revoke", nil)
		w.WriteHeader(503)
	})
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	b.get(b.logoutURL())
	eventually(t, "a second attempt", func() bool { return len(p.seen("/revoke")) == 2 })
	calls := p.seen("/revoke")
	if calls[0].form.Get("token") != calls[1].form.Get("token") {
		t.Error("another token the second time")
	}
}

// RFC 7009, section 2.2.1
func TestRV02RetryAfterOfARevocationIsObeyed(t *testing.T) {
	p := newProvider(t)
	p.take("/revoke", func(w http.ResponseWriter, r *http.Request) {
		p.take("/revoke", nil)
		w.Header().Set("Retry-After", "4")
		w.WriteHeader(503)
	})
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	b.get(b.logoutURL())
	began := time.Now()
	eventually(t, "a second attempt", func() bool { return len(p.seen("/revoke")) == 2 })
	if d := time.Since(began); d < 3*time.Second {
		t.Errorf("tried again after %v, want 4 s", d)
	}
}

func TestRV02RevocationGoesOnWithoutTheBrowser(t *testing.T) {
	p := newProvider(t)
	release, done := make(chan struct{}), make(chan error, 1)
	p.take("/revoke", func(w http.ResponseWriter, r *http.Request) {
		<-release
		done <- r.Context().Err()
	})
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	b.get(b.logoutURL())
	b.CloseIdleConnections()
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the revocation was broken off: %v", err)
	}
}

func TestRF13LogoutUsesTheTokensOfTheRefreshBefore(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	p.answer = func(a map[string]any) { a["expires_in"] = 1 }
	b.logIn("")
	p.tell(func() {
		p.answer = func(a map[string]any) { a["refresh_token"], a["id_token"] = "canary-rt-second", p.idToken("") }
		p.claims = func(c map[string]any) { c["jti"] = "second" }
	})
	// Not the token call: in the background the ID token is verified after it, and
	// a logout in between goes with the former one.
	eventually(t, "a refresh", func() bool { b.get("/api"); return strings.Contains(g.logs.String(), `"event":"refresh"`) })
	u, _ := url.Parse(b.get(b.logoutURL()).location())
	if got := p.seen("/revoke")[0].form.Get("token"); got != "canary-rt-second" {
		t.Errorf("revoked %q, want the current refresh token", got)
	}
	hint := strings.Split(u.Query().Get("id_token_hint"), ".")
	if len(hint) != 3 || claimsOf(t, hint[1])["jti"] != "second" {
		t.Error("LO-04: id_token_hint is not the latest ID token")
	}
}

func claimsOf(t *testing.T, payload string) map[string]any {
	t.Helper()
	var claims map[string]any
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(b, &claims) != nil {
		t.Fatal("not a JWT")
	}
	return claims
}

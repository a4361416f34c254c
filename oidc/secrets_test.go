package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sessiongate/session"
)

func TestSES08NoTokenReachesTheBrowserButTheHint(t *testing.T) {
	p := newProvider(t)
	p.claims = func(c map[string]any) { c["jti"] = "canary-id" }
	g := newGateway(t, p, func(s *setup) { s.Logout.IDTokenHint = false })
	b := g.browser()
	var all strings.Builder
	see := func(a *answer) {
		all.WriteString(a.body)
		a.Header.Write(&all)
	}
	q := b.begin("")
	see(b.callback(q))
	see(b.get("/bff/session"))
	see(b.get("/bff/user"))
	see(b.callback(q))
	see(b.do(http.MethodPost, "/bff/logout"))
	see(b.get("/bff/logout/continue"))
	if strings.Contains(all.String(), "canary") || strings.Contains(all.String(), "eyJ") {
		t.Errorf("a token reached the browser:\n%s", all.String())
	}
}

func TestSES01EveryCookieHasItsAttributes(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	var cookies []*http.Cookie
	see := func(a *answer) *answer { cookies = append(cookies, a.Cookies()...); return a }
	see(b.get("/bff/login"))
	q := b.begin("")
	see(b.callback(q))
	link := b.logoutURL()
	u, _ := url.Parse(see(b.get(link)).location())
	see(b.get("/bff/logout/callback?state=" + u.Query().Get("state")))
	b.logIn("")
	see(b.do(http.MethodPost, "/bff/logout"))
	see(b.get("/bff/logout/continue"))
	if len(cookies) < 10 {
		t.Fatalf("%d cookies seen", len(cookies))
	}
	for _, c := range cookies {
		want := http.SameSiteLaxMode
		if c.Name == session.DefaultCookieName {
			want = http.SameSiteStrictMode
		}
		if !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != want || !strings.HasPrefix(c.Name, "__Host-Http-") {
			t.Errorf("cookie %s", c)
		}
	}
}

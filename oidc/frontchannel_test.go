package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// frame asks for the page that a provider frames: without a cookie.
func (g *gateway) frame(query string) *answer {
	g.t.Helper()
	return g.browser().get("/bff/frontchannel"+query, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe")
}

func named(iss, sid string) string {
	return "?" + url.Values{"iss": {iss}, "sid": {sid}}.Encode()
}

func TestFC01FrontChannelNeedsNoCookie(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	one, two, other := g.logInAs("ada", "s1"), g.logInAs("ada", "s1"), g.logInAs("ada", "s2")
	if a := g.frame(named(p.URL, "s1")); a.StatusCode != http.StatusOK || len(a.Header["Set-Cookie"]) != 0 {
		t.Errorf("status %d cookies %q, want 200 and none", a.StatusCode, a.Header["Set-Cookie"])
	}
	for _, b := range []*browser{one, two} {
		if got := b.status()["reason"]; got != "frontchannel" {
			t.Errorf("reason = %v, want frontchannel", got)
		}
	}
	other.wantLoggedIn(true)
	if !g.logged("frontchannel_logout", "INFO", `"sessions":2`) {
		t.Errorf("no audit event:\n%s", g.logs)
	}
	// Nobody vouches for such a request, so it must not keep anybody from logging in.
	g.logInAs("ada", "s1").wantLoggedIn(true)
}

func TestFC02OtherRequestsHaveTheSameAnswerAndNoEffect(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.logInAs("ada", "s1")
	shape := func(a *answer) string {
		h := a.Header.Clone()
		h.Del("Date")
		var s strings.Builder
		h.Write(&s)
		return a.Status + "\n" + s.String() + "\n" + a.body
	}
	unknown := shape(g.frame(named(p.URL, "s2")))
	for name, query := range map[string]string{
		"nothing":                   "",
		"sid alone":                 "?sid=s1",
		"iss alone":                 "?iss=" + url.QueryEscape(p.URL),
		"an empty sid":              named(p.URL, ""),
		"an empty iss":              named("", "s1"),
		"another issuer":            named("https://evil.example", "s1"),
		"the issuer with a slash":   named(p.URL+"/", "s1"),
		"the issuer in upper case":  named(strings.ToUpper(p.URL), "s1"),
		"two issuers":               named(p.URL, "s1") + "&iss=" + url.QueryEscape(p.URL),
		"two sids":                  named(p.URL, "s1") + "&sid=s1",
		"an empty sid beside it":    named(p.URL, "s1") + "&sid=",
		"a malformed query":         named(p.URL, "s1") + "&%zz",
		"a sid in another case":     named(p.URL, "S1"),
		"a subject":                 named(p.URL, "ada"),
		"a sid with a space behind": named(p.URL, "s1 "),
	} {
		if got := shape(g.frame(query)); got != unknown {
			t.Errorf("%s: answer\n%s\nwant that for an unknown sid\n%s", name, got, unknown)
		}
		if got := b.status()["authenticated"]; got != true {
			t.Fatalf("%s: the session is over", name)
		}
	}
	g.store.fail()
	down := shape(g.frame(named(p.URL, "s1")))
	g.store.fix()
	b.wantLoggedIn(true)
	if down != unknown || !g.logged("frontchannel_logout", "WARN") {
		t.Errorf("store down: answer\n%s\nwant that for an unknown sid, and a warning in the log\n%s", down, g.logs)
	}
	if ended := shape(g.frame(named(p.URL, "s1"))); ended != unknown {
		t.Errorf("the right sid: answer\n%s\nwant that for an unknown one", ended)
	}
	b.wantLoggedIn(false)
}

func TestFC03OnlyTheProviderMayFrame(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	if got, want := g.frame("").Header.Get("Content-Security-Policy"), "default-src 'none'; frame-ancestors "+p.URL; got != want {
		t.Errorf("CSP = %q, want %q", got, want)
	}
	for end, want := range map[string]string{
		p.URL + "/end":                     p.URL,
		"http://Logout.example.com:81/a?b": p.URL + " http://logout.example.com:81",
		"http://a;b.example.com/":          p.URL,
		"http://a,b/":                      p.URL,
		"":                                 p.URL,
	} {
		p.metadata = func(md map[string]any) { md["end_session_endpoint"] = end }
		g := newGateway(t, p)
		g.browser().begin("") // for which the metadata is fetched
		a := g.frame(named(p.URL, "s1"))
		h := a.Header
		if got, want := h.Get("Content-Security-Policy"), "default-src 'none'; frame-ancestors "+want; got != want {
			t.Errorf("end_session_endpoint %q: CSP = %q, want %q", end, got, want)
		}
		if h.Get("X-Frame-Options") != "" || h.Get("Cross-Origin-Resource-Policy") != "cross-origin" || h.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("header %v", h)
		}
		if strings.Contains(a.body, "script") || len(a.body) > 200 {
			t.Errorf("body %q, want a small page without script", a.body)
		}
	}
}

package oidc_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiongate/oidc"
	"sessiongate/session"
)

// authorization starts a login and returns the authorization request.
func authorization(t *testing.T, b *browser, query string, headers ...string) url.Values {
	t.Helper()
	a := b.get("/bff/login"+query, headers...)
	u, err := url.Parse(a.location())
	if a.StatusCode != http.StatusFound || err != nil {
		t.Fatalf("login%s: status %d code %s, want 302", query, a.StatusCode, a.code())
	}
	return u.Query()
}

func TestLoginBringsTheUserBackLoggedIn(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	const deep = "/orders?q=a%2Fb&x=%23&z=a+b#/route"
	a := b.logIn("?returnUrl=" + url.QueryEscape(deep))
	if got := a.location(); got != deep {
		t.Errorf("Location = %q, want %q", got, deep)
	}
	// CB-20
	if a.body != "" || a.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("body %q, Referrer-Policy %q, want none and no-referrer", a.body, a.Header.Get("Referrer-Policy"))
	}
	b.wantLoggedIn(true)
	if got := g.logins("ok"); got != 1 {
		t.Errorf("logins ok = %v, want 1", got)
	}
	if !strings.Contains(g.logs.String(), `"event":"login"`) {
		t.Error("no audit event login")
	}
	if strings.Contains(g.logs.String(), "canary") {
		t.Errorf("a secret is in the logs:\n%s", g.logs)
	}
}

func TestLOG01AuthorizationRequestIsCodeFlow(t *testing.T) {
	g := newGateway(t, newProvider(t), func(s *setup) { s.AuthParams = map[string]string{"audience": "api", "prompt": "consent"} })
	q := authorization(t, g.browser(), "?prompt=none&login_hint=ada")
	for name, want := range map[string]string{
		"response_type": "code", "client_id": clientID, "redirect_uri": g.URL + "/bff/callback",
		"scope": "openid email offline_access", "code_challenge_method": "S256", // LOG-14, LOG-03
		"audience": "api", "login_hint": "ada",
		"prompt": "consent", // configured parameters are fixed
	} {
		if got := q[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestLOG03LOG04EveryLoginHasFreshSecrets(t *testing.T) {
	g := newGateway(t, newProvider(t))
	seen := map[string]bool{}
	for range 100 {
		q := authorization(t, g.browser(), "")
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if v := q.Get(name); len(v) < 26 || seen[v] {
				t.Fatalf("%s = %q is short or was seen before", name, v)
			}
			seen[q.Get(name)] = true
		}
	}
}

func TestLOG07RedirectURIIgnoresTheRequest(t *testing.T) {
	g := newGateway(t, newProvider(t))
	q := authorization(t, g.browser(), "", "X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example", "X-Forwarded-Proto", "http")
	if got, want := q.Get("redirect_uri"), g.URL+"/bff/callback"; got != want {
		t.Errorf("redirect_uri = %q, want %q", got, want)
	}
}

func TestLOG08FlowCookie(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	a := b.get("/bff/login?returnUrl=/deep")
	cookies := a.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies, want 1", len(cookies))
	}
	c := cookies[0]
	if !strings.HasPrefix(c.Name, session.DefaultCookieName+"-flow-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" ||
		c.SameSite != http.SameSiteLaxMode || c.MaxAge != 600 {
		t.Errorf("flow cookie: %s", c)
	}
	u, _ := url.Parse(a.location())
	for _, secret := range []string{u.Query().Get("state"), u.Query().Get("nonce"), "deep"} {
		if strings.Contains(c.String(), secret) {
			t.Errorf("the flow cookie shows %q", secret)
		}
	}
}

func TestLOG09TabsLogInAtOnce(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	var tabs []url.Values
	for _, path := range []string{"/a", "/b", "/c", "/d"} {
		tabs = append(tabs, b.begin("?returnUrl="+path))
	}
	for i, path := range []string{"/a", "/b", "/c", "/d"} {
		if a := b.callback(tabs[i]); a.StatusCode != http.StatusSeeOther || a.location() != path {
			t.Errorf("tab %s: status %d code %s location %q", path, a.StatusCode, a.code(), a.location())
		}
	}
	b.wantLoggedIn(true)
	if n := b.flows(); n != 0 {
		t.Errorf("%d flow cookies are left", n)
	}
}

func TestLOG13ProtocolParametersCannotBeOverridden(t *testing.T) {
	g := newGateway(t, newProvider(t))
	for _, name := range []string{"client_id", "redirect_uri", "scope", "state", "nonce", "response_type", "response_mode",
		"code_challenge", "code_challenge_method", "request", "request_uri", "claims", "resource", "acr_values", "audience"} {
		q := authorization(t, g.browser(), "?"+name+"=evil")
		if len(q[name]) > 1 || slices.Contains(q[name], "evil") {
			t.Errorf("%s=evil reached the provider: %q", name, q[name])
		}
	}
	for _, query := range []string{"?prompt=login&prompt=none", "?returnUrl=/a&returnUrl=/b", "?max_age=-1", "?max_age=x", "?login_hint=a%0d%0ab", "?prompt=%zz"} {
		a := g.browser().get("/bff/login" + query)
		if a.code() != "invalid_parameter" {
			t.Errorf("login%s: code %q, want invalid_parameter", query, a.code())
		}
	}
}

func TestLOG13ConfigurationCannotOverrideEither(t *testing.T) {
	for _, name := range []string{"client_id", "redirect_uri", "scope", "state", "nonce", "response_type", "response_mode",
		"code_challenge", "code_challenge_method", "request", "request_uri", "claims"} {
		cfg := newConfig("https://login.example.com")
		cfg.AuthParams = map[string]string{name: "x"}
		if _, err := oidc.NewClient(cfg); err == nil {
			t.Errorf("auth_params with %s: no error", name)
		}
		cfg = newConfig("https://login.example.com")
		cfg.LoginParams = []string{name}
		if _, err := oidc.NewClient(cfg); err == nil {
			t.Errorf("login_params with %s: no error", name)
		}
	}
}

func TestLOG19LoginReplacesTheFormerSession(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	first := b.cookies()[""]
	q := b.begin("") // with the cookie
	// A Strict cookie does not come along from the provider's form.
	u, _ := url.Parse(g.URL)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: session.DefaultCookieName, Path: "/", MaxAge: -1, Secure: true}})
	if a := b.callback(q); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("second login: code %s", a.code())
	}
	second := b.cookies()[""]
	if first == second {
		t.Error("the session cookie did not change")
	}
	old := g.browser()
	old.plant("", first)
	if got := old.status()["reason"]; got != "replaced" {
		t.Errorf("the former session: reason = %v, want replaced", got)
	}
	b.wantLoggedIn(true)
}

func TestCB21AClientChosenSessionIDIsNotTaken(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.plant("", "attacker")
	b.logIn("")
	if got := b.cookies()[""]; got == "attacker" || got == "" {
		t.Errorf("session cookie = %q", got)
	}
}

func TestLOG22FlowCookiesDoNotPileUp(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	var last url.Values
	for range 40 {
		last = b.begin("")
		if n := b.flows(); n > 8 {
			t.Fatalf("%d flow cookies, want at most 8", n)
		}
	}
	if n := b.flows(); n != 8 {
		t.Errorf("%d flow cookies, want 8: the oldest go, no more", n)
	}
	if a := b.callback(last); a.StatusCode != http.StatusSeeOther {
		t.Errorf("the newest flow: code %s", a.code())
	}
}

func TestLOG22TheOldestFlowGoes(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	var tabs []url.Values
	for range 9 {
		tabs = append(tabs, b.begin("?returnUrl=/deep"))
		time.Sleep(2 * time.Millisecond) // flows are told apart by the millisecond
	}
	if a := b.callback(tabs[0]); a.code() != "login_refused" {
		t.Errorf("the oldest: code %q, want login_refused", a.code())
	}
	for i, q := range tabs[1:] {
		if a := b.callback(q); a.location() != "/deep" {
			t.Errorf("flow %d: code %q location %q, want /deep", i+2, a.code(), a.location())
		}
	}
}

func TestLoginWithTheCookieOfASessionThatEnded(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	for range 4 { // nor is that a login loop: the cookie came back
		b.logIn("")
		cookie := b.cookies()[""]
		b.get(b.logoutURL())
		b.plant("", cookie)
	}
}

func TestJunkFlowCookiesAreCleared(t *testing.T) { // CVE-2024-24814
	g := newGateway(t, newProvider(t))
	b := g.browser()
	for i := range 150 {
		b.plant("-flow-"+strings.Repeat("x", i%50)+string(rune('a'+i%26)), "junk")
	}
	before := b.flows()
	a := b.get("/bff/login")
	if a.StatusCode != http.StatusFound {
		t.Fatalf("login: code %s", a.code())
	}
	if n := len(a.Header["Set-Cookie"]); n != 3 {
		t.Errorf("%d Set-Cookie, want 3: two cleared, one set", n)
	}
	for range before {
		b.get("/bff/login")
	}
	if n := b.flows(); n != 8 {
		t.Errorf("%d flow cookies in the end, want 8", n)
	}
}

func TestLoginAnswers503WithoutTheProvider(t *testing.T) { // pains 28
	p := newProvider(t)
	p.take("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	g := newGateway(t, p)
	b := g.browser()
	a := b.get("/bff/login")
	if a.code() != "provider_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("code %q, Retry-After %q, want provider_unavailable with one", a.code(), a.Header.Get("Retry-After"))
	}
	if err := g.client.Ready(); err == nil {
		t.Error("Ready without metadata")
	}
	if n := b.flows(); n != 0 {
		t.Errorf("%d flow cookies of logins that did not begin", n)
	}
	for range 20 {
		b.get("/bff/login")
	}
	if n := len(p.seen("/.well-known/openid-configuration")); n > 2 {
		t.Errorf("%d requests to a provider that is down, want at most 2", n)
	}
	p.take("/.well-known/openid-configuration", nil)
	eventually(t, "login works again", func() bool { return b.get("/bff/login").StatusCode == http.StatusFound })
	if err := g.client.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
}

func TestLoginWithTheStoreDown(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	q := b.begin("")
	g.store.fail()
	if a := b.callback(q); a.code() != "store_unavailable" {
		t.Errorf("callback: code %q, want store_unavailable", a.code())
	}
	if n := len(g.provider.seen("/token")); n != 0 {
		t.Errorf("%d token requests, want 0: that the state is new cannot be known", n)
	}
	g.store.fix()
	b.logIn("")
}

func TestLoginsAreLimitedByAddress(t *testing.T) {
	g := newGateway(t, newProvider(t), func(s *setup) {
		s.Options.LoginsPerMinute = 3
		s.Options.ClientAddress = func(r *http.Request) string { return r.Header.Get("Test-Address") }
	})
	from := func(address string) *answer { return g.browser().get("/bff/login", "Test-Address", address) }
	for range 3 {
		if a := from("2001:db8::1"); a.StatusCode != http.StatusFound {
			t.Fatalf("code %s, want 302", a.code())
		}
	}
	a := from("2001:db8::ffff") // the same /64
	if a.code() != "too_many_requests" || a.Header.Get("Retry-After") == "" {
		t.Errorf("fourth login: code %q, Retry-After %q", a.code(), a.Header.Get("Retry-After"))
	}
	if a := from("192.0.2.1"); a.StatusCode != http.StatusFound {
		t.Errorf("another address: code %q, want 302", a.code())
	}
}

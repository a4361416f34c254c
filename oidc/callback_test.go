package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func wantNoTokenCall(t *testing.T, g *gateway) {
	t.Helper()
	if n := len(g.provider.seen("/token")); n != 0 {
		t.Errorf("%d token requests, want 0", n)
	}
}

func TestCB01CallbackWithoutItsFlowIsRefused(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	good := b.begin("")
	for name, change := range map[string]func(url.Values){
		"no state":       func(q url.Values) { q.Del("state") },
		"empty state":    func(q url.Values) { q.Set("state", "") },
		"forged state":   func(q url.Values) { q.Set("state", "AAAAAAAAAAAAAAAAAAAAAAAAAA") },
		"altered state":  func(q url.Values) { q.Set("state", q.Get("state")[1:]+"A") }, // LOG-06
		"implicit grant": func(q url.Values) { q.Del("state"); q.Set("access_token", "x"); q.Set("id_token", "y") },
		"huge state":     func(q url.Values) { q.Set("state", strings.Repeat("s", 100<<10)) },
	} {
		q := url.Values{"code": good["code"], "state": good["state"], "iss": good["iss"]}
		change(q)
		a := b.callback(q)
		if a.code() != "login_refused" {
			t.Errorf("%s: status %d code %q, want login_refused", name, a.StatusCode, a.code())
		}
	}
	wantNoTokenCall(t, g)
	b.wantLoggedIn(false)
	if got := g.logins("failed"); got != 6 {
		t.Errorf("logins failed = %v, want 6", got)
	}
}

func TestCB02CallbackInAnotherBrowserIsRefused(t *testing.T) { // pains 25
	g := newGateway(t, newProvider(t))
	q := g.browser().begin("")
	other := g.browser()
	other.begin("")
	a := other.callback(q)
	if a.code() != "login_refused" || len(a.Header["Set-Cookie"]) != 0 {
		t.Errorf("code %q cookies %q, want login_refused and none", a.code(), a.Header["Set-Cookie"])
	}
	wantNoTokenCall(t, g)
}

func TestLOG06StatesOfTwoFlowsCannotBeSwapped(t *testing.T) {
	g := newGateway(t, newProvider(t))
	a, b := g.browser(), g.browser()
	qa, qb := a.begin(""), b.begin("")
	qa["state"], qb["state"] = qb["state"], qa["state"]
	for _, c := range []*answer{a.callback(qa), b.callback(qb)} {
		if c.code() != "login_refused" {
			t.Errorf("code %q, want login_refused", c.code())
		}
	}
	// Under another's name a flow cookie does not open.
	a, b = g.browser(), g.browser()
	a.begin("")
	qb = b.begin("")
	for _, value := range a.cookies() {
		for name := range b.cookies() {
			b.plant(name, value)
		}
	}
	if c := b.callback(qb); c.code() != "login_refused" {
		t.Errorf("with the other's cookie: code %q, want login_refused", c.code())
	}
	wantNoTokenCall(t, g)
}

func TestCB03StateIsUsedOnce(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	q := b.begin("?returnUrl=/deep")
	flow := b.cookies()
	b.callback(q)
	if n := b.flows(); n != 0 {
		t.Errorf("%d flow cookies after the callback", n)
	}
	thief := g.browser()
	for name, value := range flow {
		thief.plant(name, value)
		b.plant(name, value)
	}
	fresh := p.authorize(p.URL + "/authorize?state=" + q.Get("state")) // a fresh code
	if a := thief.callback(fresh); a.code() != "login_refused" {
		t.Errorf("copied flow cookie: code %q, want login_refused", a.code())
	}
	// Pains 23: whoever is logged in already goes on into the app.
	if a := b.callback(q); a.StatusCode != http.StatusSeeOther || a.location() != "/deep" {
		t.Errorf("again in the same browser: status %d location %q, want 303 /deep", a.StatusCode, a.location())
	}
	if n := len(p.seen("/token")); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

func TestBackButtonOverTheCallbackLeadsIntoTheApp(t *testing.T) { // pains 23
	g := newGateway(t, newProvider(t))
	b := g.browser()
	q := b.begin("")
	b.callback(q)
	if a := b.callback(q); a.StatusCode != http.StatusSeeOther || a.location() != "/" {
		t.Errorf("status %d location %q, want 303 /", a.StatusCode, a.location())
	}
	// From the provider's page the browser keeps the Strict cookie back: whether
	// there is a session shows after a hop on our own pages.
	stranger := g.browser()
	a := stranger.callback(q, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if a.code() != "hop" {
		t.Errorf("without a cookie, from another site: code %q, want the hop page", a.code())
	}
	g.store.fail()
	c := g.browser()
	c.plant("", b.cookies()[""]+"x")
	if a := c.callback(q); a.code() != "login_refused" {
		t.Errorf("junk cookie: code %q, want login_refused", a.code())
	}
}

func TestCB04IssuerOfTheAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		supported bool
		change    func(q url.Values)
		want      string
	}{
		"the right one":               {true, func(q url.Values) {}, ""},
		"none, and none is announced": {false, func(q url.Values) { q.Del("iss") }, ""},
		"none, and it is announced":   {true, func(q url.Values) { q.Del("iss") }, "login_refused"},
		"an empty one":                {false, func(q url.Values) { q.Set("iss", "") }, "login_refused"},
		"another one":                 {false, func(q url.Values) { q.Set("iss", "https://evil.example") }, "login_refused"},
		"one with a slash":            {true, func(q url.Values) { q.Set("iss", q.Get("iss")+"/") }, "login_refused"},
		"one in upper case":           {true, func(q url.Values) { q.Set("iss", strings.ToUpper(q.Get("iss"))) }, "login_refused"},
		"two":                         {true, func(q url.Values) { q.Add("iss", q.Get("iss")) }, "invalid_parameter"},
		"another one with an error": {false, func(q url.Values) {
			q.Del("code")
			q.Set("error", "access_denied")
			q.Set("iss", "https://evil.example")
		}, "login_refused"},
		"none with an error, and it is announced": {true, func(q url.Values) {
			q.Del("code")
			q.Set("error", "access_denied")
			q.Del("iss")
		}, "login_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.metadata = func(md map[string]any) { md["authorization_response_iss_parameter_supported"] = test.supported }
			g := newGateway(t, p)
			b := g.browser()
			q := b.begin("")
			test.change(q)
			if a := b.callback(q); a.code() != test.want {
				t.Errorf("code %q, want %q", a.code(), test.want)
			}
			if test.want != "" {
				wantNoTokenCall(t, g)
			}
		})
	}
}

func TestCB05TwoProvidersAreNotMixedUp(t *testing.T) {
	pa, pb := newProvider(t), newProvider(t)
	ga := newGateway(t, pa)
	gb := newGateway(t, pb)
	b := ga.browser()
	q := b.begin("")
	q.Set("iss", pb.URL)
	if a := b.callback(q); a.code() != "login_refused" {
		t.Errorf("answer of another provider: code %q, want login_refused", a.code())
	}
	wantNoTokenCall(t, ga)
	wantNoTokenCall(t, gb)
}

func TestCB06ErrorAnswers(t *testing.T) {
	for reason, want := range map[string]string{
		"access_denied": "login_denied", "server_error": "provider_unavailable", "temporarily_unavailable": "provider_unavailable",
		"invalid_scope": "login_refused", "login_required": "login_refused", "<script>alert(1)</script>": "login_refused",
	} {
		g := newGateway(t, newProvider(t))
		b := g.browser()
		q := b.begin("")
		q.Set("error", reason)
		q.Set("error_description", "<script>\r\n\x1b[31malert(2)")
		a := b.callback(q)
		if a.code() != want || a.location() != "" {
			t.Errorf("%s: code %q location %q, want %s", reason, a.code(), a.location(), want)
		}
		if strings.Contains(a.body+a.Header.Get("X-Help"), "script") {
			t.Errorf("%s: error_description is shown", reason)
		}
		if strings.Contains(g.logs.String(), `\u001b`) {
			t.Errorf("%s: control characters are in the log", reason)
		}
		if n := b.flows(); n != 0 {
			t.Errorf("%s: %d flow cookies are left (pains 24)", reason, n)
		}
		wantNoTokenCall(t, g)
		if a := b.callback(q); a.code() != "login_refused" {
			t.Errorf("%s again: code %q, want login_refused", reason, a.code())
		}
	}
}

func TestCB06DeniedLoginsAreCounted(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	q := b.begin("")
	q.Set("error", "access_denied")
	b.callback(q)
	if got := g.logins("denied"); got != 1 {
		t.Errorf("logins denied = %v, want 1", got)
	}
}

func TestLOG20PromptNoneKeepsWhatIs(t *testing.T) {
	for _, reason := range []string{"login_required", "interaction_required", "consent_required", "account_selection_required"} {
		g := newGateway(t, newProvider(t))
		b := g.browser()
		b.logIn("")
		cookie := b.cookies()[""]
		q := b.begin("?prompt=none&returnUrl=/here")
		q.Del("code")
		q.Set("error", reason)
		if a := b.callback(q); a.StatusCode != http.StatusSeeOther || a.location() != "/here" {
			t.Errorf("%s: status %d location %q, want 303 /here", reason, a.StatusCode, a.location())
		}
		if b.cookies()[""] != cookie {
			t.Errorf("%s: the session cookie was touched", reason)
		}
		b.wantLoggedIn(true)
	}
}

func TestCB07RepeatedParametersAreRefused(t *testing.T) {
	for _, name := range []string{"code", "state", "iss", "error"} {
		g := newGateway(t, newProvider(t))
		b := g.browser()
		q := b.begin("")
		q[name] = []string{q.Get(name), q.Get(name)}
		if a := b.callback(q); a.code() != "invalid_parameter" {
			t.Errorf("%s: code %q, want invalid_parameter", name, a.code())
		}
		wantNoTokenCall(t, g)
	}
}

func TestLoginLoopIsBroken(t *testing.T) { // pains 21
	g := newGateway(t, newProvider(t))
	b := g.browser()
	forget := func() { b.plant("", "") } // a browser that does not keep the session cookie
	for i := range 2 {
		if a := b.callback(b.begin("")); a.StatusCode != http.StatusSeeOther {
			t.Fatalf("login %d: code %s", i+1, a.code())
		}
		forget()
	}
	q := b.begin("")
	a := b.callback(q)
	if a.code() != "login_loop" || !strings.Contains(a.Header.Get("X-Help"), "cookie") {
		t.Errorf("third login: code %q help %q, want login_loop and its cause", a.code(), a.Header.Get("X-Help"))
	}
	if n := len(g.provider.seen("/token")); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	if a := b.callback(b.begin("")); a.StatusCode != http.StatusSeeOther {
		t.Errorf("starting again: code %s, want 303", a.code())
	}
}

func TestLoginLoopGuardKnowsTabsAndReturningCookies(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	var tabs []url.Values
	for range 6 {
		tabs = append(tabs, b.begin(""))
	}
	for i, q := range tabs {
		if a := b.callback(q); a.StatusCode != http.StatusSeeOther {
			t.Fatalf("tab %d: code %s", i, a.code())
		}
	}
	for i := range 6 { // the cookie comes back each time
		if a := b.callback(b.begin("")); a.StatusCode != http.StatusSeeOther {
			t.Fatalf("login %d: code %s", i, a.code())
		}
	}
	// From links on another site a Strict cookie never comes along.
	for i := range 6 {
		b.plant("", "")
		if a := b.callback(b.begin("", "Sec-Fetch-Site", "cross-site")); a.StatusCode != http.StatusSeeOther {
			t.Fatalf("login %d from another site: code %s", i, a.code())
		}
	}
}

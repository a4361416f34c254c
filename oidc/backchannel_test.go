package oidc_test

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	form        = "application/x-www-form-urlencoded"
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
)

// backChannel posts what a provider's server posts: without a cookie.
func (g *gateway) backChannel(kind, body string) *answer {
	g.t.Helper()
	resp, err := g.Client().Post(g.URL+"/bff/backchannel", kind, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		g.t.Errorf("BC-08: Cache-Control = %q, want no-store", got)
	}
	return &answer{resp, string(b)}
}

func (g *gateway) sendLogout(token string) *answer {
	g.t.Helper()
	return g.backChannel(form, url.Values{"logout_token": {token}}.Encode())
}

// failure is the error of a back-channel answer: "" for success, and for anything
// else than the protocol's answers what was wrong with it.
func (a *answer) failure() string {
	if a.StatusCode == http.StatusOK && a.body == "" {
		return ""
	}
	var f struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	err := json.Unmarshal([]byte(a.body), &f)
	if a.StatusCode != http.StatusBadRequest || err != nil || f.Description == "" || len(f.Description) > 100 || a.Header.Get("Content-Type") != "application/json" {
		return a.Status + " " + a.body
	}
	return f.Error
}

func setClaim(name string, value any) func(h, c map[string]any) {
	return func(h, c map[string]any) { c[name] = value }
}

func dropClaim(names ...string) func(h, c map[string]any) {
	return func(h, c map[string]any) {
		for _, name := range names {
			delete(c, name)
		}
	}
}

func setHeader(name string, value any) func(h, c map[string]any) {
	return func(h, c map[string]any) { h[name] = value }
}

func secondsFromNow(n int64) int64 { return time.Now().Unix() + n }

func unix(n int64) string { return strconv.FormatInt(secondsFromNow(n), 10) }

func TestLogoutTokensThatAreRefusedEndNothing(t *testing.T) {
	signed := func(sign func(h, c map[string]any) string, change ...func(h, c map[string]any)) func(*provider) string {
		return func(p *provider) string {
			p.tell(func() { p.sign = sign })
			return p.logoutToken(change...)
		}
	}
	token := func(change ...func(h, c map[string]any)) func(*provider) string {
		return func(p *provider) string { return p.logoutToken(change...) }
	}
	raw := func(claims string) func(*provider) string {
		return func(p *provider) string {
			return p.signed(strings.NewReplacer("ISS", p.URL, "NOW", unix(0), "EXP", unix(120)).Replace(claims))
		}
	}
	const whole = `"iss":"ISS","aud":"shop","iat":NOW,"exp":EXP,"jti":"j","sid":"op-session","sub":"248289761001","events":{"` + logoutEvent + `":{}}`
	byOther := func(h, c map[string]any) string { return signRSA(otherKey(), h, c) }
	p := newProvider(t)
	if got := newGateway(t, p).sendLogout(raw("{" + whole + "}")(p)).failure(); got != "" {
		t.Fatalf("the claims that are varied below: %q, want success", got)
	}
	for name, make := range map[string]func(*provider) string{
		"BC-02 not signed": signed(func(h, c map[string]any) string { return signingInput(h, c) + "." }, setHeader("alg", "none")),
		"BC-02 signed with the public key as a secret": signed(signHMAC, setHeader("alg", "HS256")),
		"BC-02 signed by another key of the same name": signed(byOther),
		"BC-02 an algorithm not announced":             token(setHeader("alg", "RS512")),
		"BC-02 altered claims":                         signed(altered),
		"BC-02 brings its key":                         signed(byOther, setHeader("jwk", jose.JSONWebKey{Key: otherKey().Public()})),
		"BC-02 brings the right key":                   token(setHeader("jwk", jose.JSONWebKey{Key: rsaKey().Public()})),
		"BC-02 points at a key set":                    token(setHeader("jku", "https://evil.example/keys")),
		"BC-02 points at a certificate":                token(setHeader("x5u", "https://evil.example/cert")),
		"BC-02 brings a certificate":                   token(setHeader("x5c", []string{"AAAA"})),
		"BC-02 has a critical extension":               token(setHeader("crit", []string{"x"}), setHeader("x", 1)),
		"BC-02 three dots":                             func(*provider) string { return "..." },
		"BC-02 not a JWT":                              func(*provider) string { return "canary" },
		"BC-02 four parts":                             func(p *provider) string { return p.logoutToken() + ".AAAA" },
		"BC-02 claims that are no object":              raw(`[]`),
		"BC-02 claims that are null":                   raw(`null`),
		"BC-02 claims that are no JSON":                raw(`{` + whole + `,}`),
		"BC-02 iss twice":                              raw(`{"iss":"https://evil.example",` + whole + `}`),
		"BC-02 sub twice":                              raw(`{"sub":"x",` + whole + `}`),
		"BC-02 events twice":                           raw(`{"events":{},` + whole + `}`),
		"BC-02 iss also in upper case":                 token(setClaim("ISS", "https://evil.example")),
		"BC-02 sub also in upper case":                 token(setClaim("Sub", "mallory")),
		"BC-02 sub also with a long s":                 token(setClaim("ſub", "mallory")),
		"BC-02 sid in upper case alone":                token(dropClaim("sid"), setClaim("SID", "op-session")),
		"BC-02 events in upper case alone":             raw(strings.Replace("{"+whole+"}", "events", "Events", 1)),
		"BC-03 another issuer":                         token(setClaim("iss", "https://evil.example")),
		"BC-03 no issuer":                              token(dropClaim("iss")),
		"BC-03 issuer with a slash":                    token(func(h, c map[string]any) { c["iss"] = c["iss"].(string) + "/" }),
		"BC-03 issuer in upper case":                   token(func(h, c map[string]any) { c["iss"] = strings.ToUpper(c["iss"].(string)) }),
		"BC-03 another audience":                       token(setClaim("aud", "other")),
		"BC-03 an audience we do not trust":            token(setClaim("aud", []string{clientID, "other"})),
		"BC-03 no audience":                            token(dropClaim("aud")),
		"BC-03 an empty audience":                      token(setClaim("aud", []string{})),
		"BC-03 no iat":                                 token(dropClaim("iat")),
		"BC-03 iat is null":                            token(setClaim("iat", nil)),
		"BC-03 iat is a word":                          token(setClaim("iat", "now")),
		"BC-03 issued in the future":                   token(setClaim("iat", secondsFromNow(90))),
		"BC-03 expired":                                token(setClaim("exp", secondsFromNow(-90))),
		"BC-03 no exp":                                 token(dropClaim("exp")),
		"BC-03 exp is null":                            token(setClaim("exp", nil)),
		"BC-03 exp is a string":                        token(setClaim("exp", unix(120))),
		"BC-03 not valid yet":                          token(setClaim("nbf", secondsFromNow(90))),
		"BC-04 neither sub nor sid":                    token(dropClaim("sub", "sid")),
		"BC-04 an empty sub":                           token(dropClaim("sid"), setClaim("sub", "")),
		"BC-04 an empty sid":                           token(dropClaim("sub"), setClaim("sid", "")),
		"BC-04 an empty sid beside a sub":              token(setClaim("sid", "")),
		"BC-04 an empty sub beside a sid":              token(setClaim("sub", "")),
		"BC-04 a sid that is null":                     token(setClaim("sid", nil)),
		"BC-04 a sid that is a number":                 token(setClaim("sid", 7)),
		"BC-04 a sub that is an array":                 token(setClaim("sub", []string{subject})),
		"BC-04 no events":                              token(dropClaim("events")),
		"BC-04 events is null":                         token(setClaim("events", nil)),
		"BC-04 events is an array":                     token(setClaim("events", []string{logoutEvent})),
		"BC-04 events is a string":                     token(setClaim("events", logoutEvent)),
		"BC-04 another event":                          token(setClaim("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}})),
		"BC-04 the event in upper case":                token(setClaim("events", map[string]any{strings.ToUpper(logoutEvent): map[string]any{}})),
		"BC-04 the event is null":                      token(setClaim("events", map[string]any{logoutEvent: nil})),
		"BC-04 the event is an array":                  token(setClaim("events", map[string]any{logoutEvent: []any{}})),
		"BC-04 the event is a string":                  token(setClaim("events", map[string]any{logoutEvent: "{}"})),
		"BC-04 the event is true":                      token(setClaim("events", map[string]any{logoutEvent: true})),
		"BC-04 a nonce":                                token(setClaim("nonce", "n")),
		"BC-04 an empty nonce":                         token(setClaim("nonce", "")),
		"BC-04 a nonce that is null":                   token(setClaim("nonce", nil)),
		"BC-04 a nonce in upper case":                  token(setClaim("NONCE", "n")),
		"BC-04 a genuine ID token":                     func(p *provider) string { return p.freshIDToken(nil) },
		"BC-04 a genuine ID token with a nonce":        func(p *provider) string { return p.freshIDToken(func(c map[string]any) { c["nonce"] = "n" }) },
		"BC-04 an ID token that has learnt the event": func(p *provider) string {
			return p.freshIDToken(func(c map[string]any) { c["nonce"], c["events"] = "n", map[string]any{logoutEvent: map[string]any{}} })
		},
		"BC-05 an access token":                  token(setHeader("typ", "at+jwt")),
		"BC-05 an access token by its long name": token(setHeader("typ", "application/at+jwt")),
		"BC-05 another security event":           token(setHeader("typ", "secevent+jwt")),
		"BC-05 JWT by its long name":             token(setHeader("typ", "application/jwt")),
		"BC-05 an empty type":                    token(setHeader("typ", "")),
		"BC-05 a type that is null":              token(setHeader("typ", nil)),
		"BC-05 a type that is a number":          token(setHeader("typ", 1)),
		"BC-05 a type with a parameter":          token(setHeader("typ", "logout+jwt; x=y")),
		"BC-05 a type with a control character":  token(setHeader("typ", "logout+jwt\u0000")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			b := g.browser()
			b.logIn("")
			raw := make(p)
			calls := g.store.called()
			a := g.sendLogout(raw)
			if got := a.failure(); got != "invalid_request" && got != "temporarily_unavailable" {
				t.Errorf("answer %q, want 400 and invalid_request", got)
			}
			if n := g.store.called() - calls; n != 0 {
				t.Errorf("%d calls of the store, want none", n)
			}
			b.wantLoggedIn(true)
			if !g.logged("backchannel_logout", "WARN") {
				t.Errorf("no warning in the log:\n%s", g.logs)
			}
			for _, part := range strings.Split(raw, ".") {
				if len(part) > 5 && strings.Contains(a.body+g.logs.String(), part) {
					t.Errorf("part of the token is shown or logged:\n%s\n%s", a.body, g.logs)
				}
			}
			if all := a.body + g.logs.String(); strings.Contains(all, "evil.example") || strings.Contains(all, "mallory") {
				t.Errorf("what the token says is shown or logged:\n%s", all)
			}
		})
	}
}

func TestLogoutTokensThatEndTheSession(t *testing.T) {
	for name, test := range map[string]struct {
		change func(h, c map[string]any)
		script func(*provider)
	}{
		"sid and sub":                          {},
		"sid alone":                            {change: dropClaim("sub")},
		"sub alone":                            {change: dropClaim("sid")},
		"BC-02 an elliptic curve":              {script: ellipticCurve, change: func(h, c map[string]any) { h["alg"], h["kid"] = "ES256", "e1" }},
		"BC-02 no kid":                         {change: func(h, c map[string]any) { delete(h, "kid") }},
		"BC-03 audience as an array":           {change: setClaim("aud", []string{clientID})},
		"BC-03 issued in 30 s by our clock":    {change: setClaim("iat", secondsFromNow(30))},
		"BC-03 expired 30 s ago by our clock":  {change: setClaim("exp", secondsFromNow(-30))},
		"BC-03 with an hour to live":           {change: setClaim("exp", secondsFromNow(3600))},
		"BC-04 an event that says more":        {change: setClaim("events", map[string]any{logoutEvent: map[string]any{"a": []int{1}}})},
		"BC-04 another event beside it":        {change: setClaim("events", map[string]any{logoutEvent: map[string]any{}, "urn:x": "y"})},
		"BC-05 no type":                        {change: func(h, c map[string]any) { delete(h, "typ") }},
		"BC-05 JWT":                            {change: setHeader("typ", "JWT")},
		"BC-05 jwt in lower case":              {change: setHeader("typ", "jwt")},
		"BC-05 the type in upper case":         {change: setHeader("typ", "LOGOUT+JWT")},
		"BC-05 the type by its long name":      {change: setHeader("typ", "application/logout+jwt")},
		"BC-05 the long name in mixed case":    {change: setHeader("typ", "Application/Logout+JWT")},
		"BC-06 no jti":                         {change: dropClaim("jti")},
		"claims that nobody here knows":        {change: setClaim("trace_id", map[string]any{"sid": "x", "nonce": "y"})},
		"a claim that looks like none of ours": {change: setClaim("subs", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			if test.script != nil {
				p.tell(func() { test.script(p) })
			}
			b := g.browser()
			b.logIn("")
			if test.change == nil {
				test.change = func(h, c map[string]any) {}
			}
			if got := g.sendLogout(p.logoutToken(test.change)).failure(); got != "" {
				t.Fatalf("answer %q, want success\n%s", got, g.logs)
			}
			if got := b.status()["reason"]; got != "backchannel" {
				t.Errorf("reason = %v, want backchannel", got)
			}
			if !g.logged("backchannel_logout", "INFO", `"sessions":1`) {
				t.Errorf("no audit event:\n%s", g.logs)
			}
			if a := g.sendLogout(p.logoutToken(test.change)); a.failure() != "" { // BC-09
				t.Errorf("again: %q, want success", a.failure())
			}
		})
	}
}

func TestBC01RequestsThatAreNoLogout(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	token := p.logoutToken()
	for name, test := range map[string]struct{ kind, body string }{
		"no parameters":         {form, ""},
		"no token":              {form, "token=" + token},
		"an empty token":        {form, "logout_token="},
		"two tokens":            {form, "logout_token=" + token + "&logout_token=" + token},
		"a token and an empty":  {form, "logout_token=" + token + "&logout_token="},
		"JSON":                  {"application/json", `{"logout_token":"` + token + `"}`},
		"no content type":       {"", "logout_token=" + token},
		"text":                  {"text/plain", "logout_token=" + token},
		"multipart":             {"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=logout_token\r\n\r\n" + token + "\r\n--x--\r\n"},
		"a broken content type": {form + "; ;", "logout_token=" + token},
		"a broken form":         {form, "logout_token=" + token + "&%zz"},
		"more than 64 KiB":      {form, "logout_token=" + token + "&a=" + strings.Repeat("a", 64<<10)},
		"10 MB of dots":         {form, "logout_token=" + strings.Repeat(".", 10<<20)}, // CVE-2025-22868
		"64 KiB of brackets":    {form, "logout_token=" + b64(strings.Repeat("[", 30<<10)) + "." + b64("{}") + ".AAAA"},
	} {
		began := time.Now()
		if got := g.backChannel(test.kind, test.body).failure(); got != "invalid_request" {
			t.Errorf("%s: %q, want 400 and invalid_request", name, got)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("%s: answered after %v", name, d)
		}
	}
	if got := g.backChannel(form, "").failure(); got != "invalid_request" {
		t.Errorf("%q", got)
	}
	resp, err := g.Client().Post(g.URL+"/bff/backchannel?logout_token="+token, form, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the token in the URL: status %d, want 400", resp.StatusCode)
	}
	b.wantLoggedIn(true)
	for name, test := range map[string]struct{ kind, body string }{
		"further parameters": {form + "; charset=UTF-8", "a=b&a=c&logout_token=" + token + "&state=x"},
		"in upper case":      {strings.ToUpper(form), "logout_token=" + token},
	} {
		if got := g.backChannel(test.kind, test.body).failure(); got != "" {
			t.Errorf("%s: %q, want success", name, got)
		}
	}
	b.wantLoggedIn(false)
}

func TestBC03MissingExpCanBeAllowed(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p, func(s *setup) { s.Logout.AllowMissingExp = true })
	for _, test := range []struct {
		ago  int64
		want string
	}{
		{-30, ""}, {0, ""}, {100, ""}, {170, ""}, // two minutes and the clocks' difference
		{190, "invalid_request"}, {3600, "invalid_request"}, {-90, "invalid_request"},
	} {
		token := p.logoutToken(dropClaim("exp"), setClaim("iat", secondsFromNow(-test.ago)))
		if got := g.sendLogout(token).failure(); got != test.want {
			t.Errorf("issued %d s ago, without exp: %q, want %q", test.ago, got, test.want)
		}
	}
	if got := g.sendLogout(p.logoutToken(setClaim("exp", secondsFromNow(-90)))).failure(); got != "invalid_request" {
		t.Errorf("expired: %q, want invalid_request", got)
	}
	// One that has an exp may be older.
	if got := g.sendLogout(p.logoutToken(setClaim("iat", secondsFromNow(-3600)))).failure(); got != "" {
		t.Errorf("issued an hour ago, with exp: %q, want success", got)
	}
}

// logInAs logs in as a user, in a session of the provider's.
func (g *gateway) logInAs(sub, sid string) *browser {
	g.t.Helper()
	g.provider.tell(func() {
		g.provider.claims = func(c map[string]any) { c["sub"], c["sid"] = sub, sid }
		g.provider.userInfo = map[string]any{"sub": sub}
	})
	b := g.browser()
	b.logIn("")
	return b
}

func TestBC07ScopeOfALogout(t *testing.T) {
	for name, test := range map[string]struct {
		change func(h, c map[string]any)
		ends   []string
	}{
		"sid and sub":           {func(h, c map[string]any) { c["sid"], c["sub"] = "a1", "ada" }, []string{"a1"}},
		"sid alone":             {func(h, c map[string]any) { c["sid"] = "a1"; delete(c, "sub") }, []string{"a1"}},
		"sub alone":             {func(h, c map[string]any) { c["sub"] = "ada"; delete(c, "sid") }, []string{"a1", "a2"}},
		"sub of the other user": {func(h, c map[string]any) { c["sub"] = "bob"; delete(c, "sid") }, []string{"b1"}},
		"BC-09 an unknown sid":  {func(h, c map[string]any) { c["sid"], c["sub"] = "x", "ada" }, nil},
		"BC-09 an unknown sub":  {func(h, c map[string]any) { c["sub"] = "eve"; delete(c, "sid") }, nil},
		"a sid as sub":          {func(h, c map[string]any) { c["sub"] = "a1"; delete(c, "sid") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			beside := newGateway(t, newProvider(t), func(s *setup) { s.Beside = g })
			browsers := map[string]*browser{
				"a1": g.logInAs("ada", "a1"), "a2": g.logInAs("ada", "a2"), "b1": g.logInAs("bob", "b1"),
				"another issuer's": beside.logInAs("ada", "a1"),
			}
			if got := g.sendLogout(p.logoutToken(test.change)).failure(); got != "" {
				t.Fatalf("answer %q, want success", got)
			}
			for session, b := range browsers {
				if got, want := b.status()["authenticated"], !slices.Contains(test.ends, session); got != want {
					t.Errorf("%s: authenticated = %v, want %v", session, got, want)
				}
			}
		})
	}
}

func TestBC06OldLogoutTokensSpareNewLogins(t *testing.T) {
	for name, change := range map[string]func(h, c map[string]any){
		"by sid": func(h, c map[string]any) {},
		"by sub": dropClaim("sid"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			g := newGateway(t, p)
			b := g.browser()
			b.logIn("")
			old := p.logoutToken(change, setClaim("iat", secondsFromNow(-5)))
			if got := g.sendLogout(old).failure(); got != "" {
				t.Fatalf("answer %q, want success", got)
			}
			b.wantLoggedIn(true)

			token := p.logoutToken(change)
			issued := time.Now()
			g.sendLogout(token)
			b.wantLoggedIn(false)
			// iat counts whole seconds, so that a login of the same one ends, too.
			time.Sleep(time.Until(issued.Truncate(time.Second).Add(time.Second)))
			b.logIn("")
			for _, replay := range []string{token, old} {
				if got := g.sendLogout(replay).failure(); got != "" {
					t.Errorf("again: %q, want success", got)
				}
			}
			b.wantLoggedIn(true)
			// What the mark says holds for logins that are still to come, too.
			g.browser().logIn("")
		})
	}
}

// A provider whose clock runs ahead says when it is now, not what will be.
func TestBC06LoginsAfterALogoutFromTheFutureLive(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	got := time.Now()
	if f := g.sendLogout(p.logoutToken(dropClaim("sid"), setClaim("iat", secondsFromNow(50)))).failure(); f != "" {
		t.Fatalf("answer %q, want success", f)
	}
	b.wantLoggedIn(false)
	time.Sleep(time.Until(got.Truncate(time.Second).Add(2 * time.Second)))
	b.logIn("")
	b.wantLoggedIn(true)
}

func TestBC08FailedLogoutsAre400(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	for _, change := range []func(h, c map[string]any){setClaim("sub", subject), dropClaim("sid")} {
		g.store.fail()
		if got := g.sendLogout(p.logoutToken(change)).failure(); got != "temporarily_unavailable" {
			t.Errorf("store down: %q, want 400 and temporarily_unavailable", got)
		}
		g.store.fix()
	}
	b.wantLoggedIn(true)

	for _, path := range []string{"/.well-known/openid-configuration", "/keys"} {
		p := newProvider(t)
		p.take(path, page(503, ""))
		g := newGateway(t, p)
		if got := g.sendLogout(p.logoutToken()).failure(); got != "temporarily_unavailable" {
			t.Errorf("%s down: %q, want 400 and temporarily_unavailable", path, got)
		}
	}
	// New keys that cannot be fetched.
	p.take("/keys", page(503, ""))
	p.tell(func() { p.keys, p.kid = map[string]crypto.Signer{"k2": otherKey()}, "k2" })
	if got := g.sendLogout(p.logoutToken()).failure(); got != "temporarily_unavailable" {
		t.Errorf("new keys that cannot be fetched: %q, want 400 and temporarily_unavailable", got)
	}
	b.wantLoggedIn(true)
}

func TestBC10RefreshTokensOfLogouts(t *testing.T) {
	for name, test := range map[string]struct {
		scopes  []string
		revoked bool
	}{
		"with offline_access they are kept":       {[]string{"openid", "offline_access"}, false},
		"without offline_access they are revoked": {[]string{"openid"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.answer = func(a map[string]any) { a["refresh_token"] = "canary-rt" }
			g := newGateway(t, p, func(s *setup) { s.Scopes = test.scopes })
			b := g.browser()
			b.logIn("")
			if got := g.sendLogout(p.logoutToken()).failure(); got != "" {
				t.Fatalf("answer %q, want success", got)
			}
			b.wantLoggedIn(false)
			g.manager.Close(t.Context()) // waits for revocations
			calls := p.seen("/revoke")
			if test.revoked && (len(calls) != 1 || calls[0].form.Get("token") != "canary-rt") || !test.revoked && len(calls) != 0 {
				t.Errorf("revocations: %v", calls)
			}
		})
	}
}

// The provider may be faster than we are: its logout comes while the login's code
// is being redeemed.
func TestBC12LogoutsDuringALoginAreNotLost(t *testing.T) {
	for name, test := range map[string]struct {
		path   string // where the provider waits for its logout before it answers
		change func(h, c map[string]any)
	}{
		"by sid, before the tokens": {"/token", dropClaim("sub")},
		"by sub, before the tokens": {"/token", dropClaim("sid")},
		"by sid, after the tokens":  {"/userinfo", dropClaim("sub")},
		"by sub, after the tokens":  {"/userinfo", dropClaim("sid")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			b := g.browser()
			q := b.begin("")
			p.take(test.path, func(w http.ResponseWriter, r *http.Request) {
				p.take(test.path, nil)
				if got := g.sendLogout(p.logoutToken(test.change)).failure(); got != "" {
					t.Errorf("answer %q, want success", got)
				}
				p.serve(w, r)
			})
			if a := b.callback(q); a.code() != "login_refused" {
				t.Errorf("code %q, want login_refused", a.code())
			}
			if _, ok := b.cookies()[""]; ok {
				t.Error("a session cookie was set")
			}
			b.wantLoggedIn(false)
		})
	}
	t.Run("an older logout leaves the login alone", func(t *testing.T) {
		p := newProvider(t)
		g := newGateway(t, p)
		b := g.browser()
		q := b.begin("")
		p.take("/token", func(w http.ResponseWriter, r *http.Request) {
			p.take("/token", nil)
			g.sendLogout(p.logoutToken(setClaim("iat", secondsFromNow(-5))))
			p.serve(w, r)
		})
		if a := b.callback(q); a.StatusCode != http.StatusSeeOther {
			t.Errorf("code %q, want 303", a.code())
		}
		b.wantLoggedIn(true)
	})
	t.Run("right after the login", func(t *testing.T) {
		p := newProvider(t)
		g := newGateway(t, p)
		b := g.browser()
		b.logIn("")
		g.sendLogout(p.logoutToken())
		b.wantLoggedIn(false)
		g.forget()
		b.wantLoggedIn(false)
	})
}

func TestBC11JunkChangesNothingForOthers(t *testing.T) {
	const junk, senders = 10_000, 8
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	var tokens []string // made before, as to sign takes longer than to refuse
	for range 50 {
		tokens = append(tokens,
			p.logoutToken(setHeader("kid", rand.Text())),
			p.logoutToken()+"x",
			b64(`{"alg":"RS256","kid":"k1"}`)+"."+b64(`{"sid":"op-session"}`)+"."+b64(strings.Repeat("x", 256)),
			p.freshIDToken(nil),
		)
	}
	tokens = append(tokens, strings.Repeat(".", 60<<10), strings.Repeat("A", 70<<10))
	g.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = senders
	fetches, calls, began := len(p.seen("/keys")), g.store.called(), time.Now()
	var work sync.WaitGroup
	for i := range senders {
		work.Go(func() {
			for n := i; n < junk; n += senders {
				if got := g.sendLogout(tokens[n%len(tokens)]).failure(); got != "invalid_request" && got != "temporarily_unavailable" {
					t.Errorf("answer %q, want 400", got)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { work.Wait(); close(over) }()
	var waits []time.Duration
	looks := 0
	for during := true; during; {
		select {
		case <-over:
			during = false
		case <-time.After(5 * time.Millisecond):
			at := time.Now()
			b.wantLoggedIn(true)
			waits = append(waits, time.Since(at))
			looks++
		}
	}
	if n, most := len(p.seen("/keys"))-fetches, int(time.Since(began)/(2*time.Second))+1; n > most {
		t.Errorf("%d fetches of keys in %v, want at most %d", n, time.Since(began), most)
	}
	if n := g.store.called() - calls; n != 0 {
		t.Errorf("%d calls of the store, want none", n)
	}
	slices.Sort(waits)
	if d := waits[len(waits)*9/10]; d > 250*time.Millisecond {
		t.Errorf("nine in ten requests of others are answered within %v, want 250 ms", d)
	}
	t.Logf("%d junk tokens in %v; requests of others: %d, half of them within %v, nine in ten within %v",
		junk, time.Since(began).Round(time.Millisecond), looks, waits[len(waits)/2], waits[len(waits)*9/10])
	b.wantLoggedIn(true)
}

// Whoever makes up tokens uses up nothing that a login needs.
func TestBC11JunkDoesNotKeepNewKeysFromLogins(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	g.browser().logIn("")
	junk := func() {
		if got := g.sendLogout(p.logoutToken(setHeader("kid", rand.Text()))).failure(); got != "temporarily_unavailable" {
			t.Errorf("answer %q, want 400 and temporarily_unavailable", got)
		}
	}
	junk()
	fetches := len(p.seen("/keys"))
	p.tell(func() { p.keys, p.kid = map[string]crypto.Signer{"k2": otherKey()}, "k2" })
	junk()
	if n := len(p.seen("/keys")) - fetches; n != 0 {
		t.Errorf("%d fetches within the cool-down, want none", n)
	}
	b := g.browser()
	b.logIn("")
	if got := g.sendLogout(p.logoutToken()).failure(); got != "" {
		t.Errorf("a logout by the new key: %q, want success", got)
	}
	b.wantLoggedIn(false)
}

func TestBackChannelFindsNewKeys(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	p.tell(func() { p.keys, p.kid = map[string]crypto.Signer{"k2": otherKey()}, "k2" })
	if got := g.sendLogout(p.logoutToken()).failure(); got != "" {
		t.Errorf("answer %q, want success", got)
	}
	b.wantLoggedIn(false)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

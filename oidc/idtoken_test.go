package oidc_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sessiongate/session"
)

// halfHash is at_hash of an access token for RS256 and ES256.
func halfHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// signHMAC signs with the provider's public key as if it were a shared secret.
func signHMAC(header, claims map[string]any) string {
	der, _ := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	input := signingInput(header, claims)
	mac := hmac.New(sha256.New, der)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestBadIDTokensMakeNoSession(t *testing.T) {
	claim := func(name string, value any) func(*provider) {
		return func(p *provider) { p.claims = func(c map[string]any) { c[name] = value } }
	}
	without := func(name string) func(*provider) {
		return func(p *provider) { p.claims = func(c map[string]any) { delete(c, name) } }
	}
	header := func(name string, value any) func(*provider) {
		return func(p *provider) { p.header = func(h map[string]any) { h[name] = value } }
	}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, test := range map[string]struct {
		script func(*provider)
		query  string
	}{
		"CB-10 not signed": {script: func(p *provider) {
			p.header = func(h map[string]any) { h["alg"] = "none" }
			p.sign = func(h, c map[string]any) string { return signingInput(h, c) + "." }
		}},
		"CB-10 signed with the public key as a secret": {script: func(p *provider) {
			p.header = func(h map[string]any) { h["alg"] = "HS256" }
			p.sign = signHMAC
		}},
		"CB-10 signed by another key of the same name": {script: func(p *provider) {
			p.sign = func(h, c map[string]any) string { return signRSA(otherKey(), h, c) }
		}},
		"CB-10 signed by an unknown key": {script: func(p *provider) {
			p.header = func(h map[string]any) { h["kid"] = "k2" }
			p.sign = func(h, c map[string]any) string { return signRSA(otherKey(), h, c) }
		}},
		"CB-10 brings its key": {script: func(p *provider) {
			p.header = func(h map[string]any) { h["jwk"] = jose.JSONWebKey{Key: otherKey().Public()} }
			p.sign = func(h, c map[string]any) string { return signRSA(otherKey(), h, c) }
		}},
		"CB-10 signed by a published key of 1024 bits": {script: func(p *provider) {
			p.keys = map[string]crypto.Signer{"weak": weakKey(), "k1": rsaKey()}
			p.header = func(h map[string]any) { h["kid"] = "weak" }
			p.sign = func(h, c map[string]any) string { return signRSA(weakKey(), h, c) }
		}},
		"CB-10 brings the right key":        {script: header("jwk", jose.JSONWebKey{Key: rsaKey().Public()})},
		"CB-10 points at a key set":         {script: header("jku", "https://evil.example/keys")},
		"CB-10 points at a certificate":     {script: header("x5u", "https://evil.example/cert")},
		"CB-10 brings a certificate":        {script: header("x5c", []string{"AAAA"})},
		"CB-10 has a critical extension":    {script: func(p *provider) { p.header = func(h map[string]any) { h["crit"] = []string{"x"}; h["x"] = 1 } }},
		"CB-10 an algorithm not announced":  {script: func(p *provider) { p.header = func(h map[string]any) { h["alg"] = "RS512" } }},
		"CB-10 altered payload":             {script: func(p *provider) { p.sign = altered }},
		"CB-10 three dots":                  {script: func(p *provider) { p.sign = func(h, c map[string]any) string { return "..." } }},
		"CB-10 a million dots":              {script: func(p *provider) { p.sign = func(h, c map[string]any) string { return strings.Repeat(".", 900<<10) } }},
		"CB-11 another issuer":              {script: claim("iss", "https://evil.example")},
		"CB-11 no issuer":                   {script: without("iss")},
		"CB-11 issuer with a slash":         {script: func(p *provider) { p.claims = func(c map[string]any) { c["iss"] = c["iss"].(string) + "/" } }},
		"CB-11 another audience":            {script: claim("aud", "other")},
		"CB-11 an audience we do not trust": {script: claim("aud", []string{clientID, "other"})},
		"CB-11 no audience":                 {script: without("aud")},
		"CB-11 an empty audience":           {script: claim("aud", []string{})},
		"CB-11 audience in upper case":      {script: func(p *provider) { p.claims = func(c map[string]any) { delete(c, "aud"); c["AUD"] = clientID } }},
		"CB-11 azp is another client":       {script: claim("azp", "other")},
		"CB-12 expired":                     {script: claim("exp", at(-10*time.Minute))},
		"CB-12 issued in the future":        {script: claim("iat", at(time.Hour))},
		"CB-12 not valid yet":               {script: claim("nbf", at(time.Hour))},
		"CB-12 no exp":                      {script: without("exp")},
		"CB-12 no iat":                      {script: without("iat")},
		"CB-12 exp is a word":               {script: claim("exp", "tomorrow")},
		"CB-13 no nonce":                    {script: without("nonce")},
		"CB-13 another nonce":               {script: claim("nonce", "other")},
		"CB-13 an empty nonce":              {script: claim("nonce", "")},
		"CB-14 no auth_time":                {query: "?max_age=60"},
		"CB-14 an old auth_time":            {script: claim("auth_time", at(-time.Hour)), query: "?max_age=60"},
		"CB-15 at_hash of another token":    {script: claim("at_hash", halfHash("other"))},
		"CB-16 an access token":             {script: header("typ", "at+jwt")},
		"CB-16 a logout token":              {script: header("typ", "logout+jwt")},
		"CB-16 an application/ type":        {script: header("typ", "application/at+jwt")},
		"CB-16 a type that is no string":    {script: header("typ", 1)},
		"CB-16 of another client":           {script: func(p *provider) { p.claims = func(c map[string]any) { c["aud"], c["azp"] = "other", "other" } }},
		"no sub":                            {script: without("sub")},
		"an empty sub":                      {script: claim("sub", "")},
		"a sub that is a number":            {script: claim("sub", 7)},
		"two spellings of sub":              {script: claim("ſub", "mallory")},
		"no ID token":                       {script: func(p *provider) { p.answer = func(a map[string]any) { delete(a, "id_token") } }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			b := g.browser()
			q := b.begin(test.query)
			if test.script != nil {
				p.tell(func() { test.script(p) })
			}
			a := b.callback(q)
			// An unknown key may be known in a moment.
			if want := "login_failed"; a.code() != want && a.code() != "provider_unavailable" {
				t.Errorf("code %q, want %s", a.code(), want)
			}
			if _, ok := b.cookies()[""]; ok {
				t.Error("a session cookie was set")
			}
			// CB-13: nothing of the answer is used.
			if n := len(p.seen("/userinfo")); n != 0 {
				t.Errorf("%d UserInfo requests, want 0", n)
			}
			if strings.Contains(g.logs.String(), "canary") {
				t.Errorf("a secret is in the logs:\n%s", g.logs)
			}
		})
	}
}

func altered(h, c map[string]any) string {
	parts := strings.Split(signRSA(rsaKey(), h, c), ".")
	c["sub"] = "mallory"
	claims, _ := json.Marshal(c)
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(claims) + "." + parts[2]
}

func TestGoodIDTokensMakeASession(t *testing.T) {
	claim := func(name string, value any) func(*provider) {
		return func(p *provider) { p.claims = func(c map[string]any) { c[name] = value } }
	}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, test := range map[string]struct {
		script func(*provider)
		query  string
	}{
		"CB-12 expired 30 s ago by our clock":     {script: claim("exp", at(-30*time.Second))},
		"CB-12 issued in 30 s by our clock":       {script: claim("iat", at(30*time.Second))},
		"CB-12 valid in 30 s by our clock":        {script: claim("nbf", at(30*time.Second))},
		"CB-11 audience as an array":              {script: claim("aud", []string{clientID})},
		"CB-11 azp is us":                         {script: claim("azp", clientID)},
		"CB-14 a recent auth_time":                {script: claim("auth_time", at(-10*time.Second)), query: "?max_age=60"},
		"CB-14 max_age 0, and the user logged in": {script: claim("auth_time", at(0)), query: "?max_age=0"},
		"CB-14 an old auth_time nobody asked for": {script: claim("auth_time", at(-time.Hour))},
		"CB-15 at_hash of this token":             {script: func(p *provider) { fixed(p); p.claims = func(c map[string]any) { c["at_hash"] = halfHash("fixed") } }},
		"CB-16 no typ":                            {script: func(p *provider) { p.header = func(h map[string]any) { delete(h, "typ") } }},
		"CB-16 typ in lower case":                 {script: func(p *provider) { p.header = func(h map[string]any) { h["typ"] = "jwt" } }},
		"no kid":                                  {script: func(p *provider) { p.header = func(h map[string]any) { delete(h, "kid") } }},
		"CB-17 no token type":                     {script: func(p *provider) { p.answer = func(a map[string]any) { delete(a, "token_type") } }},
		"CB-17 token type in lower case":          {script: func(p *provider) { p.answer = func(a map[string]any) { a["token_type"] = "bearer" } }},
		"an elliptic curve":                       {script: ellipticCurve},
		"times with fractions":                    {script: claim("iat", float64(time.Now().Unix())-0.5)},
		"answer with nothing but the two tokens": {script: func(p *provider) {
			p.answer = func(a map[string]any) { delete(a, "refresh_token"); delete(a, "expires_in") }
		}},
		"a scope that is no string": {script: func(p *provider) { p.answer = func(a map[string]any) { a["scope"] = []int{1} } }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p)
			b := g.browser()
			q := b.begin(test.query)
			p.tell(func() { test.script(p) })
			if a := b.callback(q); a.StatusCode != http.StatusSeeOther {
				t.Errorf("code %q, want 303\n%s", a.code(), g.logs)
			}
			b.wantLoggedIn(true)
		})
	}
}

func fixed(p *provider) { p.answer = func(a map[string]any) { a["access_token"] = "fixed" } }

func ellipticCurve(p *provider) {
	p.keys = map[string]crypto.Signer{"e1": ecKey()}
	p.header = func(h map[string]any) { h["alg"], h["kid"] = "ES256", "e1" }
	p.sign = func(h, c map[string]any) string { return signEC(ecKey(), h, c) }
}

func TestCB10RandomKeyIDsCauseFewFetches(t *testing.T) { // pains 9, BC-11
	p := newProvider(t)
	g := newGateway(t, p)
	g.browser().logIn("")
	before, began := len(p.seen("/keys")), time.Now()
	fetches := func() (n, most int) {
		return len(p.seen("/keys")) - before, int(time.Since(began).Seconds()) + 1
	}
	p.tell(func() { p.header = func(h map[string]any) { h["kid"] = rand.Text() } })
	for range 100 {
		b := g.browser()
		if a := b.callback(b.begin("")); a.StatusCode == http.StatusSeeOther {
			t.Fatal("a login with an unknown key id")
		}
	}
	if n, most := fetches(); n < 1 || n > most {
		t.Errorf("%d fetches for 100 unknown key ids, want 1 to %d: one a second", n, most)
	}
	former := p.freshIDToken(nil)
	for range 900 {
		if err := g.client.Confirm(t.Context(), former, former); err == nil {
			t.Fatal("confirmed with an unknown key id")
		}
	}
	if n, most := fetches(); n > most {
		t.Errorf("%d fetches for 1000 unknown key ids, want at most %d: one a second", n, most)
	}
}

// A fetch that is under way when the token comes may have been answered before
// its key was published.
func TestCB10KeyPublishedDuringAFetchIsFound(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	g.browser().logIn("")
	answered, release := make(chan struct{}), make(chan struct{})
	var old map[string]any
	p.tell(func() { old = p.jwks() })
	p.take("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.take("/keys", nil)
		close(answered)
		<-release
		reply(w, 200, old)
	})
	stranger := p.freshIDToken(nil)
	p.tell(func() { p.header = func(h map[string]any) { h["kid"] = rand.Text() } })
	unknown := p.freshIDToken(nil)
	confirmed := make(chan error)
	go func() { confirmed <- g.client.Confirm(t.Context(), unknown, stranger) }()
	<-answered
	p.tell(func() {
		p.header = nil
		p.keys, p.kid = map[string]crypto.Signer{"k2": otherKey()}, "k2"
	})
	time.AfterFunc(1100*time.Millisecond, func() { close(release) }) // the cool-down is over then
	b := g.browser()
	if a := b.callback(b.begin("")); a.StatusCode != http.StatusSeeOther {
		t.Errorf("code %q, want 303", a.code())
	}
	<-confirmed
}

func TestCB10KeyRotationNeedsNoRestart(t *testing.T) { // pains 9
	p := newProvider(t)
	g := newGateway(t, p)
	g.browser().logIn("")
	p.tell(func() {
		p.keys = map[string]crypto.Signer{"k2": otherKey()}
		p.kid = "k2"
	})
	g.browser().logIn("")
	// While the keys cannot be fetched, those known still do.
	p.take("/keys", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	g.browser().logIn("")
}

func TestRF11IDTokenOfARefresh(t *testing.T) {
	now := time.Now().Unix()
	base := func(c map[string]any) { c["auth_time"], c["nonce"], c["azp"] = now-100, "n1", clientID }
	for name, test := range map[string]struct {
		change func(p *provider, c map[string]any)
		want   error // nil: confirmed; anyOther: could not be verified
	}{
		"the same":          {func(p *provider, c map[string]any) {}, nil},
		"without nonce":     {func(p *provider, c map[string]any) { delete(c, "nonce") }, nil},
		"without auth_time": {func(p *provider, c map[string]any) { delete(c, "auth_time") }, nil},
		"another sub":       {func(p *provider, c map[string]any) { c["sub"] = "mallory" }, session.ErrForeign},
		"another iss":       {func(p *provider, c map[string]any) { c["iss"] = "https://evil.example" }, session.ErrForeign},
		"another aud":       {func(p *provider, c map[string]any) { c["aud"] = "other" }, session.ErrForeign},
		"one more aud":      {func(p *provider, c map[string]any) { c["aud"] = []string{clientID, "other"} }, session.ErrForeign},
		"another azp":       {func(p *provider, c map[string]any) { c["azp"] = "other" }, session.ErrForeign},
		"no azp any more":   {func(p *provider, c map[string]any) { delete(c, "azp") }, session.ErrForeign},
		"another auth_time": {func(p *provider, c map[string]any) { c["auth_time"] = now }, session.ErrForeign},
		"another nonce":     {func(p *provider, c map[string]any) { c["nonce"] = "n2" }, session.ErrForeign},
		"expired":           {func(p *provider, c map[string]any) { c["exp"] = now - 600 }, errDown},
		"signed by nobody we know, for another sub": {func(p *provider, c map[string]any) { c["sub"] = "mallory"; p.sign = withOther }, errDown},
		"signed by another key":                     {func(p *provider, c map[string]any) { p.sign = withOther }, errDown},
		"not signed":                                {func(p *provider, c map[string]any) { p.sign = unsigned }, errDown},
		"a key not published yet":                   {func(p *provider, c map[string]any) { p.sign = unpublished }, errDown},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			g := newGateway(t, p)
			former := p.freshIDToken(base)
			fresh := p.freshIDToken(func(c map[string]any) { base(c); test.change(p, c) })
			err := g.client.Confirm(t.Context(), fresh, former)
			switch {
			case test.want == nil && err != nil:
				t.Errorf("error = %v, want none", err)
			case test.want == session.ErrForeign && !errors.Is(err, session.ErrForeign):
				t.Errorf("error = %v, want ErrForeign", err)
			case test.want == errDown && (err == nil || errors.Is(err, session.ErrForeign)):
				t.Errorf("error = %v, want one that is not ErrForeign", err)
			}
		})
	}
}

func withOther(h, c map[string]any) string { return signRSA(otherKey(), h, c) }

func unpublished(h, c map[string]any) string {
	h["kid"] = "tomorrow"
	return signRSA(otherKey(), h, c)
}

func unsigned(h, c map[string]any) string {
	h["alg"] = "none"
	return signingInput(h, c) + "."
}

func TestRF11UnreachableKeysSayNothing(t *testing.T) {
	p := newProvider(t)
	p.take("/keys", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	g := newGateway(t, p)
	token := p.freshIDToken(nil)
	if err := g.client.Confirm(t.Context(), token, token); err == nil || errors.Is(err, session.ErrForeign) {
		t.Errorf("error = %v, want one that is not ErrForeign", err)
	}
}

func TestRF11ForeignIDTokenEndsTheSession(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	p.answer = func(a map[string]any) { a["expires_in"] = 1 }
	b.logIn("")
	p.tell(func() { p.claims = func(c map[string]any) { c["sub"] = "mallory" } })
	eventually(t, "the token runs out", func() bool { return b.get("/api").code() != "" })
	if got := b.status()["reason"]; got != "refresh_rejected" {
		t.Errorf("reason = %v, want refresh_rejected", got)
	}
}

// Zitadel adds the project's id to aud. Whoever else may have got the token is the
// operator's to say (CB-11; Core 1.0, section 3.1.3.7, steps 3 to 5).
func TestFurtherAudiencesOfAnIDToken(t *testing.T) {
	for name, test := range map[string]struct {
		aud  any
		azp  string
		good bool
	}{
		"the client and one that is listed, for the client": {[]string{clientID, "project"}, clientID, true},
		"all that are listed, the client last":              {[]string{"project", "api", clientID}, clientID, true},
		"the client alone":                                  {clientID, "", true},
		"several, and nobody says for whom":                 {[]string{clientID, "project"}, "", false},
		"several, for one that is listed":                   {[]string{clientID, "project"}, "project", false},
		"one that is listed, without the client":            {[]string{"project"}, clientID, false},
		"one that is not listed among others":               {[]string{clientID, "project", "other"}, clientID, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p, func(s *setup) { s.Audiences = []string{"project", "api"} })
			b := g.browser()
			q := b.begin("")
			p.tell(func() {
				p.claims = func(c map[string]any) {
					c["aud"] = test.aud
					if delete(c, "azp"); test.azp != "" {
						c["azp"] = test.azp
					}
				}
			})
			if a := b.callback(q); (a.StatusCode == http.StatusSeeOther) != test.good {
				t.Errorf("%d, code %q, want a session: %t\n%s", a.StatusCode, a.code(), test.good, g.logs)
			}
			b.wantLoggedIn(test.good)
		})
	}
}

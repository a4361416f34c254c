package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	fuzzedIssuer = "https://login.example.com"
	fuzzedClient = "shop"
)

// offlineClient knows its provider's metadata and key without asking.
func offlineClient(t testing.TB, allowMissingExp bool, key crypto.PublicKey) *Client {
	c, err := NewClient(Config{
		Origin: "https://shop.example.com", BasePath: "/bff", Issuer: fuzzedIssuer, ClientID: fuzzedClient, ClientSecret: "s",
		Scopes: []string{"openid"}, ClockSkew: time.Minute, Logout: Logout{AllowMissingExp: allowMissingExp},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.metadata.finish(&metadata{Issuer: fuzzedIssuer, IDTokenAlgorithms: []string{"ES256", "none", "HS256"}}, nil)
	c.keys.finish([]jose.JSONWebKey{{Key: key, KeyID: "k1"}}, nil)
	// Nobody is asked for more.
	c.metadata.maxAge, c.keys.maxAge, c.keys.unasked.pause = 1<<62, 1<<62, 1<<62
	c.keys.unasked.last = time.Now()
	return c
}

// FuzzLogoutToken: whatever is signed, a logout token that is accepted keeps every
// rule of Back-Channel Logout 1.0, section 2.6, as another reader sees it.
func FuzzLogoutToken(f *testing.F) {
	const header, event = `{"alg":"ES256","kid":"k1","typ":"logout+jwt"}`, `"events":{"` + logoutEvent + `":{}}`
	for _, h := range []string{header, `{"alg":"ES256"}`, `{"alg":"none"}`, `{"alg":"ES256","typ":"at+jwt"}`, `{"alg":"ES256","jwk":{}}`, `{"alg":"ES256","TYP":"at+jwt"}`} {
		f.Add(h, `{"iss":"https://login.example.com","aud":"shop","iat":0,"exp":60,"sub":"ada",`+event+`}`, false)
	}
	for _, claims := range []string{
		`{"iss":"https://login.example.com","aud":["shop"],"iat":-100,"sid":"s1",` + event + `}`,
		`{"iss":"https://login.example.com","aud":"shop","iat":-1e2,"sid":"s1","sid":"s2",` + event + `}`,
		`{"iss":"https://login.example.com","aud":"shop","iat":0,"exp":60,"sub":"ada","nonce":null,` + event + `}`,
		`{"iss":"https://login.example.com","aud":"shop","iat":0,"exp":60,"\u0073ub":"ada","ſub":"eve",` + event + `}`,
		`{"iss":"https://login.example.com","aud":"shop","iat":0,"exp":60,"sub":"","events":{"` + logoutEvent + `":null}}`,
		`[]`, `null`, ``, `{`,
	} {
		f.Add(header, claims, true)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	strict, lenient := offlineClient(f, false, key.Public()), offlineClient(f, true, key.Public())
	f.Fuzz(func(t *testing.T, header, claims string, allowMissingExp bool) {
		c := strict
		if allowMissingExp {
			c = lenient
		}
		now := time.Now()
		claims = aroundNow(claims, now)
		raw := signES256(t, key, header, claims)
		token, err := c.verifyLogout(t.Context(), raw)
		if err != nil {
			return
		}
		if broken := brokenRule(header, claims, allowMissingExp, now); broken != "" {
			t.Errorf("accepted %s %s, though %s", header, claims, broken)
		}
		if token.sid == "" && token.subject == "" {
			t.Errorf("accepted %s for nobody", claims)
		}
	})
}

// What the fuzzer begins with must be accepted, or it would look for nothing.
func TestFuzzedLogoutTokensBeginWithGoodOnes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for claims, want := range map[string][2]bool{ // strict, lenient
		`{"iss":"https://login.example.com","aud":"shop","iat":0,"exp":60,"sub":"ada","events":{"` + logoutEvent + `":{}}}`: {true, true},
		`{"iss":"https://login.example.com","aud":["shop"],"iat":-100,"sid":"s1","events":{"` + logoutEvent + `":{}}}`:      {false, true},
	} {
		for i, allowMissingExp := range []bool{false, true} {
			now := time.Now()
			claims := aroundNow(claims, now)
			const header = `{"alg":"ES256","kid":"k1","typ":"logout+jwt"}`
			_, err := offlineClient(t, allowMissingExp, key.Public()).verifyLogout(t.Context(), signES256(t, key, header, claims))
			if (err == nil) != want[i] || err == nil && brokenRule(header, claims, allowMissingExp, now) != "" {
				t.Errorf("%s, exp may be missing: %v: error = %v", claims, allowMissingExp, err)
			}
		}
	}
}

// aroundNow makes times of the numbers of seconds that stand in their places.
func aroundNow(claims string, now time.Time) string {
	for _, seconds := range []int64{-100, 0, 60} {
		for _, name := range []string{`"iat":`, `"exp":`} {
			claims = strings.Replace(claims, fmt.Sprint(name, seconds, ","), fmt.Sprint(name, now.Unix()+seconds, ","), 1)
		}
	}
	return claims
}

func signES256(t *testing.T, key *ecdsa.PrivateKey, header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// brokenRule reads a token by encoding/json, and says which rule it breaks.
func brokenRule(header, claims string, allowMissingExp bool, now time.Time) string {
	var h, c map[string]any
	if stdjson.Unmarshal([]byte(header), &h) != nil || stdjson.Unmarshal([]byte(claims), &c) != nil {
		return "it is no JSON"
	}
	if h["alg"] != "ES256" {
		return "the algorithm is not announced"
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c"} {
		if _, ok := h[name]; ok {
			return "it brings a key"
		}
	}
	if typ, ok := h["typ"]; ok {
		s, _ := typ.(string)
		if !slices.Contains([]string{"jwt", "logout+jwt", "application/logout+jwt"}, strings.ToLower(s)) {
			return "it is of another type"
		}
	}
	if names := memberNames(claims); len(names) != len(c) {
		return "a claim is there twice"
	} else {
		for _, name := range names {
			if strings.EqualFold(name, "nonce") {
				return "it has a nonce"
			}
			for _, known := range logoutNames {
				if name != known && strings.EqualFold(name, known) {
					return "another reader takes " + name + " for " + known
				}
			}
		}
	}
	aud, _ := c["aud"].([]any)
	if s, ok := c["aud"].(string); ok {
		aud = []any{s}
	}
	if c["iss"] != fuzzedIssuer || len(aud) == 0 || slices.ContainsFunc(aud, func(v any) bool { return v != fuzzedClient }) {
		return "it is not for us"
	}
	return brokenClaim(c, allowMissingExp, float64(now.Unix()))
}

func brokenClaim(c map[string]any, allowMissingExp bool, now float64) string {
	const skew, second = 60, 1 // a second may have passed meanwhile, or be rounded away
	iat, ok := c["iat"].(float64)
	exp, expires := c["exp"].(float64)
	switch {
	case !ok || iat > now+skew+2*second:
		return "iat is missing, or in the future"
	case !expires && !allowMissingExp:
		return "exp is missing"
	case !expires && iat < now-120-skew-second:
		return "it is too old to do without exp"
	case expires && exp < now-skew-second:
		return "it is expired"
	}
	events, _ := c["events"].(map[string]any)
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return "it has no logout event"
	}
	_, sub := c["sub"]
	_, sid := c["sid"]
	if !sub && !sid {
		return "it names nobody"
	}
	for _, name := range []string{"sub", "sid"} {
		if v, ok := c[name]; ok {
			if s, _ := v.(string); s == "" {
				return name + " is no name"
			}
		}
	}
	return ""
}

// memberNames are the names of an object's members, in order, as often as they
// are there.
func memberNames(object string) []string {
	d := stdjson.NewDecoder(bytes.NewReader([]byte(object)))
	var names []string
	if t, err := d.Token(); err != nil || t != stdjson.Delim('{') {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return names
		}
		s, _ := name.(string)
		names = append(names, s)
		var value stdjson.RawMessage
		if d.Decode(&value) != nil {
			return names
		}
	}
	return names
}

package oidc_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"sessiongate/oidc"
	"sessiongate/session"
)

const canaryRT = "canary-refresh-token"

func TestRefreshSendsNothingButTheToken(t *testing.T) { // RF-12
	p := newProvider(t)
	c := newClient(t, p)
	began := time.Now()
	tok, err := c.Refresh(t.Context(), canaryRT)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(tok.AccessToken, "canary-at-") || !strings.HasPrefix(tok.RefreshToken, "canary-rt-") || tok.Extra("id_token") == "" {
		t.Errorf("token = %+v", tok)
	}
	if life := tok.Expiry.Sub(began); life < 300*time.Second || life > 302*time.Second {
		t.Errorf("life = %v, want 300 s from before the request", life)
	}
	want := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canaryRT}}
	if got := p.seen("/token")[0].form; got.Encode() != want.Encode() {
		t.Errorf("form = %v, want %v", got, want)
	}
}

func TestRF10RefreshFailures(t *testing.T) {
	type kind struct{ rejected, answered, operator bool }
	lost, refused, operators := kind{}, kind{answered: true}, kind{answered: true, operator: true}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   kind
	}{
		"invalid_grant with 400":     {oauthError(400, "invalid_grant"), kind{rejected: true}},
		"invalid_grant with 401":     {oauthError(401, "invalid_grant"), kind{rejected: true}},
		"invalid_grant with 403":     {oauthError(403, "invalid_grant"), refused},
		"invalid_grant with 500":     {oauthError(500, "invalid_grant"), lost},
		"invalid_grant with 200":     {oauthError(200, "invalid_grant"), lost},
		"invalid_grant in a page":    {page(400, "invalid_grant"), lost},
		"invalid_grant in an object": {page(400, `{"error":{"code":"invalid_grant"}}`), lost},
		"invalid_client":             {oauthError(401, "invalid_client"), operators},
		"unauthorized_client":        {oauthError(400, "unauthorized_client"), operators},
		"another OAuth error":        {oauthError(400, "invalid_request"), refused},
		"429":                        {page(429, ""), refused},
		"503":                        {page(503, "canary"), refused},
		"500":                        {page(500, "canary"), lost},
		"502":                        {page(502, ""), lost},
		"504":                        {page(504, ""), lost},
		"404":                        {page(404, ""), lost},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, lost},
		"a page with 200":           {page(200, "<html>canary"), lost},
		"another token type":        {page(200, `{"access_token":"canary","token_type":"mac"}`), lost},
		"a closed connection":       {hangUp, lost},
		"silence":                   {silence, lost},
		"a slow drip":               {drip, lost},
		"100 MB":                    {huge, lost},
		"an error that is a secret": {oauthError(400, "canary secret!"), lost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.take("/token", test.answer)
			c := newClient(t, p, func(c *oidc.Config) { c.Timeout = 300 * time.Millisecond })
			_, err := c.Refresh(t.Context(), canaryRT)
			got := kind{rejected: errors.Is(err, session.ErrRejected)}
			var out *session.Outage
			if errors.As(err, &out) {
				got.answered, got.operator = out.Answered, out.Operator
			} else if !got.rejected {
				t.Fatalf("error = %v, want ErrRejected or an Outage", err)
			}
			if got != test.want {
				t.Errorf("%v: %+v, want %+v", err, got, test.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is in %v", err)
			}
			if n := len(p.seen("/token")); n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
		})
	}
}

func TestRefreshThatNeverLeftIsKnownAsSuch(t *testing.T) {
	p := newProvider(t)
	p.Config.SetKeepAlivesEnabled(false)
	c := newClient(t, p)
	if err := ready(t, c); err != nil {
		t.Fatal(err)
	}
	p.Close()
	_, err := c.Refresh(t.Context(), canaryRT)
	var out *session.Outage
	if !errors.As(err, &out) || !out.Answered {
		t.Errorf("nobody listens: %v, want an Outage that is Answered", err)
	}
	var dial *net.OpError
	if !errors.As(err, &dial) {
		t.Errorf("the cause is lost: %v", err)
	}

	p = newProvider(t)
	p.take("/.well-known/openid-configuration", page(503, ""))
	_, err = newClient(t, p).Refresh(t.Context(), canaryRT)
	if !errors.As(err, &out) || !out.Answered || out.RetryAfter <= 0 {
		t.Errorf("no metadata: %v, want an Outage that is Answered, with RetryAfter", err)
	}

	p = newProvider(t)
	p.take("/token", silence)
	c = newClient(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err = c.Refresh(ctx, canaryRT); !errors.As(err, &out) || out.Answered {
		t.Errorf("the caller's deadline: %v, want an Outage that is not Answered", err)
	}
}

func TestRetryAfterIsReadAndBounded(t *testing.T) {
	for value, want := range map[string]struct{ least, most time.Duration }{
		"":       {0, 0},
		"7":      {7 * time.Second, 7 * time.Second},
		"999999": {5 * time.Minute, 5 * time.Minute},
		"-3":     {0, 0},
		"soon":   {0, 0},
		time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): {80 * time.Second, 90 * time.Second},
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       {0, 0},
	} {
		p := newProvider(t)
		p.take("/token", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", value)
			w.WriteHeader(503)
		})
		_, err := newClient(t, p).Refresh(t.Context(), canaryRT)
		var out *session.Outage
		if !errors.As(err, &out) || out.RetryAfter < want.least || out.RetryAfter > want.most {
			t.Errorf("Retry-After %q: %v in %v, want %v to %v", value, out.RetryAfter, err, want.least, want.most)
		}
	}
}

func TestRF02ExpiresIn(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		`300`: 300 * time.Second, `"300"`: 300 * time.Second, `300.7`: 300 * time.Second, `1e3`: 1000 * time.Second,
		`315360000`: 10 * 365 * 24 * time.Hour,
		`0`:         0, `-5`: 0, `""`: 0, `"soon"`: 0, `null`: 0, `true`: 0, `[300]`: 0, `{}`: 0,
		`1000000000000`: 0, `1e400`: 0, `9223372036854775807`: 0, `"NaN"`: 0, `"Inf"`: 0,
	} {
		p := newProvider(t)
		p.take("/token", page(200, `{"access_token":"a","token_type":"Bearer","expires_in":`+raw+`}`))
		began := time.Now()
		tok, err := newClient(t, p).Refresh(t.Context(), canaryRT)
		if err != nil {
			t.Errorf("expires_in %s: %v", raw, err)
			continue
		}
		if want == 0 {
			if !tok.Expiry.IsZero() {
				t.Errorf("expires_in %s: expiry %v, want none", raw, tok.Expiry)
			}
			continue
		}
		if life := tok.Expiry.Sub(began); life < want || life > want+2*time.Second {
			t.Errorf("expires_in %s: life %v, want %v", raw, life, want)
		}
	}
}

func TestClientAuthenticationFollowsTheMetadata(t *testing.T) {
	for name, test := range map[string]struct {
		supported  []string
		configured string
		basic      bool
	}{
		"nothing said":                 {nil, "", true},
		"both":                         {[]string{"client_secret_post", "client_secret_basic"}, "", true},
		"post alone":                   {[]string{"client_secret_post", "private_key_jwt"}, "", false},
		"post alone, basic configured": {[]string{"client_secret_post"}, "client_secret_basic", true},
		"basic alone, post configured": {[]string{"client_secret_basic"}, "client_secret_post", false},
	} {
		p := newProvider(t)
		p.metadata = func(md map[string]any) { md["token_endpoint_auth_methods_supported"] = test.supported }
		c := newClient(t, p, func(c *oidc.Config) { c.ClientAuth = test.configured })
		if _, err := c.Refresh(t.Context(), canaryRT); err != nil {
			t.Fatal(err)
		}
		if err := c.Revoke(t.Context(), canaryRT, ""); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/token", "/revoke"} {
			call := p.seen(path)[0]
			req := http.Request{Header: call.header}
			_, _, basic := req.BasicAuth()
			if basic != test.basic || basic == (call.form.Get("client_secret") == clientSecret) {
				t.Errorf("%s: %s: basic = %v, form %v", name, path, basic, call.form)
			}
		}
	}
}

func TestLOG17PrivateKeyJWT(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jose.RS256: rsaKey(), jose.ES256: clientKey(), jose.EdDSA: ed,
	} {
		p := newProvider(t)
		c := newClient(t, p, func(c *oidc.Config) { c.ClientKey, c.ClientSecret = key, "" })
		if _, err := c.Refresh(t.Context(), canaryRT); err != nil {
			t.Fatal(err)
		}
		if err := c.Revoke(t.Context(), canaryRT, ""); err != nil {
			t.Fatal(err)
		}
		seen := map[any]bool{}
		for _, call := range append(p.seen("/token"), p.seen("/revoke")...) {
			if call.form.Get("client_id") != clientID || call.form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || call.header.Get("Authorization") != "" {
				t.Errorf("%s: form %v", alg, call.form)
			}
			jws, err := jose.ParseSignedCompact(call.form.Get("client_assertion"), []jose.SignatureAlgorithm{alg})
			if err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			payload, err := jws.Verify(key.Public())
			if err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			var claims map[string]any
			if err := json.Unmarshal(payload, &claims); err != nil {
				t.Fatal(err)
			}
			if claims["iss"] != clientID || claims["sub"] != clientID || claims["aud"] != p.URL {
				t.Errorf("%s: claims %v, want aud to be the issuer, as a plain string", alg, claims)
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life <= 0 || life > 120 {
				t.Errorf("%s: life %v s", alg, life)
			}
			if seen[claims["jti"]] || claims["jti"] == "" {
				t.Errorf("%s: jti %v is used again", alg, claims["jti"])
			}
			seen[claims["jti"]] = true
			head, _, _ := strings.Cut(call.form.Get("client_assertion"), ".")
			header, _ := base64.RawURLEncoding.DecodeString(head)
			if !strings.Contains(string(header), `"typ":"client-authentication+jwt"`) {
				t.Errorf("%s: header %s", alg, header)
			}
		}
	}
}

func TestPrivateKeyJWTTakesAnAlgorithmTheProviderKnows(t *testing.T) {
	p := newProvider(t)
	p.metadata = func(md map[string]any) {
		md["token_endpoint_auth_signing_alg_values_supported"] = []string{"PS256", "ES256"}
	}
	c := newClient(t, p, func(c *oidc.Config) { c.ClientKey, c.ClientSecret = rsaKey(), "" })
	if _, err := c.Refresh(t.Context(), canaryRT); err != nil {
		t.Fatal(err)
	}
	if _, err := jose.ParseSignedCompact(p.seen("/token")[0].form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.PS256}); err != nil {
		t.Error(err)
	}
}

func TestRV01Revocation(t *testing.T) {
	for name, test := range map[string]struct {
		refresh, access string
		metadata        func(map[string]any)
		revoke          bool
		token, hint     string // "": no request
	}{
		"a refresh token":                        {"r", "", nil, true, "r", "refresh_token"},
		"both tokens":                            {"r", "a", nil, true, "r", "refresh_token"},
		"an access token alone":                  {"", "a", nil, true, "a", "access_token"},
		"no token":                               {"", "", nil, true, "", ""},
		"a provider without revocation endpoint": {"r", "a", func(md map[string]any) { delete(md, "revocation_endpoint") }, true, "", ""},
		// A provider may keep one grant for all of a user's sessions.
		"logout.revoke off": {"r", "a", nil, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			p.metadata = test.metadata
			c := newClient(t, p, func(cfg *oidc.Config) { cfg.Logout.Revoke = test.revoke })
			if err := c.Revoke(t.Context(), test.refresh, test.access); err != nil {
				t.Fatal(err)
			}
			calls := p.seen("/revoke")
			if test.token == "" {
				if len(calls) != 0 {
					t.Errorf("%d revocations, want none", len(calls))
				}
				return
			}
			want := url.Values{"token": {test.token}, "token_type_hint": {test.hint}}
			if len(calls) != 1 || calls[0].form.Encode() != want.Encode() || calls[0].header.Get("Authorization") == "" {
				t.Errorf("revocations %v, want one of %v with the client's credentials", calls, want)
			}
		})
	}
}

func TestRV02WhichRevocationsAreWorthAnotherTry(t *testing.T) {
	after := func(status int, seconds string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", seconds)
			w.WriteHeader(status)
		}
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		again  bool
		after  time.Duration
	}{
		"503":                        {page(503, "canary"), true, 0},
		"503 with Retry-After":       {after(503, "7"), true, 7 * time.Second},
		"429 with Retry-After":       {after(429, "9"), true, 9 * time.Second},
		"500":                        {page(500, ""), true, 0},
		"502":                        {page(502, ""), true, 0},
		"silence":                    {silence, true, 0},
		"a closed connection":        {hangUp, true, 0},
		"invalid_client":             {oauthError(401, "invalid_client"), false, 0},
		"unsupported_token_type":     {oauthError(400, "unsupported_token_type"), false, 0},
		"400 with a page":            {page(400, "canary"), false, 0},
		"404":                        {page(404, ""), false, 0},
		"a redirect":                 {after(307, ""), false, 0},
		"200 for an endless page":    {huge, false, 0},
		"204, which no one promised": {page(204, ""), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			p.take("/revoke", test.answer)
			c := newClient(t, p, func(cfg *oidc.Config) { cfg.Timeout = 300 * time.Millisecond })
			err := c.Revoke(t.Context(), canaryRT, "canary-at")
			var out *session.Outage
			if again := errors.As(err, &out); err == nil || again != test.again {
				t.Fatalf("error = %v, want an Outage: %v", err, test.again)
			}
			if test.again && out.RetryAfter != test.after {
				t.Errorf("RetryAfter = %v, want %v", out.RetryAfter, test.after)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is in %v", err)
			}
			if n := len(p.seen("/revoke")); n != 1 {
				t.Errorf("%d requests, want 1: trying again is the caller's", n)
			}
		})
	}
	p := newProvider(t)
	p.take("/.well-known/openid-configuration", page(503, ""))
	var out *session.Outage
	if err := newClient(t, p).Revoke(t.Context(), canaryRT, ""); !errors.As(err, &out) || out.RetryAfter <= 0 {
		t.Errorf("no metadata: %v, want an Outage with RetryAfter", err)
	}
}

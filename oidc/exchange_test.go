package oidc_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestCB09TokenRequest(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	g.browser().logIn("")
	calls := p.seen("/token")
	if len(calls) != 1 {
		t.Fatalf("%d token requests, want 1", len(calls))
	}
	f := calls[0].form
	if f.Get("redirect_uri") != g.URL+"/bff/callback" || len(f.Get("code_verifier")) < 43 || f.Get("grant_type") != "authorization_code" || f.Has("client_secret") {
		t.Errorf("token request: %v", f)
	}
	req := http.Request{Header: calls[0].header}
	// RFC 6749, section 2.3.1
	if id, secret, _ := req.BasicAuth(); id != clientID || secret != url.QueryEscape(clientSecret) {
		t.Errorf("client authentication: %q, %q", id, secret)
	}
	if calls[0].header.Get("Cookie") != "" {
		t.Error("a cookie was sent to the provider")
	}
}

func TestCB09TokenEndpointRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newProvider(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		p := newProvider(t)
		p.take("/token", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", elsewhere.URL+"/stolen")
			w.WriteHeader(status)
		})
		g := newGateway(t, p)
		b := g.browser()
		if a := b.callback(b.begin("")); a.code() != "login_failed" {
			t.Errorf("%d: code %q, want login_failed", status, a.code())
		}
	}
	if n := len(elsewhere.seen("/stolen")); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestCB18UserInfoOfAnotherSubjectIsNotUsed(t *testing.T) {
	p := newProvider(t)
	g := newGateway(t, p)
	b := g.browser()
	b.logIn("")
	if got := b.status()["user"].(map[string]any)["picture"]; got != "https://img.example/ada" {
		t.Errorf("picture = %v, want UserInfo's", got)
	}
	p.tell(func() { p.userInfo["sub"] = "mallory"; p.userInfo["picture"] = "evil" })
	b.logIn("")
	if got, ok := b.status()["user"].(map[string]any)["picture"]; ok {
		t.Errorf("picture = %v of another subject", got)
	}
	p.take("/userinfo", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	b.logIn("")
}

func TestCB22TokenEndpointFailures(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"invalid_grant":       {oauthError(400, "invalid_grant"), "login_refused"},
		"invalid_client":      {oauthError(401, "invalid_client"), "login_failed"},
		"another error":       {oauthError(400, "unsupported_grant_type"), "login_failed"},
		"a page with 400":     {page(400, "<h1>canary-page"), "login_failed"},
		"a page with 200":     {page(200, "<h1>canary-page"), "login_failed"},
		"an empty body":       {page(200, ""), "login_failed"},
		"an empty object":     {page(200, "{}"), "login_failed"},
		"a JSON string":       {page(200, `"canary-x"`), "login_failed"},
		"a broken object":     {page(200, `{"access_token":"canary-a"`), "login_failed"},
		"no content":          {page(204, ""), "login_failed"},
		"created":             {page(201, `{"access_token":"canary","token_type":"Bearer"}`), "login_failed"},
		"no ID token":         {page(200, `{"access_token":"canary","token_type":"Bearer"}`), "login_failed"},
		"no access token":     {page(200, `{"id_token":"canary","token_type":"Bearer"}`), "login_failed"},
		"no token type":       {page(200, `{"access_token":"canary","id_token":"x"}`), "login_failed"},
		"another token type":  {page(200, `{"access_token":"canary","id_token":"x","token_type":"mac"}`), "login_failed"}, // CB-17
		"token with line end": {page(200, `{"access_token":"canary\r\nX: y","id_token":"x","token_type":"Bearer"}`), "login_failed"},
		"two access tokens":   {page(200, `{"access_token":"canary","access_token":"b","id_token":"x","token_type":"Bearer"}`), "login_failed"},
		"500":                 {page(500, "canary-trace"), "provider_unavailable"},
		"503":                 {page(503, ""), "provider_unavailable"},
		"429":                 {page(429, ""), "provider_unavailable"},
		"100 MB":              {huge, "login_failed"},
		"a slow drip":         {drip, "provider_unavailable"},
		"silence":             {silence, "provider_unavailable"},
		"a closed connection": {hangUp, "provider_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			g := newGateway(t, p, func(s *setup) { s.Timeout = 500 * time.Millisecond })
			b := g.browser()
			q := b.begin("")
			p.take("/token", test.answer)
			began := time.Now()
			a := b.callback(q)
			if a.code() != test.want {
				t.Errorf("code %q, want %q\n%s", a.code(), test.want, g.logs)
			}
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("the browser waited %v", d)
			}
			if _, ok := b.cookies()[""]; ok {
				t.Error("a session cookie was set")
			}
			if n := len(p.seen("/token")); n != 1 {
				t.Errorf("%d token requests, want 1: a code is sent once", n)
			}
			if all := a.body + a.Header.Get("X-Help") + g.logs.String(); strings.Contains(all, "canary") {
				t.Errorf("the provider's body or a secret is shown or logged:\n%s", all)
			}
		})
	}
}

func oauthError(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		reply(w, status, map[string]any{"error": code, "error_description": "canary-description"})
	}
}

func page(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// huge is an answer that would do, if one read its first MiB alone.
func huge(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, `{"access_token":"canary","token_type":"Bearer"}`)
	chunk := strings.Repeat(" ", 1<<20)
	for range 100 {
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
	}
}

func drip(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := io.WriteString(w, " "); err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func silence(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(5 * time.Second):
	}
}

func hangUp(w http.ResponseWriter, r *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

// SES-17, CVE-2023-35941: one gateway, one store, one user, two apps: what one
// signed is nothing to the other, however its host is written.
func TestSES17ACookieOfAnotherAppIsNone(t *testing.T) {
	const otherHost = "admin.example.com"
	w := newWorld(t, func(w *world, a *App, c *Config) {
		other := *a
		other.Origin = "https://" + otherHost
		other.Sessions = must(w.manager.NewApp(session.AppConfig{
			Origin: other.Origin, Issuer: "https://login.example.com", ClientID: "shop",
			Refresher: w.provider, RefreshAhead: time.Minute, TokenTimeout: 5 * time.Second,
		}))
		c.Apps = []App{*a, other}
	})
	for _, host := range []string{otherHost, otherHost + ":443", strings.ToUpper(otherHost), otherHost + ":13518", otherHost + "."} {
		w.up.forget()
		got := w.send("GET /api/x", w.withSession("Host: "+host, "X-Forwarded-Host: "+testHost, "Forwarded: host="+testHost)...)
		if want := map[bool]int{true: 421, false: 401}[strings.HasSuffix(host, "13518") || strings.HasSuffix(host, ".")]; got.StatusCode != want || len(w.up.requests()) != 0 {
			t.Errorf("%s: status %d, want %d", host, got.StatusCode, want)
		}
	}
	if got := w.send("GET /api/x", w.withSession()...); got.StatusCode != 200 {
		t.Errorf("its own: status %d", got.StatusCode)
	}
}

// A listed origin can read every refusal, and nobody else can (CSRF-06, pain 16).
func TestCSRF06EveryRefusalCanBeReadByListedOrigins(t *testing.T) {
	const admin = "https://admin.example.com"
	w := newWorld(t, func(w *world, a *App, c *Config) {
		a.CORSOrigins = []string{admin}
		a.Routes = append(a.Routes, Route{Path: "/gone/", Upstream: must(url.Parse("http://127.0.0.1:1")), Auth: AuthNone},
			Route{Path: "/slow/", Upstream: a.Routes[0].Upstream, Auth: AuthNone, Timeout: 20 * time.Millisecond},
			Route{Path: "/tiny/", Upstream: a.Routes[0].Upstream, Auth: AuthNone, MaxBody: 10})
	})
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) { <-over })
	unread, _ := w.login(time.Minute)
	w.manager.Reconfigure(w.sessions.Keys(), 30*time.Minute, 12*time.Hour) // empties the cache
	w.store.silence()
	for _, origins := range [][]string{{admin}, {testOrigin}, {}, {"null"}, {admin + "."}, {admin + ":443"}, {"https://ADMIN.example.com"}, {"https://x@admin.example.com"}, {admin + "/"}, {admin, evil}, {admin, admin}} {
		listed := len(origins) == 1 && origins[0] == admin
		header := func(more ...string) []string {
			for _, o := range origins {
				more = append(more, "Origin: "+o)
			}
			return append(more, "X-CSRF: 1")
		}
		for name, got := range map[string]answered{
			"400 bad_path":             w.send("GET /api/%2e%2e/x", header()...),
			"400 ambiguous_cookie":     w.send("GET /api/x", header("Cookie: "+w.cookie+"; "+w.cookie)...),
			"401 session_required":     w.send("GET /api/x", header()...),
			"403 forbidden":            w.send("GET /open/sw.js", header("Service-Worker: script")...),
			"404 no_route":             w.send("GET /nowhere", header()...),
			"405 method_not_allowed":   w.send("DELETE /reading/x", header()...),
			"413 body_too_large":       w.sendBody("POST /tiny/x", "12345678901", header("Content-Length: 11")...),
			"502 upstream_unreachable": w.send("GET /gone/x", header()...),
			"503 store_unavailable":    w.send("GET /api/x", header("Cookie: "+unread)...),
			"504 upstream_timeout":     w.send("GET /slow/x", header()...),
		} {
			if status, code, _ := strings.Cut(name, " "); listed && (got.Status[:3] != status || got.problem(t).Code != code) {
				t.Errorf("%s: status %d %s", name, got.StatusCode, got.body)
			}
			checkCORS(t, name+" to "+strings.Join(origins, " and "), got, listed, admin, false)
		}
	}
}

// What a browser loads before the user asks for it begins no login and ends no
// session; a page that is shown later is loaded as the app has it (CB-08, CSRF-10).
func TestCSRF10Prefetches(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Endpoints = append(a.Endpoints, Endpoint{"GET", "logout", Navigation, func(rw http.ResponseWriter, r *http.Request) error { return say(rw, "logged out") }})
	})
	for _, purpose := range []string{"Sec-Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "Sec-Purpose: prefetch;anonymous-client-ip", "Sec-Purpose:", "Purpose: prefetch", "purpose: Prefetch", "X-Purpose: preview", "X-Moz: prefetch"} {
		for _, header := range [][]string{navigateOwn, navigateCross, {"Accept: text/html"}} {
			for _, line := range []string{"GET /bff/login", "GET /bff/logout", "GET /bff/callback"} {
				if got := w.send(line, join(header, []string{purpose, "Cookie: " + w.cookie})...); got.StatusCode != 403 || !strings.Contains(got.body, "origin_denied") || got.Header["Set-Cookie"] != nil {
					t.Errorf("%s with %s: status %d %s", line, purpose, got.StatusCode, got.body)
				}
			}
		}
		if strings.HasSuffix(purpose, ":") {
			continue
		}
		w.up.forget()
		got := w.send("GET /page/x", join(navigateOwn, []string{purpose, "Cookie: " + w.cookie})...)
		if name, value, _ := strings.Cut(purpose, ": "); got.StatusCode != 200 || w.up.last(t).Header.Get(name) != value {
			t.Errorf("a page with %s: status %d; the upstream has to know", purpose, got.StatusCode)
		}
		// Without a session it is sent to the login, which refuses to begin.
		got = w.send("GET /page/x", join(navigateOwn, []string{purpose})...)
		if to := got.Header.Get("Location"); got.StatusCode != 302 || w.send("GET "+to, join(navigateOwn, []string{purpose})...).StatusCode != 403 {
			t.Errorf("a page with %s, without a session: status %d to %s", purpose, got.StatusCode, to)
		}
	}
	for _, harmless := range []string{"Purpose: survey", "X-Purpose: shopping"} {
		if got := w.send("GET /bff/login", join(navigateOwn, []string{harmless})...); got.StatusCode != 200 {
			t.Errorf("%s: status %d", harmless, got.StatusCode)
		}
	}
}

// CSRF-11: a method in another place than the request line lifts no rule: not the
// one of X-CSRF, not a route's list.
func TestCSRF11MethodOverrides(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, line, header string
		status             int
	}{
		{"to a safe method, without X-CSRF", "POST /api/x?_method=GET", "X-HTTP-Method-Override: GET", 403},
		{"to a preflight's", "POST /api/x", "X-HTTP-Method-Override: OPTIONS", 403},
		{"a lower-case method", "get /page/x", "Sec-Fetch-Site: cross-site", 403},
		{"GET with a body", "GET /api/x", "Content-Type: application/x-www-form-urlencoded", 403},
		{"around a list", "GET /reading/x", "X-HTTP-Method-Override: DELETE\r\nX-CSRF: 1", 405},
		{"around a list, in another spelling", "GET /reading/x", "x_http_method_override: delete\r\nX-CSRF: 1", 405},
		{"around a list, by another name", "GET /reading/x", "X-HTTP-Method: PUT\r\nX-CSRF: 1", 405},
		{"around a list, by a third", "GET /reading/x", "X-Method-Override: PATCH\r\nX-CSRF: 1", 405},
		{"around a list, after one that is on it", "GET /reading/x", "X-HTTP-Method-Override: HEAD\r\nX-HTTP-Method-Override: DELETE\r\nX-CSRF: 1", 405},
		{"to a method of the list", "GET /reading/x", "X-HTTP-Method-Override: head\r\nX-CSRF: 1", 200},
		{"where there is no list", "POST /api/x", "X-HTTP-Method-Override: PATCH\r\nX-CSRF: 1", 200},
	} {
		w.up.forget()
		got := w.send(row.line, "Content-Length: 0", "Cookie: "+w.cookie, row.header)
		if got.StatusCode != row.status || (len(w.up.requests()) == 1) != (row.status == 200) {
			t.Errorf("%s: status %d, want %d", row.name, got.StatusCode, row.status)
		}
	}
}

// CVE-2025-48865, CVE-2026-29054: the upstream's Connection cannot take away what we
// say to the browser, in any spelling, on any line.
func TestCVE202548865AnUpstreamCannotNameWhatWeAdd(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) { a.CORSOrigins = []string{"https://admin.example.com"} })
	for _, lines := range [][]string{
		{"Strict-Transport-Security, Cache-Control, Vary, Access-Control-Allow-Origin, Cross-Origin-Resource-Policy, X-Named"},
		{"", "strict-transport-security", "cache-control,vary", "access-control-allow-origin , cross-origin-resource-policy, x-named"},
		{",,", " X-Named ", "Cache-Control;Vary", "cache-control, vary, Strict-Transport-Security"},
	} {
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header()["Connection"] = lines
			rw.Header().Set("X-Named", "1")
		})
		h := w.send("GET /opt/x", w.withSession("Origin: https://admin.example.com")...).Header
		for _, name := range []string{"Strict-Transport-Security", "Cache-Control", "Vary", "Access-Control-Allow-Origin", "Cross-Origin-Resource-Policy"} {
			if h.Get(name) == "" {
				t.Errorf("%q: %s is gone", lines, name)
			}
		}
		if h["X-Named"] != nil || h["Connection"] != nil {
			t.Errorf("%q: %v", lines, h)
		}
	}
}

// CVE-2025-64484 and Traefik's aliases: no character between the words of a name
// makes it another one to us than it is to an upstream.
func TestCVE202564484EverySeparator(t *testing.T) {
	w := newWorld(t)
	h := http.Header{}
	for c := byte('!'); c < 0x7f; c++ {
		if !isToken(string(c)) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			continue
		}
		s := string(c)
		for _, name := range []string{"X-Forwarded-For", "x-forwarded-user", "X-Real-Ip", "X-User-Id", "X-Key", "X-Secret", "X-Original-Url", "X-Request-Id", "Proxy-Authorization", "Cf-Connecting-Ip"} {
			h.Set(strings.ReplaceAll(name, "-", s), "evil")
			h.Set(strings.Replace(name, "-", s, 1), "evil")
		}
	}
	for _, path := range []string{"/ruled/x", "/open/x"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host, r.RemoteAddr, r.Header = testHost, "127.0.0.1:1", h.Clone()
		r.Header["Cookie"], r.Header["X-Csrf"] = []string{w.cookie}, []string{"1"}
		w.up.forget()
		w.gateway.ServeHTTP(httptest.NewRecorder(), r)
		for name, values := range w.up.last(t).Header {
			ruled := path == "/ruled/x" || !strings.Contains(fold(name), "Key") && !strings.Contains(fold(name), "Secret") && !strings.Contains(fold(name), "User-Id")
			if ruled && strings.Contains(strings.Join(values, ""), "evil") {
				t.Errorf("%s: the upstream sees %s", path, name)
			}
		}
	}
}

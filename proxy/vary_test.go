package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What a cache on the way may keep for all visitors it may not give to one who
// has logged in, where the upstream tells them apart (RFC 9110, section 12.5.5).
func TestHT11VaryWhereTheSessionDecides(t *testing.T) {
	const admin = "https://admin.example.com"
	for _, row := range []struct {
		name, path, upstream string
		listed               bool
		want                 string
	}{
		{"an optional route", "/opt/x", "", false, "Cookie"},
		{"an optional route whose upstream says so", "/opt/x", "Accept, cookie", false, "Accept, cookie"},
		{"an optional route whose upstream says more", "/opt/x", "*", false, "*"},
		{"an optional route beside listed origins", "/opt/x", "Accept", true, "Accept | Cookie | Origin"},
		{"an optional page", "/optpage/x", "", false, "Cookie"},
		{"an optional route without a token, whose upstream sees no session", "/optwhole/x", "", false, ""},
		{"a route that has no answer without a session", "/api/x", "", false, ""},
		{"an open route", "/open/x", "", false, ""},
	} {
		w := newWorld(t, func(_ *world, a *App, _ *Config) {
			if row.listed {
				a.CORSOrigins = []string{admin}
			}
		})
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			if row.upstream != "" {
				rw.Header().Set("Vary", row.upstream)
			}
			rw.Header().Set("Cache-Control", "public, max-age=60")
			if r.Header.Get("If-None-Match") != "" {
				rw.WriteHeader(http.StatusNotModified)
			}
		})
		for _, header := range [][]string{w.withSession(), w.withSession(`If-None-Match: "x"`), {"X-CSRF: 1"}} {
			if strings.HasPrefix(row.path, "/api") && len(header) == 1 {
				continue
			}
			got := w.send("GET "+row.path, header...)
			if v := strings.Join(got.Header["Vary"], " | "); v != row.want || got.StatusCode >= 400 {
				t.Errorf("%s, %d header lines: status %d, Vary %q, want %q", row.name, len(header), got.StatusCode, v, row.want)
			}
		}
	}
}

// An API's answers are nothing that another site can load (CSRF-09).
func TestCSRF09AnswersOfAPIs(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		path string
		set  map[string]string
		want [2]string
	}{
		{"/api/x", nil, [2]string{"same-origin", "nosniff"}},
		{"/opt/x", nil, [2]string{"same-origin", "nosniff"}},
		{"/api/x", map[string]string{"Cross-Origin-Resource-Policy": "same-site"}, [2]string{"same-site", "nosniff"}},
		{"/page/x", nil, [2]string{}},
		{"/open/x", nil, [2]string{}},
	} {
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			for name, value := range row.set {
				rw.Header().Set(name, value)
			}
		})
		h := w.send("GET "+row.path, w.withSession("Sec-Fetch-Site: same-origin")...).Header
		if got := [2]string{h.Get("Cross-Origin-Resource-Policy"), h.Get("X-Content-Type-Options")}; got != row.want {
			t.Errorf("%s: %q, want %q", row.path, got, row.want)
		}
	}
	for _, dest := range []string{"script", "image", "iframe", "embed", "object", "style", "audio", "track", "worker", "serviceworker"} {
		for _, site := range []string{"cross-site", "same-site"} {
			for _, path := range []string{"/api/x", "/opt/x", "/page/x", "/optpage/x"} {
				mode := map[bool]string{true: "navigate", false: "no-cors"}[slices.Contains([]string{"iframe", "embed", "object"}, dest)]
				w.up.forget()
				got := w.send("GET "+path, "Cookie: "+w.cookie, "Sec-Fetch-Site: "+site, "Sec-Fetch-Mode: "+mode, "Sec-Fetch-Dest: "+dest, "Accept: */*")
				if got.StatusCode != 403 || got.problem(t).Code != "origin_denied" || len(w.up.requests()) != 0 ||
					got.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
					t.Errorf("%s as %s, %s: status %d", path, dest, site, got.StatusCode)
				}
			}
		}
	}
}

// A style sheet's name below a page of one's own is no style sheet: a cache that
// goes by names is told that the answer is private, and where there is no such
// file nothing is served in its place (HT-12).
func TestHT12WebCacheDeception(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		a.Routes = append(a.Routes, Route{Path: "/", Static: &Static{staticDir(w.t), "index.html"}, Auth: AuthNone})
	})
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) { // answers /me for all that is below
		rw.Header().Set("Cache-Control", "public, max-age=600")
		rw.Header().Set("Content-Type", "application/json")
	})
	for _, path := range []string{"/me/x.css", "/me;x.css", "/me%3Bx.css", "/me%23x.css", "/me%3Fx.css", "/me/x.js?y.png", "/me%0a.css", "/me%00.css", "/me%2f..%2fx.css", "/static/..%2fapi/me"} {
		got := w.send("GET /api"+path, w.withSession("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: style")...)
		if cache := got.Header.Get("Cache-Control"); got.StatusCode == 200 && cache != "private, max-age=600" || got.StatusCode != 200 && cache != "no-store" {
			t.Errorf("%s: status %d, Cache-Control %q", path, got.StatusCode, cache)
		}
	}
	for _, path := range []string{"/me/x.css", "/bff/session/x.css", "/bff/session;x.css", "/bff/session%2fx.css", "/bff/login/x.js"} {
		got := w.send("GET "+path, w.withSession("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: style", "Sec-Fetch-Mode: no-cors")...)
		if got.StatusCode != 404 && got.StatusCode != 400 || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, Cache-Control %q", path, got.StatusCode, got.Header.Get("Cache-Control"))
		}
	}
}

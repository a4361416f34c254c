package proxy

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

var allMethods = []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

// TestCSRF01NothingBypassesTheChokePoint asks for everything that is registered, by
// every method, as a foreign page would: whatever has a session behind it
// refuses, and nobody outside hears of it (CSRF-01, CSRF-03, CSRF-04). What is
// open to others is served without a cookie.
func TestCSRF01NothingBypassesTheChokePoint(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		files := &Static{staticDir(w.t), "index.html"}
		a.Routes = append(a.Routes, Route{Path: "/files/", Static: files, StripPrefix: "/files"},
			Route{Path: "/members/", Static: files, Kind: KindPage, StripPrefix: "/members"}, Route{Path: "/optfiles/", Static: files, Auth: AuthOptional})
	})
	expired, _ := w.login(-time.Second)
	var served, open, withCookie int
	for _, p := range w.gateway.apps[testHost].endpoints {
		p.methods = count(p.methods, &served, &open, &withCookie)
	}
	foreign := []string{"Cookie: " + expired, "Origin: " + evil, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty", "Content-Type: text/plain", "Content-Length: 0"}
	n, opened := 0, 0
	for _, rt := range w.gateway.routes {
		for _, method := range allMethods {
			if rt.auth == AuthNone || !rt.allows(method) {
				continue
			}
			got := w.send(method+" "+rt.path, foreign...)
			if got.StatusCode != 403 || method != "HEAD" && got.problem(t).Code != "origin_denied" {
				t.Errorf("%s %s: status %d %s, want 403 origin_denied", method, rt.path, got.StatusCode, got.body)
			}
			n++
		}
	}
	for path, p := range w.gateway.apps[testHost].endpoints {
		if p.param != "" {
			path += "value"
		}
		for method, e := range p.methods {
			want := 403
			if e.Class == Provider || e.Class == Public {
				want, opened = 200, opened+1
			}
			if got := w.send(method+" "+path, foreign...); got.StatusCode != want {
				t.Errorf("%s %s: status %d %s, want %d", method, path, got.StatusCode, got.body, want)
			}
			n++
		}
	}
	if n < 75 || opened != 4 {
		t.Errorf("%d requests were made, %d of them to open endpoints", n, opened)
	}
	if open != opened || withCookie > 0 {
		t.Errorf("open endpoints served %d requests, want %d; %d with a cookie", open, opened, withCookie)
	}
	if saw := w.up.requests(); len(saw) > 0 || served > 0 || w.provider.called() > 0 {
		t.Errorf("refused requests had effects: upstream %d, endpoints %d, provider %d", len(saw), served, w.provider.called())
	}
}

func count(methods map[string]Endpoint, served, open, withCookie *int) map[string]Endpoint {
	for name, e := range methods {
		e.Serve = func(_ http.ResponseWriter, r *http.Request) error {
			if e.Class != Provider && e.Class != Public {
				*served++
				return nil
			}
			*open++
			if r.Header["Cookie"] != nil {
				*withCookie++
			}
			return nil
		}
		methods[name] = e
	}
	return methods
}

func TestCSRF02OverTheWire(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, line string
		header     []string
		status     int
		code       string
	}{
		{"CSRF-02: GET without the header", "GET /api/x", []string{"Sec-Fetch-Site: same-origin"}, 403, "csrf_header_missing"},
		{"CSRF-02: GET with it", "GET /api/x", []string{"Sec-Fetch-Site: same-origin", "X-CSRF: 1"}, 200, ""},
		{"a sibling route prefix needs it too", "GET /opt/x", nil, 403, "csrf_header_missing"},
		{"auth none has no such duty", "POST /open/x", []string{"Origin: " + evil, "Content-Length: 0"}, 200, ""},
		{"CSRF-12: a foreign WebSocket is not dialled on", "GET /api/ws", []string{"Connection: Upgrade", "Upgrade: websocket", "Origin: " + evil}, 403, "origin_denied"},
		{"CSRF-12: nor one without an origin", "GET /api/ws", []string{"Connection: Upgrade", "Upgrade: websocket"}, 403, "origin_denied"},
		{"CSRF-13: a foreign event source", "GET /api/sse", []string{"Accept: text/event-stream", "Sec-Fetch-Site: cross-site"}, 403, "origin_denied"},
		{"CSRF-14: a path that pretends to be an endpoint", "GET /bff/callback/../../api/x", nil, 400, "bad_path"},
		{"CSRF-14: an endpoint with a parameter", "GET /bff/login;/api", navigateOwn, 404, "no_route"},
		{"pain 17: a method in another field", "GET /api/x", []string{"X-Original-Method: OPTIONS"}, 403, "csrf_header_missing"},
		{"a service worker script", "GET /api/sw.js", []string{"X-CSRF: 1", "Service-Worker: script"}, 403, "forbidden"},
		{"a service worker script on an open route", "GET /open/sw.js", []string{"Service-Worker: script"}, 403, "forbidden"},
	} {
		w.up.forget()
		got := w.send(row.line, append(row.header, "Cookie: "+w.cookie)...)
		if got.StatusCode != row.status {
			t.Errorf("%s: status %d %s, want %d", row.name, got.StatusCode, got.body, row.status)
			continue
		}
		saw := w.up.requests()
		if row.status == 200 && len(saw) != 1 || row.status != 200 && len(saw) != 0 {
			t.Errorf("%s: the upstream saw %d requests", row.name, len(saw))
		}
		if row.code != "" && !strings.Contains(got.body, `"code":"`+row.code+`"`) {
			t.Errorf("%s: got %s, want code %s", row.name, got.body, row.code)
		}
	}
	if !strings.Contains(w.logs.String(), `"event":"csrf_rejected"`) {
		t.Error("OP-05: no csrf_rejected in the log")
	}
	for reason, want := range map[string]float64{"header_missing": 3, "origin": 3} {
		if got := w.metric("sessiongate_csrf_rejected_total", testOrigin, reason); got != want {
			t.Errorf("csrf_rejected_total{%s} = %v, want %v", reason, got, want)
		}
	}
}

// TestCSRF04RefusedRequestsAreNoUse: what CSRF refuses does not keep a session alive
// and starts no refresh (CSRF-04).
func TestCSRF04RefusedRequestsAreNoUse(t *testing.T) {
	w := newWorld(t)
	expired, _ := w.login(-time.Second)
	w.send("GET /api/x", "Cookie: "+expired)
	if n := w.provider.called(); n != 0 {
		t.Errorf("a refused request started %d refreshes", n)
	}
	w.send("GET /api/x", "Cookie: "+expired, "X-CSRF: 1")
	if n := w.provider.called(); n != 1 {
		t.Errorf("an admitted request started %d refreshes, want 1", n)
	}
}

func TestPX04HT08Hosts(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, line, host string
		status           int
	}{
		{"the app's", "GET /open/x", testHost, 200},
		{"in capitals", "GET /open/x", "SHOP.Example.com", 200},
		{"with the default port", "GET /open/x", testHost + ":443", 200},
		{"with another port", "GET /open/x", testHost + ":13518", 421},
		{"with a dot at its end", "GET /open/x", testHost + ".", 421},
		{"another", "GET /open/x", "evil.example", 421},
		{"HT-08: an absolute target beats the field", "GET http://" + testHost + "/open/x", "evil.example", 200},
		{"HT-08: an absolute target of another host", "GET http://evil.example/open/x", testHost, 421},
		{"HT-08: none", "GET /open/x", "", 421},
		{"PX-04: a user in the target", "GET http://" + testHost + "@evil.example/open/x", testHost, 421},
	} {
		w.up.forget()
		got := w.send(row.line, "Host: "+row.host, "X-Forwarded-Host: "+testHost, "Forwarded: host="+testHost)
		if got.StatusCode != row.status {
			t.Errorf("%s: status %d, want %d", row.name, got.StatusCode, row.status)
		}
		if n := len(w.up.requests()); (n == 1) != (row.status == 200) {
			t.Errorf("%s: the upstream saw %d requests", row.name, n)
		}
	}
	for name, header := range map[string]string{
		"HT-08: two": "Host: " + testHost + "\r\nHost: evil.example", "HT-07: space before the colon": "Host : " + testHost,
	} {
		if got := w.send("GET /open/x", header); got.StatusCode != 400 {
			t.Errorf("%s: status %d, want 400", name, got.StatusCode)
		}
	}
}

func TestPX06Methods(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		line   string
		header []string
		status int
		allow  string
	}{
		{"TRACE /api/x", nil, 405, anyMethod},
		{"TRACE /reading/x", nil, 405, anyMethod},
		{"TRACE /bff/login", nil, 405, anyMethod},
		{"CONNECT " + testHost + ":443", []string{"Host: " + testHost + ":443"}, 405, anyMethod},
		{"POST /reading/x", []string{"Content-Length: 0"}, 405, "GET, HEAD"},
		{"OPTIONS /reading/x", nil, 405, "GET, HEAD"},
		{"GET /reading/x", nil, 200, ""},
		{"PURGE /api/x", nil, 200, ""},
		{"HEAD /bff/login", nil, 405, "GET"},
		{"HEAD /bff/session", nil, 405, "GET"},
		{"POST /bff/session", []string{"Content-Length: 0"}, 405, "GET"},
		{"HEAD /bff/events", nil, 405, "GET"},
		{"GET /bff/backchannel", nil, 405, "POST"},
		{"HEAD /bff/frontchannel", nil, 405, "GET"},
		{"HEAD /bff/client.js", nil, 200, ""},
		{"POST /bff/client.js", []string{"Content-Length: 0"}, 405, "GET, HEAD"},
		{"POST /bff/sessions", []string{"Content-Length: 0"}, 405, "DELETE, GET"},
		{"GET /bff/sessions/1", nil, 405, "DELETE"},
		{"DELETE /bff/sessions/1", nil, 200, ""},
		{"DELETE /bff/sessions/", nil, 404, ""},
		{"DELETE /bff/sessions/1/", nil, 404, ""},
		{"DELETE /bff/sessions/1/2", nil, 404, ""},
		{"DELETE /bff/sessions/..", nil, 400, ""},
		{"DELETE /bff/sessions/%2e%2e", nil, 400, ""},
		{"OPTIONS /bff/session", []string{"Origin: " + evil, "Access-Control-Request-Method: GET"}, 405, "GET"},
		{"GET /bff", nil, 404, ""},
		{"GET /bff/", nil, 404, ""},
		{"GET /bff/nothing", nil, 404, ""},
		{"GET /bff/login/", nil, 404, ""},
		{"GET /nowhere", nil, 404, ""},
		{"GET /api", nil, 404, ""},
		{"OPTIONS *", nil, 400, ""},
		{"GET /api/..%2fadmin", nil, 400, ""},
	} {
		got := w.send(row.line, w.withSession(row.header...)...)
		if got.StatusCode != row.status || got.Header.Get("Allow") != row.allow {
			t.Errorf("%s: status %d, Allow %q; want %d, %q", row.line, got.StatusCode, got.Header.Get("Allow"), row.status, row.allow)
		}
	}
}

// TestCVE202554576RoutesByLongestPath: the query never matters (CVE-2025-54576).
func TestCVE202554576RoutesByLongestPath(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		for _, p := range []string{"/", "/api/public/", "/api/public/exact", "/api/admin"} {
			rt := w.testRoutes()[0]
			rt.Path, rt.Headers.Set = p, map[string]string{"X-Route": p}
			a.Routes = append(a.Routes, rt)
		}
		a.Routes[0].Headers.Set = map[string]string{"X-Route": "/api/"}
	})
	for path, want := range map[string]string{
		"/":                                 "/",
		"/else":                             "/",
		"/api":                              "/",
		"/api/":                             "/api/",
		"/api/admin":                        "/api/admin",
		"/api/admin/":                       "/api/",
		"/api/%61dmin":                      "/api/admin",
		"/api/administrator":                "/api/",
		"/api/public/x":                     "/api/public/",
		"/api/public/exact":                 "/api/public/exact",
		"/api/public/exact/x":               "/api/public/",
		"/api/admin?/api/public/":           "/api/admin",
		"/else?x=/api/public/exact":         "/",
		"/bffx":                             "/",
		"/api/http://evil.example/":         "/api/",
		"/api/@evil.example":                "/api/",
		"/api//public/x":                    "/api/",
		"/api/public/x;/../admin?;/../../x": "",
	} {
		w.up.forget()
		got := w.send("GET "+path, w.withSession("X-Forwarded-Uri: /api/public/", "X-Original-URL: /api/public/", "X-Rewrite-URL: /api/public/")...)
		if want == "" {
			if got.StatusCode != 400 {
				t.Errorf("%s: status %d, want 400", path, got.StatusCode)
			}
			continue
		}
		saw := w.up.last(t)
		if route := saw.Header.Get("X-Route"); route != want {
			t.Errorf("%s: route %q, want %q", path, route, want)
		}
		for _, name := range []string{"X-Forwarded-Uri", "X-Original-Url", "X-Rewrite-Url"} {
			if saw.Header[name] != nil {
				t.Errorf("CVE-2026-40575: the upstream saw %s", name)
			}
		}
	}
}

func TestStaticRoute(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		dir := staticDir(w.t)
		a.Routes = append(a.Routes, Route{Path: "/", Static: &Static{dir, "index.html"}, Auth: AuthNone,
			ResponseHeaders: Headers{Set: map[string]string{"X-Robots-Tag": "noindex"}}},
			Route{Path: "/members/", Static: &Static{dir, "index.html"}, Kind: KindPage, StripPrefix: "/members"})
	})
	page := w.send("GET /deep/link", navigateCross...)
	if page.StatusCode != 200 || !strings.Contains(page.body, "<title>app</title>") || page.Header.Get("Strict-Transport-Security") == "" ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || page.Header.Get("X-Robots-Tag") != "noindex" {
		t.Errorf("the fallback: status %d, header %v, body %q", page.StatusCode, page.Header, page.body)
	}
	if got := w.send("GET /sw.js", "Service-Worker: script"); got.StatusCode != 200 || got.body != "self" {
		t.Errorf("a service worker of static files: status %d %s", got.StatusCode, got.body)
	}
	if got := w.send("GET /missing.js"); got.StatusCode != 404 || got.problem(t).Code != "no_route" {
		t.Errorf("a missing asset: status %d", got.StatusCode)
	}
	if got := w.send("POST /sw.js", "Content-Length: 0"); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST to a file: status %d, Allow %q", got.StatusCode, got.Header.Get("Allow"))
	}
	if got := w.send("GET /members/x", navigateOwn...); got.StatusCode != 302 {
		t.Errorf("files of members, without a session: status %d, want 302", got.StatusCode)
	}
	got := w.send("GET /members/sw.js", "Cookie: "+w.cookie, "Sec-Fetch-Site: same-origin")
	if got.StatusCode != 200 || !strings.Contains(got.Header.Get("Cache-Control"), "private") {
		t.Errorf("files of members: status %d, Cache-Control %q", got.StatusCode, got.Header.Get("Cache-Control"))
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests for files", n)
	}
}

func TestSES06AmbiguousCookie(t *testing.T) {
	w := newWorld(t)
	name, _, _ := strings.Cut(w.cookie, "=")
	for _, row := range []struct {
		cookies []string
		status  int
	}{
		{[]string{w.cookie + "; " + w.cookie}, 400},
		{[]string{w.cookie, w.cookie}, 400},
		{[]string{w.cookie + "; " + name + "=x"}, 400},
		{[]string{w.cookie + "; " + name + "2=x; x" + name + "=y"}, 200},
		{[]string{w.cookie + "; " + strings.ToLower(name) + "=x"}, 200},
		{[]string{w.cookie + "; " + name + "-flow=x"}, 200},
	} {
		for _, line := range []string{"GET /api/x", "GET /open/x", "GET /bff/session"} {
			header := []string{"X-CSRF: 1"}
			for _, c := range row.cookies {
				header = append(header, "Cookie: "+c)
			}
			got := w.send(line, header...)
			if got.StatusCode != row.status {
				t.Errorf("SES-06: %s with %d lines of cookies, %v: status %d, want %d", line, len(row.cookies), row.cookies, got.StatusCode, row.status)
			}
			if got.Header["Set-Cookie"] != nil {
				t.Errorf("%s: sets a cookie", line)
			}
		}
	}
}

// TestAmbiguousCookieIsShownToPeople: errors to navigations are pages, this one
// too (DESIGN.md, section 12).
func TestAmbiguousCookieIsShownToPeople(t *testing.T) {
	w := newWorld(t)
	for line, want := range map[string]string{
		"GET /page/x":       "text/html; charset=utf-8",
		"GET /optpage/x":    "text/html; charset=utf-8",
		"GET /bff/callback": "text/html; charset=utf-8",
		"GET /api/x":        "application/problem+json",
		"GET /bff/no":       "application/problem+json",
		"GET /no":           "application/problem+json",
	} {
		got := w.send(line, join(navigateOwn, []string{"Cookie: " + w.cookie + "; " + w.cookie})...)
		if got.StatusCode != 400 || got.Header.Get("Content-Type") != want || !strings.Contains(got.body, "ambiguous_cookie") {
			t.Errorf("%s: status %d, %s, want 400 as %s", line, got.StatusCode, got.Header.Get("Content-Type"), want)
		}
	}
}

func TestEndpointErrorsKeepCookies(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Endpoints = append(a.Endpoints, Endpoint{"GET", "fails", Navigation, func(w http.ResponseWriter, r *http.Request) error {
			http.SetCookie(w, &http.Cookie{Name: "flow", MaxAge: -1})
			w.Header().Set("Content-Type", "image/png")
			w.Header().Set("Content-Length", "7")
			return io.ErrUnexpectedEOF
		}})
	})
	got := w.send("GET /bff/fails")
	if p := got.problem(t); got.StatusCode != 500 || p.Code != "internal_error" || len(got.Header["Set-Cookie"]) != 1 {
		t.Errorf("status %d, %+v, %v", got.StatusCode, p, got.Header)
	}
	if strings.Contains(got.body, "EOF") || !strings.Contains(w.logs.String(), "unexpected EOF") {
		t.Error("the cause belongs into the log, not into the answer")
	}
	if !slices.Equal(got.Header["Content-Type"], []string{"application/problem+json"}) {
		t.Errorf("Content-Type %q", got.Header["Content-Type"])
	}
}

// TestSES14Use: requests to routes keep a session alive, refused ones do not
// (CSRF-04; DESIGN.md, section 4, "What counts as use").
func TestSES14Use(t *testing.T) {
	w := newWorld(t)
	const idle = 600 * time.Millisecond
	w.manager.Reconfigure(w.sessions.Keys(), idle, time.Hour)
	used, _ := w.login(time.Minute)
	refused, _ := w.login(time.Minute)
	for began := time.Now(); time.Since(began) < 2*idle; time.Sleep(idle / 12) {
		if got := w.send("GET /api/x", "Cookie: "+used, "X-CSRF: 1"); got.StatusCode != 200 {
			t.Fatalf("a session in use: status %d %s after %v", got.StatusCode, got.body, time.Since(began))
		}
		w.send("GET /api/x", "Cookie: "+refused)
		w.send("GET /open/x", "Cookie: "+refused)
		w.send("GET /nowhere", "Cookie: "+refused, "X-CSRF: 1")
	}
	got := w.send("GET /api/x", "Cookie: "+refused, "X-CSRF: 1")
	if p := got.problem(t); got.StatusCode != 401 || p.Reason != session.IdleTimeout {
		t.Errorf("a session that was not used: status %d %+v", got.StatusCode, p)
	}
}

package proxy

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

// forwardedRoutes lead to one upstream below several bases. X-Route tells it by
// which route a request came.
func forwardedRoutes(upstream string) (routes []Route, inside map[string]string) {
	inside = map[string]string{}
	add := func(rt Route, base, place string) {
		rt.Upstream = must(url.Parse(upstream + base))
		rt.Headers.Set = map[string]string{"X-Route": rt.Path}
		routes = append(routes, rt)
		inside[rt.Path] = place
	}
	add(Route{Path: "/", Auth: AuthNone}, "", "/")
	add(Route{Path: "/api/"}, "", "/api/")
	add(Route{Path: "/api/open/", Auth: AuthNone}, "", "/api/open/")
	add(Route{Path: "/exact"}, "", "/exact")
	add(Route{Path: "/b%C3%BC/"}, "", "/b%C3%BC/")
	add(Route{Path: "/cut/", StripPrefix: "/cut"}, "/base", "/base/")
	add(Route{Path: "/cut/deep/", StripPrefix: "/cut"}, "/base/", "/base/deep/")
	add(Route{Path: "/based/", Auth: AuthNone}, "/a%20b", "/a%20b/based/")
	return routes, inside
}

// readings are what upstreams make of a path: they decode it up to two times, cut
// parameters, merge slashes and resolve dot segments, or do none of that.
func readings(target string) (all []string) {
	target, _, _ = strings.Cut(target, "?")
	for range 3 {
		all = append(all, target, resolve(target), nginx(target))
		target = decode(target)
	}
	return all
}

// nginx merges slashes and resolves what is left, and knows no parameters.
func nginx(target string) string {
	for strings.Contains(target, "//") {
		target = strings.ReplaceAll(target, "//", "/")
	}
	if clean := path.Clean(target); clean == "/" || !strings.HasSuffix(target, "/") {
		return clean
	}
	return path.Clean(target) + "/"
}

// FuzzForwardedPath: whatever is accepted, the path that an upstream is sent lies
// inside the route that was matched, however the upstream reads it; and no reading
// lies inside a route that asks for more (PX-05, CVE-2025-32431, CVE-2026-40912).
func FuzzForwardedPath(f *testing.F) {
	for _, s := range []string{
		"/", "/api/x", "/api//x", "/api/../exact", "/api/..%2fexact", "/api/%2e%2e/exact", "/api/%252e%252e/exact", "/%61pi/x", "/API/x", "/Api;v/x", "/api;/x",
		"/x//api/y", "/;/api/y", "/api%3b/y", "/%2561pi/y", "/api./y", "/api%20/y", "/exact;x", "/EXACT", "/exact.", "/exact/", "/api/open/x", "/api/open//x", "/api/open;/x", "/api;/Open/x", "/API/open/x",
		"/api/Open/x", "/cut/", "/cut//x", "/cut//deep/x", "/cut/deep//", "/cut/;/deep/x", "/cut", "/based/..;/x", "/based/%5c..%5cx", "/b%c3%bc/x", "/b%25c3%25bc/x", "/B%C3%9C/x",
		"http://shop.example.com/api/x", "http://shop.example.com//api/x", "/api/%c0%ae%c0%ae/x", "/api/100%25", "/api/%25252e", "/api/x?/../y", "/api/x#/../y", "//api/x", "/.;/api/x", "*",
	} {
		f.Add(s)
	}
	var inside map[string]string
	w := newWorld(f, func(w *world, a *App, _ *Config) { a.Routes, inside = forwardedRoutes(w.up.URL) })
	f.Fuzz(func(t *testing.T, target string) {
		if strings.ContainsAny(target, "\r\n ") {
			return // no target in a request line
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: " + testHost + "\r\nX-CSRF: 1\r\nCookie: " + w.cookie + "\r\n\r\n")))
		if err != nil {
			return // nor does net/http read it
		}
		r.RemoteAddr = "127.0.0.1:4711"
		w.up.forget()
		w.gateway.ServeHTTP(httptest.NewRecorder(), r)
		for _, saw := range w.up.requests() {
			checkForwarded(t, target, saw.Target, saw.Header.Get("X-Route"), inside)
		}
	})
}

func checkForwarded(t *testing.T, target, sent, route string, inside map[string]string) {
	asks := map[string]bool{"/api/": true, "/exact": true, "/b%C3%BC/": true} // and have nothing stripped
	within := inside[route]
	if path, _, _ := strings.Cut(sent, "?"); path == "/base" {
		return // the upstream's base itself, which is all that "/cut/" leaves
	}
	if !liesUnder(strings.SplitN(sent, "?", 2)[0], within) {
		t.Fatalf("%q by %s: the upstream is sent %q, which is outside of %s", target, route, sent, within)
	}
	places := []string{within, decode(within)}
	for _, reading := range readings(sent) {
		if strings.ContainsAny(reading, "\\\x00") {
			t.Fatalf("%q by %s: the upstream may read %q", target, route, reading)
		}
		if !liesUnder(reading, places[0]) && !liesUnder(reading, places[1]) {
			t.Fatalf("%q by %s: the upstream may read %q, which is outside of %s", target, route, reading, within)
		}
		if asks[route] || strings.HasPrefix(route, "/cut") {
			continue
		}
		low := strings.ToLower(reading)
		if route == "/api/open/" {
			continue
		}
		for guarded := range asks {
			if liesUnder(low, strings.ToLower(decode(guarded))) || liesUnder(low, strings.ToLower(guarded)) {
				t.Fatalf("%q by %s: the upstream may read %q, which %s guards", target, route, reading, guarded)
			}
		}
	}
}

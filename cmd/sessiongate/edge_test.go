package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sessiongate/oidc"
	"sessiongate/proxy"
)

// CSRF-14: the endpoints that a foreign site may cause a request for are a closed
// list, here by name, so that no new one comes to it unnoticed.
func TestCSRF14ExemptionsAreAClosedList(t *testing.T) {
	t.Parallel()
	want := map[string]proxy.Class{
		"GET login": proxy.Navigation, "GET callback": proxy.Navigation, "GET logout": proxy.Navigation,
		"GET logout/continue": proxy.Navigation, "GET logout/callback": proxy.Navigation,
		"POST backchannel": proxy.Provider, "GET frontchannel": proxy.Provider,
		"GET client.js": proxy.Public, "HEAD client.js": proxy.Public, "GET client.d.ts": proxy.Public, "HEAD client.d.ts": proxy.Public,
		"GET events": proxy.Events,
	}
	for _, e := range endpoints(new(oidc.Endpoints)) {
		name := e.Method + " " + e.Path
		class, listed := want[name]
		if !listed {
			class = proxy.Script
		}
		if e.Class != class {
			t.Errorf("%s is of class %d, want %d", name, e.Class, class)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s is not there", name)
	}
}

// own sends a request to one of our endpoints as its class wants it.
func ownRequest(e proxy.Endpoint, more string) string {
	path := strings.Replace(e.Path, "{id}", "x", 1)
	header := map[proxy.Class]string{
		proxy.Navigation: "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept: text/html\r\n",
		proxy.Script:     "Sec-Fetch-Site: same-origin\r\nX-CSRF: 1\r\n",
		proxy.Events:     "Sec-Fetch-Site: same-origin\r\nAccept: text/event-stream\r\n",
	}[e.Class]
	return fmt.Sprintf("%s /bff/%s HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\nContent-Length: 0\r\n%s%s\r\n", e.Method, path, header, more)
}

// HT-11, SES-16: every answer of ours is no-store, whatever went wrong, and tells
// browsers to guess nothing and to tell nobody; what is public is a list.
func TestHT11EveryAnswerOfOursIsNoStore(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	_, config := site(t, settings{routes: fmt.Sprintf("- {path: /api/, upstream: %q}\n      - {path: /page/, upstream: %q, kind: page}\n      - {path: /small/, upstream: %q, auth: none, max_body: 1}\n      - {path: /gone/, upstream: \"http://127.0.0.1:1\", auth: none}\n      - {path: /read/, upstream: %q, methods: [GET]}", up.URL, up.URL, up.URL, up.URL)})
	g := start(t, config)
	const cookie = "Cookie: sessiongate=a; sessiongate=b\r\n"
	const junk = "Cookie: sessiongate=junk\r\n"
	requests := map[string]string{}
	for _, e := range endpoints(new(oidc.Endpoints)) {
		for name, more := range map[string]string{"": "", "with junk": junk, "with two cookies": cookie, "from elsewhere": "Origin: https://evil.example\r\n", "before it is asked for": "Sec-Purpose: prefetch\r\n",
			"before it is asked for, in an old browser": "Purpose: prefetch\r\n", "as nothing of ours": "Sec-Fetch-Site: same-site\r\n"} {
			requests[e.Method+" "+e.Path+" "+name] = ownRequest(e, more)
		}
		e.Method = "PATCH"
		requests["PATCH "+e.Path] = ownRequest(e, "")
	}
	for _, line := range []string{"GET /nowhere", "GET /bff", "GET /bff/nothing", "GET /api/x", "GET /api/%2e%2e/x", "TRACE /api/x", "GET /page/x", "GET /page/..;/x", "GET /gone/x", "POST /read/x", "OPTIONS /api/x", "OPTIONS *"} {
		for _, more := range []string{"", "X-CSRF: 1\r\n", cookie, "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n", "Origin: http://localhost:8080\r\nAccess-Control-Request-Method: PUT\r\n"} {
			requests[line+" "+more] = line + " HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n" + more + "\r\n"
		}
	}
	requests["too large"] = "POST /small/x HTTP/1.1\r\nHost: localhost:8080\r\nContent-Length: 5\r\n\r\n12345"
	requests["an unknown host"] = "GET /api/x HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
	statuses := map[int]int{}
	for name, request := range requests {
		res, body := g.raw(request)
		statuses[res.StatusCode]++
		h := res.Header
		public := strings.Contains(name, " client.") && res.StatusCode == 200
		if want := map[bool]string{true: "public, max-age=300", false: "no-store"}[public]; h.Get("Cache-Control") != want {
			t.Errorf("%s: status %d, Cache-Control %q, want %q", name, res.StatusCode, h.Get("Cache-Control"), want)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: status %d, %v", name, res.StatusCode, h)
		}
		if html := strings.HasPrefix(h.Get("Content-Type"), "text/html"); html && !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors ") {
			t.Errorf("%s: a page without a policy: %v", name, h)
		}
		if res.StatusCode >= 400 && (h.Get("X-Sessiongate") != "1" || h.Get("Cross-Origin-Resource-Policy") != "same-origin") && !strings.HasPrefix(name, "POST backchannel") {
			t.Errorf("%s: status %d, %v", name, res.StatusCode, h)
		}
		if strings.HasPrefix(h.Get("Content-Type"), "application/problem+json") && !json.Valid([]byte(body)) {
			t.Errorf("%s: %s", name, body)
		}
		for _, c := range h["Set-Cookie"] {
			if strings.HasPrefix(c, "sessiongate=") && !strings.Contains(name, " logout ") { // which clears it
				t.Errorf("%s: sets %s", name, c)
			}
		}
		if prefetched := strings.Contains(name, "before it is asked for"); prefetched && !public && (strings.Contains(name, "log") || strings.Contains(name, "callback")) && !strings.HasPrefix(name, "POST") && res.StatusCode != 403 {
			t.Errorf("%s: status %d, want 403", name, res.StatusCode)
		}
	}
	for _, status := range []int{200, 302, 400, 401, 403, 404, 405, 413, 421, 502, 503} {
		if statuses[status] == 0 {
			t.Errorf("no answer was %d: %v", status, statuses)
		}
	}
}

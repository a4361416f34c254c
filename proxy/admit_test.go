package proxy

import (
	"net/http"
	"strings"
	"testing"
)

var testSite = site{origin: testOrigin, listed: map[string][]string{"https://admin.example.com": {"https://admin.example.com"}}}

// headerOf reads "Name: value" pairs, separated by bars.
func headerOf(s string) http.Header {
	h := http.Header{}
	for pair := range strings.SplitSeq(s, "|") {
		if name, value, ok := strings.Cut(pair, ":"); ok {
			h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return h
}

func TestCSRF05AdmitRoute(t *testing.T) {
	const (
		csrf  = "|X-CSRF: 1"
		own   = "|Sec-Fetch-Site: same-origin"
		cross = "|Sec-Fetch-Site: cross-site"
		nav   = "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document"
		ws    = "|Connection: keep-alive, Upgrade|Upgrade: websocket"
		sse   = "|Accept: text/event-stream"
	)
	for _, row := range []struct {
		name, method, header string
		byHeader, byOrigin   csrfError
	}{
		{"nothing is known, GET", "GET", "", errHeaderMissing, admitted},
		{"nothing is known, HEAD", "HEAD", "", errHeaderMissing, admitted},
		{"nothing is known, OPTIONS", "OPTIONS", "", errHeaderMissing, admitted},
		{"nothing is known, POST", "POST", "", errHeaderMissing, errOriginDenied},
		{"nothing is known, an unknown method", "PURGE", "", errHeaderMissing, errOriginDenied},
		{"nothing is known, a safe method in lower case", "get", "", errHeaderMissing, errOriginDenied},

		{"a script of ours", "POST", csrf + own, admitted, admitted},
		{"a script of ours in an old browser", "POST", csrf + "|Origin: " + testOrigin, admitted, admitted},
		{"a script of ours forgot the header", "GET", own, errHeaderMissing, admitted},
		{"a script of ours forgot the header, POST", "POST", own, errHeaderMissing, admitted},
		{"a tool sends the header alone", "POST", csrf, admitted, errOriginDenied},
		{"a tool sends the header alone, GET", "GET", csrf, admitted, admitted},
		{"CSRF-02: an empty header is none", "GET", own + "|X-CSRF:", errHeaderMissing, admitted},
		{"one of two headers is empty", "GET", own + "|X-CSRF:" + csrf, admitted, admitted},
		{"CVE-2025-64484: the header in another spelling is none", "GET", own + "|X_CSRF: 1", errHeaderMissing, admitted},
		{"the user typed the address", "GET", "|Sec-Fetch-Site: none" + nav, errHeaderMissing, admitted},
		{"the user did something else", "POST", csrf + "|Sec-Fetch-Site: none", admitted, admitted},

		{"CSRF-01: cross-site GET", "GET", csrf + cross, errOriginDenied, errOriginDenied},
		{"CSRF-01: cross-site POST", "POST", csrf + cross, errOriginDenied, errOriginDenied},
		{"CSRF-03: a form of another site", "POST", cross + nav + "|Content-Type: text/plain", errOriginDenied, errOriginDenied},
		{"CSRF-05: a sibling origin", "POST", csrf + "|Sec-Fetch-Site: same-site", errOriginDenied, errOriginDenied},
		{"CSRF-05: a sibling origin in an old browser", "POST", csrf + "|Origin: https://b.example.com", errOriginDenied, errOriginDenied},
		{"CSRF-08: an old browser, foreign origin", "POST", csrf + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"CSRF-08: an old browser, foreign GET", "GET", csrf + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"CSRF-06: origin null", "POST", csrf + "|Origin: null", errOriginDenied, errOriginDenied},
		{"CSRF-06: our origin as a prefix", "POST", csrf + "|Origin: " + testOrigin + ".evil", errOriginDenied, errOriginDenied},
		{"CSRF-06: our origin as a suffix", "POST", csrf + "|Origin: https://evil" + testHost, errOriginDenied, errOriginDenied},
		{"CSRF-06: another scheme", "POST", csrf + "|Origin: http://" + testHost, errOriginDenied, errOriginDenied},
		{"CSRF-06: another port", "POST", csrf + "|Origin: " + testOrigin + ":8443", errOriginDenied, errOriginDenied},
		{"CSRF-06: another case", "POST", csrf + "|Origin: https://SHOP.example.com", errOriginDenied, errOriginDenied},
		{"a slash after the origin", "POST", csrf + "|Origin: " + testOrigin + "/", errOriginDenied, errOriginDenied},
		{"the fields disagree: foreign origin", "POST", csrf + own + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"the fields disagree: foreign site", "POST", csrf + cross + "|Origin: " + testOrigin, errOriginDenied, errOriginDenied},
		{"CSRF-09: a foreign image", "GET", cross + "|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: image", errOriginDenied, errOriginDenied},
		{"CSRF-09: a foreign frame", "GET", cross + "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe", errOriginDenied, errOriginDenied},

		{"a repeated site falls to the origin", "POST", csrf + own + own + "|Origin: " + testOrigin, admitted, admitted},
		{"a repeated site says nothing", "POST", own + own, errHeaderMissing, errOriginDenied},
		{"a foreign one of two sites", "POST", csrf + own + cross, errOriginDenied, errOriginDenied},
		{"two sites in one line say nothing", "POST", "|Sec-Fetch-Site: same-origin, cross-site", errHeaderMissing, errOriginDenied},
		{"CSRF-08: an unknown site is ignored", "POST", csrf + "|Sec-Fetch-Site: next-door", admitted, errOriginDenied},
		{"an unknown site and a foreign origin", "POST", csrf + "|Sec-Fetch-Site: next-door|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"a foreign one of two origins", "POST", csrf + "|Origin: " + testOrigin + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"an empty origin says nothing", "POST", csrf + "|Origin:", admitted, errOriginDenied},

		{"a listed origin", "POST", csrf + cross + "|Origin: https://admin.example.com", admitted, admitted},
		{"a listed sibling", "POST", csrf + "|Sec-Fetch-Site: same-site|Origin: https://admin.example.com", admitted, admitted},
		{"a listed origin without the header", "POST", cross + "|Origin: https://admin.example.com", errHeaderMissing, admitted},
		{"a cross-site GET that names no origin is of no listed one", "GET", csrf + cross, errOriginDenied, errOriginDenied},
		{"a listed and a foreign origin", "POST", csrf + "|Origin: https://admin.example.com|Origin: " + evil, errOriginDenied, errOriginDenied},

		{"a link from anywhere", "GET", cross + nav, errOriginDenied, admitted},
		{"a link from anywhere, HEAD", "HEAD", cross + nav, errOriginDenied, admitted},
		{"a form from anywhere", "POST", cross + nav, errOriginDenied, errOriginDenied},
		{"our own form", "POST", own + nav, errHeaderMissing, admitted},
		{"the user reloads", "GET", own + nav, errHeaderMissing, admitted},

		{"CSRF-12: a WebSocket of ours", "GET", ws + own, admitted, admitted},
		{"CSRF-12: a WebSocket of ours, by origin", "GET", ws + "|Origin: " + testOrigin, admitted, admitted},
		{"CSRF-12: a WebSocket of a listed origin", "GET", ws + cross + "|Origin: https://admin.example.com", admitted, admitted},
		{"CSRF-12: a foreign WebSocket", "GET", ws + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"CSRF-12: a sibling's WebSocket", "GET", ws + "|Origin: https://b.example.com", errOriginDenied, errOriginDenied},
		{"CSRF-12: a WebSocket of origin null", "GET", ws + "|Origin: null", errOriginDenied, errOriginDenied},
		{"CSRF-12: a WebSocket from nowhere", "GET", ws, errOriginDenied, errOriginDenied},
		{"CSRF-12: a header is no excuse for a WebSocket", "GET", ws + csrf, errOriginDenied, errOriginDenied},
		{"CSRF-12: a header is no excuse for a foreign WebSocket", "GET", ws + csrf + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"CSRF-12: nobody types a WebSocket", "GET", ws + "|Sec-Fetch-Site: none", errOriginDenied, errOriginDenied},
		{"a WebSocket that pretends to be a link", "GET", ws + cross + nav, errOriginDenied, errOriginDenied},

		{"CSRF-13: an event source of ours", "GET", sse + own, admitted, admitted},
		{"CSRF-13: an event source of a listed origin", "GET", sse + cross + "|Origin: https://admin.example.com", admitted, admitted},
		{"CSRF-13: a foreign event source", "GET", sse + cross, errOriginDenied, errOriginDenied},
		{"CSRF-13: a foreign event source in an old browser", "GET", sse + "|Origin: " + evil, errOriginDenied, errOriginDenied},
		{"CSRF-13: an event source from nowhere", "GET", sse, errHeaderMissing, admitted},
		{"CSRF-13: a fetched stream", "GET", sse + csrf, admitted, admitted},
		{"an event source is a GET", "POST", sse + own, errHeaderMissing, admitted},
		{"CSRF-13: nobody types an event source", "GET", sse + "|Sec-Fetch-Site: none", errHeaderMissing, admitted},
		{"CSRF-11: a method in a header changes nothing", "GET", own + "|X-HTTP-Method-Override: DELETE", errHeaderMissing, admitted},
	} {
		h := headerOf(row.header)
		if got := admitRoute(CSRFHeader, row.method, h, testSite); got != row.byHeader {
			t.Errorf("%s, header rule: got %q, want %q", row.name, got, row.byHeader)
		}
		if got := admitRoute(CSRFOrigin, row.method, h, testSite); got != row.byOrigin {
			t.Errorf("%s, origin rule: got %q, want %q", row.name, got, row.byOrigin)
		}
	}
}

// TestCSRF08AdmitRouteInvariants goes through every combination of what a request can
// say, and holds the decision against the sentences of DESIGN.md, section 7.
func TestCSRF08AdmitRouteInvariants(t *testing.T) {
	sites := []string{"", "same-origin", "same-site", "cross-site", "none", "odd"}
	origins := []string{"", testOrigin, evil, "null", "https://admin.example.com"}
	modes := []string{"", "navigate", "cors", "no-cors", "websocket"}
	dests := []string{"", "document", "empty", "image", "iframe", "script"}
	kinds := []string{"", "|X-CSRF: 1", "|Accept: text/event-stream", "|Connection: Upgrade|Upgrade: websocket", "|Content-Type: text/plain"}
	n := 0
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
		for _, fetchSite := range sites {
			for _, origin := range origins {
				for _, mode := range modes {
					for _, dest := range dests {
						for _, kind := range kinds {
							text := kind
							for name, v := range map[string]string{"Sec-Fetch-Site": fetchSite, "Origin": origin, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest} {
								if v != "" {
									text += "|" + name + ": " + v
								}
							}
							checkInvariants(t, method, text, fetchSite, origin, mode == "navigate" && dest == "document")
							n++
						}
					}
				}
			}
		}
	}
	t.Logf("%d requests", n)
}

func checkInvariants(t *testing.T, method, text, fetchSite, origin string, document bool) {
	h := headerOf(text)
	listed := origin == "https://admin.example.com"
	foreign := origin == evil || origin == "null" || (fetchSite == "same-site" || fetchSite == "cross-site") && !listed
	positive := !foreign && (fetchSite == "same-origin" || origin == testOrigin || listed)
	handshake := method == "GET" && h.Get("Upgrade") != ""
	safe := method == "GET" || method == "HEAD" || method == "OPTIONS"
	link := document && (method == "GET" || method == "HEAD")

	byHeader := !foreign && (h.Get("X-Csrf") != "" || positive && method == "GET" && h.Get("Accept") != "")
	byOrigin := link || !foreign && (positive || fetchSite == "none" || safe)
	if handshake {
		byHeader, byOrigin = positive, positive
	}
	if got := admitRoute(CSRFHeader, method, h, testSite) == admitted; got != byHeader {
		t.Errorf("%s %s, header rule: admitted %v, want %v", method, text, got, byHeader)
	}
	if got := admitRoute(CSRFOrigin, method, h, testSite) == admitted; got != byOrigin {
		t.Errorf("%s %s, origin rule: admitted %v, want %v", method, text, got, byOrigin)
	}
}

func TestCSRF14AdmitEndpoint(t *testing.T) {
	const nav = "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document"
	for _, row := range []struct {
		name   string
		class  Class
		header string
		want   csrfError
	}{
		{"a link from anywhere", Navigation, "|Sec-Fetch-Site: cross-site" + nav, admitted},
		{"an old browser", Navigation, "|Accept: text/html", admitted},
		{"a tool", Navigation, "", admitted},
		{"a prefetch", Navigation, "|Sec-Purpose: prefetch" + nav, errOriginDenied},
		{"CSRF-12 a WebSocket, which has no Fetch Metadata", Navigation, "|Connection: Upgrade|Upgrade: websocket|Origin: https://evil.example", errOriginDenied},
		{"a WebSocket of our own", Navigation, "|Connection: Upgrade|Upgrade: websocket|Origin: " + testOrigin, errOriginDenied},
		{"a prerender", Navigation, "|Sec-Purpose: prefetch;prerender" + nav, errOriginDenied},
		{"a prefetch of an old browser", Navigation, "|Sec-Purpose: prefetch", errOriginDenied},
		{"CSRF-10: an image", Navigation, "|Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: image", errOriginDenied},
		{"a frame", Navigation, "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe", errOriginDenied},
		{"a fetch", Navigation, "|Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty", errOriginDenied},
		{"half of Fetch Metadata", Navigation, "|Sec-Fetch-Site: same-origin", errOriginDenied},

		{"a script of ours", Script, "|X-CSRF: 1|Sec-Fetch-Site: same-origin", admitted},
		{"a script without the header", Script, "|Sec-Fetch-Site: same-origin", errHeaderMissing},
		{"a script with an empty header", Script, "|X-CSRF:|Sec-Fetch-Site: same-origin", errHeaderMissing},
		{"the header alone", Script, "|X-CSRF: 1", admitted},
		{"a foreign script", Script, "|X-CSRF: 1|Sec-Fetch-Site: cross-site", errOriginDenied},
		{"a sibling's script", Script, "|X-CSRF: 1|Sec-Fetch-Site: same-site", errOriginDenied},
		{"a foreign origin", Script, "|X-CSRF: 1|Origin: " + evil, errOriginDenied},
		{"nobody's script", Script, "|X-CSRF: 1|Sec-Fetch-Site: none", errOriginDenied},
		{"a listed origin is foreign here", Script, "|X-CSRF: 1|Origin: https://admin.example.com", errOriginDenied},

		{"CSRF-13: an event source of ours", Events, "|Sec-Fetch-Site: same-origin|Accept: text/event-stream", admitted},
		{"an old browser's event source", Events, "|Origin: " + testOrigin, admitted},
		{"an event source that shows nothing", Events, "|Accept: text/event-stream", errOriginDenied},
		{"X-CSRF shows nothing to events", Events, "|X-CSRF: 1", errOriginDenied},
		{"a sibling's event source", Events, "|X-CSRF: 1|Sec-Fetch-Site: same-site", errOriginDenied},
		{"a foreign event source", Events, "|Sec-Fetch-Site: cross-site|Origin: " + evil, errOriginDenied},
		{"a foreign origin called same", Events, "|Sec-Fetch-Site: same-origin|Origin: " + evil, errOriginDenied},
		{"a listed origin's event source", Events, "|Origin: https://admin.example.com", errOriginDenied},
		{"events that somebody typed", Events, "|Sec-Fetch-Site: none|Origin: " + testOrigin, errOriginDenied},
		{"a provider's server", Provider, "", admitted},
		{"FC-01: a frame of the provider", Provider, "|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe", admitted},
		{"client.js", Public, "|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: script|Origin: " + evil, admitted},
	} {
		if got := admitEndpoint(row.class, headerOf(row.header), testOrigin); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

func TestIsNavigation(t *testing.T) {
	for _, row := range []struct {
		name, method, header string
		want                 bool
	}{
		{"a link", "GET", "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document", true},
		{"a HEAD of a link", "HEAD", "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document", true},
		{"a form", "POST", "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document", false},
		{"a frame", "GET", "|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|Accept: text/html", false},
		{"a fetch that accepts pages", "GET", "|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Accept: text/html", false},
		{"the site alone", "GET", "|Sec-Fetch-Site: same-origin|Accept: text/html", false},
		{"the mode twice", "GET", "|Sec-Fetch-Mode: navigate|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document", false},
		{"an old browser", "GET", "|Accept: text/html,application/xhtml+xml", true},
		{"an old browser, in capitals and further back", "GET", "|Accept: application/json, Text/HTML;q=0.9", true},
		{"an old browser's second line", "GET", "|Accept: */*|Accept: text/html", true},
		{"an old browser's script", "GET", "|Accept: */*", false},
		{"nothing", "GET", "", false},
		{"a type that only begins alike", "GET", "|Accept: text/html5", false},
		{"a WebSocket", "GET", "|Accept: text/html|Connection: Upgrade|Upgrade: websocket", false},
	} {
		if got := isNavigation(row.method, headerOf(row.header)); got != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Who is believed, and what (HT-04, PX-24, CVE-2025-41235, pain 22).
func TestHT04TrustedProxies(t *testing.T) {
	var client string
	serve := func(rw http.ResponseWriter, r *http.Request) error {
		client = ClientAddress(r)
		return say(rw, RequestID(r))
	}
	for _, row := range []struct {
		name           string
		trusted        string
		header         []string
		client         string
		forwardedFor   string
		requestID      string
		traceparent    string
		tracestate     string
		otherForwarded bool
	}{
		{name: "nobody is trusted", header: []string{"X-Forwarded-For: 10.1.1.1"}, client: "127.0.0.1", forwardedFor: "127.0.0.1"},
		{name: "another is trusted", trusted: "10.0.0.0/8", header: []string{"X-Forwarded-For: 10.1.1.1"}, client: "127.0.0.1", forwardedFor: "127.0.0.1"},
		{name: "the peer is trusted", trusted: "127.0.0.0/8", header: []string{"X-Forwarded-For: 203.0.113.7"}, client: "203.0.113.7", forwardedFor: "203.0.113.7, 127.0.0.1", otherForwarded: true},
		{name: "a spoofed hop before it", trusted: "127.0.0.0/8", header: []string{"X-Forwarded-For: 10.9.9.9, 203.0.113.7"}, client: "203.0.113.7", forwardedFor: "10.9.9.9, 203.0.113.7, 127.0.0.1", otherForwarded: true},
		{name: "two trusted hops and two lines", trusted: "127.0.0.0/8 10.0.0.0/8", header: []string{"X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 10.9.9.9"}, client: "203.0.113.7", forwardedFor: "203.0.113.7, 10.9.9.9, 127.0.0.1", otherForwarded: true},
		{name: "only trusted hops", trusted: "127.0.0.0/8 10.0.0.0/8", header: []string{"X-Forwarded-For: 10.9.9.8, 10.9.9.9"}, client: "10.9.9.8", forwardedFor: "10.9.9.8, 10.9.9.9, 127.0.0.1", otherForwarded: true},
		{name: "junk is where belief ends", trusted: "127.0.0.0/8 10.0.0.0/8", header: []string{"X-Forwarded-For: 203.0.113.7, <script>, 10.9.9.9"}, client: "10.9.9.9", forwardedFor: "203.0.113.7, <script>, 10.9.9.9, 127.0.0.1", otherForwarded: true},
		{name: "IPv6 with a port", trusted: "127.0.0.0/8", header: []string{"X-Forwarded-For: [2001:db8::7]:4711"}, client: "2001:db8::7", forwardedFor: "[2001:db8::7]:4711, 127.0.0.1", otherForwarded: true},
		{name: "IPv4 in IPv6", trusted: "127.0.0.0/8", header: []string{"X-Forwarded-For: ::ffff:203.0.113.7"}, client: "203.0.113.7", forwardedFor: "::ffff:203.0.113.7, 127.0.0.1", otherForwarded: true},
		{name: "a trusted hop written as IPv6", trusted: "127.0.0.0/8 10.0.0.0/8", header: []string{"X-Forwarded-For: 203.0.113.7, [::ffff:10.9.9.9]:80"}, client: "203.0.113.7", forwardedFor: "203.0.113.7, [::ffff:10.9.9.9]:80, 127.0.0.1", otherForwarded: true},
		{name: "a zone", trusted: "127.0.0.0/8 fe80::/10", header: []string{"X-Forwarded-For: 2001:db8::7, fe80::1%eth0"}, client: "2001:db8::7", forwardedFor: "2001:db8::7, fe80::1%eth0, 127.0.0.1", otherForwarded: true},
		{name: "an empty first hop", trusted: "127.0.0.0/8", header: []string{"X-Forwarded-For:", "X-Forwarded-For: ,203.0.113.7"}, client: "203.0.113.7", forwardedFor: ", ,203.0.113.7, 127.0.0.1", otherForwarded: true},
		{name: "Forwarded", trusted: "127.0.0.0/8", header: []string{`Forwarded: for=10.9.9.9;proto=http, For="[2001:db8::7]:4711";by="a,b"`}, client: "2001:db8::7", forwardedFor: "127.0.0.1", otherForwarded: true},
		{name: "Forwarded of nobody known", trusted: "127.0.0.0/8", header: []string{`Forwarded: for=_hidden`}, client: "127.0.0.1", forwardedFor: "127.0.0.1", otherForwarded: true},
		{name: "ids", trusted: "127.0.0.0/8", header: []string{"X-Request-Id: abc-1.2_3", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "tracestate: a=1"},
			client: "127.0.0.1", forwardedFor: "127.0.0.1", requestID: "abc-1.2_3", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", tracestate: "a=1", otherForwarded: true},
		{name: "malformed ids", trusted: "127.0.0.0/8", header: []string{"X-Request-Id: a<b>", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-00", "tracestate: a=1"}, client: "127.0.0.1", forwardedFor: "127.0.0.1", otherForwarded: true},
	} {
		w := newWorld(t, func(_ *world, a *App, c *Config) {
			for _, p := range strings.Fields(row.trusted) {
				c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix(p))
			}
			a.Endpoints = append(a.Endpoints, Endpoint{"GET", "address", Script, serve})
		})
		id := w.send("GET /bff/address", append(row.header, "X-CSRF: 1")...).body
		if client != row.client || row.requestID != "" && id != row.requestID || !isRequestID(id) {
			t.Errorf("%s: client %s, id %s; want %s, %s", row.name, client, id, row.client, row.requestID)
		}
		w.send("GET /open/x", append(row.header, "X-Forwarded-Port: 444", "CF-Connecting-IP: 203.0.113.7", "baggage: a=1", "x_forwarded_for: 10.1.1.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: evil.example")...)
		saw := w.up.last(t).Header
		if got := saw["X-Forwarded-For"]; len(got) != 1 || got[0] != row.forwardedFor {
			t.Errorf("%s: X-Forwarded-For = %q, want %q", row.name, got, row.forwardedFor)
		}
		if saw.Get("X-Forwarded-Proto") != "https" || saw.Get("X-Forwarded-Host") != testHost || saw["X_forwarded_for"] != nil || saw["Baggage"] != nil {
			t.Errorf("%s: the upstream sees %v", row.name, saw)
		}
		for _, name := range []string{"X-Forwarded-Port", "Cf-Connecting-Ip"} {
			if got := saw[name] != nil; got != row.otherForwarded {
				t.Errorf("%s: %s passes: %v", row.name, name, got)
			}
		}
		if got := saw.Get("Traceparent"); row.traceparent != "" && got != row.traceparent || !isTraceparent(got) || saw.Get("Tracestate") != row.tracestate {
			t.Errorf("%s: traceparent %s, tracestate %s", row.name, got, saw.Get("Tracestate"))
		}
	}
}

// TestHT02HT03Via: entries are kept in order, and a request that comes back is a loop
// (HT-02, HT-03).
func TestHT02HT03Via(t *testing.T) {
	w := newWorld(t)
	w.send("GET /open/x", "Via: 1.0 fred, 1.1 p.example.net", "Via: 2 other")
	if got, want := w.up.last(t).Header["Via"], []string{"1.0 fred, 1.1 p.example.net", "2 other", "1.1 " + pseudonym}; !slices.Equal(got, want) {
		t.Errorf("Via = %q, want %q", got, want)
	}
	w.up.forget()
	got := w.send("GET /open/x", "Via: 1.1 fred, 1.1 "+pseudonym)
	if got.StatusCode != 502 || got.problem(t).Code != "upstream_unreachable" || len(w.up.requests()) != 0 {
		t.Errorf("a loop: status %d %s, %d requests", got.StatusCode, got.body, len(w.up.requests()))
	}
}

package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestPX01OneChokePointForEveryKindOfRequest sends the same hostile header by every
// kind of request on every sort of route: our cookies, what poses as ours and the
// fields that Connection names are gone, and the path is the one that was matched.
func TestPX01OneChokePointForEveryKindOfRequest(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			echoSocket(rw, r)
		case r.Header.Get("Accept") == "text/event-stream":
			rw.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(rw, "data: 1\n\n")
		}
	})
	name, _, _ := strings.Cut(w.cookie, "=")
	hostile := []string{
		"Cookie: a=1; " + w.cookie + "; b=2", "Cookie: " + name + "-flow=x", "Origin: " + testOrigin, "X-CSRF: 1", "Sec-Fetch-Site: same-origin",
		"Authorization: Bearer evil", "X_Forwarded_For: evil", "X-Forwarded-User: evil", "X.Real.IP: evil", "X-Original-URL: /evil", "Forwarded: for=evil", "DPoP: evil", "X-Named: evil",
	}
	kinds := map[string][]string{
		"a fetch":         {"Connection: X-Named, Authorization, X-Forwarded-For"},
		"an event stream": {"Connection: X-Named, Authorization, X-Forwarded-For", "Accept: text/event-stream"},
		"a WebSocket":     {"Connection: Upgrade, X-Named, Authorization, X-Forwarded-For", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"},
	}
	routes := 0
	for _, rt := range w.gateway.routes {
		if rt.path == "/hook/" { // forwards Authorization, as its webhooks have it
			continue
		}
		routes++
		for kind, header := range kinds {
			w.up.forget()
			c := w.dial()
			io.WriteString(c, rawRequest("GET "+rt.path+"%61//b;c%23", "", append(header, hostile...)))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode >= 300 {
				t.Errorf("%s of %s: %v, %v", kind, rt.path, res, err)
				continue
			}
			c.Close()
			saw := w.up.last(t)
			for field, values := range saw.Header {
				if strings.Contains(strings.Join(values, ""), "evil") || strings.Contains(strings.Join(values, ""), name) {
					t.Errorf("%s of %s: the upstream sees %s: %q", kind, rt.path, field, values)
				}
			}
			if want := rt.stripped(rt.path + "%61//b;c%23"); saw.Target != want || !slices.Equal(saw.Header["Cookie"], []string{"a=1; b=2"}) {
				t.Errorf("%s of %s: the upstream sees %s, Cookie %q", kind, rt.path, saw.Target, saw.Header["Cookie"])
			}
			if bearer := saw.Header.Get("Authorization"); (bearer == "Bearer "+w.token) != rt.token || !rt.token && bearer != "" {
				t.Errorf("%s of %s: Authorization %q", kind, rt.path, bearer)
			}
			for _, path := range []string{"%2e%2e/x", "..%2fx", `\x`, "%00", "x#y"} {
				if got := w.send("GET "+rt.path+path, append(header, hostile...)...); got.StatusCode != 400 {
					t.Errorf("%s of %s%s: status %d, want 400", kind, rt.path, path, got.StatusCode)
				}
			}
		}
	}
	if routes < 14 {
		t.Errorf("%d routes", routes)
	}
}

// CVE-2022-34296, CVE-2025-54576: the query is the app's, and no rule's: nothing in it
// changes the route, the origin's rule or what is asked of the visitor.
func TestCVE202234296TheQueryDecidesNothing(t *testing.T) {
	w := newWorld(t)
	for _, query := range []string{"", "/open/x", "x=/open/x", ";/open/x", "%2fopen%2fx", "a;b=c&d;e", "%zz", "x=/bff/client.js", "path=/open/&auth=none", "X-CSRF=1&x-csrf=1", "?", "/../open/x", "access_token=" + url.QueryEscape(w.token)} {
		w.up.forget()
		for header, want := range map[string]int{"X-CSRF: 1": 401, "Cookie: " + w.cookie: 403} {
			if got := w.send("GET /api/x?"+query, header); got.StatusCode != want || len(w.up.requests()) != 0 {
				t.Errorf("?%s with %.8s: status %d, want %d", query, header, got.StatusCode, want)
			}
		}
		if got := w.send("GET /api/x?"+query, w.withSession()...); got.StatusCode != 200 || w.up.last(t).Target != "/api/x?"+query {
			t.Errorf("?%s arrives as %q", query, w.up.last(t).Target)
		}
	}
}

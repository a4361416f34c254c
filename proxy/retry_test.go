package proxy

import (
	"net/http"
	"testing"

	"sessiongate/session"
)

// TestRetryOfInvalidToken is DESIGN.md, section 5, "upstream says 401
// invalid_token" (PX-10).
func TestRetryOfInvalidToken(t *testing.T) {
	const refusal = `Bearer error="invalid_token"`
	for _, row := range []struct {
		name, line, body string
		header           []string
		challenge        string
		always           bool // the upstream refuses fresh tokens, too
		fail             error
		status           int
		calls, refreshes int
	}{
		{name: "a fresh token helps", line: "GET /api/x", challenge: refusal, status: 200, calls: 2, refreshes: 1},
		{name: "a POST without a body", line: "POST /api/x", header: []string{"Content-Length: 0"}, challenge: refusal, status: 200, calls: 2, refreshes: 1},
		{name: "a fresh token does not help", line: "GET /api/x", challenge: refusal, always: true, status: 401, calls: 2, refreshes: 1},
		{name: "a body is not sent twice", line: "POST /api/x", body: "hello", header: []string{"Content-Length: 5"}, challenge: refusal, status: 401, calls: 1},
		{name: "a chunked body is not sent twice", line: "POST /api/x", body: "0\r\n\r\n", header: []string{"Transfer-Encoding: chunked"}, challenge: refusal, status: 401, calls: 1},
		{name: "another error", line: "GET /api/x", challenge: `Bearer error="insufficient_scope"`, status: 401, calls: 1},
		{name: "no challenge", line: "GET /api/x", status: 401, calls: 1},
		{name: "a route without token", line: "GET /anonymous/x", challenge: refusal, status: 401, calls: 1},
		{name: "no session", line: "GET /opt/x", header: []string{"no session"}, challenge: refusal, status: 401, calls: 1},
		{name: "the provider is down", line: "GET /api/x", challenge: refusal, fail: &session.Outage{Answered: true}, status: 401, calls: 1, refreshes: 1},
		{name: "the provider ends it", line: "GET /api/x", challenge: refusal, fail: session.ErrRejected, status: 401, calls: 1, refreshes: 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			w.provider.failing(row.fail)
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				if a := r.Header.Get("Authorization"); row.always || a == "" || a == "Bearer "+w.token {
					if row.challenge != "" {
						rw.Header().Set("WWW-Authenticate", row.challenge)
					}
					http.Error(rw, "the API's own words", http.StatusUnauthorized)
				}
			})
			header := w.withSession(row.header...)
			if len(row.header) == 1 && row.header[0] == "no session" {
				header = []string{"X-CSRF: 1"}
			}
			got := w.sendBody(row.line, row.body, header...)
			if n := len(w.up.requests()); got.StatusCode != row.status || n != row.calls || w.provider.called() != row.refreshes {
				t.Errorf("status %d after %d calls and %d refreshes; want %d, %d, %d", got.StatusCode, n, w.provider.called(), row.status, row.calls, row.refreshes)
			}
			// A 401 of the upstream stays one (PX-12).
			if row.status == 401 && (got.body != "the API's own words\n" || got.Header["X-Sessiongate"] != nil || got.Header.Get("WWW-Authenticate") != row.challenge) {
				t.Errorf("the 401 is not the upstream's: %v %s", got.Header, got.body)
			}
		})
	}
}

// TestRetryPauses: an upstream that refuses everything costs one refresh in five
// minutes, not one for each request.
func TestRetryPauses(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		rw.WriteHeader(401)
	})
	for range 5 {
		w.send("GET /api/x", w.withSession()...)
	}
	if calls, refreshes := len(w.up.requests()), w.provider.called(); calls != 6 || refreshes != 1 {
		t.Errorf("%d calls and %d refreshes, want 6 and 1", calls, refreshes)
	}
}

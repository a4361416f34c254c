package proxy

import (
	"net/http"
	"sync"
	"testing"
	"time"

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

// TestNoMixing: many sessions at once over shared connections, with refreshes in
// between; nobody gets another's token (PX-19, CVE-2024-51987).
func TestNoMixing(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	owner := map[string]string{} // of a token: the first session that sent it
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		token, who := r.Header.Get("Authorization"), r.Header.Get("X-Who")
		if first, known := owner[token]; known && first != who {
			t.Errorf("%s sends the token of %s", who, first)
		}
		owner[token] = who
		if r.URL.RawQuery == "refuse" && len(token) < len("Bearer fresh-")+26 {
			rw.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(401)
			return
		}
		say(rw, who)
	})
	var wg sync.WaitGroup
	for i := range 40 {
		ttl := 5 * time.Minute
		if i%2 == 0 {
			ttl = -time.Second
		}
		cookie, _ := w.login(ttl)
		who := string(rune('A' + i))
		for range 5 {
			wg.Go(func() {
				path := "GET /api/x"
				if i%3 == 0 {
					path += "?refuse"
				}
				if got := w.send(path, "Cookie: "+cookie, "X-CSRF: 1", "X-Who: "+who); got.StatusCode == 200 && got.body != who {
					t.Errorf("%s got the answer of %s", who, got.body)
				}
			})
		}
	}
	wg.Wait()
}

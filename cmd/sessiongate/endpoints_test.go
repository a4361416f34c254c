package main

import (
	"io"
	"strings"
	"syscall"
	"testing"
)

// What each endpoint does is tested where it is written; here, that the program
// has it, to the right callers.
func TestTheEndpointsAreThere(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{logout: "hosts: [gateway.internal]"})
	g := start(t, config)
	for _, row := range []struct {
		name, method, path, host, origin, body string
		status                                 int
		want                                   string
	}{
		{"the helper", "GET", "client.js", "", "", "", 200, "export"},
		{"the helper's head", "HEAD", "client.js", "", "", "", 200, ""},
		{"its types", "GET", "client.d.ts", "", "", "", 200, "export"},
		{"its types' head", "HEAD", "client.d.ts", "", "", "", 200, ""},
		{"events without a session", "GET", "events", "", "same", "", 401, "session_required"},
		{"events for another site", "GET", "events", "", "https://evil.example.com", "", 403, "origin_denied"},
		{"sessions without a session", "GET", "sessions", "", "same", "", 401, "session_required"},
		{"the end of one", "DELETE", "sessions/x", "", "same", "", 401, "session_required"},
		{"the end of all others", "DELETE", "sessions", "", "same", "", 401, "session_required"},
		{"the end of all others, from another site", "DELETE", "sessions", "", "https://evil.example.com", "", 403, "origin_denied"},
		{"back-channel logout without a token", "POST", "backchannel", "", "", "logout_token=", 400, "invalid_request"},
		{"back-channel logout by the provider's name for us", "POST", "backchannel", "gateway.internal:8080", "", "logout_token=", 400, "invalid_request"},
		{"back-channel logout by a name that is not ours", "POST", "backchannel", "other.internal", "", "logout_token=", 421, "unknown_host"},
		{"back-channel logout by GET", "GET", "backchannel", "", "same", "", 405, "method_not_allowed"},
		{"front-channel logout", "GET", "frontchannel?iss=x&sid=y", "", "", "", 200, "<"},
		{"front-channel logout by the provider's name for us", "GET", "frontchannel?iss=x&sid=y", "gateway.internal", "", "", 421, "unknown_host"},
		{"the session by the provider's name for us", "GET", "session", "gateway.internal", "", "", 421, "unknown_host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := request(t, "http://"+g.public+"/bff/"+row.path, "localhost:8080")
			req.Method, req.Body = row.method, io.NopCloser(strings.NewReader(row.body))
			if row.body != "" {
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			if row.host != "" {
				req.Host = row.host
			}
			if row.origin == "same" {
				req.Header.Set("X-CSRF", "1")
				row.origin = "http://localhost:8080"
			}
			if row.origin != "" {
				req.Header.Set("Origin", row.origin)
			}
			res, err := g.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != row.status || !strings.Contains(string(body), row.want) {
				t.Errorf("%d, want %d with %q\n%.300s", res.StatusCode, row.status, row.want, body)
			}
		})
	}
}

func TestTheOldestSessionMakesRoomForANewOne(t *testing.T) {
	t.Parallel()
	g := openShop(t, settings{maxPerUser: 2})
	first, bob, second := g.login("ada", "First/1.0"), g.login("bob", "Bob/1.0"), g.login("ada", "Second/1.0")
	first.want("")
	third := g.login("ada", "Third/1.0")
	first.want("replaced")
	for _, v := range []*visitor{second, third, bob} {
		v.want("")
	}
	g.write(settings{maxPerUser: 1})
	g.signal(syscall.SIGHUP)
	g.await("config_reloaded")
	fourth := g.login("ada", "Fourth/1.0")
	second.want("replaced")
	third.want("replaced")
	fourth.want("")
	bob.want("")
}

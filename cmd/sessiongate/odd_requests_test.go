package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw sends bytes as they are and returns the answer's status, header and body.
func (g *gateway) raw(request string) (*http.Response, string) {
	g.t.Helper()
	conn, err := net.DialTimeout("tcp", g.public, 5*time.Second)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		g.t.Fatalf("%.200q: %v", request, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatalf("%.200q: %v", request, err)
	}
	return res, string(body)
}

var ownEndpoints = []string{"login", "callback", "session", "user", "logout", "logout/continue", "logout/callback", "backchannel",
	"frontchannel", "events", "sessions", "sessions/x", "client.js", "client.d.ts", "", "nothing"}

// CVE-2021-32792, CVE-2025-3891 (an empty POST ended the server), CVE-2023-27496
// (a callback without state did), CVE-2023-33189: whatever our endpoints are sent
// is answered, by an answer of ours, and shows nothing of what was sent.
func TestCVE20253891OddRequestsToOwnEndpoints(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{})
	g := start(t, config)
	const script = `<script>alert(1)</script>`
	const encoded = "%3Cscript%3Ealert(1)%3C/script%3E"
	queries := []string{"", "?", "?state=&code=&iss=", "?state=a&state=b&code=c&code=d", "?code=x", "?state=" + strings.Repeat("x", 20_000),
		"?error=" + encoded + "&error_description=" + encoded + "&state=" + encoded, "?returnUrl=%00&sid=%ff%fe&iss=%0d%0aX:1", "?;=&&&=;%zz", "?__proto__=1&x[]=1",
		"?returnUrl=" + encoded + "&sid=" + encoded}
	bodies := []string{
		"Content-Length: 0\r\n\r\n",
		"\r\n",
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n",
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 15\r\n\r\nlogout_token=%0",
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n\r\nlogout_token=&logout_token",
		"Content-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\n--",
		"Content-Type: multipart/form-data; boundary=a\r\nContent-Length: 5\r\n\r\n--a\r\n",
		"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
		"Content-Type: \x80;;;=\r\nContent-Length: 1\r\n\r\nx",
	}
	for _, endpoint := range ownEndpoints {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "PROPFIND"} {
			for i, query := range queries {
				body := bodies[i%len(bodies)]
				res, text := g.raw(fmt.Sprintf("%s /bff/%s%s HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\nX-CSRF: 1\r\nAccept: text/html\r\nReferer: http://localhost:8080/%s\r\n%s",
					method, endpoint, query, script, body))
				what := fmt.Sprintf("%s %s%.60s (%d)", method, endpoint, query, i)
				if res.StatusCode >= 500 && res.StatusCode != http.StatusServiceUnavailable { // the provider is down here
					t.Errorf("%s: status %d\n%s", what, res.StatusCode, text)
				}
				if strings.Contains(text, script) || strings.Contains(fmt.Sprint(res.Header), script) || res.Header.Get("X") != "" {
					t.Errorf("%s: reflects what was sent:\n%v\n%s", what, res.Header, text)
				}
				if n := len(res.Header["Set-Cookie"]); n > 3 {
					t.Errorf("%s: %d cookies", what, n)
				}
			}
		}
	}
	if out := g.output(); strings.Contains(out, "panic") {
		t.Errorf("a panic:\n%s", out)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What is for operators is on no address that browsers reach (CVE-2025-41243), not
// by a health checker's name either (CVE-2026-34457), and nothing tells the version.
func TestOP06NothingForOperatorsIsPublic(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{routes: `- {path: /api/, upstream: "http://127.0.0.1:1"}`})
	g := start(t, config)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/sessions", "/debug/pprof/", "/debug/vars", "/admin", "/version", "/bff/metrics", "/bff/healthz", "/.well-known/x"} {
		for _, host := range []string{"localhost:8080", g.admin, g.public, "127.0.0.1:9180"} {
			for _, agent := range []string{"", "GoogleHC/1.0", "kube-probe/1.33"} {
				res, body := g.raw(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n", path, host, agent))
				if want := map[bool]int{true: 404, false: 421}[host == "localhost:8080"]; res.StatusCode != want {
					t.Errorf("%s at %s as %q: status %d, want %d", path, host, agent, res.StatusCode, want)
				}
				if res.Header.Get("Server") != "" || strings.Contains(body, buildVersion()) || strings.Contains(body, "go1.") {
					t.Errorf("%s: tells what runs here: %v\n%s", path, res.Header, body)
				}
			}
		}
	}
	// A health checker's name opens nothing that needs a session.
	for _, agent := range []string{"", "GoogleHC/1.0", "kube-probe/1.33"} {
		res, _ := g.raw(fmt.Sprintf("GET /api/x HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: %s\r\nX-CSRF: 1\r\nConnection: close\r\n\r\n", agent))
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("as %q: status %d, want 401", agent, res.StatusCode)
		}
	}
}

// What a client sends into the log stays inside of its line and its field.
func TestOP05NothingSentBreaksALogLine(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{routes: `- {path: /api/, upstream: "http://127.0.0.1:1"}`, more: "log: {access: true, level: debug}\n"})
	g := start(t, config)
	for _, request := range []string{
		"GET /api/%0aevent=login HTTP/1.1\r\nHost: localhost:8080\r\nX-CSRF: 1\r\nConnection: close\r\n\r\n",
		"GET /api/\"}{\"event\":\"login\" HTTP/1.1\r\nHost: localhost:8080\r\nX-CSRF: 1\r\nConnection: close\r\n\r\n",
		"GET /api/ HTTP/1.1\r\nHost: localhost:8080\r\nOrigin: http://evil\"}\xc2\x85\xe2\x80\xa8event=login\r\nX-Request-Id: \"}\tevent=login\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\"event=login\r\nConnection: close\r\n\r\n",
		"POST /bff/backchannel HTTP/1.1\r\nHost: localhost:8080\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 37\r\nConnection: close\r\n\r\nlogout_token=%0aevent=login%1b[31m.a.",
		"GET /bff/callback?error=%0d%0aevent%3Dlogin%1b[31m&error_description=%0aevent%3Dlogin&state=x HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n",
		"GET /bff/login?returnUrl=%0aevent%3Dlogin HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n",
	} {
		g.raw(request)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for line := range strings.Lines(g.output()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 }) {
			t.Errorf("a control character in %q", line)
		}
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil {
			t.Errorf("no JSON: %q", line)
		}
		if entry["event"] == "login" {
			t.Errorf("a forged line: %q", line)
		}
	}
}

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const socketDoor = "socket"

// OP-06, OP-12: what is for operators is for them alone.
func TestTheAdminListenerAnswersOperatorsOnly(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	for _, row := range []struct {
		name, configured, method, host, origin string
		want                                   int
	}{
		{"loopback by address", "127.0.0.1", "GET", "127.0.0.1:9180", "", 200},
		{"loopback by name", "127.0.0.1", "GET", "LOCALHOST:9180", "", 200},
		{"IPv6 loopback", "127.0.0.1", "GET", "[::1]:9180", "", 200},
		{"the configured host", "gateway.internal", "GET", "gateway.internal:9180", "", 200},
		{"a name that was rebound", "127.0.0.1", "GET", "evil.example.com:9180", "", 403},
		{"a service's name, listening on all addresses", "", "GET", "gateway.monitoring:9180", "", 200},
		{"a service's name, listening on one address", "10.1.2.3", "GET", "gateway.monitoring:9180", "", 200},
		{"an address, listening on 0.0.0.0", "0.0.0.0", "GET", "10.1.2.3:9180", "", 200},
		{"an address that is not ours", "127.0.0.1", "GET", "10.1.2.3:9180", "", 403},
		{"no host", "127.0.0.1", "GET", "", "", 403},
		{"a web page", "127.0.0.1", "GET", "127.0.0.1:9180", "https://shop.example.com", 403},
		{"a sandboxed web page", "127.0.0.1", "GET", "127.0.0.1:9180", "null", 403},
		{"a page's Origin without a value", "127.0.0.1", "GET", "127.0.0.1:9180", " ", 403},
		{"POST", "127.0.0.1", "POST", "127.0.0.1:9180", "", 405},
		{"HEAD", "127.0.0.1", "HEAD", "127.0.0.1:9180", "", 405},
		{"the socket, by whatever name", socketDoor, "GET", "gateway", "", 200},
		{"a web page, on the socket", socketDoor, "GET", "localhost", "https://shop.example.com", 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest(row.method, "/metrics", nil)
			r.Host = row.host
			if row.origin != "" {
				r.Header.Set("Origin", strings.TrimSpace(row.origin))
			}
			w := httptest.NewRecorder()
			guardAdmin(door{socket: row.configured == socketDoor, host: strings.TrimPrefix(row.configured, socketDoor)}, onlyGet(ok)).ServeHTTP(w, r)
			if w.Code != row.want {
				t.Errorf("status %d, want %d", w.Code, row.want)
			}
		})
	}
}

func TestTheAdminListenerServesHealthAndMetricsAndNothingElse(t *testing.T) {
	t.Parallel()
	_, config := site(t, settings{})
	g := start(t, config)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200,
		"/": 404, "/sessions": 404, "/sessions?app=&sub=": 404, "/sessions/x": 404, "/debug/pprof/": 404, "/healthz/": 404, "/bff/session": 404,
	} {
		if status, body := g.ask("http://"+g.admin+path, ""); status != want {
			t.Errorf("%s: %d, want %d: %.80s", path, status, want, body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if status, body := g.get(path); status != 404 {
			t.Errorf("%s on the public listener: %d %.80s", path, status, body)
		}
	}
	for _, name := range []string{
		"go_goroutines", `sessiongate_config_reloads_total{result="ok"}`, "sessiongate_sessions_active",
		`sessiongate_requests_total{app="http://localhost:8080",method="GET",route="/",status="404"}`,
	} {
		if g.metric(name) == "" {
			t.Errorf("no metric %s", name)
		}
	}
	_, metrics := g.ask("http://"+g.admin+"/metrics", "")
	if !containsAll(metrics, "sessiongate_build_info{goversion=", "process_start_time_seconds") {
		t.Error("no build info, or nothing of the process")
	}
}

package proxy

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

// TestStatuses holds the table against the wire contract.
func TestStatuses(t *testing.T) {
	contract := map[int]string{
		400: "invalid_return_url invalid_parameter invalid_logout_sid ambiguous_cookie bad_path login_refused login_loop",
		401: "session_required session_ended",
		403: "csrf_header_missing origin_denied forbidden login_denied",
		404: "no_route no_session", 405: "method_not_allowed", 408: "request_timeout", 413: "body_too_large", 421: "unknown_host", 429: "too_many_requests",
		500: "internal_error",
		502: "upstream_unreachable login_failed", 504: "upstream_timeout",
		503: "refresh_unavailable store_unavailable provider_unavailable",
	}
	n := 0
	for status, codes := range contract {
		for code := range strings.FieldsSeq(codes) {
			a := answers[code]
			if n++; a.status != status || a.title == "" || a.help == "" {
				t.Errorf("%s: %+v, want status %d, a title and help", code, a, status)
			}
		}
	}
	if len(answers) != n {
		t.Errorf("the table has %d codes, the contract %d", len(answers), n)
	}
}

type testError struct{ code string }

func (e testError) Error() string             { return "secret cause" }
func (e testError) Code() string              { return e.code }
func (e testError) Help() string              { return `Say <b>"this"</b>.` }
func (e testError) RetryAfter() time.Duration { return 1500 * time.Millisecond }

// TestErrorsAsProblemsAndPages renders every code both ways, as an endpoint of
// ours would return it.
func TestErrorsAsProblemsAndPages(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Endpoints = append(a.Endpoints, Endpoint{"GET", "fails", Navigation, func(w http.ResponseWriter, r *http.Request) error {
			return fmt.Errorf("wrapped: %w", testError{r.URL.RawQuery})
		}})
	})
	codes := map[string]int{"no_such_code": 500}
	for code, a := range answers {
		codes[code] = a.status
	}
	for code, status := range codes {
		problem, page := w.send("GET /bff/fails?"+code), w.send("GET /bff/fails?"+code, navigateOwn...)
		for _, got := range []answered{problem, page} {
			h := got.Header
			if got.StatusCode != status || h.Get("X-Sessiongate") != "1" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" ||
				h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Strict-Transport-Security") == "" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Request-Id") == "" {
				t.Errorf("OP-02: %s: status %d, want %d; header %v", code, got.StatusCode, status, h)
			}
			if retry := h.Get("Retry-After"); (status == 503 || status == 429) != (retry == "2") {
				t.Errorf("%s: Retry-After %q", code, retry)
			}
			if challenge := h.Get("WWW-Authenticate"); (status == 401) != (challenge == "Session") {
				t.Errorf("LOG-12: %s: WWW-Authenticate %q", code, challenge)
			}
			if strings.Contains(got.body, "secret") {
				t.Errorf("%s shows the cause: %s", code, got.body)
			}
		}
		want := code
		if code == "no_such_code" {
			want = "internal_error"
		}
		if p := problem.problem(t); p.Code != want || p.Status != status || p.Title != answers[want].title || p.Type == "" || p.RequestID == "" {
			t.Errorf("%s: %+v", code, p)
		}
		checkPage(t, code, page)
	}
}

var inline = regexp.MustCompile(`(?s)<(style|script)>(.*?)</`)

// checkPage checks that a page shows what it should, and that its policy lets
// its own style and script run and nothing else.
func checkPage(t *testing.T, code string, got answered) {
	t.Helper()
	csp := got.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || !strings.HasSuffix(csp, "frame-ancestors 'none'") {
		t.Errorf("%s: policy %q", code, csp)
	}
	for _, m := range inline.FindAllStringSubmatch(got.body, -1) {
		sum := sha256.Sum256([]byte(m[2]))
		if want := m[1] + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(csp, want) {
			t.Errorf("%s: the policy %q does not allow the %s: want %s", code, csp, m[1], want)
		}
	}
	if got.Header.Get("Content-Type") != "text/html; charset=utf-8" || strings.Contains(got.body, "http://") || strings.Contains(got.body, "https://") || strings.Contains(got.body, "<b>") {
		t.Errorf("%s: %v %s", code, got.Header, got.body)
	}
	if code != "hop" && !strings.Contains(got.body, got.Header.Get("X-Request-Id")) {
		t.Errorf("%s: no request id in %s", code, got.body)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) { a.SecurityHeaders.FrameAncestors = "'none'" })
	hop := w.send("GET /page/x", navigateCross...)
	checkPage(t, "hop", hop)
	if !strings.Contains(hop.body, `<noscript><meta http-equiv="refresh" content="0"></noscript>`) || hop.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the hop page: %v %s", hop.Header, hop.body)
	}
	login := w.send("GET /bff/login", append(navigateCross, "Sec-Purpose: prefetch")...)
	if login.StatusCode != 403 || !strings.Contains(login.body, "origin_denied") {
		t.Errorf("a prefetch of login: %d %s", login.StatusCode, login.body)
	}
}

// TestEndpoints: classes of endpoints, over the wire.
func TestEndpoints(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, line string
		header     []string
		status     int
	}{
		{"login as a link from elsewhere", "GET /bff/login", navigateCross, 200},
		{"login by an old browser", "GET /bff/login", []string{"Accept: text/html"}, 200},
		{"login by fetch", "GET /bff/login", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 403},
		{"CSRF-10: login as an image", "GET /bff/login", []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"session by a script", "GET /bff/session", []string{"X-CSRF: 1", "Sec-Fetch-Site: same-origin"}, 200},
		{"session without the header", "GET /bff/session", []string{"Sec-Fetch-Site: same-origin"}, 403},
		{"session from elsewhere", "GET /bff/session", []string{"X-CSRF: 1", "Sec-Fetch-Site: cross-site"}, 403},
		{"logout by a script", "POST /bff/logout", []string{"X-CSRF: 1", "Origin: " + testOrigin, "Content-Length: 0"}, 200},
		{"logout by a form from elsewhere", "POST /bff/logout", append(navigateCross, "Origin: "+evil, "Content-Length: 0"), 403},
	} {
		got := w.send(row.line, row.header...)
		if got.StatusCode != row.status || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: status %d, want %d; %v", row.name, got.StatusCode, row.status, got.Header)
		}
	}
}

func TestErrorWithoutApp(t *testing.T) {
	w := newWorld(t)
	got := w.send("GET /", append(navigateOwn, "Host: evil.example")...)
	if p := got.problem(t); p.Code != "unknown_host" || got.Header["Strict-Transport-Security"] != nil {
		t.Errorf("%+v %v", p, got.Header)
	}
	if n := w.metric("sessiongate_requests_total", "", "GET", "", "421"); n != 1 {
		t.Errorf("requests_total = %v, want 1", n)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, row := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {time.Millisecond, 1}, {time.Second, 1}, {1001 * time.Millisecond, 2}, {time.Minute, 60}} {
		if got := retryAfter(&session.Unavailable{After: row.after}); got != row.want {
			t.Errorf("%v: %d s, want %d", row.after, got, row.want)
		}
	}
	if got := retryAfter(errNoRoute); got != 5 {
		t.Errorf("unknown: %d s, want 5", got)
	}
}

// TestAccessLog: one event for a request, on one line, and nothing in it that
// opens a session (OP-04, OP-05).
func TestAccessLog(t *testing.T) {
	w := newWorld(t, func(_ *world, _ *App, c *Config) { c.AccessLog = true })
	w.send("GET /api/x?code=secretquery", w.withSession("Authorization: Bearer secretheader")...)
	w.send("GET /page/x", w.withSession()...)
	var text string
	eventually(t, "the log is written", func() bool { text = w.logs.String(); return strings.Count(text, `"event":"request"`) == 2 })
	for _, secret := range []string{"secretquery", "secretheader", w.cookie, w.token, strings.SplitN(w.cookie, "=", 2)[1]} {
		if strings.Contains(text, secret) {
			t.Errorf("the log holds %q: %s", secret, text)
		}
	}
	for _, want := range []string{`"path":"/api/x"`, `"status":200`, `"route":"/api/"`, `"method":"GET"`, `"address":"127.0.0.1"`, `"request_id":`, `"session":`, `"bytes":2`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s: %s", want, text)
		}
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.send("GET /api/x", w.withSession()...)
	}
	w.send("BREW /api/x", w.withSession()...)
	w.send("GET /bff/session", w.withSession()...)
	w.send("GET /nowhere")
	for _, row := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"sessiongate_requests_total", []string{testOrigin, "GET", "/api/", "200"}, 3},
		{"sessiongate_requests_total", []string{testOrigin, "other", "/api/", "200"}, 1},
		{"sessiongate_requests_total", []string{testOrigin, "GET", "/bff/session", "200"}, 1},
		{"sessiongate_requests_total", []string{testOrigin, "GET", "", "404"}, 1},
		{"sessiongate_request_seconds", []string{testOrigin, "/api/"}, 4},
		{"sessiongate_streams_open", []string{testOrigin, "sse"}, 0},
		{"sessiongate_upstream_errors_total", []string{testOrigin, "timeout", "/api/"}, 0},
	} {
		eventually(t, fmt.Sprint(row.name, row.labels, " = ", row.want), func() bool { return w.metric(row.name, row.labels...) == row.want })
	}
	if !slices.Equal([]string{knownMethod("get"), knownMethod("PURGE")}, []string{"other", "other"}) {
		t.Error("a client invents label values")
	}
}

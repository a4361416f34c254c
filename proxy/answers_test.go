package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

func staticDir(t testing.TB) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"index.html": "<title>app</title>", "sw.js": "self"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPX09LoginOr401 is DESIGN.md, section 7, "401 or 302" (pain 15, pain 18): who
// has no session is told so in a way the caller can act on.
func TestPX09LoginOr401(t *testing.T) {
	w := newWorld(t)
	ended := w.ended()
	fetch := []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "X-CSRF: 1"}
	oldPage, oldFetch := []string{"Accept: text/html"}, []string{"Accept: */*", "X-Requested-With: XMLHttpRequest", "X-CSRF: 1"}
	const none, junk, over = "", "Cookie: __Host-Http-session=junk", "ended"
	for _, row := range []struct {
		name, line, cookie string
		header             []string
		status             int
		want               string // of the Location, the code, or the page
	}{
		{"a fetch", "GET /api/x", none, fetch, 401, "session_required"},
		{"a fetch with a junk cookie", "GET /api/x", junk, fetch, 401, "session_required"},
		{"a fetch with an ended session", "GET /api/x", over, fetch, 401, "session_ended"},
		{"api never redirects a navigation", "GET /api/x", none, join(navigateOwn, []string{"X-CSRF: 1"}), 401, "session_required"},
		{"api never redirects an old browser", "GET /api/x", none, join(oldPage, []string{"X-CSRF: 1"}), 401, "session_required"},
		{"a navigation to a page", "GET /page/x?a=b%20c&d", none, navigateOwn, 302, "/bff/login?returnUrl=%2Fpage%2Fx%3Fa%3Db%2520c%26d"},
		{"a navigation with a junk cookie", "GET /page/x", junk, navigateOwn, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"a navigation with an ended session", "GET /page/x", over, navigateOwn, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"a HEAD navigation", "HEAD /page/x", none, navigateOwn, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"an old browser's navigation", "GET /page/x", none, oldPage, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"an old browser's fetch", "GET /page/x", none, oldFetch, 401, "session_required"},
		{"a fetch of a page", "GET /page/x", none, join(fetch, oldPage), 401, "session_required"},
		{"a frame", "GET /page/x", none, []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html"}, 401, "session_required"},
		{"pain 18: a form", "POST /page/x", over, join(navigateOwn, []string{"Content-Length: 0"}), 401, "session_ended"},
		{"pain 18: PUT", "PUT /page/x", none, join(fetch, []string{"Content-Length: 0"}), 401, "session_required"},
		{"pain 18: DELETE", "DELETE /page/x", none, join(fetch, []string{"Content-Length: 0"}), 401, "session_required"},
		{"pain 48: a WebSocket to a page", "GET /page/x", over, []string{"Connection: Upgrade", "Upgrade: websocket", "Origin: " + testOrigin, "Accept: text/html"}, 401, "session_ended"},
		{"the hop for a Strict cookie", "GET /page/x", none, navigateCross, 200, "location.reload()"},
		{"the hop on optional routes", "GET /optpage/x", none, navigateCross, 200, "location.reload()"},
		{"no hop where a cookie came along", "GET /page/x", junk, navigateCross, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"no hop for HEAD", "HEAD /page/x", none, navigateCross, 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"no hop for a bookmark", "GET /page/x", none, join([]string{"Sec-Fetch-Site: none"}, navigate), 302, "/bff/login?returnUrl=%2Fpage%2Fx"},
		{"no hop on api", "GET /opt/x", none, join(navigateCross, []string{"X-CSRF: 1"}), 403, "origin_denied"},
		{"no hop on open routes", "GET /openpage/x", none, navigateCross, 200, "ok"},
		{"optional is anonymous without a session", "GET /opt/x", none, fetch, 200, "ok"},
		{"optional is anonymous with junk", "GET /opt/x", junk, fetch, 200, "ok"},
		{"optional is anonymous after the end", "GET /opt/x", over, fetch, 200, "ok"},
		{"optional never redirects", "GET /optpage/x", none, navigateOwn, 200, "ok"},
		{"the callback hops too", "GET /bff/callback", none, navigateCross, 200, "location.reload()"},
	} {
		header := row.header
		switch row.cookie {
		case over:
			header = append(header[:len(header):len(header)], "Cookie: "+ended)
		case junk:
			header = append(header[:len(header):len(header)], junk)
		}
		got := w.send(row.line, header...)
		if got.StatusCode != row.status {
			t.Errorf("%s: status %d %s, want %d", row.name, got.StatusCode, got.body, row.status)
			continue
		}
		if row.status == 302 && got.Header.Get("Location") != row.want || row.status != 302 && !strings.Contains(got.body, row.want) {
			t.Errorf("%s: Location %q, body %q, want %q", row.name, got.Header.Get("Location"), got.body, row.want)
		}
		if got.Header["Set-Cookie"] != nil || row.status != 302 && got.Header["Location"] != nil {
			t.Errorf("%s: header %v", row.name, got.Header)
		}
		if row.want != "ok" && got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q, want no-store", row.name, got.Header.Get("Cache-Control"))
		}
		if row.status == 401 {
			check401(t, row.name, got)
		}
	}
}

func check401(t *testing.T, name string, got answered) {
	p := got.problem(t)
	if got.Header.Get("WWW-Authenticate") != "Session" || got.Header.Get("X-Sessiongate") != "1" ||
		got.Header.Get("Content-Type") != "application/problem+json" || p.LoginURL != "/bff/login" || p.Status != 401 || p.Type == "" || p.Title == "" ||
		p.RequestID == "" || p.RequestID != got.Header.Get("X-Request-Id") {
		t.Errorf("LOG-12: %s: header %v, problem %+v", name, got.Header, p)
	}
	if want := map[string]session.Reason{"session_ended": session.Logout}[p.Code]; p.Reason != want {
		t.Errorf("%s: reason %q, want %q", name, p.Reason, want)
	}
}

// TestDeepLinks: what login is told to return to (pain 19).
func TestDeepLinks(t *testing.T) {
	w := newWorld(t)
	for _, link := range []string{
		"/page/", "/page/x/", "/page/a//b", "/page/?", "/page/?q=a%2Fb&x=%23&z=a+b", "/page/?y=ü", "/page/%C3%BC;v=1", "/page/x?" + strings.Repeat("q", 1015),
	} {
		got := w.send("GET "+link, navigateOwn...)
		u, err := url.Parse(got.Header.Get("Location"))
		if err != nil || got.StatusCode != 302 {
			t.Errorf("%s: status %d, %v", link, got.StatusCode, err)
			continue
		}
		if back := u.Query().Get("returnUrl"); back != link {
			t.Errorf("returnUrl = %q, want %q", back, link)
		}
	}
	for _, link := range []string{"/page/x?" + strings.Repeat("q", 1017), "/page/?" + strings.Repeat("ü", 400)} {
		if got := w.send("GET "+link, navigateOwn...); got.Header.Get("Location") != "/bff/login" {
			t.Errorf("a link of %d bytes: Location %q, want /bff/login", len(link), got.Header.Get("Location"))
		}
	}
}

// TestUnknownIsNoLogout: an outage is 503, never 401, 302 or anonymous, and the
// cookie stays (pain 40; promises 3 and 6).
func TestUnknownIsNoLogout(t *testing.T) {
	w := newWorld(t)
	expired, _ := w.login(-time.Second)
	w.provider.failing(&session.Outage{RetryAfter: 7 * time.Second, Answered: true, Err: fmt.Errorf("status 503")})
	check := func(cookie, code string) {
		t.Helper()
		for _, path := range []string{"/api/x", "/opt/x"} {
			got := w.send("GET "+path, "Cookie: "+cookie, "X-CSRF: 1", "Sec-Fetch-Site: same-origin")
			if p := got.problem(t); got.StatusCode != 503 || p.Code != code || got.Header.Get("Retry-After") == "" || got.Header["Set-Cookie"] != nil {
				t.Errorf("%s: status %d %+v %v, want 503 %s", path, got.StatusCode, p, got.Header, code)
			}
		}
		for _, path := range []string{"/page/x", "/optpage/x"} {
			got := w.send("GET "+path, join(navigateOwn, []string{"Cookie: " + cookie})...)
			if got.StatusCode != 503 || !strings.Contains(got.body, code) || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s: status %d %s, want a page with 503 %s", path, got.StatusCode, got.body, code)
			}
		}
	}
	check(expired, "refresh_unavailable")
	w.store.silence()
	unread, _ := w.login(time.Minute)
	w.manager.Reconfigure(w.sessions.Keys(), 30*time.Minute, 12*time.Hour) // empties the cache
	check(unread, "store_unavailable")
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// TestCSRF07CORS: listed origins may call routes and read every answer; nobody else,
// and nothing below base_path (CSRF-06, CSRF-07, pain 16, pain 17).
func TestCSRF07CORS(t *testing.T) {
	const admin = "https://admin.example.com"
	w := newWorld(t, func(_ *world, a *App, _ *Config) { a.CORSOrigins = []string{admin} })
	w.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Max-Age", "86400")
		w.Header().Set("Vary", "Accept")
	})
	for _, row := range []struct {
		name, line, origin string
		header             []string
		status             int
		allowed            bool
	}{
		{"a listed origin", "GET /api/x", admin, w.withSession(), 200, true},
		{"a listed origin without a session", "GET /api/x", admin, []string{"X-CSRF: 1"}, 401, true},
		{"a listed origin without X-CSRF", "GET /api/x", admin, w.withSession()[:1], 403, true},
		{"a listed origin, no such route", "GET /nowhere", admin, nil, 404, true},
		{"a listed origin on an open route", "GET /open/x", admin, nil, 200, true},
		{"our own", "GET /api/x", testOrigin, w.withSession(), 200, false},
		{"none", "GET /api/x", "", w.withSession(), 200, false},
		{"null", "GET /open/x", "null", nil, 200, false},
		{"a suffix", "GET /open/x", admin + ".evil", nil, 200, false},
		{"another scheme", "GET /open/x", "http://admin.example.com", nil, 200, false},
		{"another port", "GET /open/x", admin + ":444", nil, 200, false},
		{"a preflight of a listed origin", "OPTIONS /api/x", admin, []string{"Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-csrf"}, 204, true},
		{"a preflight of another", "OPTIONS /api/x", evil, []string{"Access-Control-Request-Method: PUT"}, 403, false},
		{"a preflight of another on an open route", "OPTIONS /open/x", evil, []string{"Access-Control-Request-Method: PUT"}, 403, false},
		{"a preflight of our own", "OPTIONS /api/x", testOrigin, []string{"Access-Control-Request-Method: PUT"}, 204, false},
		{"a preflight below base_path", "OPTIONS /bff/session", admin, []string{"Access-Control-Request-Method: GET"}, 405, false},
		{"a listed origin below base_path", "GET /bff/session", admin, w.withSession(), 403, false},
	} {
		w.up.forget()
		header := row.header
		if row.origin != "" {
			header = append(header[:len(header):len(header)], "Origin: "+row.origin)
		}
		got := w.send(row.line, header...)
		if got.StatusCode != row.status {
			t.Errorf("%s: status %d %s, want %d", row.name, got.StatusCode, got.body, row.status)
		}
		checkCORS(t, row.name, got, row.allowed, admin, strings.HasPrefix(strings.SplitN(row.line, " ", 2)[1], "/bff"))
		if n := len(w.up.requests()); (n == 1) != (row.status == 200) {
			t.Errorf("%s: the upstream saw %d requests", row.name, n)
		}
	}
	got := w.send("OPTIONS /reading/x", "Origin: "+admin, "Access-Control-Request-Method: POST")
	if m := got.Header.Get("Access-Control-Allow-Methods"); got.StatusCode != 204 || m != "GET, HEAD" {
		t.Errorf("a preflight of a route with methods: status %d, methods %q", got.StatusCode, m)
	}
	got = w.send("OPTIONS /api/x", "Origin: "+admin, "Access-Control-Request-Method: PURGE", "Access-Control-Request-Headers: x-csrf, x-more")
	if m, h := got.Header.Get("Access-Control-Allow-Methods"), got.Header.Get("Access-Control-Allow-Headers"); m != anyMethod+", PURGE" || h != "x-csrf, x-more" {
		t.Errorf("a preflight: methods %q, headers %q", m, h)
	}
}

func checkCORS(t *testing.T, name string, got answered, allowed bool, admin string, own bool) {
	h := got.Header
	want := []string{"", "", ""}
	if allowed {
		want = []string{admin, "true", corsExpose[0]}
	}
	for i, field := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"} {
		if v := strings.Join(h[field], " | "); v != want[i] {
			t.Errorf("%s: %s = %q, want %q", name, field, v, want[i])
		}
	}
	if vary := strings.Join(h["Vary"], ", "); !own && !strings.Contains(vary, "Origin") {
		t.Errorf("%s: Vary = %q, want Origin in it", name, vary)
	}
	if h.Get("Access-Control-Max-Age") == "86400" {
		t.Errorf("%s: the upstream's answer to preflights passes", name)
	}
}

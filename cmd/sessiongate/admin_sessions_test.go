package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

const (
	adminToken  = "canaryTok3nq9Zr0Jw2cXh4tV7nLs1KpE8mYd3uGa"
	otherToken  = "canaryOth3rW3x0Qq9Zr0Jw2cXh4tV7nLs1KpE8mY"
	shopOrigin  = "http://localhost:8080"
	deskOrigin  = "http://desk.localhost:8080"
	accessToken = "canary-access-token-of-ada-of-32-characters"
)

// operators is a gateway that serves nothing yet but its admin handlers, and
// has sessions: Ada three and Bob one in shop, Ada one in desk.
type operators struct {
	t       *testing.T
	server  *server
	cookies map[string]*http.Cookie // by name and number: ada1
	mu      sync.Mutex              // guards logged
	logged  strings.Builder
}

func newOperators(t *testing.T, s settings) *operators {
	t.Helper()
	o := &operators{t: t, cookies: make(map[string]*http.Cookie)}
	cfg, err := config.Parse(filepath.Join(t.TempDir(), "config.yaml"), []byte(strings.ReplaceAll(twoApps(s).String(), "${TEST_SECRET}", "canary")))
	if err != nil {
		t.Fatal(err)
	}
	if o.server, err = newServer(cfg, slog.New(slog.NewJSONHandler(o, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = o.server.current.Load().close(t.Context())
		o.server.discard()
		if strings.Contains(o.log(), canary) {
			t.Errorf("the log holds a secret:\n%s", o.log())
		}
	})
	for _, name := range []string{"ada1", "ada2", "ada3", "bob1"} {
		o.login(0, name)
	}
	o.login(1, "ada4")
	return o
}

// twoApps adds a second app at the same provider.
func twoApps(s settings) settings {
	s.routes = `- {path: /api/, upstream: "http://127.0.0.1:9"}`
	s.more += fmt.Sprintf("  - origin: %s\n    oidc: {issuer: http://127.0.0.1:1, client_id: desk, client_secret: canary}\n    routes: []\n", deskOrigin)
	return s
}

func (o *operators) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.logged.Write(b)
}

func (o *operators) log() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.logged.String()
}

func (o *operators) login(app int, name string) {
	o.t.Helper()
	_, cookie, err := o.server.current.Load().apps[app].Create(o.t.Context(), session.Login{
		Subject: name[:3], Token: &oauth2.Token{AccessToken: accessToken, Expiry: time.Now().Add(time.Hour)}, FlowBegan: time.Now(),
		UserAgent: "Browser/1.0 (" + name + ")", Address: "192.0.2.7",
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.cookies[name] = cookie
}

// call is a request that an operator's program makes: by TCP with the token,
// unless changed.
type call struct {
	method, target, host, authorization, origin string
	socket                                      bool
}

func (o *operators) do(c call) *httptest.ResponseRecorder {
	o.t.Helper()
	r := httptest.NewRequest(c.method, c.target, nil)
	r.Host = c.host
	if c.authorization != "" {
		r.Header["Authorization"] = strings.Split(c.authorization, "\n")
	}
	if c.origin != "" {
		r.Header.Set("Origin", c.origin)
	}
	w := httptest.NewRecorder()
	handler := o.server.admin.Handler
	if c.socket {
		handler = o.server.local.Handler
	}
	handler.ServeHTTP(w, r)
	return w
}

func (o *operators) ask(method, target string) *httptest.ResponseRecorder {
	o.t.Helper()
	return o.do(call{method: method, target: target, host: "127.0.0.1:9180", authorization: "Bearer " + adminToken})
}

// list returns the sessions of an answer, by their browsers' names.
func (o *operators) list(target string) map[string]listedSession {
	o.t.Helper()
	w := o.ask("GET", target)
	var list struct{ Sessions []listedSession }
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 || list.Sessions == nil {
		o.t.Fatalf("GET %s: %d, %v\n%s", target, w.Code, err, w.Body)
	}
	byName := make(map[string]listedSession)
	for _, s := range list.Sessions {
		byName[strings.TrimSuffix(strings.TrimPrefix(s.UserAgent, "Browser/1.0 ("), ")")] = s
	}
	if len(byName) != len(list.Sessions) {
		o.t.Errorf("GET %s lists a session twice:\n%s", target, w.Body)
	}
	return byName
}

func code(w *httptest.ResponseRecorder) string {
	var p problem
	if w.Header().Get("Content-Type") != "application/problem+json" || json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Status != w.Code {
		return ""
	}
	return p.Code
}

// CVE-2024-47616, CVE-2025-41243, caddy-security 273 and 274: the admin's doors are
// for operators. What is refused has no effect.
func TestSessionsAreForOperatorsAlone(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	o := newOperators(t, settings{token: adminToken, socket: filepath.Join(dir, "s"), admin: "127.0.0.1:0"})
	session := "/sessions/" + o.list("/sessions")["ada1"].ID
	shop := "/sessions?app=" + shopOrigin + "&sub=ada"
	good := call{"GET", "/sessions", "127.0.0.1:9180", "Bearer " + adminToken, "", false}
	with := func(change func(c *call)) call {
		c := good
		change(&c)
		return c
	}
	bearer := func(authorization string) call { return with(func(c *call) { c.authorization = authorization }) }
	host := func(host string) call { return with(func(c *call) { c.host = host }) }
	request := func(method, target string) call {
		return with(func(c *call) { c.method, c.target = method, target })
	}
	for _, row := range []struct {
		name   string
		call   call
		status int
		code   string
	}{
		{"the token", good, 200, ""},
		{"the scheme in other letters", bearer("bEARER " + adminToken), 200, ""},
		{"two blanks behind the scheme", bearer("Bearer  " + adminToken), 200, ""},
		{"no token", bearer(""), 401, "token_required"},
		{"a wrong token", bearer("Bearer " + otherToken), 401, "token_required"},
		{"the beginning of the token", bearer("Bearer " + adminToken[:len(adminToken)-1]), 401, "token_required"},
		{"the token and more", bearer("Bearer " + adminToken + "x"), 401, "token_required"},
		{"the scheme alone", bearer("Bearer"), 401, "token_required"},
		{"an empty token", bearer("Bearer "), 401, "token_required"},
		{"the token without its scheme", bearer(adminToken), 401, "token_required"},
		{"another scheme", bearer("Basic " + adminToken), 401, "token_required"},
		{"the token twice", bearer("Bearer " + adminToken + "\nBearer " + adminToken), 401, "token_required"},
		{"the token in the query", with(func(c *call) { c.authorization, c.target = "", "/sessions?access_token="+adminToken }), 401, "token_required"},
		{"a session cookie's value", bearer("Bearer " + o.cookies["ada1"].Value), 401, "token_required"},
		{"a session's id", bearer("Bearer " + strings.TrimPrefix(session, "/sessions/")), 401, "token_required"},
		{"a user's access token", bearer("Bearer " + accessToken), 401, "token_required"},
		{"the session key", bearer("Bearer " + testKey), 401, "token_required"},
		{"the client secret", bearer("Bearer canary"), 401, "token_required"},
		{"no token, to end one", with(func(c *call) { c.method, c.target, c.authorization = "DELETE", session, "" }), 401, "token_required"},
		{"no token, to end all", with(func(c *call) { c.method, c.target, c.authorization = "DELETE", shop, "" }), 401, "token_required"},
		{"no token, with a method that there is not", with(func(c *call) { c.method, c.authorization = "POST", "" }), 401, "token_required"},
		{"no token, and a path below that there is not", with(func(c *call) { c.target, c.authorization = "/sessions/a/b", "" }), 401, "token_required"},

		{"a web page with the token", with(func(c *call) { c.origin = "https://evil.example.com" }), 403, "origin_denied"},
		{"a web page of ours with the token", with(func(c *call) { c.origin = shopOrigin }), 403, "origin_denied"},
		{"a sandboxed web page with the token", with(func(c *call) { c.origin = "null" }), 403, "origin_denied"},
		{"a web page that ends all", with(func(c *call) { c.method, c.target, c.origin = "DELETE", shop, "http://127.0.0.1:9180" }), 403, "origin_denied"},
		{"a name that was rebound, with the token", host("evil.example.com:9180"), 403, "forbidden"},
		{"a name that was rebound, without one", with(func(c *call) { c.host, c.authorization = "evil.example.com", "" }), 403, "forbidden"},
		{"the app's host", host("shop.example.com"), 403, "forbidden"},
		{"a name that begins as ours", host("localhost.evil.example.com"), 403, "forbidden"},
		{"no host", host(""), 403, "forbidden"},
		{"localhost", host("LOCALHOST:9180"), 200, ""},
		{"IPv6 loopback", host("[::1]:9180"), 200, ""},

		{"the socket, without a token", with(func(c *call) { c.socket, c.authorization = true, "" }), 200, ""},
		{"the socket, by any name", with(func(c *call) { c.socket, c.host, c.authorization = true, "gateway", "" }), 200, ""},
		{"the socket, with a wrong token", with(func(c *call) { c.socket, c.authorization = true, "Bearer x" }), 200, ""},
		{"a web page that came to the socket", with(func(c *call) { c.socket, c.origin = true, "null" }), 403, "origin_denied"},

		{"POST", request("POST", "/sessions"), 405, "method_not_allowed"},
		{"HEAD", request("HEAD", "/sessions"), 405, "method_not_allowed"},
		{"OPTIONS", request("OPTIONS", "/sessions"), 405, "method_not_allowed"},
		{"GET of one", request("GET", session), 405, "method_not_allowed"},
		{"PUT of one", request("PUT", session), 405, "method_not_allowed"},

		{"end all, without saying whose", request("DELETE", "/sessions"), 400, "invalid_parameter"},
		{"end all of an app", request("DELETE", "/sessions?app="+shopOrigin), 400, "invalid_parameter"},
		{"end all of a user everywhere", request("DELETE", "/sessions?sub=ada"), 400, "invalid_parameter"},
		{"end all, of nobody", request("DELETE", "/sessions?app="+shopOrigin+"&sub="), 400, "invalid_parameter"},
		{"end all, in no app", request("DELETE", "/sessions?app=&sub=ada"), 400, "invalid_parameter"},
		{"end all, of two users", request("DELETE", shop+"&sub=bob"), 400, "invalid_parameter"},
		{"end all, in two apps", request("DELETE", shop+"&app="+deskOrigin), 400, "invalid_parameter"},
		{"end all, with a limit that there is not", request("DELETE", shop+"&id=1"), 400, "invalid_parameter"},
		{"end all, in an app that there is not", request("DELETE", "/sessions?sub=ada&app=https://shop.example.com"), 400, "invalid_parameter"},
		{"end all, in an app with a slash at its end", request("DELETE", "/sessions?sub=ada&app="+shopOrigin+"/"), 400, "invalid_parameter"},
		{"end all, with a query that is none", request("DELETE", shop+"&%zz"), 400, "invalid_parameter"},
		{"end all, with a semicolon", request("DELETE", shop+";x=1"), 400, "invalid_parameter"},
		{"list with a misspelt limit", request("GET", "/sessions?subject=ada"), 400, "invalid_parameter"},
		{"list with a limit in capitals", request("GET", "/sessions?Sub=ada"), 400, "invalid_parameter"},
		{"list of two users", request("GET", "/sessions?sub=ada&sub=bob"), 400, "invalid_parameter"},
		{"list of an app that there is not", request("GET", "/sessions?app=shop"), 400, "invalid_parameter"},
		{"end one, with a parameter", request("DELETE", session+"?sub=ada"), 400, "invalid_parameter"},

		{"end one that there is not", request("DELETE", "/sessions/"+strings.Repeat("A", 43)), 404, "no_session"},
		{"end one without an id", request("DELETE", "/sessions/"), 404, "no_session"},
		{"end one by the cookie's value", request("DELETE", "/sessions/"+o.cookies["ada1"].Value), 404, "no_session"},
		{"end one, with more behind it", request("DELETE", session+"/x"), 404, "no_session"},
		{"a path beside", request("GET", "/sessionsx"), 404, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := o.do(row.call)
			if w.Code != row.status || code(w) != row.code {
				t.Errorf("%d %q, want %d %q\n%s", w.Code, code(w), row.status, row.code, w.Body)
			}
			if got, want := w.Header().Get("WWW-Authenticate"), map[int]string{401: "Bearer"}[row.status]; got != want {
				t.Errorf("WWW-Authenticate: %q, want %q", got, want)
			}
			if w.Code == 405 && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: %q", w.Header().Get("Cache-Control"))
			}
			if body := w.Body.String(); strings.Contains(body, canary) || len(w.Header()["Set-Cookie"]) > 0 {
				t.Errorf("the answer holds a secret: %v %s", w.Header(), body)
			}
		})
	}
	if n := len(o.list("/sessions")); n != 5 {
		t.Errorf("%d sessions are left of 5", n)
	}
	if log := o.log(); strings.Contains(log, "admin_sessions_ended") || !containsAll(log, `"event":"admin_denied","reason":"token_required","address":"192.0.2.1"`, `"reason":"origin_denied","address":"socket"`) {
		t.Errorf("the log:\n%s", log)
	}
}

// What names the admin listener has depends on where it listens.
func TestTheHostsOfSessions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, configured, host string
		want                   bool
	}{
		{"the configured name", "gateway.internal", "Gateway.internal:9180", true},
		{"another name, listening on a name", "gateway.internal", "gateway.monitoring:9180", false},
		{"an address, listening on a name", "gateway.internal", "10.1.2.3:9180", true},
		{"a name, listening on all addresses", "", "gateway.monitoring:9180", false},
		{"no name, listening on all addresses", "", "", false},
		{"an address, listening on all addresses", "0.0.0.0", "10.1.2.3:9180", true},
		{"an IPv6 address, listening on all addresses", "::", "[2001:db8::1]:9180", true},
		{"localhost, listening on all addresses", "", "localhost:9180", true},
		{"an address that is not ours, on loopback", "127.0.0.1", "10.1.2.3:9180", false},
		{"a name that looks like an address", "", "10.1.2.3.example.com", false},
	} {
		if got := (door{host: row.configured}).admitsToSessions(row.host); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// Health checks and scrapers know us by many names; who asks for sessions has to
// know the right one, wherever the listener is.
func TestAReboundNameIsNotLetAtSessionsOnAnyListener(t *testing.T) {
	t.Parallel()
	o := newOperators(t, settings{token: adminToken})
	o.server.admin.Handler = o.server.adminHandler(door{host: ""})
	for target, want := range map[string]int{"/readyz": 200, "/sessions": 403} {
		if w := o.do(call{method: "GET", target: target, host: "gateway.monitoring:9180", authorization: "Bearer " + adminToken}); w.Code != want {
			t.Errorf("GET %s: %d, want %d", target, w.Code, want)
		}
	}
}

func TestASocketAloneIsNoWayInByTCP(t *testing.T) {
	t.Parallel()
	o := newOperators(t, settings{socket: filepath.Join(shortDir(t), "s")})
	for _, authorization := range []string{"", "Bearer ", "Bearer " + adminToken} {
		w := o.do(call{method: "GET", target: "/sessions", host: "localhost", authorization: authorization})
		if w.Code != 401 {
			t.Errorf("by TCP with %q: %d", authorization, w.Code)
		}
	}
	if w := o.do(call{method: "GET", target: "/sessions", host: "localhost", socket: true}); w.Code != 200 {
		t.Errorf("by the socket: %d", w.Code)
	}
	if w := o.do(call{method: "GET", target: "/readyz", host: "x", socket: true}); w.Code != 200 {
		t.Errorf("health by the socket: %d", w.Code)
	}
}

func TestOperatorsListAndEndSessions(t *testing.T) {
	t.Parallel()
	o := newOperators(t, settings{token: adminToken})
	for target, want := range map[string]int{
		"/sessions": 5, "/sessions?app=&sub=": 5, "/sessions?sub=ada": 4, "/sessions?app=" + shopOrigin: 4,
		"/sessions?sub=ada&app=" + deskOrigin: 1, "/sessions?sub=eve": 0, "/sessions?sub=Ada": 0,
	} {
		if n := len(o.list(target)); n != want {
			t.Errorf("GET %s: %d sessions, want %d", target, n, want)
		}
	}
	all := o.list("/sessions")
	ada := all["ada1"]
	if ada.App != shopOrigin || ada.Sub != "ada" || ada.Address != "192.0.2.7" || time.Since(ada.CreatedAt) > time.Minute || time.Since(ada.LastSeenAt) > time.Minute || ada.ID == "" {
		t.Errorf("a session is listed as %+v", ada)
	}
	if text := o.ask("GET", "/sessions").Body.String(); !strings.Contains(text, `"current":false`) || !strings.Contains(text, `Z","last_seen_at":"`) {
		t.Errorf("the list: %s", text)
	}

	if w := o.ask("DELETE", "/sessions/"+ada.ID); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("end one: %d %s", w.Code, w.Body)
	}
	if w := o.ask("DELETE", "/sessions/"+ada.ID); w.Code != 404 || code(w) != "no_session" {
		t.Errorf("end it again: %d %s", w.Code, w.Body)
	}
	o.wantReasons(map[string]string{"ada1": "revoked", "ada2": "", "ada3": "", "ada4": "", "bob1": ""})

	if w := o.ask("DELETE", "/sessions?sub=ada&app="+shopOrigin); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"ended":2}` {
		t.Errorf("end all: %d %s", w.Code, w.Body)
	}
	o.wantReasons(map[string]string{"ada1": "revoked", "ada2": "revoked", "ada3": "revoked", "ada4": "", "bob1": ""})
	if w := o.ask("DELETE", "/sessions?sub=ada&app="+shopOrigin); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"ended":0}` {
		t.Errorf("end all again: %d %s", w.Code, w.Body)
	}
	log := o.log()
	if !containsAll(log, `"event":"admin_sessions_ended","sessions":1,"address":"192.0.2.1"}`, `"event":"admin_sessions_ended","sessions":2,"address":"192.0.2.1","app":"`+shopOrigin+`"}`) {
		t.Errorf("the log:\n%s", log)
	}
	if strings.Contains(log, `"ada"`) || strings.Contains(log, ada.ID) {
		t.Errorf("the log names a user or a session:\n%s", log)
	}
}

// wantReasons asks with every browser's cookie; "" is a live session.
func (o *operators) wantReasons(want map[string]string) {
	o.t.Helper()
	for name, reason := range want {
		origin := shopOrigin
		if name == "ada4" {
			origin = deskOrigin
		}
		r := httptest.NewRequest("GET", origin+"/bff/session", nil)
		r.AddCookie(o.cookies[name])
		r.Header.Set("X-CSRF", "1")
		w := httptest.NewRecorder()
		o.server.ServeHTTP(w, r)
		var got struct {
			Authenticated bool
			Reason        string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Reason != reason || got.Authenticated != (reason == "") {
			o.t.Errorf("%s: %d %s, want reason %q", name, w.Code, w.Body, reason)
		}
	}
}

// Promise 6: the store's silence is neither an empty list nor an end.
func TestAStoreThatDoesNotAnswerIsToldToOperators(t *testing.T) {
	t.Parallel()
	o := newOperators(t, settings{token: adminToken})
	id := o.list("/sessions")["ada1"].ID
	if err := o.server.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"GET", "/sessions"}, {"GET", "/sessions?sub=ada"}, {"DELETE", "/sessions/" + id}, {"DELETE", "/sessions?sub=ada&app=" + shopOrigin}} {
		w := o.ask(c[0], c[1])
		if w.Code != 503 || code(w) != "store_unavailable" || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %v\n%s", c[0], c[1], w.Code, w.Header(), w.Body)
		}
	}
	if strings.Contains(o.log(), "admin_sessions_ended") {
		t.Errorf("the log claims an end:\n%s", o.log())
	}
}

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

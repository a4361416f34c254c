package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// shop is a running gateway with a provider behind it and an API that answers.
type shop struct {
	*gateway
	origin, config string
	write          func(settings) // changes the configuration
}

func openShop(t *testing.T, s settings) *shop {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(longAnswers))
	t.Cleanup(api.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listen = gatewaytest.FreeAddress(t)
	s.routes = fmt.Sprintf("- {path: /api/, upstream: %q}\n      - {path: /secret/, upstream: %[1]q, end_with_session: true}", api.URL)
	_, port, _ := net.SplitHostPort(s.listen)
	origin, issuer := "http://localhost:"+port, "http://"+listener.Addr().String()
	provider, err := devprovider.New(devprovider.Config{
		Issuer: issuer,
		Clients: []devprovider.Client{{
			ID: "shop", Secret: "canary-from-the-environment", RedirectURIs: []string{origin + "/bff/callback"},
		}},
		Users: []devprovider.User{{Sub: "ada"}, {Sub: "bob"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: provider}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	_, path := site(t, settings{})
	rewrite := func(s settings) {
		t.Helper()
		write(t, path, strings.NewReplacer("http://localhost:8080", origin, "http://127.0.0.1:1\n", issuer+"\n").Replace(s.String()))
	}
	rewrite(s)
	return &shop{start(t, path), origin, path, func(now settings) {
		now.listen, now.routes = s.listen, s.routes
		rewrite(now)
	}}
}

// longAnswers is an API. What is asked for a stream or a file ends only after a
// line was sent to it.
func longAnswers(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()
	if strings.HasSuffix(r.URL.Path, "/stream") {
		w.Header().Set("Content-Type", "text/event-stream")
	}
	_, _ = io.WriteString(w, "begin\n")
	if r.Method == http.MethodPost {
		_ = control.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "end\n")
	}
}

// visitor is somebody's browser.
type visitor struct {
	shop   *shop
	client *http.Client
	agent  string
}

func (s *shop) login(sub, agent string) *visitor {
	s.t.Helper()
	jar, _ := cookiejar.New(nil)
	v := &visitor{s, &http.Client{
		Jar: jar, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, agent}
	callback, err := devprovider.SignIn(v.client, v.get("/bff/login").Header.Get("Location"), sub, "")
	if err != nil {
		s.t.Fatal(err)
	}
	if res := v.get(strings.TrimPrefix(callback, s.origin)); res.StatusCode != http.StatusSeeOther {
		s.t.Fatalf("callback: %s", res.Status)
	}
	return v
}

func (v *visitor) get(path string) *http.Response {
	v.shop.t.Helper()
	req, err := http.NewRequestWithContext(v.shop.t.Context(), "GET", v.shop.origin+path, nil)
	if err != nil {
		v.shop.t.Fatal(err)
	}
	req.Header.Set("X-CSRF", "1")
	req.Header.Set("User-Agent", v.agent)
	res, err := v.client.Do(req)
	if err != nil {
		v.shop.t.Fatal(err)
	}
	v.shop.t.Cleanup(func() { res.Body.Close() })
	return res
}

// want asks the API and wants to be answered, or to be told why not.
func (v *visitor) want(reason string) {
	v.shop.t.Helper()
	res := v.get("/api/orders")
	var p struct{ Code, Reason string }
	_ = json.NewDecoder(res.Body).Decode(&p)
	switch {
	case reason == "" && res.StatusCode != 200:
		v.shop.t.Errorf("%s: %d %+v, want 200", v.agent, res.StatusCode, p)
	case reason != "" && (res.StatusCode != 401 || p.Code != "session_ended" || p.Reason != reason):
		v.shop.t.Errorf("%s: %d %+v, want 401 session_ended %s", v.agent, res.StatusCode, p, reason)
	}
}

// listed runs sessions list -json and returns the ids by browser.
func (s *shop) listed(args ...string) map[string]string {
	s.t.Helper()
	code, stdout, stderr := sessiongate(s.t, append([]string{"sessions", "list", "-json", "-config", s.config}, args...)...)
	var list struct{ Sessions []listedSession }
	if err := json.Unmarshal([]byte(stdout), &list); code != 0 || err != nil {
		s.t.Fatalf("sessions list: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	ids := make(map[string]string)
	for _, l := range list.Sessions {
		ids[l.UserAgent] = l.ID
	}
	return ids
}

// Pain 34: an operator sees who is logged in, and ends what has to be ended.
func TestSessionsAreListedAndRevokedFromTheCommandLine(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]settings{
		"by the socket": {socket: filepath.Join(shortDir(t), "admin.sock")},
		"by the token":  {token: adminToken, admin: gatewaytest.FreeAddress(t)},
		// The socket needs nothing that may have changed, so it goes first.
		"by both": {token: adminToken, socket: filepath.Join(shortDir(t), "admin.sock")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := openShop(t, s)
			phone, desk, bob := g.login("ada", "Phone/1.0"), g.login("ada", "Desk/1.0"), g.login("bob", "Bob/1.0")
			bob.want("")

			code, stdout, stderr := sessiongate(t, "sessions", "list", "-config", g.config)
			lines := strings.Split(strings.TrimSpace(stdout), "\n")
			if code != 0 || len(lines) != 4 || strings.Join(strings.Fields(lines[0]), " ") != "ID APP SUB CREATED LAST SEEN ADDRESS BROWSER" {
				t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
			}
			ids := g.listed()
			row := strings.Fields(lines[slices.IndexFunc(lines, func(l string) bool { return strings.HasSuffix(l, "Desk/1.0") })])
			today := time.Now().UTC().Format("2006-01-02")
			if len(row) != 9 || row[0] != ids["Desk/1.0"] || row[1] != g.origin || row[2] != "ada" || row[3] != today || row[7] != "127.0.0.1" {
				t.Errorf("the row of the desk: %q", row)
			}
			if n := len(g.listed("-sub", "ada")); n != 2 {
				t.Errorf("sessions of ada: %d", n)
			}
			if n := len(g.listed("-app", g.origin, "-sub", "bob")); n != 1 {
				t.Errorf("sessions of bob: %d", n)
			}

			run := func(wantCode int, want string, args ...string) {
				t.Helper()
				code, stdout, stderr := sessiongate(t, append([]string{"sessions"}, args...)...)
				if code != wantCode || !strings.Contains(stdout+stderr, want) {
					t.Errorf("sessions %q: exit code %d\n%s%s\nwant %d %q", args, code, stdout, stderr, wantCode, want)
				}
			}
			run(0, "ended 1 session\n", "revoke", ids["Phone/1.0"], "-config", g.config)
			phone.want("revoked")
			desk.want("")
			run(1, "no_session", "revoke", "-config", g.config, ids["Phone/1.0"])
			run(1, "There are "+g.origin+".", "revoke", "-config", g.config, "-app", "https://shop.example.com", "-sub", "ada")
			third := g.login("ada", "Third/1.0")
			run(0, "ended 2 sessions\n", "revoke", "-config", g.config, "-app", g.origin, "-sub", "ada")
			desk.want("revoked")
			third.want("revoked")
			bob.want("")
			run(0, "ended 0 sessions\n", "revoke", "-config", g.config, "-app", g.origin, "-sub", "ada")
			run(0, "no sessions\n", "list", "-config", g.config, "-sub", "ada")
			bob.want("")

			g.stop()
			run(1, "does not answer at", "list", "-config", g.config)
			run(1, "does it run by this configuration?", "revoke", "-config", g.config, ids["Bob/1.0"])
		})
	}
}

func TestAReloadChangesTheAdminToken(t *testing.T) {
	t.Parallel()
	s := settings{admin: gatewaytest.FreeAddress(t)}
	g := openShop(t, s)
	g.login("ada", "Desk/1.0")
	list := func(wantCode int, want string) {
		t.Helper()
		code, stdout, stderr := sessiongate(t, "sessions", "list", "-config", g.config)
		if code != wantCode || !strings.Contains(stdout+stderr, want) {
			t.Errorf("exit code %d\n%s%s\nwant %d %q", code, stdout, stderr, wantCode, want)
		}
	}
	reload := func() {
		t.Helper()
		before := g.metric(`sessiongate_config_reloads_total{result="ok"}`)
		g.signal(syscall.SIGHUP)
		eventually(t, "the reload", func() bool { return g.metric(`sessiongate_config_reloads_total{result="ok"}`) != before })
	}
	list(2, "neither admin.socket nor admin.token")
	reload()
	s.token = adminToken
	former := filepath.Join(filepath.Dir(g.config), "former.yaml")
	g.write(s)
	reload()
	list(0, "Desk/1.0")
	text, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, former, string(text))
	s.token = otherToken
	g.write(s)
	reload()
	list(0, "Desk/1.0")
	if code, _, stderr := sessiongate(t, "sessions", "list", "-config", former); code != 1 || !strings.Contains(stderr, "has another admin.token") {
		t.Errorf("with the former token: exit code %d\n%s", code, stderr)
	}
	s.token = ""
	g.write(s)
	reload()
	if code, _, stderr := sessiongate(t, "sessions", "list", "-config", former); code != 1 || !strings.Contains(stderr, "lets nobody at sessions") {
		t.Errorf("without any token: exit code %d\n%s", code, stderr)
	}
}

// Two gateways on one machine: each knows its own sessions.
func TestOperatorsOfTwoGatewaysSeeTheirOwn(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	first, second := openShop(t, settings{socket: filepath.Join(dir, "1")}), openShop(t, settings{socket: filepath.Join(dir, "2")})
	ada := first.login("ada", "Desk/1.0")
	second.login("ada", "Other/1.0")
	if _, ok := first.listed()["Desk/1.0"]; !ok || len(first.listed()) != 1 {
		t.Errorf("the first gateway lists %v", first.listed())
	}
	if code, stdout, stderr := sessiongate(t, "sessions", "revoke", "-config", second.config, first.listed()["Desk/1.0"]); code != 1 || !strings.Contains(stderr, "no_session") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := sessiongate(t, "sessions", "revoke", "-config", second.config, "-app", second.origin, "-sub", "ada"); code != 0 || stdout != "ended 1 session\n" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	ada.want("")
}

// The operator's shell need not have the gateway's environment; what is wrong with
// the way in is told all the same.
func TestSessionsMindsOnlyItsPartOfTheConfiguration(t *testing.T) {
	t.Parallel()
	s := settings{socket: filepath.Join(shortDir(t), "s")}
	_, good := site(t, s)
	start(t, good)
	s.more = "    rutes: []"
	_, spoilt := site(t, s)
	if code, stdout, stderr := sessiongate(t, "sessions", "list", "-config", spoilt); code != 0 || stdout != "no sessions\n" {
		t.Errorf("another part is spoilt: exit code %d\n%s%s", code, stdout, stderr)
	}
	s.token = "${CANARY_THAT_IS_NOT_SET}"
	_, unset := site(t, s)
	if code, _, stderr := sessiongate(t, "sessions", "list", "-config", unset); code != 2 || !strings.Contains(stderr, "admin.token: ") || strings.Contains(stderr, "rutes") {
		t.Errorf("the token is spoilt: exit code %d\n%s", code, stderr)
	}
}

func TestIDsMayBeginWithADash(t *testing.T) {
	const id, dashed = "a3zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q", "-3zr0Jw2cXh4tV7nLs1KpE8mYd3uGa6bFo5iTkW3x0Q"
	for _, row := range []struct {
		args      string
		ids, rest string
	}{
		{"-config FILE " + id, "", "-config FILE " + id},
		{"-config FILE " + dashed, dashed, "-config FILE"},
		{dashed + " -config FILE", dashed, "-config FILE"},
		{"-config FILE -app X -sub " + dashed, "", "-config FILE -app X -sub " + dashed},
		{"-config=" + dashed, "", "-config=" + dashed},
		{"-conf FILE", "", "-conf FILE"},
	} {
		ids, rest := takeDashed(strings.Fields(row.args))
		if strings.Join(ids, " ") != row.ids || strings.Join(rest, " ") != row.rest {
			t.Errorf("%s: ids %q, rest %q", row.args, ids, rest)
		}
	}
}

func TestTheTableOfSessionsIsHarmless(t *testing.T) {
	var out strings.Builder
	printSessions(&out, []listedSession{{ID: "x", Sub: "a\x1b[2Jb\tc\nd", UserAgent: "\x00\u202e\u200b\xff", Address: ""}})
	if got := strings.Split(out.String(), "\n")[1]; got != "x   -    a\ufffd[2Jb\ufffdc\ufffdd  0001-01-01 00:00:00Z  0001-01-01 00:00:00Z  -        \ufffd\ufffd\ufffd\ufffd" {
		t.Errorf("%q", got)
	}
}

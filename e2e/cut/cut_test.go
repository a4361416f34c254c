// Package cut cuts two gateways off a real redis-server, or one of them, in the ways
// that networks and servers fail, and sees what users are told meanwhile and after.
package cut

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4") // they mostly wait
	gatewaytest.Main(m, &binary)
}

const (
	// liveness is session.store.redis.liveness: its default.
	liveness = time.Second
	// busy is how much later than promised things may be seen on a machine that has
	// other things to do.
	busy = time.Second
	// patience is for what is not measured.
	patience = 15 * time.Second

	adminToken = "an-operator-s-token-for-tests-only-of-32-and-more"
)

// world is two gateways on one store, with so many users.
type world struct {
	*gatewaytest.World
	t     *testing.T
	a, b  *gatewaytest.Gateway
	users []string
}

// newWorld installs the gateways. They are not started: a test may yet put
// something between one of them and the store.
func newWorld(t *testing.T, users int, store map[string]any, routes ...any) *world {
	t.Helper()
	return newWorldWith(t, users, gatewaytest.Options{Store: store, Routes: routes})
}

func newWorldWith(t *testing.T, users int, o gatewaytest.Options) *world {
	t.Helper()
	w := &world{t: t}
	o.Gateways, o.Client = 2, func(c *devprovider.Client) {
		c.BackChannelLogoutURI = strings.TrimSuffix(c.RedirectURIs[0], "callback") + "backchannel"
	}
	for i := range users {
		w.users = append(w.users, fmt.Sprintf("user-%d", i))
		o.Users = append(o.Users, devprovider.User{Sub: w.users[i]})
	}
	w.World = gatewaytest.NewWorld(t, binary, o)
	w.a, w.b = w.Gateways[0], w.Gateways[1]
	for _, g := range w.Gateways {
		reconfigure(t, g, func(config map[string]any) { config["admin"].(map[string]any)["token"] = adminToken })
	}
	return w
}

// reconfigure changes the configuration of a gateway that does not run.
func reconfigure(t *testing.T, g *gatewaytest.Gateway, change func(config map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(g.Config())
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	change(config)
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.Config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// through has the second gateway reach the store at another address.
func (w *world) through(address string) {
	w.t.Helper()
	reconfigure(w.t, w.b, func(config map[string]any) {
		redis := config["session"].(map[string]any)["store"].(map[string]any)["redis"].(map[string]any)
		redis["addresses"], redis["insecure_plaintext"] = []string{address}, true
	})
}

// login returns a browser in which a user has logged in.
func (w *world) login(sub string) *gatewaytest.Browser {
	w.t.Helper()
	browser := w.NewBrowser()
	if _, err := browser.Login(sub); err != nil {
		w.t.Fatal(err)
	}
	return browser
}

// copy is the same session in another browser, at one gateway: an answer there that
// takes the cookie does not take it here.
func (w *world) copy(browser *gatewaytest.Browser, g *gatewaytest.Gateway) *gatewaytest.Browser {
	return browser.Steal(w.World, browser.Session()).Via(g)
}

// end is a way in which sessions end at the first gateway.
type end struct {
	name, reason string
	of           func(w *world, browser *gatewaytest.Browser, sub string) error
}

var ends = []end{
	{"a logout", "logout", func(w *world, browser *gatewaytest.Browser, _ string) error {
		return browser.Via(w.a).Logout()
	}},
	{"an operator's revocation", "revoked", func(w *world, _ *gatewaytest.Browser, sub string) error {
		query := url.Values{"app": {w.Origin}, "sub": {sub}}
		req, err := http.NewRequest(http.MethodDelete, "http://"+w.a.Admin()+"/sessions?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+adminToken)
		return wantOK(http.DefaultClient.Do(req))
	}},
	{"a back-channel logout", "backchannel", func(w *world, browser *gatewaytest.Browser, sub string) error {
		token, err := w.Provider.LogoutToken("spa", sub, "")
		if err != nil {
			return err
		}
		return wantOK(browser.Via(w.a).Client().PostForm(w.Origin+"/bff/backchannel", url.Values{"logout_token": {token}}))
	}},
}

func wantOK(res *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	return nil
}

// good, gone and the like are what a call may be answered.
func good(a *gatewaytest.Answer) bool { return a.Status == http.StatusOK }

// unavailable: 503, and the cookie is left alone.
func unavailable(a *gatewaytest.Answer) bool {
	return a.Status == http.StatusServiceUnavailable && a.Problem.Code == "store_unavailable" &&
		a.Header.Get("Retry-After") != "" && len(a.Header["Set-Cookie"]) == 0
}

func ended(reason string) func(*gatewaytest.Answer) bool {
	return func(a *gatewaytest.Answer) bool {
		return a.Status == http.StatusUnauthorized && a.Problem.Code == "session_ended" && a.Problem.Reason == reason
	}
}

// nobody: there is no such session, and none that ended.
func nobody(a *gatewaytest.Answer) bool {
	return a.Status == http.StatusUnauthorized && a.Problem.Code == "session_required"
}

// want calls once.
func (w *world) want(what string, browser *gatewaytest.Browser, as func(*gatewaytest.Answer) bool) {
	w.t.Helper()
	if answer, err := browser.Call(); err != nil || !as(answer) {
		w.t.Errorf("%s: %v, %v, Set-Cookie %q", what, answer, err, header(answer, "Set-Cookie"))
	}
}

// await calls until the answer is as wanted, and until then it may be 503. It tells
// how long that took.
func (w *world) await(what string, browser *gatewaytest.Browser, as func(*gatewaytest.Answer) bool, most time.Duration) time.Duration {
	w.t.Helper()
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		answer, err := browser.Call()
		took := time.Since(begun)
		switch {
		case err == nil && as(answer):
			return took
		case took > most:
			w.t.Fatalf("%s: %v, %v after %v", what, answer, err, took)
		}
	}
}

func header(a *gatewaytest.Answer, name string) []string {
	if a == nil {
		return nil
	}
	return a.Header[name]
}

// tell sends commands on one connection and returns all that was answered.
func tell(address string, commands ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// A Sentinel does not know QUIT, and a replica without its master no PING.
	if _, err := io.WriteString(conn, strings.Join(commands, "\r\n")+"\r\nPING\r\nQUIT\r\n"); err != nil {
		return "", err
	}
	var answers strings.Builder
	for lines := bufio.NewScanner(conn); lines.Scan() && lines.Text() != "+PONG"; {
		fmt.Fprintln(&answers, lines.Text())
	}
	return answers.String(), nil
}

// mustTell is tell for commands that are to succeed, with an answer of one line.
func mustTell(t *testing.T, address string, commands ...string) {
	t.Helper()
	answers, err := tell(address, commands...)
	lines := strings.Split(answers, "\n")
	for i, command := range commands {
		if err != nil || i >= len(lines) || strings.HasPrefix(lines[i], "-") || lines[i] == "" {
			t.Fatalf("%s: %q, %v", command, answers, err)
		}
	}
}

// eventually waits for what tells why it is not yet so.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	err := errors.New("not tried")
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

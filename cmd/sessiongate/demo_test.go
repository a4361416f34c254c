package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

func TestTheDemoLogsInCallsTheAPIHearsOfALogoutElsewhereAndEndsAtCtrlC(t *testing.T) {
	cmd, printed := startDemo(t)
	origin, issuer, dir := printed["Open"], printed["Provider"], printed["Data"]
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	demoLogin(t, browser, origin)

	res := demoGet(t, browser, origin+"/api/echo")
	var echo struct {
		Headers http.Header
		Token   struct{ Claims struct{ Sub string } }
	}
	if err := json.NewDecoder(res.Body).Decode(&echo); err != nil || echo.Token.Claims.Sub == "" || echo.Headers["Cookie"] != nil {
		t.Errorf("echo = %d %+v, %v; want a token's claims and no cookie", res.StatusCode, echo, err)
	}

	// A person who logs out at the provider's own page, while feed and events are open.
	feed := demoFeed(t, jar, origin)
	if opcode, message := readFrame(t, feed); opcode != 1 || !strings.HasPrefix(message, `{"time":"`) {
		t.Errorf("feed: opcode %d, %q; want a message", opcode, message)
	}
	events := demoGet(t, browser, origin+"/bff/events")
	if res, err := browser.Post(issuer+"/logout", "", nil); err != nil {
		t.Fatal(err)
	} else if page, _ := io.ReadAll(res.Body); res.Body.Close() != nil || !strings.Contains(string(page), "signed out here and at sessiongate demo") {
		t.Errorf("the provider's page: %s %s, want it to say that the gateway was told", res.Status, page)
	}
	told, err := io.ReadAll(events.Body)
	if err != nil || !strings.Contains(string(told), "event: session.ended\ndata: {\"reason\":\"backchannel\"}") {
		t.Errorf("events: %s, %v; want the end, its reason, and the end of the stream", told, err)
	}
	opcode, message := readFrame(t, feed)
	for opcode == 1 {
		opcode, message = readFrame(t, feed)
	}
	if opcode != 8 || message != "\x11\x31backchannel" { // 4401
		t.Errorf("feed: opcode %d, %q; want it closed with 4401 and the reason", opcode, message)
	}
	var session struct{ Reason string }
	if err := json.NewDecoder(demoGet(t, browser, origin+"/bff/session").Body).Decode(&session); err != nil || session.Reason != "backchannel" {
		t.Errorf("session = %+v, %v; want the reason", session, err)
	}

	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v, want exit code 0", err)
	}
	if _, err := os.Stat(dir); dir == "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory %q after Ctrl-C: %v, want it gone", dir, err)
	}
}

// startDemo runs the demo and returns the second word of each line it printed, by
// the first.
func startDemo(t *testing.T) (cmd *exec.Cmd, printed map[string]string) {
	t.Helper()
	cmd = program(t, "demo", "-listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed = map[string]string{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
		if words := strings.Fields(lines.Text()); len(words) > 1 {
			printed[words[0]] = words[1]
		}
	}
	go io.Copy(io.Discard, stdout) // ends with the process
	return cmd, printed
}

func demoLogin(t *testing.T, browser *http.Client, origin string) {
	t.Helper()
	stay := *browser
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res := demoGet(t, &stay, origin+"/bff/login?returnUrl=/")
	callback, err := devprovider.SignIn(browser, res.Header.Get("Location"), "ada@example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	if res := demoGet(t, browser, callback); res.StatusCode != 200 || res.Request.URL.Path != "/" {
		t.Errorf("callback led to %s with %d, want the app", res.Request.URL.Path, res.StatusCode)
	}
}

// demoFeed opens the live feed as a page of the origin does.
func demoFeed(t *testing.T, jar http.CookieJar, origin string) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", origin+"/api/feed", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Origin": origin,
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", // RFC 6455, 1.3
	} {
		req.Header.Set(name, value)
	}
	for _, cookie := range jar.Cookies(req.URL) {
		req.AddCookie(cookie)
	}
	conn, err := net.Dial("tcp", req.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: %+v, %v; want 101", res, err)
	}
	return r
}

// readFrame reads a short frame of a server (RFC 6455, 5.2).
func readFrame(t *testing.T, r *bufio.Reader) (opcode byte, message string) {
	t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatalf("frame: %v", err)
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatalf("frame: %v", err)
	}
	return head[0] & 0x0f, string(payload)
}

func demoGet(t *testing.T, client *http.Client, target string) *http.Response {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	req.Header.Set("X-CSRF", "1")
	if strings.HasPrefix(req.URL.Path, "/bff/events") {
		req.Header.Set("Sec-Fetch-Site", "same-origin") // which X-CSRF does not replace there
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

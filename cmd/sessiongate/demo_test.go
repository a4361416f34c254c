package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"syscall"
	"testing"

	"sessiongate/internal/devprovider"
)

func TestTheDemoLogsInCallsTheAPIAndEndsAtCtrlC(t *testing.T) {
	cmd := program(t, "demo", "-listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var origin, dir string
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
		switch words := append(strings.Fields(lines.Text()), "", ""); words[0] {
		case "Open":
			origin = words[1]
		case "Data":
			dir = words[1]
		}
	}
	go io.Copy(io.Discard, stdout) // ends with the process

	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	res := demoGet(t, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		origin+"/bff/login?returnUrl=/")
	callback, err := devprovider.SignIn(browser, res.Header.Get("Location"), "ada@example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	if res := demoGet(t, browser, callback); res.StatusCode != 200 || res.Request.URL.Path != "/" {
		t.Errorf("callback led to %s with %d, want the app", res.Request.URL.Path, res.StatusCode)
	}
	res = demoGet(t, browser, origin+"/api/echo")
	var echo struct {
		Headers http.Header
		Token   struct{ Claims struct{ Sub string } }
	}
	if err := json.NewDecoder(res.Body).Decode(&echo); err != nil || echo.Token.Claims.Sub == "" || echo.Headers["Cookie"] != nil {
		t.Errorf("echo = %d %+v, %v; want a token's claims and no cookie", res.StatusCode, echo, err)
	}

	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v, want exit code 0", err)
	}
	if _, err := os.Stat(dir); dir == "" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory %q after Ctrl-C: %v, want it gone", dir, err)
	}
}

func demoGet(t *testing.T, client *http.Client, target string) *http.Response {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", target, nil)
	req.Header.Set("X-CSRF", "1")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What an operator ends is over for what is open, too (issue: all take effect on
// open streams). Downloads go on unless the route says otherwise.
func TestStreamsEndWhenAnOperatorEndsTheirSession(t *testing.T) {
	t.Parallel()
	g := openShop(t, settings{socket: filepath.Join(shortDir(t), "s")})
	ada, bob := g.login("ada", "Ada/1.0"), g.login("bob", "Bob/1.0")
	stream, file, secret := ada.open("/api/stream"), ada.open("/api/file"), ada.open("/secret/file")
	others := bob.open("/secret/file")
	if code, stdout, stderr := sessiongate(t, "sessions", "revoke", "-config", g.config, g.listed()["Ada/1.0"]); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for name, l := range map[string]*longAnswer{"the event stream": stream, "the download that ends with its session": secret} {
		if rest := l.rest(); strings.Contains(rest, "end") {
			t.Errorf("%s went on: %q", name, rest)
		}
	}
	for name, l := range map[string]*longAnswer{"the download": file, "the download of somebody else": others} {
		l.finish()
		if rest := l.rest(); rest != "end\n" {
			t.Errorf("%s: %q, want its end", name, rest)
		}
	}
}

// longAnswer is an answer under way.
type longAnswer struct {
	t    *testing.T
	body *bufio.Reader
	end  io.Closer
}

func (v *visitor) open(path string) *longAnswer {
	v.shop.t.Helper()
	body, end := io.Pipe()
	req, err := http.NewRequestWithContext(v.shop.t.Context(), "POST", v.shop.origin+path, body)
	if err != nil {
		v.shop.t.Fatal(err)
	}
	req.Header.Set("X-CSRF", "1")
	req.Header.Set("Content-Type", "text/plain")
	res, err := v.client.Do(req)
	if err != nil {
		v.shop.t.Fatal(err)
	}
	v.shop.t.Cleanup(func() { end.Close(); res.Body.Close() })
	l := &longAnswer{v.shop.t, bufio.NewReader(res.Body), end}
	if line, err := l.body.ReadString('\n'); err != nil || line != "begin\n" {
		v.shop.t.Fatalf("%s: %d %q, %v", path, res.StatusCode, line, err)
	}
	return l
}

func (l *longAnswer) finish() { l.end.Close() }

// rest is what comes until the answer ends or breaks off.
func (l *longAnswer) rest() string {
	text, _ := io.ReadAll(l.body)
	return string(text)
}

// OP-11: tabs that listen for events keep no gateway from stopping.
func TestListeningTabsEndAtTheShutdown(t *testing.T) {
	t.Parallel()
	g := openShop(t, settings{})
	v := g.login("ada", "Tab/1.0")
	req, err := http.NewRequestWithContext(t.Context(), "GET", g.origin+"/bff/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := v.client.Do(req)
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("events: %v, %v", res, err)
	}
	defer res.Body.Close()
	if n := g.metric(fmt.Sprintf("sessiongate_streams_open{app=%q,kind=\"events\"}", g.origin)); n != "1" {
		t.Errorf("streams_open of events: %q", n)
	}
	began := time.Now()
	if code := g.stop(); code != 0 || time.Since(began) > 3*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), g.output())
	}
	if text, err := io.ReadAll(res.Body); err != nil || strings.Contains(string(text), "session.ended") {
		t.Errorf("the events broke off, or told an end: %q, %v", text, err)
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

func containsAll(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// OP-11: what is under way when SIGTERM comes is finished; what never ends does
// not keep the process.
func TestRequestsUnderWayFinishAndStreamsEnd(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}, 2), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		arrived <- struct{}{}
		<-goOn
		w.WriteHeader(http.StatusAccepted)
	}))
	defer upstream.Close()
	_, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none}", upstream.URL)})
	g := start(t, path)
	slow := make(chan int, 1)
	go func() { status, _ := g.get("/slow"); slow <- status }()
	<-arrived
	stream, err := g.client.Do(request(t, "http://"+g.public+"/stream", "localhost:8080"))
	if err != nil || stream.StatusCode != 200 {
		t.Fatalf("the stream: %v, %v", stream, err)
	}
	defer stream.Body.Close()

	g.signal(syscall.SIGTERM)
	g.await("stopping")
	eventually(t, "the listener is closed", func() bool {
		conn, err := net.Dial("tcp", g.public)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	// Before the request is through: a stream waits for nothing, and ends well.
	if _, err := io.ReadAll(stream.Body); err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	close(goOn)
	if status := <-slow; status != http.StatusAccepted {
		t.Errorf("the request under way: %d", status)
	}
	if code := g.exit(); code != 0 {
		t.Errorf("exit code: %d\n%s", code, g.output())
	}
}

// net/http forgets connections that were taken over: the end of a WebSocket is
// ours to bring about.
func TestAWebSocketDoesNotKeepTheProcess(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, stream, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = stream.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = stream.Flush()
		_, _ = io.Copy(io.Discard, conn)
	}))
	defer upstream.Close()
	_, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none}", upstream.URL)})
	g := start(t, path)
	req := request(t, "http://"+g.public+"/ws", "localhost:8080")
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Origin": {"http://localhost:8080"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	res, err := g.client.Do(req)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	defer res.Body.Close()
	began := time.Now()
	if code := g.stop(); code != 0 || time.Since(began) > 3*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), g.output())
	}
}

func request(t *testing.T, url, host string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	return req
}

// A session belongs to (origin, issuer, client_id): when a reload changes one of
// them it ends as revoked, else it goes on, with a new key in front too.
func TestAReloadEndsTheSessionsOfAppsThatAreGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	route := `- {path: /api/, upstream: "http://127.0.0.1:9"}`
	parse := func(s settings) *config.Config {
		t.Helper()
		s.routes = route
		c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte(strings.ReplaceAll(s.String(), "${TEST_SECRET}", "canary")))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	s, err := newServer(parse(settings{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	listening := make(chan string, 1)
	go func() { done <- s.run(ctx, func(address string) { listening <- address }, nil) }()
	<-listening
	_, cookie, err := s.current.Load().apps[0].Create(ctx, session.Login{
		Subject: "ada", Token: &oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}, FlowBegan: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		r := httptest.NewRequest("GET", "http://localhost:8080/bff/session", nil)
		r.AddCookie(cookie)
		r.Header.Set("X-CSRF", "1")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Body.String()
	}
	if err := s.adopt(parse(settings{keys: []string{secondKey, testKey}})); err != nil {
		t.Fatal(err)
	}
	if got := state(); !strings.Contains(got, `"authenticated":true`) {
		t.Errorf("after a reload with a new key in front: %s", got)
	}
	if err := s.adopt(parse(settings{keys: []string{secondKey}})); err != nil {
		t.Fatal(err)
	}
	if got := state(); !strings.Contains(got, `"authenticated":false`) {
		t.Errorf("after its key was removed: %s", got)
	}
	if err := s.adopt(parse(settings{keys: []string{secondKey, testKey}, client: "other"})); err != nil {
		t.Fatal(err)
	}
	s.retiring.Wait()
	if n, err := s.store.Count(ctx); n != 0 || err != nil {
		t.Errorf("after a reload with another client there are %d sessions, %v", n, err)
	}
	if got := state(); !strings.Contains(got, `"reason":"revoked"`) {
		t.Errorf("after a reload with another client: %s", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLimitsOfThePublicListener(t *testing.T) {
	t.Parallel()
	_, path := site(t, settings{more: "limits: {connections: 1, header_bytes: 8192}"})
	g := start(t, path)
	req := request(t, "http://"+g.public+"/", "localhost:8080")
	req.Header.Set("X-Large", strings.Repeat("x", 16<<10))
	res, err := g.client.Do(req)
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of 16 KiB: %v, %v", res, err)
	}
	g.client.CloseIdleConnections()

	first, err := net.Dial("tcp", g.public)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() { status, _ := g.get("/"); answered <- status }()
	select {
	case status := <-answered:
		t.Fatalf("a second connection was served beside the first: %d", status)
	case <-time.After(200 * time.Millisecond):
	}
	first.Close()
	if status := <-answered; status != 200 {
		t.Errorf("after the first connection was closed: %d", status)
	}
}

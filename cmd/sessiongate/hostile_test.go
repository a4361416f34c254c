package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A browser that stops reading blocks whoever writes to it. That must not use up
// the time in which the refreshes of others are stored (OP-11).
func TestABrowserThatDoesNotReadDoesNotDelayTheShutdown(t *testing.T) {
	t.Parallel()
	full := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, stream, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = stream.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = stream.Flush()
		for chunk := make([]byte, 1<<20); err == nil; {
			_ = conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			_, err = conn.Write(chunk)
		}
		close(full)
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
	}))
	defer upstream.Close()
	_, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none}", upstream.URL)})
	g := start(t, path)
	conn, err := net.Dial("tcp", g.public)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: localhost:8080\r\nOrigin: http://localhost:8080\r\nConnection: Upgrade\r\n"+
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	<-full
	began := time.Now()
	if code := g.stop(); code != 0 || time.Since(began) > 3*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), g.output())
	}
}

// A request that comes when all is being closed must not go round in circles.
func TestARequestAfterTheEndIsBrokenOff(t *testing.T) {
	s, e := &server{}, &edition{}
	s.current.Store(e)
	e.use.Lock()
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	select {
	case p := <-done:
		if p != http.ErrAbortHandler {
			t.Errorf("recovered %v, want http.ErrAbortHandler", p)
		}
	case <-time.After(5 * time.Second):
		t.Error("the request is still being handed round")
	}
}

// net/http tells of bytes that nobody asked for, and quotes them: they may be the
// end of somebody's answer (OP-04). Here they hold the word that no log may.
func TestOP04BytesOfAnUpstreamAreNotLogged(t *testing.T) {
	t.Parallel()
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	go func() {
		for {
			conn, err := upstream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				time.Sleep(100 * time.Millisecond) // until the connection is idle
				_, _ = io.WriteString(conn, canary)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	_, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: \"http://%s\", auth: none}", upstream.Addr())})
	g := start(t, path)
	if status, body := g.get("/"); status != 200 || body != "ok" {
		t.Errorf("status %d, %q", status, body)
	}
	if entry := g.await("server"); !strings.Contains(entry["msg"].(string), "Unsolicited response") {
		t.Errorf("logged: %v", entry)
	}
}

package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestServerSentEvents: each event is passed on when it comes, and a stream that
// is silent longer than the route's timeout is not cut (PX-22, pain 51).
func TestServerSentEvents(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		a.Routes = append(a.Routes, Route{Path: "/quick/", Upstream: must(url.Parse(w.up.URL)), Timeout: 100 * time.Millisecond})
	})
	events, gone := make(chan string), make(chan bool, 1)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		rw.Header().Set("X-Accel-Buffering", "no")
		rw.(http.Flusher).Flush()
		for {
			select {
			case e := <-events:
				io.WriteString(rw, e)
				rw.(http.Flusher).Flush()
			case <-r.Context().Done():
				gone <- true
				return
			}
		}
	})
	c := w.dial()
	// As EventSource asks: it cannot send X-CSRF.
	io.WriteString(c, rawRequest("GET /quick/events", "", []string{"Cookie: " + w.cookie, "Accept: text/event-stream", "Sec-Fetch-Site: same-origin", "Last-Event-ID: 41"}))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 200 || res.Header.Get("X-Accel-Buffering") != "no" || len(res.Header["Content-Type"]) != 1 {
		t.Fatalf("%v, %v", res, err)
	}
	if w.up.last(t).Header.Get("Last-Event-Id") != "41" {
		t.Error("Last-Event-ID does not reach the upstream")
	}
	if n := w.metric("sessiongate_streams_open", testOrigin, "sse"); n != 1 {
		t.Errorf("streams_open{sse} = %v, want 1", n)
	}
	body := bufio.NewReader(res.Body)
	for i := range 3 {
		event := fmt.Sprintf("data: %d\n", i)
		began := time.Now()
		events <- event
		line, err := body.ReadString('\n')
		if took := time.Since(began); line != event || took > 100*time.Millisecond {
			t.Errorf("PX-22: event %d came as %q, %v after %v; want within 100 ms", i, line, err, took)
		}
		if i == 1 {
			time.Sleep(150 * time.Millisecond) // longer than the route's timeout
		}
	}
	c.Close()
	<-gone
	eventually(t, "the stream is not counted any more", func() bool { return w.metric("sessiongate_streams_open", testOrigin, "sse") == 0 })
}

// echoSocket is an upstream that upgrades and echoes bytes.
func echoSocket(rw http.ResponseWriter, r *http.Request) {
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, upgrade, X-Hop\r\nUpgrade: WebSocket\r\nX-Hop: 1\r\n"+
		"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: __Host-Http-session=evil\r\nX-Sessiongate: 1\r\nClear-Site-Data: \"*\"\r\n\r\n")
	io.Copy(conn, buf)
}

func handshake(cookie string, more ...string) []string {
	return append([]string{"Cookie: " + cookie, "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Origin: " + testOrigin,
		"Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: chat"}, more...)
}

// TestWebSocket: a tunnel both ways, with the token in its handshake (PX-20).
func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	w.up.answer(echoSocket)
	c := w.dial()
	io.WriteString(c, rawRequest("GET /api/ws?x", "", handshake(w.cookie)))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	h := res.Header
	if !strings.EqualFold(h.Get("Upgrade"), "websocket") || h.Get("Sec-Websocket-Protocol") != "chat" || h.Get("Sec-Websocket-Accept") != "x" ||
		h["Set-Cookie"] != nil || h["X-Sessiongate"] != nil || h["Clear-Site-Data"] != nil || h["X-Hop"] != nil {
		t.Errorf("the handshake's answer: %v", h)
	}
	saw := w.up.last(t).Header
	if saw.Get("Authorization") != "Bearer "+w.token || saw["Cookie"] != nil || saw.Get("Upgrade") != "websocket" || saw.Get("Connection") != "Upgrade" {
		t.Errorf("the upstream sees %v", saw)
	}
	if n := w.metric("sessiongate_streams_open", testOrigin, "websocket"); n != 1 {
		t.Errorf("streams_open{websocket} = %v, want 1", n)
	}
	big := bytes.Repeat([]byte{0, 1, 0xff}, 1<<19)
	go c.Write(big)
	back := make([]byte, len(big))
	if _, err := io.ReadFull(r, back); err != nil || !bytes.Equal(back, big) {
		t.Errorf("echo of %d bytes: %v", len(big), err)
	}
	c.(*net.TCPConn).CloseWrite()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v, want EOF", err)
	}
	eventually(t, "the tunnel is not counted any more", func() bool {
		return w.metric("sessiongate_streams_open", testOrigin, "websocket") == 0 && w.metric("sessiongate_requests_total", testOrigin, "GET", "/api/", "101") == 1
	})
}

// TestFailedUpgrade: a connection is no tunnel before the upstream's 101; what
// follows on it is a request like any other (pain 49).
func TestFailedUpgrade(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) { http.Error(rw, "no", http.StatusNotFound) })
	c := w.dial()
	io.WriteString(c, rawRequest("GET /api/ws", "", handshake(w.cookie))+rawRequest("GET /api/x", "", []string{"Authorization: Bearer evil"}))
	r := bufio.NewReader(c)
	for i, want := range []int{404, 403} {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != want {
			t.Fatalf("answer %d: %v, %v; want %d", i, res, err, want)
		}
		io.Copy(io.Discard, res.Body)
	}
	if n := len(w.up.requests()); n != 1 {
		t.Errorf("the upstream saw %d requests, want 1", n)
	}
}

// TestPX23UpgradeOnlyWebSocket: no other token is passed on, and no other answer is
// believed (PX-23).
func TestPX23UpgradeOnlyWebSocket(t *testing.T) {
	w := newWorld(t)
	for _, header := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"},
		{"Connection: Upgrade", "Upgrade: websocket, h2c"},
		{"Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"},
		{"Connection: Upgrade", "Upgrade: TLS/1.0"},
		{"Upgrade: websocket"},
		{"Connection: keep-alive", "Upgrade: websocket"},
	} {
		w.up.forget()
		got := w.send("GET /open/x", header...)
		saw := w.up.last(t).Header
		if got.StatusCode != 200 || saw["Upgrade"] != nil || saw["Connection"] != nil || saw["Http2-Settings"] != nil {
			t.Errorf("%v: status %d, the upstream sees %v", header, got.StatusCode, saw)
		}
	}
	w.up.forget()
	w.sendBody("POST /open/x", "", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0")
	if saw := w.up.last(t).Header; saw["Upgrade"] != nil {
		t.Errorf("POST: the upstream sees %v", saw)
	}
	for _, answer := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		addr := rawUpstream(t, answer+"tunnelled")
		w := newWorld(t, func(_ *world, a *App, _ *Config) {
			a.Routes[0].Upstream, a.Routes[5].Upstream = must(url.Parse("http://"+addr)), must(url.Parse("http://"+addr))
		})
		if got := w.send("GET /open/x"); got.StatusCode != 502 {
			t.Errorf("%q unasked: status %d, want 502", answer, got.StatusCode)
		}
		if strings.Contains(answer, "websocket") {
			continue
		}
		if got := w.send("GET /api/ws", handshake(w.cookie)...); got.StatusCode != 502 {
			t.Errorf("%q: status %d, want 502", answer, got.StatusCode)
		}
	}
}

// TestWebSocketWithoutSession: with a session that ended the handshake is 401
// and nothing else (pain 48).
func TestWebSocketWithoutSession(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/api/ws", "/page/ws"} {
		if got := w.send("GET "+path, handshake(w.ended())...); got.StatusCode != 401 || got.problem(t).Code != "session_ended" {
			t.Errorf("%s: status %d %s", path, got.StatusCode, got.body)
		}
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream was dialled %d times", n)
	}
}

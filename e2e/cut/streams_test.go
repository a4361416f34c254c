package cut

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	frames "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// Streams at one gateway end within a second of their session, whatever ended it at
// the other, and say why where they can.
func TestStreamsAtTheOtherGatewayEnd(t *testing.T) {
	redis := gatewaytest.NewRedis(t)
	w := newWorld(t, len(ends), redis.Store(nil), map[string]any{"path": "/stream/", "upstream": streaming(t)})
	w.Start()
	for i, end := range ends {
		t.Run(end.name, func(t *testing.T) {
			browser := w.login(w.users[i])
			at := browser.Via(w.b)
			streams := []struct {
				name, how string
				ended     <-chan ending
			}{
				{"the WebSocket", "4401 " + end.reason, socket(t, w, browser)},
				{"the API's event stream", "event: news", events(t, w, at, "/stream/events")},
				{"the page's own", `event: session.ended data: {"reason":"` + end.reason + `"}`, events(t, w, at, "/bff/events")},
			}
			begun := time.Now()
			if err := end.of(w, browser, w.users[i]); err != nil {
				t.Fatal(err)
			}
			done := time.Now()
			for _, s := range streams {
				select {
				case e := <-s.ended:
					t.Logf("%s: %v after the answer: %s", s.name, e.at.Sub(done).Round(10*time.Microsecond), e.how)
					if e.how != s.how || e.at.Before(begun) || e.at.Sub(done) > time.Second+2*busy {
						t.Errorf("%s ended %v after with %q, want %q within a second", s.name, e.at.Sub(done), e.how, s.how)
					}
				case <-time.After(5 * time.Second):
					t.Errorf("%s goes on %v after", s.name, time.Since(done))
				}
			}
		})
	}
}

// ending is when a stream ended, and what was last said in it.
type ending struct {
	at  time.Time
	how string
}

// streaming is an upstream with WebSockets and event streams that never end by
// themselves.
func streaming(t *testing.T) (address string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/stream/ws", func(rw http.ResponseWriter, r *http.Request) {
		// RFC 6455, section 4.2.2
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		conn, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		io.Copy(io.Discard, buffered)
	})
	mux.HandleFunc("/stream/events", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(rw, "event: news\n\n")
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// socket opens a WebSocket at the second gateway, and tells the code and reason of
// its end.
func socket(t *testing.T, w *world, browser *gatewaytest.Browser) <-chan ending {
	t.Helper()
	origin, err := url.Parse(w.Origin)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", w.b.Listen())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /stream/ws HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nCookie: sessiongate=%s\r\nSec-Fetch-Site: same-origin\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		origin.Host, w.Origin, browser.Session())
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("WebSocket: %v, %v", res, err)
	}
	over := make(chan ending, 1)
	go func() {
		head := make([]byte, 2) // RFC 6455, section 5.2: a server's frame that is short has no more
		_, err := io.ReadFull(in, head)
		at := time.Now()
		body := make([]byte, head[1]&0x7f)
		if err == nil {
			_, err = io.ReadFull(in, body)
		}
		if err != nil || head[0] != 0x88 || len(body) < 2 { // a close frame, section 5.5.1
			over <- ending{at, fmt.Sprintf("frame %x, %v", head, err)}
			return
		}
		over <- ending{at, fmt.Sprint(frames.BigEndian.Uint16(body), " ", string(body[2:]))}
	}()
	return over
}

// events opens an event stream, and tells its last event.
func events(t *testing.T, w *world, browser *gatewaytest.Browser, path string) <-chan ending {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.Origin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Accept": {"text/event-stream"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "X-Csrf": {"1"}}
	client := *browser.Client()
	client.Timeout = 0
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, res.Status)
	}
	over := make(chan ending, 1)
	go func() {
		var last []string
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			switch line := lines.Text(); {
			case strings.HasPrefix(line, "event: "):
				last = []string{line}
			case strings.HasPrefix(line, "data: "):
				last = append(last, line)
			}
		}
		over <- ending{time.Now(), strings.Join(last, " ")}
	}()
	return over
}

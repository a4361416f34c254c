package replicas

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	bytes "encoding/binary"
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
	"sessiongate/internal/devprovider"
)

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
		io.WriteString(rw, ": hello\n\n")
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// ending is how a stream ended.
type ending struct {
	at  time.Time
	how string
}

// socket opens a WebSocket at a gateway, and tells the code and reason of its end.
func socket(t *testing.T, w *gatewaytest.World, b *gatewaytest.Browser, g *gatewaytest.Gateway) <-chan ending {
	t.Helper()
	conn, err := net.Dial("tcp", g.Listen())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	origin, err := url.Parse(w.Origin)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /stream/ws HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nCookie: sessiongate=%s\r\nSec-Fetch-Site: same-origin\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		origin.Host, w.Origin, b.Session())
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("WebSocket: %v, %v", res, err)
	}
	ended := make(chan ending, 1)
	go func() {
		head := make([]byte, 2)
		_, err := io.ReadFull(in, head)
		at := time.Now()
		body := make([]byte, head[1]&0x7f)
		if err == nil {
			_, err = io.ReadFull(in, body)
		}
		if err != nil || head[0] != 0x88 || len(body) < 2 { // a close frame, RFC 6455, section 5.5.1
			ended <- ending{at, fmt.Sprintf("frame %x, %v", head, err)}
			return
		}
		ended <- ending{at, fmt.Sprint(bytes.BigEndian.Uint16(body), " ", string(body[2:]))}
	}()
	return ended
}

// events opens an event stream at a gateway, and tells the last event's name.
func events(t *testing.T, w *gatewaytest.World, b *gatewaytest.Browser, g *gatewaytest.Gateway, path string) <-chan ending {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.Origin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Accept": {"text/event-stream"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "X-Csrf": {"1"}}
	client := *b.Via(g).Client()
	client.Timeout = 0
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, res.Status)
	}
	ended := make(chan ending, 1)
	go func() {
		last := ""
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				last = name
			}
		}
		ended <- ending{time.Now(), last}
	}()
	return ended
}

func streamWorld(t *testing.T) (w *gatewaytest.World, redis *gatewaytest.Redis) {
	t.Helper()
	redis = gatewaytest.NewRedis(t)
	return gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users: []devprovider.User{{Sub: "ada"}}, Gateways: replicas, Store: redis.Store(nil),
		Routes: []any{map[string]any{"path": "/stream/", "upstream": streaming(t)}},
	}), redis
}

// await waits for the end of a stream.
func await(t *testing.T, name string, ended <-chan ending, how string, since time.Time, least, most time.Duration) {
	t.Helper()
	select {
	case e := <-ended:
		t.Logf("%s ended %v after: %q", name, e.at.Sub(since).Round(time.Millisecond), e.how)
		if took := e.at.Sub(since); e.how != how || took < least || took > most {
			t.Errorf("%s ended by %q after %v, want %q after %v to %v", name, e.how, took, how, least, most)
		}
	case <-time.After(time.Until(since.Add(most + 5*time.Second))):
		t.Errorf("%s goes on %v after", name, time.Since(since))
	}
}

// A replica that hears nothing of its server keeps streams for half a minute
// longer than it answers requests.
func TestStreamsOfAReplicaThatHearsNothing(t *testing.T) {
	t.Parallel()
	w, redis := streamWorld(t)
	line := wired(t, w.Gateways[1], redis)
	w.Start()
	b := w.NewBrowser()
	if _, err := b.Login("ada"); err != nil {
		t.Fatal(err)
	}
	other := w.Gateways[1]
	ws, own := socket(t, w, b, other), events(t, w, b, other, "/bff/events")
	line.cut()
	const patience = liveness + 30*time.Second
	await(t, "the WebSocket", ws, "1013 store_unavailable", time.Now(), patience-liveness, patience+3*time.Second)
	select {
	case e := <-own:
		t.Errorf("the page's listener was told %q by silence", e.how)
	default:
	}
	line.mend()
	awaitCall(t, b.Via(other), http.StatusOK, "")
	if err := b.Via(w.Gateways[0]).Logout(); err != nil {
		t.Fatal(err)
	}
	await(t, "the page's listener", own, "session.ended", time.Now(), -busy, busy)
}

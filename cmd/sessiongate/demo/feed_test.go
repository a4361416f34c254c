package demo

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sessiongate/cmd/sessiongate/config"
)

func TestTheFeedEndsWithItsReaderAndWithTheDemo(t *testing.T) {
	for name, end := range map[string]func(*world, net.Conn){
		"a reader who says goodbye": func(_ *world, conn net.Conn) { conn.Write([]byte{0x88, 0x80, 0, 0, 0, 0}) }, // RFC 6455, 5.5.1
		"the end of the demo":       func(w *world, _ net.Conn) { w.close() },
	} {
		t.Run(name, func(t *testing.T) {
			w, err := newWorld("127.0.0.1:1", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			cfg, err := config.Parse(filepath.Join(w.dir, "config.yaml"), w.configuration())
			if err != nil {
				t.Fatal(err)
			}
			access, _ := login(t, cfg)
			conn, r := openFeed(t, cfg.Apps[0].Routes[0].Upstream.Host, access)
			var frame [2]byte
			if _, err := io.ReadFull(r, frame[:]); err != nil || frame[0] != 0x81 {
				t.Fatalf("first frame = %x, %v; want a text", frame, err)
			}
			end(w, conn)
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the feed goes on")
			}
		})
	}
}

func openFeed(t *testing.T, host, token string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	req, _ := http.NewRequest("GET", "http://"+host+"/api/feed", nil)
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Authorization": {"Bearer " + token},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %+v, %v; want 101", res, err)
	}
	return conn, r
}

package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client is a client of HTTP/2 that grants what windows it likes.
type h2Client struct {
	t    *testing.T
	conn *tls.Conn
	*http2.Framer
	head hpackBuffer
	next uint32
}

type hpackBuffer struct {
	strings.Builder
	*hpack.Encoder
}

// overHTTP2 serves the gateway over HTTP/2, and connects with windows of so many
// bytes for streams, and as much as can be for the connection.
func (w *world) overHTTP2(t *testing.T, window uint32) *h2Client {
	t.Helper()
	front := httptest.NewUnstartedServer(w.gateway)
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	conn, err := tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, http2.ClientPreface)
	c := &h2Client{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	c.head.Encoder = hpack.NewEncoder(&c.head.Builder)
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	c.WriteWindowUpdate(0, 1<<30)
	return c
}

func (c *h2Client) get(path, cookie string) (stream uint32) {
	c.head.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", testHost}, {":path", path}, {"cookie", cookie}, {"x-csrf", "1"}} {
		c.head.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	stream = c.next
	c.next += 2
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(c.head.String()), EndHeaders: true, EndStream: true}); err != nil {
		c.t.Fatal(err)
	}
	return stream
}

// follow reads frames until a stream is over, and tells how: "reset" or "end". It
// grants more with every tick.
func (c *h2Client) follow(stream uint32, more func(took int)) (end string, took int) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return err.Error(), took
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.WriteSettingsAck()
			}
		case *http2.PingFrame:
			c.WritePing(true, f.Data)
		case *http2.DataFrame:
			if f.StreamID != stream {
				continue
			}
			took += len(f.Data())
			if f.StreamEnded() {
				return "end", took
			}
			if more != nil {
				more(len(f.Data()))
			}
		case *http2.HeadersFrame:
			if f.StreamID == stream && f.StreamEnded() {
				return "end", took
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "reset", took
			}
		}
	}
}

// A stream of HTTP/2 whose client takes nothing ends, though its connection is well,
// and frees what it held.
func TestHT10AnHTTP2StreamThatNobodyReads(t *testing.T) {
	const timeout = 300 * time.Millisecond
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large.bin"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, path string
		window     uint32
	}{
		{"a download", "/api/large", 65535},
		{"a download of which nothing is taken at all", "/api/large", 0},
		{"a small answer", "/api/small", 0},
		{"an event stream", "/api/events", 100},
		{"a static file", "/files/large.bin", 1000},
		{"an answer of our own", "/api/%2e%2e/x", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			left := make(chan struct{}, 1)
			w := newWorld(t, func(w *world, a *App, c *Config) {
				c.Limits.WriteTimeout = timeout
				a.Routes = append(a.Routes, Route{Path: "/files/", StripPrefix: "/files", Auth: AuthNone, Static: &Static{Dir: dir}})
			})
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/small"):
					io.WriteString(rw, "small")
				case strings.HasSuffix(r.URL.Path, "/events"):
					rw.Header().Set("Content-Type", "text/event-stream")
					for r.Context().Err() == nil {
						fmt.Fprintf(rw, "data: %0100d\n\n", 1)
						http.NewResponseController(rw).Flush()
						time.Sleep(time.Millisecond)
					}
					left <- struct{}{}
				default:
					for r.Context().Err() == nil {
						rw.Write(make([]byte, 32<<10))
					}
					left <- struct{}{}
				}
			})
			c := w.overHTTP2(t, row.window)
			began := time.Now()
			end, took := c.follow(c.get(row.path, w.cookie), nil)
			if end != "reset" || took > int(row.window) || time.Since(began) < timeout {
				t.Errorf("%s after %v and %d bytes, want a reset after %v", end, time.Since(began), took, timeout)
			}
			if row.path == "/api/large" || row.path == "/api/events" {
				select {
				case <-left:
				case <-time.After(5 * time.Second):
					t.Error("the upstream still sends")
				}
			}
			// The connection goes on.
			c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535})
			if end, _ := c.follow(c.get("/nowhere", w.cookie), nil); end != "end" {
				t.Errorf("another stream of the connection: %s", end)
			}
		})
	}
}

// Who takes a little at a time gets all of it, however long it takes; and a stream
// on which nothing is sent may be idle.
func TestHT10AnHTTP2StreamThatIsReadSlowly(t *testing.T) {
	t.Parallel()
	const timeout, size = time.Second, 80_000
	w := newWorld(t, func(w *world, a *App, c *Config) { c.Limits.WriteTimeout = timeout })
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", strconv.Itoa(size)) // or every write is flushed on the way
		rw.Write(make([]byte, size/2))
		http.NewResponseController(rw).Flush()
		time.Sleep(6 * timeout) // longer than the client takes for what there is
		rw.Write(make([]byte, size/2))
	})
	c := w.overHTTP2(t, 1000)
	began := time.Now()
	stream := c.get("/api/large", w.cookie)
	var begin sync.Once
	over := make(chan struct{})
	end, took := c.follow(stream, func(int) {
		begin.Do(func() { // the settings are through: nobody else writes now
			go func() {
				tick := time.NewTicker(timeout / 40)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						c.WriteWindowUpdate(stream, 1000)
					case <-over:
						return
					}
				}
			}()
		})
	})
	close(over)
	if end != "end" || took != size || time.Since(began) < timeout*3/2 {
		t.Errorf("%s after %v and %d bytes, want all %d", end, time.Since(began), took, size)
	}
}

// What a session has open is bounded, and what has ended makes room.
func TestStreamsOfASessionAreBounded(t *testing.T) {
	const most = 3
	w := newWorld(t, func(w *world, a *App, c *Config) { c.Limits.Streams = most })
	up := w.sources()
	asked := func() int { return len(w.up.requests()) }
	var first io.Closer
	for i := range most {
		if i == 0 {
			browser, _ := w.socket(up.sockets, "/live/ws", w.cookie)
			first = browser
			continue
		}
		w.fetch("/live/sse", w.cookie, ": hello\n\n")
	}
	before := asked()
	for _, row := range []struct {
		name   string
		path   string
		header []string
		asks   int // the upstream
	}{
		{"a WebSocket", "/live/ws", handshake(w.cookie), 0},
		{"an EventSource", "/live/sse", []string{"Cookie: " + w.cookie, "X-CSRF: 1", "Accept: text/event-stream"}, 0},
		{"an event stream nobody said it would be", "/live/sse", []string{"Cookie: " + w.cookie, "X-CSRF: 1"}, 1},
	} {
		got := w.send("GET "+row.path, row.header...)
		if p := got.problem(t); got.StatusCode != 429 || p.Code != "too_many_requests" || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %+v, want 429 too_many_requests", row.name, got.StatusCode, p)
		}
		if n := asked() - before; n != row.asks {
			t.Errorf("%s: the upstream was asked %d times, want %d", row.name, n, row.asks)
		}
	}
	if got := w.send("GET /whole/small", "Cookie: "+w.cookie, "X-CSRF: 1"); got.StatusCode == 429 {
		t.Error("an ordinary request is refused, too")
	}
	other, _ := w.login(time.Minute)
	w.fetch("/live/sse", other, ": hello\n\n")
	first.Close()
	eventually(t, "a stream that ended makes room", func() bool { return w.session(w.cookie).Streams() < most })
	w.fetch("/live/sse", w.cookie, ": hello\n\n")
}

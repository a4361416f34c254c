package proxy

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Frames as the tests see them, written by hand.
var (
	logoutFrame   = []byte("\x88\x08\x11\x31logout") // 4401
	shutdownFrame = []byte("\x88\x02\x03\xe9")       // 1001
	thanks        = frame(0x88, true, "\x11\x31")    // a browser's answer
	farewell      = frame(0x88, false, "\x03\xe9")   // an upstream's answer
)

// peer is one end of a WebSocket.
type peer struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

func (p *peer) send(f ...[]byte) {
	p.t.Helper()
	for _, b := range f {
		if _, err := p.Write(b); err != nil {
			p.t.Errorf("sending: %v", err)
		}
	}
}

// want reads what must come, byte for byte.
func (p *peer) want(what string, f ...[]byte) {
	p.t.Helper()
	want := slices.Concat(f...)
	got := make([]byte, len(want))
	n, err := io.ReadFull(p.r, got)
	if !bytes.Equal(got[:n], want) || err != nil {
		p.t.Fatalf("%s: got %.60x (%d bytes), %v; want %.60x (%d bytes)", what, got[:n], n, err, want, len(want))
	}
}

// wantMaskedClose reads our close frame to an upstream.
func (p *peer) wantMaskedClose() {
	p.t.Helper()
	got := make([]byte, 8)
	n, err := io.ReadFull(p.r, got)
	if err != nil || got[0] != 0x88 || got[1] != 0x82 || got[6]^got[2] != 0x03 || got[7]^got[3] != 0xe9 {
		p.t.Fatalf("the close frame to the upstream: %x, %v; want 1001, masked", got[:n], err)
	}
}

// wantEnd reads until the end, and nothing comes before it.
func (p *peer) wantEnd(what string) {
	p.t.Helper()
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Errorf("%s: %d bytes %.40x, %v; want the end", what, len(rest), rest, err)
	}
}

// wantReset reads until the connection is broken off, and nothing comes before.
func (p *peer) wantReset(what string) {
	p.t.Helper()
	if rest, err := io.ReadAll(p.r); !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		p.t.Errorf("%s: %d bytes %.40x, %v; want a reset", what, len(rest), rest, err)
	}
}

// sockets has the upstream accept WebSockets, and hands its ends of them over.
func (w *world) sockets(more ...string) <-chan *peer {
	accepted := make(chan *peer, 300)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		w.t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n"+strings.Join(more, "")+"\r\n")
		accepted <- &peer{conn, buf.Reader, w.t}
	})
	return accepted
}

// socket opens a WebSocket.
func (w *world) socket(accepted <-chan *peer, path, cookie string, more ...string) (browser, upstream *peer) {
	w.t.Helper()
	browser = w.knock(path, cookie, more...)
	res, err := http.ReadResponse(browser.r, nil)
	if err != nil || res.StatusCode != 101 {
		w.t.Fatalf("%s: %v, %v", path, res, err)
	}
	return browser, <-accepted
}

// knock sends a handshake.
func (w *world) knock(path, cookie string, more ...string) *peer {
	w.t.Helper()
	c := w.dial()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, rawRequest("GET "+path, "", handshake(cookie, more...)))
	return &peer{c, bufio.NewReader(c), w.t}
}

func (w *world) open(kind string) float64 {
	return w.metric("sessiongate_streams_open", testOrigin, kind)
}

// stopwatch measures time less what the machine had no time for this process: the
// tests of many packages may share it.
type stopwatch struct {
	began   time.Time
	late    int64         // lateness at the beginning
	excused time.Duration // by excuse
}

var (
	lateness atomic.Int64 // in nanoseconds, of a goroutine that sleeps and wakes
	sleeper  sync.Once
)

func watch() *stopwatch {
	sleeper.Do(func() {
		go func() {
			const nap = 10 * time.Millisecond
			for {
				began := time.Now()
				time.Sleep(nap)
				lateness.Add(int64(time.Since(began) - nap))
			}
		}()
	})
	return &stopwatch{began: time.Now(), late: lateness.Load()}
}

// excuse does not count what f takes: the disk may be slow.
func (s *stopwatch) excuse(f func()) {
	began := time.Now()
	f()
	s.excused += time.Since(began)
}

// within checks that what is over now took not more than that.
func (s *stopwatch) within(t testing.TB, limit time.Duration, what string) {
	t.Helper()
	late := time.Duration(lateness.Load()-s.late) + s.excused
	if took := time.Since(s.began); took-late > limit {
		t.Errorf("%s took %v (and the machine was late by %v), want less than %v", what, took, late, limit)
	}
}

// TestPX21CloseFrameGoesBetweenFrames: the browser reads whole frames, then the
// close frame, then nothing. Each row is what the upstream had sent when the
// session ended, and what it sends afterwards.
func TestPX21CloseFrameGoesBetweenFrames(t *testing.T) {
	long := frame(0x82, false, strings.Repeat("0123456789", 20000))
	medium := frame(0x82, false, strings.Repeat("x", 300))
	for _, row := range []struct {
		name          string
		before, after []byte
		want          []byte // of after
	}{
		{"nothing sent yet", nil, medium, nil},
		{"between messages", medium, medium, nil},
		{"between the fragments of a message", frame(0x01, false, "half"), frame(0x80, false, "other half"), nil},
		{"in the first byte of a header", medium[:1], slices.Concat(medium[1:], medium), medium[1:]},
		{"in a 16-bit length", medium[:3], slices.Concat(medium[3:], medium), medium[3:]},
		{"in a 64-bit length", long[:7], slices.Concat(long[7:], medium), long[7:]},
		{"in a long payload", long[:100_000], slices.Concat(long[100_000:], medium), long[100_000:]},
		{"before the last byte", medium[:len(medium)-1], slices.Concat(medium[len(medium)-1:], medium), medium[len(medium)-1:]},
		{"in a fragment", frame(0x01, false, "half")[:4], slices.Concat(frame(0x01, false, "half")[4:], frame(0x80, false, "x")), frame(0x01, false, "half")[4:]},
		{"in a ping", frame(0x89, false, "ping")[:3], slices.Concat(frame(0x89, false, "ping")[3:], medium), frame(0x89, false, "ping")[3:]},
		{"in a pong between fragments", slices.Concat(frame(0x01, false, "half"), frame(0x8a, false, "pong")[:1]), slices.Concat(frame(0x8a, false, "pong")[1:], frame(0x80, false, "x")), frame(0x8a, false, "pong")[1:]},
		{"in the upstream's own close frame", frame(0x88, false, "\x03\xe8bye")[:2], frame(0x88, false, "\x03\xe8bye")[2:], frame(0x88, false, "\x03\xe8bye")[2:]},
		{"after the upstream's own close frame", frame(0x88, false, "\x03\xe8bye"), nil, nil},
		{"after the upstream's own close frame, which was empty", frame(0x88, false, ""), nil, nil},
		{"after an empty frame", frame(0x82, false, ""), medium, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
			upstream.send(row.before)
			browser.want("before the end", row.before)
			clock := watch()
			clock.excuse(func() { w.logout(w.cookie) })
			upstream.wantMaskedClose() // so the end is under way
			upstream.send(row.after)
			browser.want("the rest of the frame", row.want)
			if !strings.Contains(row.name, "close frame") { // which is the last then
				browser.want("the close frame", logoutFrame)
			}
			browser.send(thanks)
			if !strings.Contains(row.name, "own close frame") {
				upstream.send(farewell)
			}
			browser.wantEnd("the browser")
			upstream.wantEnd("the upstream")
			clock.within(t, 400*time.Millisecond, "the end, which both sides answered,")
			eventually(t, "the stream is not counted any more", func() bool { return w.open("websocket") == 0 })
		})
	}
}

// TestPX21UpstreamHearsNothingMore is the same the other way: what the browser
// had sent when the session ended, and sends afterwards.
func TestPX21UpstreamHearsNothingMore(t *testing.T) {
	long := frame(0x82, true, strings.Repeat("0123456789", 20000))
	medium := frame(0x82, true, strings.Repeat("x", 300))
	for _, row := range []struct {
		name          string
		before, after []byte
		want          []byte // of after
	}{
		{"nothing sent yet", nil, medium, nil},
		{"between messages", medium, bytes.Repeat(medium, 1000), nil},
		{"between the fragments of a message", frame(0x01, true, "half"), frame(0x80, true, "other half"), nil},
		{"in a mask", medium[:6], slices.Concat(medium[6:], medium), medium[6:]},
		{"in a 64-bit length", long[:7], slices.Concat(long[7:], medium), long[7:]},
		{"in a long payload", long[:100_000], slices.Concat(long[100_000:], bytes.Repeat(medium, 1000)), long[100_000:]},
		{"in a pong", frame(0x8a, true, "pong")[:7], slices.Concat(frame(0x8a, true, "pong")[7:], medium), frame(0x8a, true, "pong")[7:]},
		{"after the browser's own close frame", frame(0x88, true, "\x03\xe8"), nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
			browser.send(row.before)
			upstream.want("before the end", row.before)
			clock := watch()
			clock.excuse(func() { w.logout(w.cookie) })
			browser.want("the close frame", logoutFrame)
			if row.after != nil {
				browser.send(row.after, thanks)
			}
			upstream.want("the rest of the frame", row.want)
			if row.name != "after the browser's own close frame" {
				upstream.wantMaskedClose()
			}
			upstream.send(farewell)
			upstream.wantEnd("the upstream")
			browser.wantEnd("the browser")
			clock.within(t, 400*time.Millisecond, "the end, which both sides answered,")
		})
	}
}

// TestPX21StuckFrames: a frame that is not finished in half a second breaks its
// side off, as no close frame can follow it. The other side ends well.
func TestPX21StuckFrames(t *testing.T) {
	half := func(masked bool) []byte { return frame(0x82, masked, strings.Repeat("x", 300))[:200] }
	t.Run("of the upstream", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
		upstream.send(half(false))
		browser.want("half a frame", half(false))
		clock := watch()
		clock.excuse(func() { w.logout(w.cookie) })
		upstream.wantMaskedClose()
		clock.within(t, 300*time.Millisecond, "the upstream's end, which waits for nothing,")
		browser.wantReset("the browser")
		if took := time.Since(clock.began); took < 400*time.Millisecond {
			t.Errorf("the frame had %v to be finished, want 500 ms", took)
		}
		clock.within(t, time.Second, "the end")
		upstream.wantEnd("the upstream")
	})
	t.Run("of the browser", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
		browser.send(half(true))
		upstream.want("half a frame", half(true))
		clock := watch()
		clock.excuse(func() { w.logout(w.cookie) })
		browser.want("the close frame", logoutFrame)
		clock.within(t, 300*time.Millisecond, "the browser's end, which waits for nothing,")
		upstream.wantReset("the upstream")
		if took := time.Since(clock.began); took < 400*time.Millisecond {
			t.Errorf("the frame had %v to be finished, want 500 ms", took)
		}
		clock.within(t, time.Second, "the end")
		browser.wantEnd("the browser")
	})
	t.Run("that comes in drops is stuck, too", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
		upstream.send(frame(0x82, false, strings.Repeat("x", 1<<20))[:20])
		browser.want("the beginning of a frame", frame(0x82, false, strings.Repeat("x", 1<<20))[:20])
		clock := watch()
		clock.excuse(func() { w.logout(w.cookie) })
		drops := make(chan error)
		go func() {
			for {
				if _, err := upstream.Write([]byte("x")); err != nil {
					drops <- err
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		if _, err := io.Copy(io.Discard, browser.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the browser: %v, want a reset", err)
		}
		clock.within(t, time.Second, "the end")
		<-drops
	})
}

// flood writes frames, and returns when nobody takes them any more. It goes on to
// try.
func flood(p *peer, f []byte) {
	var taken atomic.Int64
	go func() {
		for {
			if _, err := p.Write(f); err != nil {
				return
			}
			taken.Add(1)
		}
	}()
	untilQuiet(&taken)
}

// untilQuiet waits until a number that has begun to grow does not any more.
func untilQuiet(n *atomic.Int64) {
	for quiet, last := 0, int64(0); quiet < 15; quiet++ {
		time.Sleep(20 * time.Millisecond)
		if now := n.Load(); now != last || now == 0 {
			quiet, last = 0, now
		}
	}
}

// TestPX21NobodyReads: a peer that takes nothing holds up neither its own end nor
// the other's.
func TestPX21NobodyReads(t *testing.T) {
	t.Run("the browser", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
		flood(upstream, frame(0x82, false, strings.Repeat("x", 100_000)))
		clock := watch()
		clock.excuse(func() { w.logout(w.cookie) })
		upstream.wantMaskedClose()
		eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
		clock.within(t, time.Second, "the end")
		if _, err := io.Copy(io.Discard, browser.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the browser: %v, want a reset", err)
		}
	})
	t.Run("the upstream", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
		flood(browser, frame(0x82, true, strings.Repeat("x", 100_000)))
		clock := watch()
		clock.excuse(func() { w.logout(w.cookie) })
		browser.want("the close frame", logoutFrame)
		eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
		clock.within(t, time.Second, "the end")
		if _, err := io.Copy(io.Discard, upstream.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the upstream: %v, want a reset", err)
		}
	})
}

// TestPX21NobodyAnswers: a close frame that is not answered is waited for half a
// second, and arrives all the same.
func TestPX21NobodyAnswers(t *testing.T) {
	w := newWorld(t)
	for _, silent := range []string{"the browser", "the upstream", "both"} {
		cookie, _ := w.login(time.Minute)
		browser, upstream := w.socket(w.sockets(), "/api/ws", cookie)
		clock := watch()
		clock.excuse(func() { w.logout(cookie) })
		browser.want("the close frame", logoutFrame)
		upstream.wantMaskedClose()
		switch silent {
		case "the browser":
			upstream.send(farewell)
		case "the upstream":
			browser.send(thanks)
		}
		eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
		if took := time.Since(clock.began); took < 400*time.Millisecond {
			t.Errorf("%s: an answer was waited for for %v, want 500 ms", silent, took)
		}
		clock.within(t, time.Second, "the end with "+silent+" silent")
		browser.wantEnd("the browser")
		upstream.wantEnd("the upstream")
	}
}

// TestPX21PeersThatJustGo: a connection that is closed is an answer, too.
func TestPX21PeersThatJustGo(t *testing.T) {
	w := newWorld(t)
	browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
	w.logout(w.cookie)
	browser.want("the close frame", logoutFrame)
	upstream.wantMaskedClose()
	clock := watch()
	browser.Close()
	upstream.Close()
	eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
	clock.within(t, 400*time.Millisecond, "the end")
}

// TestPX21EndsOnce: a shutdown while the session's end is under way changes
// nothing.
func TestPX21EndsOnce(t *testing.T) {
	streams, shutDown := context.WithCancel(t.Context())
	w := newWorld(t, func(_ *world, _ *App, c *Config) { c.Streams = streams })
	browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
	w.logout(w.cookie)
	browser.want("the close frame", logoutFrame)
	upstream.wantMaskedClose()
	shutDown()
	eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
	browser.wantEnd("the browser")
	upstream.wantEnd("the upstream")
}

// TestPX21BothSidesCloseAtOnce: nobody gets two close frames, whoever was first.
func TestPX21BothSidesCloseAtOnce(t *testing.T) {
	w := newWorld(t)
	accepted := w.sockets()
	var all sync.WaitGroup
	for i := range 90 {
		cookie, _ := w.login(time.Minute)
		browser, upstream := w.socket(accepted, "/api/ws", cookie)
		all.Go(func() { w.logout(cookie) })
		if i%3 != 1 {
			all.Go(func() { browser.Write(frame(0x88, true, "\x03\xe8")) })
		}
		if i%3 != 2 {
			all.Go(func() { upstream.Write(frame(0x88, false, "\x03\xe8")) })
		}
		for name, p := range map[string]*peer{"the browser": browser, "the upstream": upstream} {
			all.Go(func() {
				got, err := io.ReadAll(p.r)
				ends, closed := boundaries(got)
				if err != nil || len(ends) != 1 || closed != len(got) || len(got) == 0 {
					t.Errorf("%s read %x, %v; want one close frame and the end", name, got, err)
				}
				p.Close()
			})
		}
	}
	all.Wait()
	eventually(t, "all have ended", func() bool { return w.open("websocket") == 0 })
}

// TestPX21PermessageDeflate: compressed messages pass as they are, and a close
// frame, which is never compressed (RFC 7692, section 6.1), ends them.
func TestPX21PermessageDeflate(t *testing.T) {
	w := newWorld(t)
	const extension = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
	browser, upstream := w.socket(w.sockets(extension+"\r\n"), "/api/ws", w.cookie, extension)
	if got := w.up.last(t).Header.Get("Sec-Websocket-Extensions"); !strings.HasPrefix(got, "permessage-deflate") {
		t.Errorf("the upstream is offered %q", got)
	}
	const message = "hello hello hello hello"
	var b bytes.Buffer
	z := must(flate.NewWriter(&b, 9))
	io.WriteString(z, message)
	z.Flush()
	compressed := strings.TrimSuffix(b.String(), "\x00\x00\xff\xff") // RFC 7692, section 7.2.1
	first, second := frame(0x41, false, compressed[:5]), frame(0x80, false, compressed[5:])
	upstream.send(first, second)
	browser.want("a compressed message", first, second)
	back := frame(0xc1, true, compressed)
	browser.send(back)
	upstream.want("a compressed message", back)
	upstream.send(first)
	browser.want("half a compressed message", first)
	w.logout(w.cookie)
	browser.want("the close frame", logoutFrame)
	upstream.wantMaskedClose()
}

// TestEarlyFrames: frames that come with the handshake are not lost.
func TestEarlyFrames(t *testing.T) {
	w := newWorld(t)
	accepted := w.sockets()
	c := w.dial()
	early := bytes.Repeat(frame(0x81, true, "early"), 100)
	io.WriteString(c, rawRequest("GET /api/ws", string(early), handshake(w.cookie)))
	upstream := <-accepted
	upstream.want("early frames", early)
	c.Write(frame(0x81, true, "late"))
	upstream.want("a late frame", frame(0x81, true, "late"))
	browser := &peer{c, bufio.NewReader(c), t}
	if res, err := http.ReadResponse(browser.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	w.logout(w.cookie)
	browser.want("the close frame", logoutFrame)
	upstream.wantMaskedClose()
}

// TestPX21AfterHalfAnEnd: where one direction has ended already, the other ends
// with the session.
func TestPX21AfterHalfAnEnd(t *testing.T) {
	w := newWorld(t)
	browser, upstream := w.socket(w.sockets(), "/api/ws", w.cookie)
	upstream.Conn.(*net.TCPConn).CloseWrite()
	browser.wantEnd("the browser")
	browser.send(frame(0x81, true, "still here"))
	upstream.want("what the browser still sends", frame(0x81, true, "still here"))
	clock := watch()
	clock.excuse(func() { w.logout(w.cookie) })
	upstream.wantMaskedClose()
	upstream.wantEnd("the upstream")
	eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
	clock.within(t, time.Second, "the end")
}

// TestPX21NotAByteMore: while the session ends the browser sends all it can. What
// the upstream gets is whole frames and the close frame; then nothing.
func TestPX21NotAByteMore(t *testing.T) {
	w := newWorld(t)
	accepted := w.sockets()
	for range 4 {
		cookie, _ := w.login(time.Minute)
		browser, upstream := w.socket(accepted, "/api/ws", cookie)
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; ; i++ {
				if _, err := browser.Write(frame(0x81, true, fmt.Sprint("message ", i))); err != nil {
					return // nobody answers the close frame, so it is cut off
				}
			}
		})
		upstream.want("the first message", frame(0x81, true, "message 0"))
		w.logout(cookie)
		browser.want("the close frame", logoutFrame)
		all, _ := io.ReadAll(upstream.r)
		ends, closed := boundaries(all)
		if len(ends) == 0 || closed != len(all) {
			t.Fatalf("the upstream got %d bytes, the close frame ends at %d", len(all), closed)
		}
		var want []byte
		for i := range len(ends) - 1 {
			want = append(want, frame(0x81, true, fmt.Sprint("message ", i+1))...)
		}
		if !bytes.Equal(all[:len(all)-8], want) {
			t.Error("before the close frame the upstream got something else than the browser sent")
		}
		writer.Wait()
	}
}

// TestPX21OverTLS: the same where both sides speak TLS.
func TestPX21OverTLS(t *testing.T) {
	accepted := make(chan *peer, 2)
	up := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		accepted <- &peer{conn, buf.Reader, t}
	}))
	defer up.Close()
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		pool := up.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		a.Routes[0].Upstream, a.Routes[0].TLS.CA = must(url.Parse(up.URL)), pool
	})
	front := httptest.NewUnstartedServer(w.gateway)
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	front.StartTLS()
	defer front.Close()
	dial := func(cookie string) (browser, upstream *peer) {
		c := must(tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}))
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, rawRequest("GET /api/ws", "", handshake(cookie)))
		browser = &peer{c, bufio.NewReader(c), t}
		if res, err := http.ReadResponse(browser.r, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("%v, %v", res, err)
		}
		return browser, <-accepted
	}
	browser, upstream := dial(w.cookie)
	upstream.send(frame(0x81, false, "hello"))
	browser.want("a message", frame(0x81, false, "hello"))
	w.logout(w.cookie)
	browser.want("the close frame", logoutFrame)
	browser.send(thanks)
	browser.wantEnd("the browser")
	upstream.wantMaskedClose()
	upstream.send(farewell)
	upstream.wantEnd("the upstream")

	cookie, _ := w.login(time.Minute)
	browser, upstream = dial(cookie)
	flood(upstream, frame(0x82, false, strings.Repeat("x", 100_000)))
	clock := watch()
	clock.excuse(func() { w.logout(cookie) })
	eventually(t, "the stream has ended", func() bool { return w.open("websocket") == 0 })
	clock.within(t, time.Second, "the end")
	if _, err := io.Copy(io.Discard, browser.r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a browser that does not read: %v, want a reset", err)
	}
}

// TestPX21ShutdownThatAbortsRequests: a WebSocket is nothing that the server waits
// for, so at a shutdown the contexts of all requests end at once. Both sides get
// their close frames, the frames under way before them.
func TestPX21ShutdownThatAbortsRequests(t *testing.T) {
	for range 20 {
		streams, endStreams := context.WithCancel(t.Context())
		requests, abort := context.WithCancel(t.Context())
		w := newWorld(t, func(_ *world, _ *App, c *Config) { c.Streams = streams })
		front := httptest.NewUnstartedServer(w.gateway)
		front.Config.BaseContext = func(net.Listener) context.Context { return requests }
		front.Start()
		w.addr = front.Listener.Addr().String()
		browser, upstream := w.socket(w.sockets(), "/open/ws", "")
		half, other := frame(0x81, false, "hello")[:4], frame(0x81, false, "hello")[4:]
		upstream.send(half)
		browser.want("half a frame", half)
		endStreams()
		abort()
		upstream.wantMaskedClose()
		upstream.send(other, farewell)
		browser.want("the other half, and the close frame", other, shutdownFrame)
		browser.send(thanks)
		browser.wantEnd("the browser")
		upstream.wantEnd("the upstream")
		front.Close()
	}
}

// wire is a connection that keeps what is written.
type wire struct {
	net.Conn
	mu       sync.Mutex // guards what follows
	written  []byte
	deadline time.Time
	fails    bool
	closed   bool
}

func (c *wire) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails {
		return 0, io.ErrClosedPipe
	}
	c.written = append(c.written, p...)
	return len(p), nil
}

func (c *wire) SetWriteDeadline(t time.Time) error { c.deadline = t; return nil }
func (c *wire) Close() error                       { c.closed = true; return nil }

// TestHalf drives one direction through orders of events that real connections
// seldom come to.
func TestHalf(t *testing.T) {
	text, end := frame(0x81, false, "text"), []byte("last")
	sendersEnd := frame(0x88, false, "")
	for _, row := range []struct {
		name  string
		steps string // w: Write of a piece, b: begin, x: the tunnel ends, e: end, c: CloseWrite, f: writing fails from now on
		w     [][]byte
		want  []byte
	}{
		{"a session that lives", "bww", [][]byte{text[:3], text[3:]}, text},
		{"at once", "bwxe", [][]byte{text}, slices.Concat(text, end)},
		{"before the handshake's answer", "xeb", nil, end},
		{"before the handshake's answer, and the upstream speaks first", "xewb", [][]byte{text}, end},
		{"before the handshake's answer, in the middle of a frame", "wxebw", [][]byte{text[:3], text[3:]}, slices.Concat(text, end)},
		{"what to say comes after the frame that was under way", "bwxwe", [][]byte{text[:3], slices.Concat(text[3:], text)}, slices.Concat(text, end)},
		{"what to say comes in the middle of what is dropped", "bwxwe", [][]byte{text[:3], slices.Concat(text[3:], text[:3])}, slices.Concat(text, end)},
		{"a close frame that is dropped is not the last", "bxwe", [][]byte{sendersEnd}, end},
		{"a close frame that has passed is", "bwxe", [][]byte{sendersEnd}, sendersEnd},
		{"and nothing follows it", "bwxew", [][]byte{sendersEnd, text}, sendersEnd},
		{"also if something did before", "bwxew", [][]byte{slices.Concat(sendersEnd, text[:3]), text[3:]}, slices.Concat(sendersEnd, text[:3])},
		{"a direction that has ended", "bwcxe", [][]byte{text}, text},
		{"a receiver that went", "bwfxww", [][]byte{text[:3], text[3:], text}, text[:3]},
		{"a receiver that went between frames", "bwfxe", [][]byte{text}, text},
	} {
		c, tn := &wire{}, newTunnel(nil, t.Context())
		h := &tn.toBrowser
		h.connect(c)
		answered := make(chan struct{})
		close(answered)
		clock := watch()
		for _, step := range row.steps {
			switch step {
			case 'w':
				if n, err := h.Write(row.w[0]); n != len(row.w[0]) || err != nil {
					t.Errorf("%s: Write = %d, %v", row.name, n, err)
				}
				row.w = row.w[1:]
			case 'b':
				h.begin()
			case 'x':
				tn.ended.Store(true)
			case 'e':
				if strings.HasSuffix(row.steps, "e") {
					h.end(end, answered)
					continue
				}
				go h.end(end, answered)
				eventually(t, "the end is under way", func() bool {
					h.mu.Lock()
					defer h.mu.Unlock()
					return h.last != nil
				})
			case 'c':
				(&browserSide{Conn: c, t: tn}).CloseWrite()
			case 'f':
				c.fails = true
			}
		}
		if strings.HasSuffix(row.steps, "e") {
			clock.within(t, 400*time.Millisecond, row.name+": the end")
		}
		if c.fails {
			<-h.over // at once, not when the frame has been waited for
			if !h.broken {
				t.Errorf("%s: the connection counts as ended well", row.name)
			}
			c.fails = false
			h.Write(text)
		}
		c.mu.Lock()
		if !bytes.Equal(c.written, row.want) {
			t.Errorf("%s: sent %x, want %x", row.name, c.written, row.want)
		}
		c.mu.Unlock()
	}
}

// TestConnectionsOfTheEnd: who comes late is held to the end's deadline, and what
// is to be ended is not closed before.
func TestConnectionsOfTheEnd(t *testing.T) {
	for _, ended := range []bool{true, false} {
		c, over := &wire{}, atomic.Bool{}
		over.Store(ended)
		var h half
		h.init(&over)
		if h.connect(c); c.deadline.IsZero() == ended {
			t.Errorf("ended %v: the deadline of a connection that comes late: %v", ended, c.deadline)
		}
		shutdown, shutDown := context.WithCancel(t.Context())
		if ended {
			shutDown()
		}
		body := &closing{}
		upstreamSide{newTunnel(body, shutdown)}.Close()
		if body.closed == ended {
			t.Errorf("ended %v: the upstream is closed by ReverseProxy: %v", ended, body.closed)
		}
		shutDown()
	}
}

// TestTunnelOfNoConnection: an upstream's answer of unknown origin makes no
// tunnel, as there would be no way to end it.
func TestTunnelOfNoConnection(t *testing.T) {
	w := newWorld(t)
	for _, rt := range w.gateway.routes {
		rt.proxy.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 101, ProtoMajor: 1, ProtoMinor: 1, Request: r, Body: struct {
				io.Reader
				io.Writer
				io.Closer
			}{strings.NewReader("tunnelled"), io.Discard, io.NopCloser(nil)},
				Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}}, nil
		})
	}
	if got := w.send("GET /api/ws", handshake(w.cookie)...); got.StatusCode != 502 {
		t.Errorf("status %d, want 502", got.StatusCode)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

package proxy

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sessiongate/session"
)

// sources is an upstream of streams of all kinds, by the last segment of the path.
type sources struct {
	sockets <-chan *peer
	events  chan string   // the next event of some event stream
	more    chan struct{} // closed: downloads are finished
	gone    chan string   // which kinds ended
}

const part = "the first half, "

func (w *world) sources() *sources {
	s := &sources{sockets: w.sockets(), events: make(chan string), more: make(chan struct{}), gone: make(chan string, 300)}
	accept := w.up.handle
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/ws"):
			accept(rw, r)
		case strings.HasSuffix(r.URL.Path, "/sse"):
			rw.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(rw, ": hello\n\n")
			rw.(http.Flusher).Flush()
			for {
				select {
				case e := <-s.events:
					io.WriteString(rw, e)
					rw.(http.Flusher).Flush()
				case <-r.Context().Done():
					s.gone <- "sse"
					return
				}
			}
		case strings.HasSuffix(r.URL.Path, "/file"):
			io.WriteString(rw, part)
			rw.(http.Flusher).Flush()
			select {
			case <-s.more:
				io.WriteString(rw, "the rest")
			case <-r.Context().Done():
				s.gone <- "download"
			}
		default:
			io.WriteString(rw, "ok")
		}
	})
	return s
}

// fetch is an answer that goes on.
type fetch struct {
	*http.Response
	conn net.Conn
	r    *bufio.Reader // behind it
	body *bufio.Reader
}

// fetch asks for an answer that goes on, and reads its beginning.
func (w *world) fetch(path, cookie, beginning string) *fetch {
	w.t.Helper()
	c := w.dial()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, rawRequest("GET "+path, "", []string{"Cookie: " + cookie, "X-CSRF: 1"}))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		w.t.Fatalf("%s: %v, %v", path, res, err)
	}
	f := &fetch{res, c, r, bufio.NewReader(res.Body)}
	got := make([]byte, len(beginning))
	if _, err := io.ReadFull(f.body, got); err != nil || string(got) != beginning {
		w.t.Fatalf("%s begins with %q, %v; want %q", path, got, err, beginning)
	}
	return f
}

// wantEnd reads to the end, and nothing comes before it.
func (f *fetch) wantEnd(t testing.TB) {
	t.Helper()
	if rest, err := io.ReadAll(f.body); err != nil || len(rest) > 0 {
		t.Errorf("the event stream: %q, %v; want its end", rest, err)
	}
}

// wantCut reads until the answer breaks off.
func (f *fetch) wantCut(t testing.TB) {
	t.Helper()
	if n, err := io.Copy(io.Discard, f.body); err == nil {
		t.Errorf("the answer ended well, after %d bytes; want it broken off", n)
	}
}

// wantClosed reads the close frame with a reason, answers, and sees both sides
// closed.
func wantClosed(browser, upstream *peer, code uint16, reason string) {
	browser.t.Helper()
	payload := string(binary.BigEndian.AppendUint16(nil, code)) + reason
	browser.want("the close frame", frame(0x88, false, payload))
	upstream.wantMaskedClose()
	browser.send(thanks)
	upstream.send(farewell)
	browser.wantEnd("the browser")
	upstream.wantEnd("the upstream")
}

// TestPX21StreamsEndWithTheirSession: whatever ends a session ends all that it
// has open, within a second.
func TestPX21StreamsEndWithTheirSession(t *testing.T) {
	const idle, life = 1500 * time.Millisecond, 1700 * time.Millisecond
	sid := func(l *session.Login) { l.SID = "s1" }
	for _, row := range []struct {
		name       string
		reason     session.Reason
		due        time.Duration // from the last use on, if the clock does it
		idle, life time.Duration
		token      time.Duration // to the end of the access token
		login      func(*session.Login)
		end        func(t *testing.T, w *world, cookie string)
	}{
		{name: "logout", reason: session.Logout, end: func(_ *testing.T, w *world, cookie string) { w.logout(cookie) }},
		{name: "back-channel logout", reason: session.BackChannel, login: sid, end: func(t *testing.T, w *world, _ string) {
			if n, err := w.sessions.EndSID(t.Context(), "s1", session.RemoteLogout{Reason: session.BackChannel}); n != 1 || err != nil {
				t.Errorf("EndSID: %d, %v", n, err)
			}
		}},
		{name: "back-channel logout of the user", reason: session.BackChannel, end: func(t *testing.T, w *world, _ string) {
			if _, err := w.sessions.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.BackChannel}); err != nil {
				t.Errorf("EndSubject: %v", err)
			}
		}},
		{name: "front-channel logout", reason: session.FrontChannel, login: sid, end: func(t *testing.T, w *world, _ string) {
			if _, err := w.sessions.EndSID(t.Context(), "s1", session.RemoteLogout{Reason: session.FrontChannel}); err != nil {
				t.Errorf("EndSID: %v", err)
			}
		}},
		{name: "revoked by an operator", reason: session.Revoked, end: func(t *testing.T, w *world, _ string) {
			if _, err := w.manager.EndAll(t.Context(), testOrigin, "ada"); err != nil {
				t.Errorf("EndAll: %v", err)
			}
		}},
		{name: "revoked on another device", reason: session.Revoked, end: func(t *testing.T, w *world, _ string) {
			if _, err := w.sessions.EndOthers(t.Context(), w.session(w.cookie)); err != nil {
				t.Errorf("EndOthers: %v", err)
			}
		}},
		{name: "replaced by a login", reason: session.Replaced, end: func(_ *testing.T, w *world, cookie string) {
			key := w.session(cookie).Key()
			w.login(time.Minute, func(l *session.Login) { l.Former = []session.Key{key} })
		}},
		{name: "refresh rejected", reason: session.RefreshRejected, token: -time.Second, end: func(_ *testing.T, w *world, cookie string) {
			w.provider.failing(session.ErrRejected)
			w.send("GET /api/x", "Cookie: "+cookie, "X-CSRF: 1")
		}},
		{name: "token expired", reason: session.TokenExpired, token: -time.Second,
			login: func(l *session.Login) { l.Token.RefreshToken = "" },
			end:   func(_ *testing.T, w *world, cookie string) { w.send("GET /api/x", "Cookie: "+cookie, "X-CSRF: 1") }},
		{name: "idle timeout", reason: session.IdleTimeout, idle: idle, due: idle, end: func(*testing.T, *world, string) {}},
		{name: "lifetime", reason: session.Lifetime, life: life, due: life, end: func(*testing.T, *world, string) {}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			up := w.sources()
			clock := watch()
			w.manager.Reconfigure(w.sessions.Keys(), cmp.Or(row.idle, time.Hour), cmp.Or(row.life, time.Hour))
			if row.login == nil {
				row.login = func(*session.Login) {}
			}
			cookie, _ := w.login(cmp.Or(row.token, time.Minute), row.login)
			browser, upstream := w.socket(up.sockets, "/live/ws", cookie)
			events := w.fetch("/live/sse", cookie, ": hello\n\n")
			whole := w.fetch("/whole/file", cookie, part)
			if ws, sse, file := w.open("websocket"), w.open("sse"), w.open("download"); ws != 1 || sse != 1 || file != 1 {
				t.Errorf("streams_open: websocket %v, sse %v, download %v; want 1 each", ws, sse, file)
			}
			if row.due == 0 {
				clock = watch()
			}
			clock.excuse(func() { row.end(t, w, cookie) })
			wantClosed(browser, upstream, 4401, string(row.reason))
			events.wantEnd(t)
			whole.wantCut(t)
			for range 2 {
				<-up.gone
			}
			// The idle end is a twentieth late, by design.
			clock.within(t, row.due*21/20+time.Second, "the end")
			if took := time.Since(clock.began); took < row.due {
				t.Errorf("the end came after %v, want not before %v", took, row.due)
			}
			for _, path := range []string{"/live/sse", "/live/ws", "/whole/file"} {
				got := w.send("GET "+path, "Cookie: "+cookie, "X-CSRF: 1")
				if p := got.problem(t); got.StatusCode != 401 || p.Code != "session_ended" || p.Reason != row.reason {
					t.Errorf("coming again: status %d, %+v; want 401 with the reason", got.StatusCode, p)
				}
			}
			for _, kind := range []string{"websocket", "sse", "download"} {
				eventually(t, kind+" is not counted any more", func() bool { return w.open(kind) == 0 })
			}
			if n := w.metric("sessiongate_upstream_errors_total", testOrigin, "aborted", "/whole/"); n != 0 {
				t.Errorf("upstream_errors_total{aborted} = %v: the upstream did nothing wrong", n)
			}
		})
	}
}

// TestPX21Shutdown: it ends streams, not requests; and it alone ends those that
// belong to no session.
func TestPX21Shutdown(t *testing.T) {
	streams, shutDown := context.WithCancel(t.Context())
	w := newWorld(t, func(_ *world, _ *App, c *Config) { c.Streams = streams })
	up := w.sources()
	whole := w.fetch("/whole/file", w.cookie, part)
	type open struct {
		browser, upstream *peer
		events            *fetch
	}
	var all []open
	for _, row := range []struct{ path, cookie string }{
		{"/live", w.cookie}, {"/open", w.cookie}, {"/open", "x=y"}, {"/opt", "x=y"},
	} {
		browser, upstream := w.socket(up.sockets, row.path+"/ws", row.cookie)
		all = append(all, open{browser, upstream, w.fetch(row.path+"/sse", row.cookie, ": hello\n\n")})
	}
	other, _ := w.login(time.Minute)
	unbound, unboundUp := w.socket(up.sockets, "/open/ws", other)
	all = append(all, open{unbound, unboundUp, w.fetch("/open/sse", other, ": hello\n\n")})
	w.logout(other)
	time.Sleep(100 * time.Millisecond) // in which nothing may happen
	hello := frame(0x81, true, "still here")
	unbound.send(hello)
	unboundUp.want("a message on a route without sessions", hello)

	clock := watch()
	shutDown()
	for _, o := range all {
		wantClosed(o.browser, o.upstream, 1001, "")
		o.events.wantEnd(t)
	}
	clock.within(t, time.Second, "the end")
	close(up.more)
	if rest, err := io.ReadAll(whole.body); err != nil || string(rest) != "the rest" {
		t.Errorf("a download at the shutdown: %q, %v; want it whole", rest, err)
	}
	// What is opened now ends at once.
	late := w.knock("/live/ws", w.cookie)
	if res, err := http.ReadResponse(late.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	late.want("the close frame", shutdownFrame)
}

// TestNobodysDownload: where a session is optional and there is none, there is
// nothing to end with.
func TestNobodysDownload(t *testing.T) {
	w := newWorld(t)
	up := w.sources()
	f := w.fetch("/optwhole/file", "x=y", part)
	own := w.fetch("/optwhole/file", w.cookie, part)
	if n := w.open("download"); n != 1 {
		t.Errorf("streams_open{download} = %v, want 1", n)
	}
	w.logout(w.cookie)
	own.wantCut(t)
	close(up.more)
	if rest, err := io.ReadAll(f.body); err != nil || string(rest) != "the rest" {
		t.Errorf("%q, %v; want it whole", rest, err)
	}
}

// TestPX21Reload: streams go on with the gateway they began at, and end with
// their session all the same.
func TestPX21Reload(t *testing.T) {
	w := newWorld(t)
	up := w.sources()
	browser, upstream := w.socket(up.sockets, "/live/ws", w.cookie)
	events := w.fetch("/live/sse", w.cookie, ": hello\n\n")
	old := w.gateway
	w.metrics = prometheus.NewRegistry() // of a process that has begun anew, as far as this test goes
	w.start()
	w.manager.Reconfigure(w.sessions.Keys(), time.Hour, time.Hour)
	old.Close()
	upstream.send(frame(0x81, false, "still here"))
	browser.want("a message", frame(0x81, false, "still here"))
	up.events <- "data: still here\n\n"
	if line, err := events.body.ReadString('\n'); line != "data: still here\n" {
		t.Errorf("an event: %q, %v", line, err)
	}
	events.body.ReadString('\n')
	w.logout(w.cookie)
	wantClosed(browser, upstream, 4401, "logout")
	events.wantEnd(t)
}

// TestPX21LateAnswers: a session that ended while the upstream thought about its
// answer opens no stream, and where nobody knows whether it did, none opens.
func TestPX21LateAnswers(t *testing.T) {
	for _, row := range []struct {
		name, path string
		unknown    bool
		status     int
		code       string
	}{
		{"a WebSocket", "/live/ws", false, 401, "session_ended"},
		{"an event stream", "/live/sse", false, 401, "session_ended"},
		{"a download that is bound", "/whole/file", false, 401, "session_ended"},
		{"a short answer that is bound", "/whole/x", false, 401, "session_ended"},
		{"a WebSocket where a session is optional", "/opt/ws", false, 401, "session_ended"},
		{"an answer that is not bound", "/live/x", false, 200, ""},
		{"a WebSocket without sessions", "/open/ws", false, 101, ""},
		{"a WebSocket, nobody knows", "/live/ws", true, 503, "store_unavailable"},
		{"an event stream, nobody knows", "/live/sse", true, 503, "store_unavailable"},
		{"a download, nobody knows", "/whole/file", true, 503, "store_unavailable"},
		{"an answer that is not bound, nobody knows", "/live/x", true, 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			up := w.sources()
			asked, goOn := make(chan bool), make(chan bool)
			serve := w.up.handle
			w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
				asked <- true
				<-goOn
				serve(rw, r)
			})
			header := []string{"Cookie: " + w.cookie, "X-CSRF: 1"}
			if strings.HasSuffix(row.path, "/ws") {
				header = handshake(w.cookie)
			}
			c := w.dial()
			io.WriteString(c, rawRequest("GET "+row.path, "", header))
			<-asked
			if row.unknown {
				w.store.silence()
				w.manager.Reconfigure(w.sessions.Keys(), time.Hour, time.Hour) // forgets what is in memory
			} else {
				w.logout(w.cookie)
			}
			close(goOn)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != row.status {
				t.Fatalf("%v, %v; want status %d", res, err, row.status)
			}
			if row.code == "" {
				return
			}
			body, _ := io.ReadAll(res.Body)
			got := answered{res, string(body)}
			p := got.problem(t)
			if p.Code != row.code || row.status == 401 && p.Reason != session.Logout || res.Header.Get("Content-Type") != "application/problem+json" ||
				res.Header.Get("Sec-Websocket-Accept") != "" || (res.Header.Get("Retry-After") != "") != (row.status == 503) {
				t.Errorf("%+v, %v", p, res.Header)
			}
			switch {
			case strings.HasSuffix(row.path, "/ws"):
				upstream := <-up.sockets
				if rest, _ := io.ReadAll(upstream.r); len(rest) > 0 {
					t.Errorf("the upstream heard %x", rest)
				}
			case row.path != "/whole/x":
				<-up.gone
			}
			for _, kind := range []string{"websocket", "sse", "download"} {
				if n := w.open(kind); n != 0 {
					t.Errorf("streams_open{%s} = %v", kind, n)
				}
			}
		})
	}
}

// TestPX21OpenedWhileTheSessionEnds: however the two fall together, there is never
// a stream left of a session that is over.
func TestPX21OpenedWhileTheSessionEnds(t *testing.T) {
	w := newWorld(t)
	up := w.sources()
	serve := w.up.handle
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(rand.N(3 * time.Millisecond))
		serve(rw, r)
	})
	go func() { // upstreams that answer
		for u := range up.sockets {
			go func() { io.Copy(io.Discard, u.r); u.Close() }()
		}
	}()
	var mu sync.Mutex
	outcomes := map[string]int{}
	var all sync.WaitGroup
	for i := range 240 {
		cookie, _ := w.login(time.Minute)
		s := w.session(cookie)
		over := make(chan *stopwatch, 1)
		all.Go(func() {
			time.Sleep(rand.N(6 * time.Millisecond))
			w.sessions.Logout(context.Background(), s)
			over <- watch()
		})
		path := []string{"/live/ws", "/live/sse", "/whole/file"}[i%3]
		all.Go(func() {
			outcome := w.attempt(path, cookie)
			(<-over).within(t, time.Second, "the end of "+path)
			mu.Lock()
			defer mu.Unlock()
			outcomes[path+" "+outcome]++
		})
		if i%20 == 19 {
			all.Wait()
		}
	}
	all.Wait()
	want := map[string]bool{
		"/live/ws 401": true, "/live/ws 101 4401": true, "/live/sse 401": true, "/live/sse 200 ended": true,
		"/whole/file 401": true, "/whole/file 200 cut": true, "/whole/file cut": true,
	}
	for outcome, n := range outcomes {
		t.Logf("%s: %d", outcome, n)
		if !want[outcome] {
			t.Errorf("%d times %s", n, outcome)
		}
	}
	for _, kind := range []string{"websocket", "sse", "download"} {
		eventually(t, "no stream is left", func() bool { return w.open(kind) == 0 })
	}
}

// attempt opens a stream, and tells what became of it.
func (w *world) attempt(path, cookie string) string {
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	header := []string{"Cookie: " + cookie, "X-CSRF: 1"}
	if strings.HasSuffix(path, "/ws") {
		header = handshake(cookie)
	}
	io.WriteString(c, rawRequest("GET "+path, "", header))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil && strings.HasSuffix(path, "/file") {
		return "cut"
	}
	if err != nil {
		return err.Error()
	}
	switch res.StatusCode {
	case 101:
		got := make([]byte, len(logoutFrame))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != string(logoutFrame) {
			return fmt.Sprintf("101 %x %v", got, err)
		}
		c.Write(thanks)
		if _, err := r.ReadByte(); err != io.EOF {
			return fmt.Sprintf("101 4401 %v", err)
		}
		return "101 4401"
	case 200:
		_, err := io.ReadAll(res.Body)
		if err == nil {
			return "200 ended"
		}
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
			return "200 open"
		}
		return "200 cut"
	}
	return fmt.Sprint(res.StatusCode)
}

// TestPX21TwoHundredAtOnce: all streams of a session end within a second, and
// nothing of them stays behind.
func TestPX21TwoHundredAtOnce(t *testing.T) {
	w := newWorld(t)
	up := w.sources()
	warm, _ := w.login(time.Minute)
	browser, upstream := w.socket(up.sockets, "/live/ws", warm)
	w.logout(warm)
	wantClosed(browser, upstream, 4401, "logout")
	eventually(t, "the first stream has ended", func() bool { return w.open("websocket") == 0 })
	watch() // has a goroutine, once
	before := runtime.NumGoroutine()

	const n = 100
	var browsers, upstreams [n]*peer
	var events [n]*fetch
	for i := range n {
		browsers[i], upstreams[i] = w.socket(up.sockets, "/live/ws", w.cookie)
		events[i] = w.fetch("/live/sse", w.cookie, ": hello\n\n")
	}
	if ws, sse := w.open("websocket"), w.open("sse"); ws != n || sse != n {
		t.Errorf("streams_open: websocket %v, sse %v; want %d each", ws, sse, n)
	}
	clock := watch()
	clock.excuse(func() { w.logout(w.cookie) })
	for i := range n {
		browsers[i].want("the close frame", logoutFrame)
		upstreams[i].wantMaskedClose()
		browsers[i].send(thanks)
		upstreams[i].send(farewell)
	}
	for i := range n {
		browsers[i].wantEnd("the browser")
		upstreams[i].wantEnd("the upstream")
		events[i].wantEnd(t)
	}
	clock.within(t, time.Second, "the end of 200 streams")
	t.Logf("200 streams ended in %v", time.Since(clock.began))
	for i := range n {
		browsers[i].Close()
		upstreams[i].Close()
		events[i].conn.Close()
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// TestPX21BrowserThatDoesNotRead: it holds up neither an event stream's end nor a
// download's.
func TestPX21BrowserThatDoesNotRead(t *testing.T) {
	for _, path := range []string{"/live/sse", "/whole/file"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stuck := floodBody(w)
			cookie, _ := w.login(time.Minute)
			f := w.fetch(path, cookie, "")
			stuck()
			clock := watch()
			clock.excuse(func() { w.logout(cookie) })
			eventually(t, "the stream has ended", func() bool { return w.open("sse") == 0 && w.open("download") == 0 })
			clock.within(t, time.Second, "the end")
			f.wantCut(t)
		})
	}
}

// floodBody has the upstream send without an end, and returns what waits until
// nobody takes any more of it.
func floodBody(w *world) (stuck func()) {
	var sent atomic.Int64
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/sse") {
			rw.Header().Set("Content-Type", "text/event-stream")
		}
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, ":"+strings.Repeat("x", 32<<10)+"\n"); err != nil {
				return
			}
			sent.Add(1)
		}
	})
	return func() { untilQuiet(&sent) }
}

// TestPX21ConnectionIsUsedAgain: the end of an event stream leaves no deadline to
// the connection's next request.
func TestPX21ConnectionIsUsedAgain(t *testing.T) {
	w := newWorld(t)
	w.sources()
	cookie, _ := w.login(time.Minute)
	f := w.fetch("/live/sse", cookie, ": hello\n\n")
	w.logout(cookie)
	f.wantEnd(t)
	time.Sleep(streamGrace + 100*time.Millisecond) // past the deadline that there was
	io.WriteString(f.conn, rawRequest("GET /api/x", "", w.withSession()))
	res, err := http.ReadResponse(f.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); res.StatusCode != 200 || string(body) != "ok" || err != nil {
		t.Errorf("the next request: status %d %q, %v", res.StatusCode, body, err)
	}
}

// deadlines is a response writer that notes that its connection was given one.
type deadlines struct {
	nowhere
	set bool
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.set = true; return nil }

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// TestEndAfterTheAnswer: a session that ends after an answer was finished does
// nothing to it, as its connection may be another request's.
func TestEndAfterTheAnswer(t *testing.T) {
	w := newWorld(t)
	for _, events := range []bool{true, false} {
		for _, over := range []bool{true, false} {
			d, c := &deadlines{}, &closing{Reader: strings.NewReader("more")}
			r := httptest.NewRequest("GET", "/", nil)
			x := w.gateway.begin(d, r)
			b := &body{ReadCloser: c, x: x, stop: func() { c.Close() }, events: events}
			if x.body = b; over {
				x.finish(r)
			}
			b.end(session.Logout)
			if d.set == over || c.closed == over {
				t.Errorf("events %v, over %v: deadline set %v, body closed %v", events, over, d.set, c.closed)
			}
			n, err := b.Read(make([]byte, 9))
			want := map[[2]bool]error{{true, true}: nil, {false, true}: nil, {true, false}: io.EOF, {false, false}: errCut}[[2]bool{events, over}]
			if err != want || (n > 0) != over {
				t.Errorf("events %v, over %v: Read = %d, %v; want %v", events, over, n, err, want)
			}
		}
	}
}

// TestPX21OverHTTP2: event streams end and downloads are broken off there, too,
// and streams of other sessions on the same connection go on.
func TestPX21OverHTTP2(t *testing.T) {
	w := newWorld(t)
	up := w.sources()
	front := httptest.NewUnstartedServer(w.gateway)
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	get := func(path, cookie, beginning string) io.Reader {
		r := must(http.NewRequestWithContext(t.Context(), "GET", front.URL+path, nil))
		r.Host = testHost
		r.Header.Set("Cookie", cookie)
		r.Header.Set("X-CSRF", "1")
		res, err := front.Client().Do(r)
		if err != nil || res.StatusCode != 200 || res.ProtoMajor != 2 {
			t.Fatalf("%s: %v, %v", path, res, err)
		}
		t.Cleanup(func() { res.Body.Close() })
		got := make([]byte, len(beginning))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != beginning {
			t.Fatalf("%s begins with %q, %v", path, got, err)
		}
		return res.Body
	}
	cookie, _ := w.login(time.Minute)
	events, whole, other := get("/live/sse", cookie, ": hello\n\n"), get("/whole/file", cookie, part), get("/live/sse", w.cookie, ": hello\n\n")
	w.logout(cookie)
	if rest, err := io.ReadAll(events); len(rest) > 0 || err != nil {
		t.Errorf("the event stream: %q, %v; want its end", rest, err)
	}
	if rest, err := io.ReadAll(whole); err == nil {
		t.Errorf("the download: %q; want it broken off", rest)
	}
	time.Sleep(streamGrace + 100*time.Millisecond)
	up.events <- "data: still here\n\n"
	got := make([]byte, 18)
	if _, err := io.ReadFull(other, got); err != nil || string(got) != "data: still here\n\n" {
		t.Errorf("another session's stream: %q, %v", got, err)
	}
	stuck := floodBody(w)
	cookie, _ = w.login(time.Minute)
	for _, path := range []string{"/live/sse", "/whole/file"} {
		get(path, cookie, "")
	}
	stuck()
	clock := watch()
	clock.excuse(func() { w.logout(cookie) })
	eventually(t, "streams that nobody reads have ended", func() bool { return w.open("sse") == 1 && w.open("download") == 0 })
	clock.within(t, time.Second, "the end")
}

// TestStreamKeepsAlive: an open stream is use where the route says so. Elsewhere
// it is none, whatever comes by it.
func TestStreamKeepsAlive(t *testing.T) {
	const idle = 1200 * time.Millisecond
	for _, row := range []struct {
		name, path string
		kept       bool
	}{
		{"a WebSocket", "/live/ws", false}, {"an event stream", "/live/sse", false}, {"a download", "/whole/file", false},
		{"a WebSocket that keeps it", "/awake/ws", true}, {"an event stream that keeps it", "/awake/sse", true},
		{"a WebSocket that kept it and was closed", "/awake/ws", false}, {"an event stream that kept it and was closed", "/awake/sse", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			up := w.sources()
			w.manager.Reconfigure(w.sessions.Keys(), idle, time.Hour)
			cookie, _ := w.login(time.Minute)
			var busy func()
			switch {
			case strings.HasSuffix(row.path, "/ws"):
				browser, upstream := w.socket(up.sockets, row.path, cookie)
				if strings.Contains(row.name, "closed") {
					browser.Close()
				}
				busy = func() {
					browser.Write(frame(0x81, true, "hello"))
					upstream.Write(frame(0x81, false, "hello"))
				}
			case strings.HasSuffix(row.path, "/sse"):
				f := w.fetch(row.path, cookie, ": hello\n\n")
				if strings.Contains(row.name, "closed") {
					f.conn.Close()
				}
				busy = func() {
					select {
					case up.events <- "data: hello\n\n":
					case <-time.After(time.Millisecond):
					}
				}
			default:
				w.fetch(row.path, cookie, part)
				busy = func() {}
			}
			for began := time.Now(); time.Since(began) < 2*idle; time.Sleep(idle / 12) {
				busy()
			}
			got := w.send("GET /api/x", "Cookie: "+cookie, "X-CSRF: 1")
			if row.kept {
				if got.StatusCode != 200 {
					t.Errorf("status %d %s, want 200", got.StatusCode, got.body)
				}
				return
			}
			if p := got.problem(t); got.StatusCode != 401 || p.Reason != session.IdleTimeout {
				t.Errorf("status %d, %+v; want 401 idle_timeout", got.StatusCode, p)
			}
		})
	}
}

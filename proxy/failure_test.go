package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// TestHT15UpstreamFailures: a generic answer, and the right one (HT-15).
func TestHT15UpstreamFailures(t *testing.T) {
	closed := must(net.Listen("tcp", "127.0.0.1:0"))
	closed.Close()
	broken := rawUpstream(t, "nonsense\r\n\r\n")
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		a.Routes = append(a.Routes,
			Route{Path: "/closed/", Upstream: must(url.Parse("http://" + closed.Addr().String())), Auth: AuthNone, Kind: KindPage},
			Route{Path: "/broken/", Upstream: must(url.Parse("http://" + broken)), Auth: AuthNone},
			Route{Path: "/slow/", Upstream: must(url.Parse(w.up.URL)), Auth: AuthNone, Timeout: 50 * time.Millisecond})
	})
	release := make(chan bool)
	w.up.answer(func(http.ResponseWriter, *http.Request) { <-release })
	for _, row := range []struct {
		path   string
		status int
		code   string
		kind   string
	}{
		{"/closed/", 502, "upstream_unreachable", "unreachable"},
		{"/broken/", 502, "upstream_unreachable", "unreachable"},
		{"/slow/", 504, "upstream_timeout", "timeout"},
	} {
		got := w.send("GET " + row.path)
		if p := got.problem(t); got.StatusCode != row.status || p.Code != row.code || got.Header.Get("X-Sessiongate") != "1" {
			t.Errorf("%s: status %d %+v, want %d %s", row.path, got.StatusCode, p, row.status, row.code)
		}
		if strings.Contains(got.body, "127.0.0.1") || strings.Contains(got.body, "dial") {
			t.Errorf("%s: the cause is shown: %s", row.path, got.body)
		}
		if n := w.metric("sessiongate_upstream_errors_total", testOrigin, row.kind, row.path); n != 1 {
			t.Errorf("upstream_errors_total{%s, %s} = %v, want 1", row.kind, row.path, n)
		}
	}
	close(release)
	if got := w.send("GET /closed/", navigateOwn...); got.StatusCode != 502 || !strings.Contains(got.body, "<h1>The application cannot be reached</h1>") {
		t.Errorf("a navigation: status %d %s", got.StatusCode, got.body)
	}
	if !strings.Contains(w.logs.String(), `"event":"upstream_failed"`) {
		t.Error("the log says nothing of upstream_failed")
	}
}

// rawUpstream answers every connection with fixed bytes, after the request.
func rawUpstream(t testing.TB, answer string) (addr string) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, answer)
			}()
		}
	}()
	return l.Addr().String()
}

// TestHT13NoContentTypeIsGuessed: an answer without one stays without; net/http would
// make a page of somebody's upload (HT-13).
func TestHT13NoContentTypeIsGuessed(t *testing.T) {
	const upload = "<!doctype html><script>"
	untyped := rawUpstream(t, "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n"+upload)
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = append(a.Routes,
			Route{Path: "/untyped/", Upstream: must(url.Parse("http://" + untyped)), Auth: AuthNone},
			Route{Path: "/typed/", Upstream: must(url.Parse("http://" + untyped)), Auth: AuthNone,
				ResponseHeaders: Headers{Set: map[string]string{"Content-Type": "text/plain"}}})
	})
	for path, want := range map[string]string{"/untyped/x": "", "/typed/x": "text/plain"} {
		if got := w.send("GET " + path); got.body != upload || got.Header.Get("Content-Type") != want {
			t.Errorf("%s: Content-Type %q, want %q; body %q", path, got.Header.Get("Content-Type"), want, got.body)
		}
	}
}

// TestHT15TruncatedAnswer: half an answer is not made whole (HT-15).
func TestHT15TruncatedAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"a length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		addr := rawUpstream(t, answer)
		w := newWorld(t, func(_ *world, a *App, _ *Config) { a.Routes[5].Upstream = must(url.Parse("http://" + addr)) })
		c := w.dial()
		io.WriteString(c, rawRequest("GET /open/x", "", nil))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			_, err = io.ReadAll(res.Body)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the client reads to %v, want %v", name, err, io.ErrUnexpectedEOF)
		}
		eventually(t, "the abort is counted", func() bool {
			return w.metric("sessiongate_upstream_errors_total", testOrigin, "aborted", "/open/") == 1
		})
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestClientGoesAway: the upstream hears of it, and nobody is answered.
func TestClientGoesAway(t *testing.T) {
	w := newWorld(t)
	began, gone := make(chan bool), make(chan bool)
	w.up.answer(func(_ http.ResponseWriter, r *http.Request) {
		began <- true
		<-r.Context().Done()
		gone <- true
	})
	c := w.dial()
	io.WriteString(c, rawRequest("GET /api/x", "", w.withSession()))
	<-began
	c.Close()
	<-gone
	eventually(t, "it is counted", func() bool {
		return w.metric("sessiongate_requests_total", testOrigin, "GET", "/api/", "499") == 1 &&
			w.metric("sessiongate_upstream_errors_total", testOrigin, "aborted", "/api/") == 1
	})
	if n := w.metric("sessiongate_upstream_errors_total", testOrigin, "unreachable", "/api/"); n != 0 {
		t.Errorf("%v upstream errors are blamed on the upstream", n)
	}
}

// TestBlame: whose fault it is that there is no answer.
func TestBlame(t *testing.T) {
	w := newWorld(t)
	rt := w.gateway.routes[0]
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	here := context.Background()
	for _, row := range []struct {
		name string
		ctx  context.Context
		err  error
		code string // "": nobody is answered
	}{
		{"the browser sends too slowly", here, &bodyError{os.ErrDeadlineExceeded}, "request_timeout"},
		{"the browser breaks off", here, &bodyError{io.ErrUnexpectedEOF}, ""},
		{"the browser sends too much", here, errBodyTooLarge, "body_too_large"},
		{"the browser went away", gone, errors.New("anything"), ""},
		{"the upstream is slow", here, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "upstream_timeout"},
		{"the upstream breaks off", here, io.ErrUnexpectedEOF, "upstream_unreachable"},
	} {
		x := &exchange{Context: row.ctx, gateway: w.gateway, app: rt.app, route: rt, meters: rt.meters}
		err := x.classify(fmt.Errorf("wrapped: %w", row.err))
		if answered := !errors.Is(err, errGone); answered != (row.code != "") || answered && codeOf(err) != row.code {
			t.Errorf("%s: %v, want code %q", row.name, err, row.code)
		}
	}
}

// net/http ends the context of a request whose body came too late before whoever
// reads the body is told. The answer is 408 all the same.
func TestAContextThatEndsBeforeItsBodyIsLate(t *testing.T) {
	const patience = 20 * time.Millisecond
	for name, test := range map[string]struct {
		after time.Duration // begin of the request
		want  int           // 0: nobody is answered
	}{
		"when the time is over": {2 * patience, http.StatusRequestTimeout},
		"before":                {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w, _, _ := newCallWorld(t, func(_ *world, _ *App, c *Config) { c.Limits.BodyTimeout = patience })
			ctx, cancel := context.WithCancel(t.Context())
			told := make(chan struct{})
			r := httptest.NewRequestWithContext(ctx, "POST", testOrigin+"/orders/x", readerFunc(func([]byte) (int, error) {
				time.Sleep(test.after)
				cancel()
				<-told
				return 0, os.ErrDeadlineExceeded
			}))
			r.Header = http.Header{"Cookie": {w.cookie}, "X-Csrf": {"1"}}
			defer close(told)
			answer := httptest.NewRecorder()
			func() {
				defer func() {
					if aborted := recover() == http.ErrAbortHandler; aborted != (test.want == 0) {
						t.Errorf("the answer was broken off: %v", aborted)
					}
				}()
				w.gateway.ServeHTTP(answer, r)
			}()
			if test.want != 0 && answer.Code != test.want {
				t.Errorf("status %d, want %d", answer.Code, test.want)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// through asks for path over HTTP/1.1 or HTTP/2.
func (w *world) through(h2 bool, path string) (res *http.Response, body string, err error) {
	client := http.DefaultClient
	if h2 {
		client = h2cClient(w.t)
	}
	r := must(http.NewRequest("GET", w.h2cListener().URL+path, nil))
	r.Host = testHost
	if res, err = client.Do(r); err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

// TestFramingOfAnswers: what an upstream says badly is refused or made good, and
// what it did not say whole never looks whole to a browser (HT-14, HT-15).
func TestFramingOfAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, row := range []struct {
		name, answer string
		status       int    // 0: broken off
		body         string // that is whole
	}{
		{"an ordinary answer", ok + "Content-Length: 3\r\n\r\nabc", 200, "abc"},
		{"an answer that ends with its connection", ok + "Connection: close\r\n\r\nabc", 200, "abc"},
		{"HT-15 fewer bytes than it says", ok + "Content-Length: 4\r\n\r\nabc", 0, ""},
		{"HT-15 no last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0, ""},
		{"HT-15 half a chunk", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nabc", 0, ""},
		{"HT-15 a chunk that is none", ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n", 0, ""},
		{"HT-15 half a header", ok + "Content-Length: 3\r\n", 502, ""},
		{"HT-06 two lengths", ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 502, ""},
		{"HT-06 a list of lengths", ok + "Content-Length: 3, 4\r\n\r\nabc", 502, ""},
		{"HT-06 a length with a sign", ok + "Content-Length: +3\r\n\r\nabc", 502, ""},
		{"HT-06 an unknown coding", ok + "Transfer-Encoding: xchunked\r\n\r\nabc", 502, ""},
		{"HT-05 chunks and a length", ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, "abc"},
		{"HT-07 a space before the colon", ok + "Set-Cookie : __Host-Http-session=evil\r\nContent-Length: 3\r\n\r\nabc", 200, "abc"},
		{"HT-07 a folded line", ok + "X-A: b\r\n Set-Cookie: __Host-Http-session=evil\r\nContent-Length: 3\r\n\r\nabc", 200, "abc"},
		{"HT-07 a bare CR in a value", ok + "X-A: b\rSet-Cookie: __Host-Http-session=evil\r\nContent-Length: 3\r\n\r\nabc", 502, ""},
		{"HT-07 NUL in a value", ok + "X-A: b\x00c\r\nContent-Length: 3\r\n\r\nabc", 502, ""},
		{"HT-14 101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nabc", 502, ""},
		{"HT-14 100 unasked", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 3\r\n\r\nabc", 200, "abc"},
		{"HT-14 204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, ""},
		{"HT-14 304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", 304, ""},
		{"HT-14 more than it says", ok + "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, "abc"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			up := newWireUpstream(t, func(c net.Conn, _ string) bool {
				io.WriteString(c, row.answer)
				return false
			})
			w := newWorld(t, func(_ *world, a *App, c *Config) {
				a.Routes = []Route{{Path: "/open/", Upstream: up.url(), Auth: AuthNone}}
				c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			})
			for _, h2 := range []bool{false, true} {
				res, body, err := w.through(h2, "/open/x")
				if row.status == 0 {
					if err == nil {
						t.Errorf("over HTTP/2 %v: %d %q came whole", h2, res.StatusCode, body)
					}
					continue
				}
				if row.status == 304 && h2 && errors.Is(err, io.ErrUnexpectedEOF) {
					err = nil // net/http's client wants the bytes of which a 304 tells (RFC 9113, section 8.1.1)
				}
				if err != nil || res.StatusCode != row.status || row.status != 502 && body != row.body {
					t.Errorf("over HTTP/2 %v: %v %q, %v; want %d %q", h2, res, body, err, row.status, row.body)
					continue
				}
				if res.Header["Set-Cookie"] != nil {
					t.Errorf("a cookie got through: %v", res.Header)
				}
				if v := res.Header.Get("X-A"); strings.ContainsAny(v, "\r\n\x00") {
					t.Errorf("X-A: %q", v)
				}
			}
		})
	}
}

// An HTTP/2 upstream that breaks off is no less an upstream that breaks off.
func TestHT15AnHTTP2UpstreamBreaksOff(t *testing.T) {
	up := newH2CUpstream(t)
	w := newWorld(t, func(_ *world, a *App, c *Config) {
		a.Routes = []Route{{Path: "/open/", Upstream: up.h2c(), Auth: AuthNone}}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	up.answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/open/short" {
			rw.Header().Set("Content-Length", "4")
		}
		if r.URL.Path != "/open/header" {
			io.WriteString(rw, "abc")
			http.NewResponseController(rw).Flush()
		}
		panic(http.ErrAbortHandler) // RST_STREAM
	})
	for _, h2 := range []bool{false, true} {
		for _, path := range []string{"/open/x", "/open/short"} {
			if res, body, err := w.through(h2, path); err == nil {
				t.Errorf("%s over HTTP/2 %v: %d %q came whole", path, h2, res.StatusCode, body)
			} else if h2 && !errors.As(err, new(http2.StreamError)) && !strings.Contains(err.Error(), "INTERNAL_ERROR") {
				t.Errorf("%s over HTTP/2: %v, want a reset", path, err)
			}
		}
		if res, _, err := w.through(h2, "/open/header"); err != nil || res.StatusCode != 502 {
			t.Errorf("before its header: %v, %v; want 502", res, err)
		}
	}
}

// A body in an answer to HEAD is the beginning of somebody else's answer, if the
// connection is used again: so it is not (RFC 9112, section 6.3).
func TestHT14AnAnswerToHEADWithABody(t *testing.T) {
	up := newWireUpstream(t, func(c net.Conn, m string) bool {
		if strings.HasPrefix(m, "HEAD ") {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			return true
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		return true
	})
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{{Path: "/open/", Upstream: up.url(), Auth: AuthNone}}
	})
	for range 20 {
		if got := w.send("HEAD /open/x"); got.StatusCode != 200 || got.Header.Get("Content-Length") != "42" || got.body != "" {
			t.Errorf("HEAD: %v", got)
		}
		if got := w.send("GET /open/x"); got.body != "ok" {
			t.Fatalf("GET: %d %q", got.StatusCode, got.body)
		}
	}
	for _, m := range up.messages(false) {
		if closes := strings.Contains(m, "\r\nConnection: close\r\n"); closes != strings.HasPrefix(m, "HEAD ") {
			t.Errorf("the upstream saw %q", m)
		}
	}
}

// A browser that asks whether to send its body is told what the upstream says, and
// sends nothing in vain (HT-14; RFC 9110, section 10.1.1).
func TestHT14Expect(t *testing.T) {
	for _, status := range []string{"417 Expectation Failed", "401 Unauthorized"} {
		up := newWireUpstream(t, nil)
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		t.Cleanup(func() { l.Close() })
		heads := make(chan string, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				r := bufio.NewReader(c)
				var head strings.Builder
				for {
					line, err := r.ReadString('\n')
					head.WriteString(line)
					if err != nil || line == "\r\n" {
						break
					}
				}
				io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
				rest, _ := io.ReadAll(r)
				heads <- head.String() + string(rest)
				c.Close()
			}
		}()
		w := newWorld(t, func(_ *world, a *App, _ *Config) {
			a.Routes = []Route{{Path: "/open/", Upstream: must(url.Parse("http://" + l.Addr().String())), Auth: AuthNone}, {Path: "/", Upstream: up.url(), Auth: AuthNone}}
		})
		raw := rawRequest("PUT /open/x", "", []string{"Expect: 100-continue", "Content-Length: 5"})
		answers, _ := w.talk(raw)
		if len(answers) != 1 || answers[0].Status != status {
			t.Errorf("%s: %d answers, want it alone", status, len(answers))
			for _, a := range answers {
				t.Errorf("%s %v %q", a.Status, a.Header, a.body)
			}
		}
		if saw := <-heads; !strings.Contains(saw, "\r\nExpect: 100-continue\r\n") || !strings.HasSuffix(saw, "\r\n\r\n") {
			t.Errorf("%s: the upstream saw %q", status, saw)
		}
		// What comes next may be the body or a request: nobody can tell.
		c := w.dial()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, raw)
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, rawRequest("GET /smuggled", "", nil))
		rest, err := io.ReadAll(r)
		if len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) || !res.Close {
			t.Errorf("%s: the connection goes on with %q, %v; header %v", status, rest, err, res.Header)
		}
		if saw := up.messages(false); len(saw) > 0 {
			t.Errorf("%s: the other upstream saw %q", status, saw)
		}
		<-heads
	}
	// Who does not wait is served all the same, and other expectations are refused.
	up := newWireUpstream(t, nil)
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{{Path: "/open/", Upstream: up.url(), Auth: AuthNone, Timeout: 5 * time.Second}}
	})
	if got := w.sendBody("PUT /open/x", "hello", "Content-Length: 5", "Expect: a-miracle"); got.StatusCode != 417 {
		t.Errorf("another expectation: %d, want 417", got.StatusCode)
	}
	c := w.dial()
	io.WriteString(c, rawRequest("PUT /open/x", "hello", []string{"Content-Length: 5", "Expect: 100-continue"}))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	for err == nil && res.StatusCode == 100 {
		res, err = http.ReadResponse(r, nil)
	}
	saw := up.messages(false)
	if err != nil || res.StatusCode != 200 || len(saw) != 1 || bodyOf(saw[0]) != "hello" {
		t.Errorf("who does not wait: %v, %v; the upstream saw %q", res, err, saw)
	}
}

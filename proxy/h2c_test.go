package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// newH2CUpstream speaks HTTP/2 without TLS, and nothing else.
func newH2CUpstream(t testing.TB) *upstream {
	u := &upstream{}
	u.Server = httptest.NewUnstartedServer(u)
	u.Config.Protocols = new(http.Protocols)
	u.Config.Protocols.SetUnencryptedHTTP2(true)
	u.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	u.Start()
	t.Cleanup(u.Close)
	return u
}

// to is the address of an h2c upstream.
func (u *upstream) h2c() *url.URL { return must(url.Parse("h2c" + strings.TrimPrefix(u.URL, "http"))) }

// An upstream at h2c:// is spoken to in HTTP/2 from the first byte, and gets what
// any other gets (pain 53).
func TestH2CUpstream(t *testing.T) {
	up := newH2CUpstream(t)
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		base := up.h2c()
		base.Path = "/base"
		a.Routes = append(a.Routes,
			Route{Path: "/two/", Upstream: up.h2c()},
			Route{Path: "/based/", Upstream: base, Auth: AuthNone, StripPrefix: "/based"})
	})
	proto := make(chan string, 1)
	body := strings.Repeat("0123456789", 10_000)
	up.answer(func(rw http.ResponseWriter, r *http.Request) {
		proto <- r.Proto
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
			t.Errorf("a body of %d bytes, %v", len(got), err)
		}
		rw.Header().Set("Location", up.URL+"/elsewhere")
		rw.Header().Set("Trailer", "X-Checksum")
		io.WriteString(rw, body)
		rw.Header().Set("X-Checksum", "abc")
	})
	chunks := "186a0\r\n" + body + "\r\n0\r\n\r\n"
	for _, test := range []struct {
		name, body string
		header     []string
	}{
		{"a body with a length", body, []string{"Content-Length: 100000"}},
		{"a body in chunks", chunks, []string{"Transfer-Encoding: chunked"}},
	} {
		up.forget()
		got := w.sendBody("PUT /two/a%2Cb?q", test.body, w.withSession(test.header...)...)
		saw := up.last(t)
		if p := <-proto; p != "HTTP/2.0" || got.StatusCode != 200 || got.body != body || got.Trailer.Get("X-Checksum") != "abc" {
			t.Errorf("%s: %s, status %d, %d bytes, trailer %v", test.name, p, got.StatusCode, len(got.body), got.Trailer)
		}
		if saw.Method != "PUT" || saw.Target != "/two/a%2Cb?q" || "http://"+saw.Host != up.URL || saw.Header.Get("Authorization") != "Bearer "+w.token ||
			saw.Header["Transfer-Encoding"] != nil || saw.Header["Connection"] != nil || saw.Header.Get("X-Forwarded-Host") != testHost {
			t.Errorf("%s: the upstream saw %+v", test.name, saw)
		}
		if l := got.Header.Get("Location"); l != testOrigin+"/elsewhere" {
			t.Errorf("%s: Location %q shows the upstream", test.name, l)
		}
	}
	up.answer(nil)
	up.forget()
	if got := w.send("GET /based/x"); got.StatusCode != 200 || up.last(t).Target != "/base/x" {
		t.Errorf("below a base: %d, %+v", got.StatusCode, up.last(t))
	}
	// WebSockets over HTTP/2 (RFC 8441) are another protocol: there is none here.
	if got := w.send("GET /two/ws", handshake(w.cookie)...); got.StatusCode != 502 {
		t.Errorf("a WebSocket: status %d, want 502", got.StatusCode)
	}
}

// An upstream that speaks HTTP/1.1 where h2c is configured is not there: nothing
// falls back in the middle of a connection.
func TestH2CNeverFallsBack(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		a.Routes = append(a.Routes, Route{Path: "/two/", Upstream: w.up.h2c()})
	})
	if got := w.send("GET /two/x", w.withSession()...); got.StatusCode != 502 || got.problem(t).Code != "upstream_unreachable" {
		t.Errorf("status %d %s", got.StatusCode, got.body)
	}
	for _, saw := range w.up.requests() {
		if saw.Method != "PRI" || len(saw.Header) != 0 { // the preface of HTTP/2, as HTTP/1.1 reads it
			t.Errorf("the upstream saw %+v", saw)
		}
	}
}

// h2cListener serves the gateway as the public listener does without TLS.
func (w *world) h2cListener() *httptest.Server {
	s := httptest.NewUnstartedServer(w.gateway)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.DisableGeneralOptionsHandler = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// h2cClient speaks HTTP/2 without TLS.
func h2cClient(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// HTTP/2 without TLS is for a balancer that is trusted, and nobody else: browsers
// do not speak it.
func TestH2CFromTrustedPeersOnly(t *testing.T) {
	for _, test := range []struct {
		name, trusted string
		want          int
	}{
		{"a trusted peer", "127.0.0.0/8", 200},
		{"a stranger", "10.0.0.0/8", 403},
		{"a stranger where nobody is trusted", "", 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(_ *world, _ *App, c *Config) {
				if test.trusted != "" {
					c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(test.trusted)}
				}
			})
			s := w.h2cListener()
			for _, path := range []string{"/api/x", "/bff/session"} {
				r := must(http.NewRequest("GET", s.URL+path, nil))
				r.Host = testHost
				r.Header.Set("X-CSRF", "1")
				r.Header.Set("Cookie", w.cookie)
				r.Header.Set("X-Forwarded-For", "203.0.113.7")
				res, err := h2cClient(t).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body := must(io.ReadAll(res.Body))
				res.Body.Close()
				if res.ProtoMajor != 2 || res.StatusCode != test.want || test.want == 403 && !bytes.Contains(body, []byte(`"forbidden"`)) {
					t.Errorf("%s: %s %d %s, want %d", path, res.Proto, res.StatusCode, body, test.want)
				}
			}
			saw := w.up.requests()
			if test.want == 403 && len(saw) != 0 {
				t.Errorf("the upstream saw %+v", saw)
			}
			if test.want == 200 && (len(saw) != 1 || saw[0].Header.Get("X-Forwarded-For") != "203.0.113.7, 127.0.0.1" || saw[0].Header.Get("Authorization") != "Bearer "+w.token) {
				t.Errorf("the upstream saw %+v", saw)
			}
			// HTTP/1.1 on the same listener is for everybody.
			if res := must(http.Get(s.URL + "/nowhere")); res.ProtoMajor != 1 || res.StatusCode != 421 {
				t.Errorf("HTTP/1.1: %s %d", res.Proto, res.StatusCode)
			}
		})
	}
}

package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestPX05PathsPassByteForByte: what the upstream receives is what was matched
// (PX-05, pain 19, CVE-2025-47952).
func TestPX05PathsPassByteForByte(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		base := *must(url.Parse(w.up.URL + "/base"))
		a.Routes = append(a.Routes,
			Route{Path: "/based/", Upstream: &base, Auth: AuthNone, StripPrefix: "/based"},
			Route{Path: "/kept/", Upstream: &base, Auth: AuthNone},
			Route{Path: "/alone", Upstream: &base, Auth: AuthNone, StripPrefix: "/alone/"})
	})
	for sent, want := range map[string]string{
		"/open/":                        "/open/",
		"/open/a;b=c,d/e":               "/open/a;b=c,d/e",
		"/open/a//b///c":                "/open/a//b///c",
		"/open/%23%3F100%25%C3%BC":      "/open/%23%3F100%25%C3%BC",
		"/open/%c3%bc":                  "/open/%c3%bc",
		"/open/~a!$&'()*+,:@=|{}^`\"<>": "/open/~a!$&'()*+,:@=|{}^`\"<>",
		"/open/%41":                     "/open/%41",
		"/op%65n/%41":                   "/open/A", // only its normal form lies under the route
		"/open/x?":                      "/open/x?",
		"/open/x?a=1;b=2&c=%zz&&d=+%2B": "/open/x?a=1;b=2&c=%zz&&d=+%2B",
		"/open/x?q=a%2Fb&x=%23&y=ü":     "/open/x?q=a%2Fb&x=%23&y=ü",
		"/open/x?/../../admin":          "/open/x?/../../admin",
		"/based/":                       "/base",
		"/based/x?y":                    "/base/x?y",
		"/based//x":                     "/base//x",
		"/kept/x":                       "/base/kept/x",
		"/alone?x":                      "/base?x",
	} {
		w.up.forget()
		w.send("GET " + sent)
		if got := w.up.last(t).Target; got != want {
			t.Errorf("%s arrives as %s, want %s", sent, got, want)
		}
	}
	for sent, want := range map[string]string{"/stripped/": "/", "/stripped/x": "/x", "/stripped//evil.example/x": "//evil.example/x"} {
		w.up.forget()
		w.send("GET "+sent, w.withSession()...)
		if saw := w.up.last(t); saw.Target != want || saw.Host == "evil.example" {
			t.Errorf("%s arrives as %s at %s, want %s", sent, saw.Target, saw.Host, want)
		}
	}
	for _, evil := range []string{
		"//evil.example/open/x", "/open/../api/x", "/open/%2e%2e/api/x", "/open/..%2fapi", "/open/%252e%252e/x", "/open/..;/api/x", `/open/..\api`,
		"/open/%5c", "/open/%00", "/open/x#/../api", "/open/%2", "/%", "/open/\x01", "/open/ü",
	} {
		w.up.forget()
		if got := w.send("GET " + evil); got.StatusCode != 400 {
			t.Errorf("%q: status %d, want 400", evil, got.StatusCode)
		}
		if len(w.up.requests()) != 0 {
			t.Errorf("%q reached the upstream", evil)
		}
	}
}

func TestPreserveHost(t *testing.T) {
	w := newWorld(t, func(_ *world, a *App, _ *Config) { a.Routes[5].PreserveHost = true })
	w.send("GET /open/x")
	if got := w.up.last(t).Host; got != testHost {
		t.Errorf("Host = %q, want %q", got, testHost)
	}
}

// TestPX25Bodies: bodies stream, up to max_body (PX-25).
func TestPX25Bodies(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, path, body string
		header           []string
		status           int
	}{
		{"ten bytes of ten", "/small/x", "0123456789", []string{"Content-Length: 10"}, 200},
		{"eleven bytes", "/small/x", "", []string{"Content-Length: 11"}, 413},
		{"far too much, announced", "/small/x", "", []string{"Content-Length: 99999999999"}, 413},
		{"ten bytes in chunks", "/small/x", "a\r\n0123456789\r\n0\r\n\r\n", []string{"Transfer-Encoding: chunked"}, 200},
		{"eleven bytes in chunks", "/small/x", "a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", []string{"Transfer-Encoding: chunked"}, 413},
		{"no limit", "/api/x", strings.Repeat("x", 100_000), []string{"Content-Length: 100000"}, 200},
	} {
		target := row.path + "?" + url.QueryEscape(row.name)
		got := w.sendBody("POST "+target, row.body, w.withSession(row.header...)...)
		if row.status != 0 && got.StatusCode != row.status {
			t.Errorf("%s: status %d %s, want %d", row.name, got.StatusCode, got.body, row.status)
		}
		if row.status == 413 && (got.problem(t).Code != "body_too_large" || !got.Close) {
			t.Errorf("%s: %s, close: %v", row.name, got.body, got.Close)
		}
		for _, saw := range w.up.requests() {
			if saw.Target != target {
				continue
			}
			if saw.Header["Transfer-Encoding"] != nil || row.status == 200 && !strings.Contains(row.body, saw.Body) {
				t.Errorf("%s: the upstream saw %v %q", row.name, saw.Header, saw.Body)
			}
		}
	}
}

// TestHT05ChunkedRequestClosesConnection: what follows a request with two framings
// may be the rest of its body to somebody in front of us (HT-05; RFC 9112,
// section 6.1).
func TestHT05ChunkedRequestClosesConnection(t *testing.T) {
	w := newWorld(t)
	smuggled := "0\r\n\r\n" + rawRequest("GET /open/smuggled", "", nil)
	for _, path := range []string{"/open/x", "/api/x", "/no", "/bff/logout"} {
		got := w.sendBody("POST "+path, smuggled, "Content-Length: 4", "Transfer-Encoding: chunked")
		if !got.Close {
			t.Errorf("%s: status %d, and the connection stays open", path, got.StatusCode)
		}
	}
	for _, saw := range w.up.requests() {
		if saw.Target == "/open/smuggled" {
			t.Error("the upstream saw the request behind the body")
		}
	}
	if got := w.sendBody("POST /open/x", "x", "Content-Length: 1"); got.Close {
		t.Error("a request with one framing closes the connection")
	}
}

// TestHT14RefusedBeforeBody: an upload without a session is refused before it is
// sent (pain 54, HT-14).
func TestHT14RefusedBeforeBody(t *testing.T) {
	w := newWorld(t)
	got := w.send("PUT /api/x", "X-CSRF: 1", "Expect: 100-continue", "Content-Length: 5000000000")
	if got.StatusCode != 401 || !got.Close {
		t.Errorf("status %d, close %v; want 401 and no 100 before it", got.StatusCode, got.Close)
	}
	c := w.dial()
	io.WriteString(c, rawRequest("PUT /api/x", "", w.withSession("Expect: 100-continue", "Content-Length: 5")))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 100 {
		t.Fatalf("an admitted upload: %v, %v; want 100", res, err)
	}
	io.WriteString(c, "hello")
	if res, err = http.ReadResponse(r, nil); err != nil || res.StatusCode != 200 || w.up.last(t).Body != "hello" {
		t.Errorf("an admitted upload: %v, %v", res, err)
	}
}

// TestRequestTrailersAreDiscarded: they would reach the upstream unfiltered.
func TestRequestTrailersAreDiscarded(t *testing.T) {
	w := newWorld(t)
	trailer := make(chan http.Header, 1)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		trailer <- r.Trailer
	})
	got := w.sendBody("POST /open/x", "1\r\nx\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X-Forwarded-For")
	if tr := <-trailer; got.StatusCode != 200 || len(tr) > 0 {
		t.Errorf("status %d, trailer %v", got.StatusCode, tr)
	}
}

// TestPX08RedirectsPass: they are the browser's to follow, with addresses that it
// can reach (PX-08).
func TestPX08RedirectsPass(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		base := *must(url.Parse(w.up.URL + "/base"))
		a.Routes = append(a.Routes, Route{Path: "/based/", Upstream: &base, Auth: AuthNone, StripPrefix: "/based"})
	})
	other := newUpstream(t)
	for location, want := range map[string]string{
		other.URL + "/x":         other.URL + "/x",
		"/relative":              "/relative",
		w.up.URL:                 testOrigin + "/",
		w.up.URL + "/base":       testOrigin + "/based",
		w.up.URL + "/base/x?y#z": testOrigin + "/based/x?y#z",
		w.up.URL + "/based":      testOrigin + "/based",
		w.up.URL + "?x":          testOrigin + "/?x",
		w.up.URL + ".evil/x":     w.up.URL + ".evil/x",
		w.up.URL + "1/x":         w.up.URL + "1/x",
		"https://evil.example/":  "https://evil.example/",
	} {
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", location)
			rw.WriteHeader(302)
		})
		if got := w.send("GET /based/x"); got.StatusCode != 302 || got.Header.Get("Location") != want {
			t.Errorf("%s: status %d, Location %q, want %q", location, got.StatusCode, got.Header.Get("Location"), want)
		}
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("the gateway followed %d redirects", n)
	}
}

// PX-08: the other fields that hold addresses, in final and in interim answers.
func TestPX08NoFieldTellsTheUpstreamsName(t *testing.T) {
	w := newWorld(t)
	own := w.up.URL
	for _, row := range []struct{ name, field, want string }{
		{"Content-Location", own + "/x", testOrigin + "/x"},
		{"Refresh", "5; url=" + own + "/x?y", "5; url=" + testOrigin + "/x?y"},
		{"Refresh", `0;URL="` + own + `"`, `0;URL="` + testOrigin + `/"`},
		{"Refresh", "5", "5"},
		{"Link", "<" + own + `/x?page=2>; rel="next", <` + own + `/x?page=9>; rel="last"`, "<" + testOrigin + `/x?page=2>; rel="next", <` + testOrigin + `/x?page=9>; rel="last"`},
		{"Link", "<https://cdn.example/a.css>; rel=preload", "<https://cdn.example/a.css>; rel=preload"},
		{"Link", "<" + own + ".evil/x>; rel=next", "<" + own + ".evil/x>; rel=next"},
	} {
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set(row.name, row.field)
			if row.name == "Link" {
				rw.WriteHeader(http.StatusEarlyHints)
			}
			rw.WriteHeader(http.StatusOK)
		})
		c := w.dial()
		io.WriteString(c, rawRequest("GET /open/x", "", []string{"Connection: close"}))
		all := string(must(io.ReadAll(c)))
		want := map[bool]int{true: 2, false: 1}[row.name == "Link"]
		if n := strings.Count(all, "\r\n"+row.name+": "+row.want+"\r\n"); n != want {
			t.Errorf("%s: %s arrives as\n%s", row.name, row.field, all)
		}
	}
}

// PX-08: a field full of addresses takes no more work than it is long. It may have
// 10 MB.
func TestPX08ManyAddressesAreNoWork(t *testing.T) {
	w := newWorld(t)
	x := &exchange{app: w.gateway.routes[0].app, route: w.gateway.routes[0]}
	for _, one := range []string{"?u=", " ", "/>, <"} {
		const n = 2000
		field := []string{strings.Repeat(w.up.URL+one, n)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := x.outsideIn(field)[0]
		runtime.ReadMemStats(&after)
		if strings.Count(got, testOrigin) != n || strings.Contains(got, w.up.URL) {
			t.Errorf("%q: %.100s", one, got)
		}
		if work := after.TotalAlloc - before.TotalAlloc; work > 50*uint64(len(field[0])) {
			t.Errorf("%q: %d bytes of memory for a field of %d", one, work, len(field[0]))
		}
	}
}

// TestHT14MaxForwards is RFC 9110, section 7.6.2 (HT-14).
func TestHT14MaxForwards(t *testing.T) {
	w := newWorld(t)
	for sent, want := range map[string]string{"5": "4", "1": "0", "junk": "junk"} {
		w.up.forget()
		w.send("OPTIONS /open/x", "Max-Forwards: "+sent)
		if got := w.up.last(t).Header.Get("Max-Forwards"); got != want {
			t.Errorf("Max-Forwards %s arrives as %s, want %s", sent, got, want)
		}
	}
	w.up.forget()
	got := w.send("OPTIONS /open/x", "Max-Forwards: 0")
	if got.StatusCode != 204 || got.Header.Get("Allow") != anyMethod || len(w.up.requests()) != 0 {
		t.Errorf("Max-Forwards 0: status %d, %d requests", got.StatusCode, len(w.up.requests()))
	}
}

// TestHT14InterimAnswers: 103 passes, with nothing but its links.
func TestHT14InterimAnswers(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.Header().Set("Set-Cookie", w.cookie)
		rw.Header().Set("X-Sessiongate", "1")
		rw.WriteHeader(103)
		rw.Header().Del("Set-Cookie")
		rw.WriteHeader(200)
	})
	c := w.dial()
	io.WriteString(c, rawRequest("GET /open/x", "", nil))
	r := bufio.NewReader(c)
	early, err := http.ReadResponse(r, nil)
	if err != nil || early.StatusCode != 103 || len(early.Header) != 1 || early.Header.Get("Link") == "" {
		t.Fatalf("the interim answer: %v, %v", early, err)
	}
	final, err := http.ReadResponse(r, nil)
	if err != nil || final.StatusCode != 200 || final.Header["X-Sessiongate"] != nil || final.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("the final answer: %v, %v", final, err)
	}
}

// TestHT14AnswerFraming: HEAD, 204 and trailers (HT-13, HT-14).
func TestHT14AnswerFraming(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/open/204":
			rw.WriteHeader(204)
		case "/open/trailer":
			rw.Header().Set("Trailer", "Grpc-Status")
			io.WriteString(rw, "body")
			rw.Header().Set("Grpc-Status", "0")
		default:
			rw.Header().Set("Content-Length", "7")
			io.WriteString(rw, "content")
		}
	})
	if got := w.send("HEAD /open/x"); got.StatusCode != 200 || got.Header.Get("Content-Length") != "7" || got.body != "" {
		t.Errorf("HEAD: %v", got)
	}
	if got := w.send("GET /open/204"); got.StatusCode != 204 || got.Header["Content-Length"] != nil || got.body != "" {
		t.Errorf("204: %v", got)
	}
	if got := w.send("GET /open/trailer"); got.body != "body" || got.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("trailer: %v %v", got.body, got.Trailer)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{}
	s := &http.Server{Handler: u}
	go s.Serve(l)
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{{Path: "/api/", Upstream: &url.URL{Scheme: "unix", Path: path}, StripPrefix: "/api"}}
	})
	got := w.send("GET /api/x?y", w.withSession()...)
	if saw := u.last(t); got.StatusCode != 200 || saw.Target != "/x?y" || saw.Host != "localhost" {
		t.Errorf("status %d, %s at %s", got.StatusCode, saw.Target, saw.Host)
	}
}

// TestEnvironmentProxyIsIgnored: the route says where tokens go.
func TestEnvironmentProxyIsIgnored(t *testing.T) {
	for _, rt := range newWorld(t).gateway.routes {
		if rt.transport.Proxy != nil {
			t.Errorf("%s asks the environment for a proxy", rt.path)
		}
	}
}

// TestHTTP2: browsers that speak it get the same.
func TestHTTP2(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewUnstartedServer(w.gateway)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	r := must(http.NewRequest("POST", s.URL+"/api/x%2Cy?z", strings.NewReader("hello")))
	r.Host = testHost
	r.Header.Set("X-CSRF", "1")
	// HTTP/2 browsers send a line for each cookie.
	r.Header["Cookie"] = []string{"a=1", w.cookie, "b=2"}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	saw := w.up.last(t)
	if res.ProtoMajor != 2 || res.StatusCode != 200 || saw.Target != "/api/x%2Cy?z" || saw.Body != "hello" || saw.Header.Get("Via") != "2.0 "+pseudonym ||
		strings.Join(saw.Header["Cookie"], "; ") != "a=1; b=2" || saw.Header.Get("Authorization") != "Bearer "+w.token {
		t.Errorf("%v; the upstream saw %+v", res, saw)
	}
}

package proxy

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	neturl "net/url"
	"strings"
	"testing"
	"time"
)

// newCallWorld has gRPC routes, and a listener for a balancer whom it trusts.
func newCallWorld(t *testing.T, change ...func(*world, *App, *Config)) (w *world, up *upstream, url string) {
	up = newH2CUpstream(t)
	w = newWorld(t, append([]func(*world, *App, *Config){func(_ *world, a *App, c *Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		a.Routes = append(a.Routes, Route{Path: "/orders/", Upstream: up.h2c()})
	}}, change...)...)
	return w, up, w.h2cListener().URL
}

// call is a request as gRPC clients send it.
func (w *world) call(t *testing.T, url string, body io.Reader) *http.Response {
	t.Helper()
	r := must(http.NewRequest("POST", url, body))
	r.Host = testHost
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Cookie": {w.cookie}, "X-Csrf": {"1"}}
	res, err := h2cClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// A call that was answered in part ends with a status that says why (PX-21).
func TestPX21CallsEndWithTheirSession(t *testing.T) {
	w, up, url := newCallWorld(t)
	gone := make(chan bool)
	up.answer(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/grpc")
		rw.Header().Set("Trailer", "Grpc-Status")
		io.WriteString(rw, "half")
		http.NewResponseController(rw).Flush()
		<-r.Context().Done()
		close(gone)
	})
	body, _ := io.Pipe()
	res := w.call(t, url+"/orders/x", body)
	half := make([]byte, 4)
	io.ReadFull(res.Body, half)
	w.logout(w.cookie)
	rest, err := io.ReadAll(res.Body)
	if err != nil || len(rest) != 0 || string(half) != "half" {
		t.Errorf("%q, then %q, %v", half, rest, err)
	}
	if res.Trailer.Get("Grpc-Status") != "16" || !strings.HasPrefix(res.Trailer.Get("Grpc-Message"), "session_ended: ") {
		t.Errorf("trailers %v", res.Trailer)
	}
	<-gone
}

// A refused call is answered by trailers alone, which clients read where HTTP has a
// status; what is counted is that status. gRPC-Web is for fetch, and keeps it.
func TestRefusedCalls(t *testing.T) {
	w, up, url := newCallWorld(t)
	for _, test := range []struct {
		contentType string
		status      int
	}{
		{"application/grpc", 200},
		{"application/grpc+proto", 200},
		{"application/grpc;x=y", 200},
		{"Application/GRPC ; x=y", 200},
		{"application/grpc-web", 401},
		{"application/grpc-web+proto", 401},
		{"application/grpc-web-text", 401},
		{"application/grpcx", 401},
		{"application/json", 401},
	} {
		r := must(http.NewRequest("POST", url+"/orders/x", strings.NewReader("body")))
		r.Host = testHost
		r.Header = http.Header{"Content-Type": {test.contentType}, "X-Csrf": {"1"}}
		before := max(w.metric("sessiongate_requests_total", testOrigin, "POST", "/orders/", "401"), 0)
		res, err := h2cClient(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body := string(must(io.ReadAll(res.Body)))
		res.Body.Close()
		h := res.Header
		if res.StatusCode != test.status || h.Get("X-Sessiongate") != "1" || h.Get("X-Request-Id") == "" || h.Get("Cache-Control") != "no-store" || h["Set-Cookie"] != nil {
			t.Errorf("%s: status %d, want %d; %v", test.contentType, res.StatusCode, test.status, h)
		}
		if test.status == 200 && (body != "" || h.Get("Content-Type") != "application/grpc" || h.Get("Grpc-Status") != "16" || h.Get("Grpc-Message") != "session_required: You are not logged in") {
			t.Errorf("%s: %v %q", test.contentType, h, body)
		}
		if test.status == 401 && (!strings.Contains(body, `"session_required"`) || h["Grpc-Status"] != nil) {
			t.Errorf("%s: %v %q", test.contentType, h, body)
		}
		if n := w.metric("sessiongate_requests_total", testOrigin, "POST", "/orders/", "401"); n != before+1 {
			t.Errorf("%s: requests_total{401} = %v, want %v", test.contentType, n, before+1)
		}
	}
	if n := len(up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// A call counts as a stream from its beginning to its end, and its time is that to
// the beginning of the answer.
func TestCallsAreCounted(t *testing.T) {
	w, up, url := newCallWorld(t)
	goOn := make(chan bool)
	up.answer(func(rw http.ResponseWriter, r *http.Request) {
		<-goOn
		rw.Header().Set("Content-Type", "application/grpc")
		rw.Header().Set("Grpc-Status", "0")
		rw.WriteHeader(200)
		http.NewResponseController(rw).Flush()
		<-goOn
	})
	done := make(chan *http.Response)
	go func() { done <- w.call(t, url+"/orders/x", strings.NewReader("body")) }()
	open := func() float64 { return w.metric("sessiongate_streams_open", testOrigin, "grpc") }
	times := func() float64 { return w.metric("sessiongate_request_seconds", testOrigin, "/orders/") }
	eventually(t, "the call is counted", func() bool { return open() == 1 })
	if n := times(); n != 0 {
		t.Errorf("%v times before there is an answer", n)
	}
	goOn <- true
	res := <-done
	if n := times(); n != 1 {
		t.Errorf("%v times when the answer has begun, want 1", n)
	}
	goOn <- true
	io.Copy(io.Discard, res.Body)
	eventually(t, "the call is not counted any more", func() bool { return open() == 0 })
	if n := times(); n != 1 {
		t.Errorf("%v times in the end, want 1", n)
	}
	if res.Header.Get("Grpc-Status") != "0" {
		t.Errorf("the answer: %v", res.Header)
	}
	// Without an answer it is the time of the refusal.
	up.Close()
	if res := w.call(t, url+"/orders/x", strings.NewReader("body")); res.Header.Get("Grpc-Status") != "14" {
		t.Errorf("without an upstream: %v", res.Header)
	}
	if n := times(); n != 2 {
		t.Errorf("%v times after a refusal, want 2", n)
	}
}

// What is said in grpc-message needs no percent-encoding (gRPC over HTTP/2,
// "Responses"), and every status of ours has its own.
func TestGRPCStatuses(t *testing.T) {
	for code, a := range answers {
		for _, c := range grpcMessage(code, a) {
			if c < ' ' || c > '~' || c == '%' {
				t.Errorf("%s: %q has to be encoded", code, c)
			}
		}
	}
	for status, want := range map[int]string{
		400: "13", 401: "16", 403: "7", 404: "12", 405: "12", 408: "4", 413: "8", 421: "13", 429: "8", 500: "13", 502: "14", 503: "14", 504: "4",
	} {
		if got := grpcStatus(status); got != want {
			t.Errorf("grpcStatus(%d) = %s, want %s", status, got, want)
		}
	}
}

// Whoever calls an ordinary request a gRPC call has no more time for its body than
// others, and holds no connection to an upstream that does not speak gRPC (HT-10).
func TestAMediaTypeAloneIsNoCall(t *testing.T) {
	w, up, url := newCallWorld(t, func(_ *world, a *App, c *Config) {
		a.Routes = append(a.Routes, Route{Path: "/one/", Upstream: must(neturl.Parse(a.Routes[0].Upstream.String())), Auth: AuthNone})
		c.Limits.BodyTimeout = 200 * time.Millisecond
	})
	t.Run("to an upstream of HTTP/1.1", func(t *testing.T) {
		silent, _ := io.Pipe()
		if res := w.call(t, url+"/one/x", silent); res.Header.Get("Grpc-Status") != "4" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("over HTTP/1.1", func(t *testing.T) {
		c := w.dial()
		defer c.Close()
		io.WriteString(c, rawRequest("POST /orders/x", "", []string{"Cookie: " + w.cookie, "X-CSRF: 1", "Content-Type: application/grpc", "Content-Length: 8"})+"half")
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusRequestTimeout || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("a call is as silent as it likes", func(t *testing.T) {
		up.answer(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		silent, end := io.Pipe()
		time.AfterFunc(3*200*time.Millisecond, func() { end.Close() })
		if res := w.call(t, url+"/orders/x", silent); res.StatusCode != http.StatusOK || res.Header.Get("X-Sessiongate") != "" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
}

// A refused body does not end the HTTP/2 connection, which others share behind
// a balancer.
func TestARefusedBodyLeavesTheConnection(t *testing.T) {
	w, _, url := newCallWorld(t)
	client := h2cClient(t)
	ask := func(path string) *http.Response {
		r := must(http.NewRequest("POST", url+path, strings.NewReader("01234567890")))
		r.Host = testHost
		r.Header = http.Header{"Cookie": {w.cookie}, "X-Csrf": {"1"}}
		var local string
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { local = c.Conn.LocalAddr().String() }}))
		res := must(client.Do(r))
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		res.Header.Set("Test-Local", local)
		return res
	}
	first := ask("/small/x")
	if first.StatusCode != 413 {
		t.Fatalf("status %d", first.StatusCode)
	}
	for range 3 {
		if next := ask("/api/x"); next.StatusCode != 200 || next.Header.Get("Test-Local") != first.Header.Get("Test-Local") {
			t.Errorf("status %d on %s; want the connection of before, %s", next.StatusCode, next.Header.Get("Test-Local"), first.Header.Get("Test-Local"))
		}
	}
}

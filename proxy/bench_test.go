package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// browserHeader is what a browser of today sends with a fetch.
func browserHeader(cookie string) http.Header {
	h := make(http.Header, 15)
	for name, value := range map[string]string{
		"Accept": "application/json", "Accept-Encoding": "gzip, deflate, br, zstd", "Accept-Language": "en-GB,en;q=0.9",
		"Cache-Control": "no-cache", "Cookie": cookie, "Pragma": "no-cache", "Referer": testOrigin + "/orders",
		"Sec-Ch-Ua": `"Chromium";v="143"`, "Sec-Ch-Ua-Mobile": "?0", "Sec-Ch-Ua-Platform": `"Linux"`,
		"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin",
		"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "X-Csrf": "1",
	} {
		h[name] = []string{value}
	}
	return h
}

// canned answers without a network, so that only proxies are measured.
type canned struct{}

var cannedBody = bytes.Repeat([]byte("x"), 512)

func (canned) RoundTrip(r *http.Request) (*http.Response, error) {
	h := make(http.Header, 5)
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{"512"}
	h["Date"] = []string{"Sun, 22 Nov 2026 13:00:00 GMT"}
	h["Etag"] = []string{`"abc"`}
	h["Server"] = []string{"upstream"}
	return &http.Response{
		StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: h, ContentLength: 512,
		Body: io.NopCloser(bytes.NewReader(cannedBody)), Request: r,
	}, nil
}

// nowhere is a response writer that keeps nothing.
type nowhere struct{ h http.Header }

func (n *nowhere) Header() http.Header         { return n.h }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// bareProxy is what somebody would write who needed nothing but forwarding.
func bareProxy(to *url.URL, token string, t http.RoundTripper) http.Handler {
	authorization := []string{"Bearer " + token}
	return &httputil.ReverseProxy{
		Transport: t, BufferPool: &buffers,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Cookie")
			r.Out.Header["Authorization"] = authorization
		},
	}
}

// run serves n requests, made beforehand, and returns time and allocations of one.
func run(h http.Handler, cookie string, n int) (nanoseconds, allocs float64) {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), http.ServerContextKey, &http.Server{}))
	defer cancel()
	requests, writers := make([]*http.Request, n), make([]*nowhere, n)
	for i := range requests {
		r := httptest.NewRequest("GET", "/api/orders/4711?expand=lines", nil)
		r.Host, r.Header, r.RemoteAddr, r.Body = testHost, browserHeader(cookie), "203.0.113.7:51234", http.NoBody
		requests[i], writers[i] = r.WithContext(ctx), &nowhere{http.Header{}}
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpuTime()
	for i, r := range requests {
		h.ServeHTTP(writers[i], r)
	}
	elapsed := cpuTime() - began
	runtime.ReadMemStats(&after)
	return float64(elapsed.Nanoseconds()) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)
}

// cpuTime is what this process has used, garbage collection included. Unlike
// wall time it does not count what else the machine does.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGateway measures what an authenticated request whose session is in
// memory costs over a bare httputil.ReverseProxy: median of interleaved rounds.
func BenchmarkGateway(b *testing.B) {
	w := newWorld(b)
	for _, rt := range w.gateway.routes {
		rt.proxy.Transport = &renewing{canned{}}
	}
	compare(b, w, w.gateway, bareProxy(must(url.Parse(w.up.URL)), w.token, canned{}), 100)
}

// BenchmarkGatewayCold is the same for a session that is not in memory: the
// cookie is verified, the record read from the store and unsealed.
func BenchmarkGatewayCold(b *testing.B) {
	w := newWorld(b)
	for _, rt := range w.gateway.routes {
		rt.proxy.Transport = &renewing{canned{}}
	}
	keys := w.sessions.Keys()
	cold := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.manager.Reconfigure(keys, time.Hour, 12*time.Hour) // empties the memory
		w.gateway.ServeHTTP(rw, r)
	})
	compare(b, w, cold, bareProxy(must(url.Parse(w.up.URL)), w.token, canned{}), 100)
}

// BenchmarkGatewaySocket is the same over real connections to an upstream.
func BenchmarkGatewaySocket(b *testing.B) {
	w := newWorld(b)
	w.up.answer(func(w http.ResponseWriter, r *http.Request) { w.Write(cannedBody) })
	to := must(url.Parse(w.up.URL))
	compare(b, w, w.gateway, bareProxy(to, w.token, newTransport(Route{Upstream: to})), 200)
	w.up.forget()
}

// compare prints the ratio of both, measured in turns of n requests.
func compare(b *testing.B, w *world, gateway, bare http.Handler, n int) {
	const rounds = 101
	run(bare, w.cookie, n)
	run(gateway, w.cookie, n)
	for b.Loop() {
		var bareTimes, bareAllocs, times, allocs []float64
		for range rounds {
			t, a := run(bare, w.cookie, n)
			bareTimes, bareAllocs = append(bareTimes, t), append(bareAllocs, a)
			t, a = run(gateway, w.cookie, n)
			times, allocs = append(times, t), append(allocs, a)
		}
		t, bt, a, ba := median(times), median(bareTimes), median(allocs), median(bareAllocs)
		b.ReportMetric(t/bt, "ratio")
		b.ReportMetric(t-bt, "ns-over-bare")
		b.ReportMetric(a-ba, "allocs-over-bare")
		fmt.Fprintf(b.Output(), "bare %.0f ns, %.1f allocs; gateway %.0f ns, %.1f allocs; ratio %.2f\n", bt, ba, t, a, t/bt)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkWebSocket measures a message there and back over real connections.
func BenchmarkWebSocket(b *testing.B) {
	w := newWorld(b)
	w.up.answer(echoSocket)
	c := w.dial()
	c.SetDeadline(time.Time{})
	io.WriteString(c, rawRequest("GET /api/ws", "", handshake(w.cookie)))
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 101 {
		b.Fatalf("%v, %v", res, err)
	}
	message := append([]byte{0x82, 0xe4, 1, 2, 3, 4}, make([]byte, 100)...)
	back := make([]byte, len(message))
	b.ReportAllocs()
	began := cpuTime()
	for b.Loop() {
		c.Write(message)
		if _, err := io.ReadFull(c, back); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

package gatewaytest

import (
	"context"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Balancer spreads requests over gateways as simple balancers do: in turn over
// those that said they were ready when they were last asked, over connections that
// are kept. What fails is not tried again.
type Balancer struct {
	t       testing.TB
	targets []*target
	next    atomic.Uint64

	failed  atomic.Int64
	retried atomic.Int64
}

// target is a gateway as the balancer knows it.
type target struct {
	gateway *Gateway
	proxy   *httputil.ReverseProxy
	kept    *http.Transport
	ready   atomic.Bool
}

// CheckInterval is how often the balancer asks each gateway whether it is ready.
const CheckInterval = 200 * time.Millisecond

func newBalancer(t testing.TB, listen string, gateways []*Gateway) *Balancer {
	t.Helper()
	b := &Balancer{t: t}
	for _, g := range gateways {
		b.targets = append(b.targets, b.newTarget(g))
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: b, ErrorLog: stdlog.New(io.Discard, "", 0)}
	go server.Serve(listener)
	ctx, cancel := context.WithCancel(context.Background())
	var checks sync.WaitGroup
	for _, target := range b.targets {
		checks.Go(func() { target.check(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		server.Close()
		checks.Wait()
	})
	return b
}

func (b *Balancer) newTarget(g *Gateway) *target {
	to := &url.URL{Scheme: "http", Host: g.Listen()}
	t := &target{gateway: g, kept: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}
	t.proxy = &httputil.ReverseProxy{
		Transport:     t.kept,
		FlushInterval: -1,
		ErrorLog:      stdlog.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // else the client left
				b.failed.Add(1)
			}
			w.Header().Set(BalancerError, err.Error())
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	return t
}

// BalancerError is the header of answers that the balancer made.
const BalancerError = "X-Balancer-Error"

// check asks the gateway again and again, until ctx ends.
func (t *target) check(ctx context.Context) {
	tick := time.NewTicker(CheckInterval)
	defer tick.Stop()
	for {
		ready := t.gateway.Ready()
		if was := t.ready.Swap(ready); was && !ready {
			t.kept.CloseIdleConnections() // those in use are left to their answers
		}
		select {
		case <-ctx.Done():
			t.kept.CloseIdleConnections()
			return
		case <-tick.C:
		}
	}
}

func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := b.pick()
	if t == nil {
		b.failed.Add(1)
		w.Header().Set(BalancerError, "no gateway is ready")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	// net/http sends a request again if a connection was kept that turns out to be closed.
	var connections atomic.Int64
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		if connections.Add(1) == 2 {
			b.retried.Add(1)
		}
	}}
	t.proxy.ServeHTTP(w, r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

// pick returns the next gateway that is ready, nil if none is.
func (b *Balancer) pick() *target {
	for range b.targets {
		if t := b.targets[b.next.Add(1)%uint64(len(b.targets))]; t.ready.Load() {
			return t
		}
	}
	return nil
}

// AwaitReady waits until the balancer knows so many gateways to be ready.
func (b *Balancer) AwaitReady(n int) {
	b.t.Helper()
	for end := time.Now().Add(stopPatience); b.Ready() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("the balancer knows %d gateways that are ready, want %d", b.Ready(), n)
		}
	}
}

// Ready is how many gateways the balancer sends requests to.
func (b *Balancer) Ready() int {
	n := 0
	for _, t := range b.targets {
		if t.ready.Load() {
			n++
		}
	}
	return n
}

// Failed is how many requests no gateway answered.
func (b *Balancer) Failed() int { return int(b.failed.Load()) }

// Retried is how many requests were sent again, as a kept connection was closed.
func (b *Balancer) Retried() int { return int(b.retried.Load()) }

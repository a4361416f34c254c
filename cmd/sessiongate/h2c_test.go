package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
)

// A trusted balancer may speak HTTP/2 without TLS to a gateway that has none; its
// requests under way are finished at a shutdown like all others (OP-11).
func TestH2CFromATrustedBalancer(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan string, 1), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get("X-Forwarded-For")
		<-goOn
		w.WriteHeader(http.StatusAccepted)
	}))
	defer upstream.Close()
	balancer := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
	balancer.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	routes := fmt.Sprintf("- {path: /, upstream: %q, auth: none}", upstream.URL)

	_, path := site(t, settings{routes: routes, more: "trusted_proxies: [127.0.0.0/8]\n"})
	g := start(t, path)
	slow := make(chan string, 1)
	go func() {
		r := request(t, "http://"+g.public+"/slow", "localhost:8080")
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		res, err := balancer.Do(r)
		if err != nil {
			slow <- err.Error()
			return
		}
		res.Body.Close()
		slow <- fmt.Sprint(res.Proto, " ", res.StatusCode)
	}()
	if got, want := <-arrived, "203.0.113.7, 127.0.0.1"; got != want {
		t.Errorf("X-Forwarded-For = %q, want %q", got, want)
	}
	g.signal(syscall.SIGTERM)
	g.await("stopping")
	close(goOn)
	if got, want := <-slow, "HTTP/2.0 202"; got != want {
		t.Errorf("the request under way: %s, want %s", got, want)
	}
	if code := g.exit(); code != 0 {
		t.Errorf("exit code: %d\n%s", code, g.output())
	}

	_, path = site(t, settings{routes: routes})
	g = start(t, path)
	res, err := balancer.Do(request(t, "http://"+g.public+"/slow", "localhost:8080"))
	if err != nil || res.StatusCode != http.StatusForbidden || res.ProtoMajor != 2 {
		t.Errorf("from a stranger: %v, %v; want 403", res, err)
	}
}

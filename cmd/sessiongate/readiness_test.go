package main

import (
	"net/http"
	"testing"

	"sessiongate/e2e/gatewaytest"
)

// Probes come all the time, and a disk is not to fill up by them.
func TestAnOutageOfTheStoreIsOneLineHoweverManyProbes(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	logged := func(event, message string) (n int) {
		for _, line := range w.Gateway.Logged(event) {
			if line["msg"] == message {
				n++
			}
		}
		return n
	}
	for outage := range 2 {
		server.Kill()
		eventually(t, "it is not ready", func() bool { return !w.Gateway.Ready() })
		for range 5 {
			if w.Gateway.Ready() {
				t.Error("ready without a store")
			}
		}
		server.Start()
		eventually(t, "it is ready", w.Gateway.Ready)
		for range 5 {
			w.Gateway.Ready()
		}
		if n := logged("store_unavailable", "the store does not answer"); n != outage+1 {
			t.Errorf("%d lines of %d outages", n, outage+1)
		}
		if n := logged("store_available", "the store answers again"); n != outage+1 {
			t.Errorf("%d lines of the ends of %d outages", n, outage+1)
		}
	}
}

// A balancer sends users elsewhere: to where Redis is written to.
func TestAGatewayWhoseRedisTakesNoWritesIsNotReady(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	b := loggedIn(t, w)
	for _, row := range []struct{ name, spoil, mend string }{
		{"a master that became a replica", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"},
		{"a master that was cut off from its replicas", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"},
	} {
		tellRedis(t, server.Address(), row.spoil)
		if w.Gateway.Ready() {
			t.Errorf("%s: ready", row.name)
		}
		awaitCall(t, b, http.StatusServiceUnavailable)
		tellRedis(t, server.Address(), row.mend)
		if !w.Gateway.Ready() {
			t.Errorf("%s, mended: not ready", row.name)
		}
		awaitCall(t, b, http.StatusOK)
	}
}

package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"sessiongate/e2e/gatewaytest"
)

// newCluster is one that a single node makes.
func newCluster(t *testing.T) *gatewaytest.Redis {
	t.Helper()
	_, bus, err := net.SplitHostPort(gatewaytest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	node := gatewaytest.NewRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus)
	tellRedis(t, node.Address(), "CLUSTER ADDSLOTSRANGE 0 16383")
	eventually(t, "the Cluster is whole", func() bool {
		answer, err := node.Say("SET", "sessiongate", "1", "PX", "1")
		return err == nil && answer == "+OK"
	})
	return node
}

// A Cluster has other keys than a server has.
func TestMigrateFromAServerToAClusterAndBack(t *testing.T) {
	t.Parallel()
	server, cluster := gatewaytest.NewRedis(t), newCluster(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	live, ended := loggedIn(t, w), loggedIn(t, w)
	over := ended.Steal(w, ended.Session())
	if err := ended.Logout(); err != nil {
		t.Fatal(err)
	}
	w.Gateway.Stop()
	onServer := filepath.Join(t.TempDir(), "server.yaml")
	text, err := os.ReadFile(w.Gateway.Config())
	if err != nil {
		t.Fatal(err)
	}
	write(t, onServer, string(text))

	setStore(t, w.Gateway, cluster.Store(nil))
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.redis: ", "it is a node of a Cluster; set cluster: true") {
		t.Errorf("a node for a server: exit code %d\n%s%s", code, out, said)
	}
	setStore(t, w.Gateway, server.Store(map[string]any{"cluster": true}))
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.redis: ", "cluster support disabled; remove cluster: true") {
		t.Errorf("a server for a Cluster: exit code %d\n%s%s", code, out, said)
	}
	setStore(t, w.Gateway, cluster.Store(map[string]any{"cluster": true}))
	if code, out, said := online(t, w.Gateway.Config()); code != 0 || !containsAll(out, "the Cluster is whole, with 1 master", "reads, writes and scripts work") {
		t.Errorf("a Cluster: exit code %d\n%s%s", code, out, said)
	}

	const one = "live sessions      1        0              0     0"
	if code, out, said := sessiongate(t, "migrate", "-from", "redis", "-to", "redis", "-from-config", onServer, "-config", w.Gateway.Config()); code != 0 ||
		!containsAll(out, one, "ended sessions      1        0              0     0") {
		t.Errorf("to the Cluster: exit code %d\n%s%s", code, out, said)
	}
	w.Gateway.Start()
	wantCall(t, live, http.StatusOK, "")
	wantCall(t, over, http.StatusUnauthorized, "session_ended")
	w.Gateway.Stop()

	tellRedis(t, server.Address(), "FLUSHALL")
	if code, out, said := sessiongate(t, "migrate", "-from", "redis", "-to", "redis", "-from-config", w.Gateway.Config(), "-config", onServer); code != 0 || !containsAll(out, one) {
		t.Errorf("and back: exit code %d\n%s%s", code, out, said)
	}
	setStore(t, w.Gateway, server.Store(nil))
	w.Gateway.Start()
	wantCall(t, live, http.StatusOK, "")
	wantCall(t, over, http.StatusUnauthorized, "session_ended")
}

package redisstore

import (
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"time"

	"sessiongate/session"
	"sessiongate/session/storetest"
)

// The servers that tests share which do them no harm: each test has a prefix of
// its own.
var (
	shared  *server
	cluster []*server
)

func TestMain(m *testing.M) {
	os.Exit(withServers(m.Run))
}

func withServers(run func() int) int {
	dir, err := os.MkdirTemp("", "redisstore")
	if err == nil {
		defer os.RemoveAll(dir)
		shared, err = newServer(dir)
	}
	if err == nil {
		defer shared.kill()
		cluster, err = launchCluster(dir)
		for _, node := range cluster {
			defer node.kill()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// patient is a time-out for a busy machine.
const patient = 20 * time.Second

func openWith(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = rand.Text() + ":"
	}
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	s, err := Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func openAt(t testing.TB, sv *server) *Store {
	t.Helper()
	return openWith(t, Options{Addresses: []string{sv.addr()}})
}

func openCluster(t testing.TB, prefix string) *Store {
	t.Helper()
	o := Options{Prefix: prefix}
	for _, node := range cluster {
		o.Addresses = append(o.Addresses, node.addr())
	}
	o.Cluster = true
	return openWith(t, o)
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) session.Store { return openAt(t, shared) })
}

// TestStoreOfReplicas is that of several processes, and of a server that writes
// all to disk.
func TestStoreOfReplicas(t *testing.T) {
	t.Parallel()
	sv := launch(t, "--appendonly", "yes", "--appendfsync", "everysec")
	storetest.RunReplicas(t, func(t *testing.T) []session.Store {
		prefix := rand.Text() + ":"
		var all []session.Store
		for range 3 {
			all = append(all, openWith(t, Options{Addresses: []string{sv.addr()}, Prefix: prefix}))
		}
		return all
	})
}

func TestStoreOfReplicasInCluster(t *testing.T) {
	t.Parallel()
	storetest.RunReplicas(t, func(t *testing.T) []session.Store {
		prefix := rand.Text() + ":"
		return []session.Store{openCluster(t, prefix), openCluster(t, prefix)}
	})
}

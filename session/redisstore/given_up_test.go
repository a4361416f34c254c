package redisstore

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sessiongate/session"
)

// A migration of a slot that is given up is told by no server: after a while without
// an ASK its sessions are believed from memory again, and what others do to them is
// told.
func TestMigrationThatIsGivenUp(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir())
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Addresses: []string{nodes[0].addr()}, Cluster: true, Liveness: 200 * time.Millisecond, Prefix: "given-up:"}
	s := openWith(t, o)
	heard := follow(s)
	key := random[session.Key]()
	if err := s.Create(t.Context(), key, record()); err != nil {
		t.Fatal(err)
	}
	load := func() {
		t.Helper()
		if _, err := s.Load(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	load()
	wantTrust(t, s, key)

	m := newMover(t, nodes)
	slot, err := m.do(0, "CLUSTER", "KEYSLOT", s.layout.of(key).used).ToInt64()
	if err != nil {
		t.Fatal(err)
	}
	n, from := fmt.Sprint(slot), m.owner(slot)
	to := (from + 1) % len(nodes)
	carry := func(from, to int) {
		t.Helper()
		keys, err := m.do(from, "CLUSTER", "GETKEYSINSLOT", n, "100").AsStrSlice()
		if err != nil || len(keys) == 0 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		m.do(from, append([]string{"MIGRATE", "127.0.0.1", nodes[to].port, "", "0", "5000", "KEYS"}, keys...)...)
	}
	m.do(to, "CLUSTER", "SETSLOT", n, "IMPORTING", m.ids[from])
	m.do(from, "CLUSTER", "SETSLOT", n, "MIGRATING", m.ids[to])
	carry(from, to)
	load()
	if s.Trusted(key, time.Now()) {
		t.Error("a session is trusted that was read where no changes are told")
	}
	m.do(from, "CLUSTER", "SETSLOT", n, "STABLE")
	carry(to, from)
	m.do(to, "CLUSTER", "SETSLOT", n, "STABLE")

	doubts := heard.doubts.Load()
	wantTrust(t, s, key)
	if heard.doubts.Load() == doubts {
		t.Error("what was read meanwhile is not in doubt")
	}
	load()
	before := heard.told(key)
	if _, err := openWith(t, o).End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "word of the end", func() error {
		if heard.told(key) == before {
			return errors.New("nobody told of it")
		}
		return nil
	})
}

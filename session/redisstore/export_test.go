package redisstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sessiongate/session"
)

// stock fills a store with so many sessions that they take several pages.
func stock(t *testing.T, s *Store) []session.Key {
	t.Helper()
	var keys []session.Key
	for range 3 {
		items := make([]session.Item, session.ExportPage)
		for i := range items {
			rec := record()
			rec.Version = 1
			items[i] = session.Item{Key: random[session.Key](), Record: &rec}
			keys = append(keys, items[i].Key)
		}
		if _, err := s.Import(t.Context(), items); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// exportBut exports with something that happens once, when a page is met, and wants
// an error that says what to do, if not all of the sessions were told of.
func exportBut(t *testing.T, s *Store, want string, happens func(page []session.Item) bool) {
	t.Helper()
	happened := false
	err := s.Export(t.Context(), func(page []session.Item) error {
		if !happened {
			happened = happens(page)
		}
		return nil
	})
	if !happened {
		t.Fatalf("nothing happened: %v", err)
	}
	if err == nil || isAnswer(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("Export: %v, want an error with %q", err, want)
	}
}

// SCAN tells of all keys as long as it is the same server that is asked on: after a
// restart its cursor means another place.
func TestExportOfAServerThatIsRestartedIsNotWhole(t *testing.T) {
	t.Parallel()
	sv := launch(t, "--appendonly", "yes", "--appendfsync", "always")
	s := openAt(t, sv)
	stock(t, s)
	exportBut(t, s, "export it again", func([]session.Item) bool {
		sv.kill()
		if err := sv.start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
		return true
	})
}

func TestExportThatMeetsAFailoverIsNotWhole(t *testing.T) {
	t.Parallel()
	master := launch(t)
	replica := launch(t, "--replicaof", "127.0.0.1 "+master.port)
	dir := t.TempDir()
	config := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, "sentinel monitor shop 127.0.0.1 %s 1\n", master.port), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel, err := newServer(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.kill)
	s := openWith(t, Options{Addresses: []string{sentinel.addr()}, Sentinel: Sentinel{Master: "shop"}})
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
	stock(t, s)
	c := replica.client(t)
	eventually(t, "replication", func() error {
		n, err := c.Do(t.Context(), c.B().Dbsize().Build()).ToInt64()
		if err == nil && n < 3*session.ExportPage {
			err = fmt.Errorf("%d keys", n)
		}
		return err
	})
	exportBut(t, s, "export it again", func([]session.Item) bool {
		eventually(t, "failover", func() error {
			answer, err := sentinel.say("SENTINEL", "FAILOVER", "shop")
			if err == nil && answer != "+OK" {
				err = errors.New(answer) // it may not know the replica yet
			}
			return err
		})
		eventually(t, "the store knows the new master", func() error {
			masters, err := s.masters(t.Context())
			if err == nil && masters[0].addr != replica.addr() {
				err = errors.New(masters[0].addr)
			}
			return err
		})
		return true
	})
}

// A slot may go from a node that is still to be scanned to one that was.
func TestExportOfAClusterWhoseSlotsMoveIsNotWhole(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir())
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(nodes, func(a, b *server) int { return strings.Compare(a.addr(), b.addr()) })
	m := newMover(t, nodes)
	s := openWith(t, Options{Addresses: []string{nodes[0].addr(), nodes[1].addr()}, Cluster: true})
	slotOf := func(key session.Key) int64 { return int64(slot(fmt.Sprint(s.layout.number(key)))) }
	stock(t, s)
	// A session of the second node: the first one was scanned, the third is yet to be.
	halfWay := func(page []session.Item) bool {
		return slices.ContainsFunc(page, func(i session.Item) bool {
			return s.following.masters.Load().master(int(slotOf(i.Key))) == nodes[1].addr()
		})
	}
	exportBut(t, s, "export it again", func(page []session.Item) bool {
		if !halfWay(page) {
			return false
		}
		m.move(slotOf(lying(s, nodes[2])), 0)
		return true
	})
	wantHolders(t, s)
	moving := slotOf(lying(s, nodes[2]))
	for m.owner(moving) != 2 { // the store may not have heard of the move
		moving = slotOf(lying(s, nodes[2]))
	}
	exportBut(t, s, "on their way", func(page []session.Item) bool {
		if !halfWay(page) {
			return false
		}
		m.begin(moving, 2, 0, 0)
		return true
	})
	err = s.Export(t.Context(), func([]session.Item) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "on their way") {
		t.Errorf("Export while a slot is on its way: %v", err)
	}
	m.finish(moving, 2, 0)
	tally, err := session.Move(t.Context(), s, openBolt(t))
	if err != nil || tally.Sessions[session.FateAdded] != 3*session.ExportPage {
		t.Errorf("moved %v, %v", tally, err)
	}
}

// A node that the client has not heard of may have sessions, too.
func wantHolders(t *testing.T, s *Store) {
	t.Helper()
	masters, err := s.masters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range masters {
		masters[i].conn, _ = m.client.Dedicate()
		defer masters[i].conn.Close()
	}
	if all, err := s.slotHolders(t.Context(), masters); err != nil || len(all) != 3 {
		t.Errorf("three masters have the slots: %v, %v", all, err)
	}
	if _, err := s.slotHolders(t.Context(), masters[:2]); !errors.Is(err, errHolders) {
		t.Errorf("two of three masters: %v", err)
	}
}

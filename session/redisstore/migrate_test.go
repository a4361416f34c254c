package redisstore

import (
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"sessiongate/session"
	"sessiongate/session/boltstore"
	"sessiongate/session/storetest"
)

func openBolt(t testing.TB) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "sessions.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	single := func(t *testing.T) session.Portable { return openAt(t, shared) }
	many := func(t *testing.T) session.Portable { return openCluster(t, rand.Text()+":") }
	bolt := func(t *testing.T) session.Portable { return openBolt(t) }
	for _, row := range []struct {
		name     string
		from, to func(*testing.T) session.Portable
	}{
		{"from one server to another", single, single},
		{"from a file", bolt, single},
		{"from a file to a Cluster", bolt, many},
		{"to a file", single, bolt},
		{"from a Cluster to a file", many, bolt},
		{"to a Cluster", single, many},
		{"from a Cluster", many, single},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			storetest.RunMigrate(t, func(t *testing.T) (from, to session.Portable) { return row.from(t), row.to(t) })
		})
	}
}

// A prefix may hold what SCAN takes for a pattern, or be the beginning of another.
func TestMigrateTouchesNoOtherPrefix(t *testing.T) {
	t.Parallel()
	begin := rand.Text()
	ours, others := []string{begin + `[a]*?\:`}, []string{begin, begin + "a:", begin + `[a]*?\:x:`}
	for _, prefix := range append(others, ours...) {
		s := openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: prefix})
		if err := s.Create(t.Context(), random[session.Key](), record(random[session.Tag]())); err != nil {
			t.Fatal(err)
		}
	}
	tally, err := session.Move(t.Context(), openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: ours[0]}), openBolt(t))
	if err != nil || tally.Sessions[session.FateAdded] != 1 || len(tally.Sessions) != 1 {
		t.Errorf("moved %v, %v", tally, err)
	}
}

// What is moved lasts as long as what was created there.
func TestMigratedKeysExpire(t *testing.T) {
	t.Parallel()
	from, to := openBolt(t), openAt(t, shared)
	rec := record(random[session.Tag]())
	alive, gone := random[session.Key](), random[session.Key]()
	for _, key := range []session.Key{alive, gone} {
		if err := from.Create(t.Context(), key, rec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := from.End(t.Context(), gone, session.Logout, session.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Move(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	c := shared.client(t)
	p := to.layout.of(alive)
	for name, want := range map[string]time.Duration{
		p.session(alive):   time.Until(rec.Expires) + session.TombstoneGrace + sweepSlack,
		p.session(gone):    time.Until(rec.Expires) + session.TombstoneGrace,
		p.used:             time.Until(rec.Expires) + session.TombstoneGrace + sweepSlack,
		p.tag(rec.Tags[0]): time.Until(rec.Expires) + session.TombstoneGrace + sweepSlack,
	} {
		left, err := c.Do(t.Context(), c.B().Pttl().Key(name).Build()).ToInt64()
		if err != nil || (time.Duration(left)*time.Millisecond-want).Abs() > time.Minute {
			t.Errorf("%q lasts %v more, want %v: %v", name, time.Duration(left)*time.Millisecond, want, err)
		}
	}
}

// BenchmarkMigrate moves sessions of a usual size from a file, with two tags each.
func BenchmarkMigrate(b *testing.B) {
	for name, open := range map[string]func() *Store{
		"server":  func() *Store { return openAt(b, shared) },
		"cluster": func() *Store { return openCluster(b, rand.Text()+":") },
	} {
		b.Run(name, func(b *testing.B) {
			from, to := openBolt(b), open()
			items := make([]session.Item, session.ExportPage)
			for filled := 0; filled < b.N; filled += len(items) {
				for i := range items {
					rec := record(random[session.Tag](), random[session.Tag]())
					rec.Version, rec.Data = 1, make([]byte, 2500)
					items[i] = session.Item{Key: random[session.Key](), Record: &rec}
				}
				if _, err := from.Import(b.Context(), items[:min(len(items), b.N-filled)]); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			tally, err := session.Move(b.Context(), from, to)
			if err != nil || tally.Sessions[session.FateAdded] != b.N {
				b.Fatal(tally, err)
			}
		})
	}
}

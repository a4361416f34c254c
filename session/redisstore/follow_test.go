package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sessiongate/session"
)

// ear is a Follower that keeps count.
type ear struct {
	mu      sync.Mutex // guards changed
	changed map[session.Key]int
	doubts  atomic.Int64
}

func follow(s *Store) *ear {
	e := &ear{changed: map[session.Key]int{}}
	s.Follow(e)
	return e
}

func (e *ear) Changed(key session.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed[key]++
}

func (e *ear) Doubt() { e.doubts.Add(1) }

func (e *ear) told(key session.Key) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed[key]
}

func wantTrust(t *testing.T, s *Store, key session.Key) {
	t.Helper()
	eventually(t, "Trusted", func() error {
		if !s.Trusted(key, time.Now()) {
			return errors.New("not trusted")
		}
		return nil
	})
}

// awaitNoTrust returns when a session is not trusted any more, and how long that
// took.
func awaitNoTrust(t *testing.T, s *Store, key session.Key, begun time.Time) time.Duration {
	t.Helper()
	for s.Trusted(key, time.Now()) {
		if time.Since(begun) > patient {
			t.Fatal("a session is trusted for ever")
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(begun)
}

// wantDoubt wants one told of since a count.
func wantDoubt(t *testing.T, e *ear, since int64) {
	t.Helper()
	eventually(t, "Doubt", func() error {
		if e.doubts.Load() == since {
			return errors.New("nobody was told")
		}
		return nil
	})
}

// A store is trusted by no request, once it has a server, and again when that is
// back.
func TestTrust(t *testing.T) {
	const liveness = 400 * time.Millisecond
	for _, row := range []struct {
		name string
		gone func(*testing.T, *server)
		back func(*testing.T, *server)
	}{
		{"a server that stands still", func(t *testing.T, sv *server) { sv.signal(syscall.SIGSTOP) },
			func(t *testing.T, sv *server) { sv.signal(syscall.SIGCONT) }},
		{"a server that was killed", func(t *testing.T, sv *server) { sv.kill() }, func(t *testing.T, sv *server) {
			if err := sv.start(); err != nil {
				t.Fatal(err)
			}
		}},
		{"a master that lost its replicas", func(t *testing.T, sv *server) { sv.must(t, "CONFIG", "SET", "min-replicas-to-write", "1") },
			func(t *testing.T, sv *server) { sv.must(t, "CONFIG", "SET", "min-replicas-to-write", "0") }},
	} {
		for _, grace := range []time.Duration{0, time.Second} {
			t.Run(fmt.Sprintf("%s, grace %v", row.name, grace), func(t *testing.T) {
				t.Parallel()
				sv := launch(t)
				const timeout = 300 * time.Millisecond
				s := openWith(t, Options{Addresses: []string{sv.addr()}, Liveness: liveness, Grace: grace, Timeout: timeout})
				e := follow(s)
				key := random[session.Key]()
				wantTrust(t, s, key)
				doubts := e.doubts.Load()
				begun := time.Now()
				row.gone(t, sv)
				took := awaitNoTrust(t, s, key, begun)
				if least := grace + liveness/2; took < least {
					t.Errorf("trusted for %v, want %v at least", took, least)
				}
				if most := grace + liveness + time.Second/2; took > most {
					t.Errorf("trusted for %v, want %v at most", took, most)
				}
				if e.doubts.Load() != doubts {
					t.Error("what is trusted yet is in doubt, when nothing better is known")
				}
				asked := time.Now()
				_, err := s.Load(t.Context(), key)
				wantUnknown(t, "Load", err)
				if took := time.Since(asked); took > timeout+timeout/4+time.Second {
					t.Errorf("Load took %v with a time-out of %v", took, timeout)
				}
				// Long enough that its connection is given up.
				time.Sleep(2 * liveness)
				if s.Trusted(key, time.Now()) {
					t.Error("a server that is away is trusted")
				}
				row.back(t, sv)
				begun = time.Now()
				wantTrust(t, s, key)
				t.Logf("gone after %v, back after %v", took, time.Since(begun))
				if row.name != "a master that lost its replicas" {
					wantDoubt(t, e, doubts)
				}
			})
		}
	}
}

func TestStoreThatWasNeverReachedIsNotTrusted(t *testing.T) {
	sv := launch(t)
	sv.kill()
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Liveness: 100 * time.Millisecond, Grace: 24 * time.Hour})
	key := random[session.Key]()
	for begun := time.Now(); time.Since(begun) < 300*time.Millisecond; time.Sleep(time.Millisecond) {
		if s.Trusted(key, time.Now()) || s.Trusted(key, s.following.begun) {
			t.Fatal("a store that was never reached is trusted")
		}
	}
	if err := sv.start(); err != nil {
		t.Fatal(err)
	}
	wantTrust(t, s, key)
}

// A Load proves as a probe does.
func TestLoadProves(t *testing.T) {
	s := openWith(t, Options{Addresses: []string{shared.addr()}, Liveness: time.Hour})
	key := create(t, s, record())
	wantTrust(t, s, key)
	proven := s.following.proven[0].Load()
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if s.following.proven[0].Load() <= proven {
		t.Error("a Load that was answered proves nothing")
	}
}

// What is told is told before the next answer, so of a connection that lives
// nothing is missed.
func TestFollowing(t *testing.T) {
	for name, open := range where {
		t.Run(name, func(t *testing.T) {
			prefix := random[session.Tag]()
			s, _ := open(t, fmt.Sprintf("%x:", prefix[:8]))
			other, _ := open(t, s.opts.Prefix)
			e := follow(s)
			key := create(t, other, record())
			if _, err := s.Load(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if err := other.Replace(t.Context(), key, 1, []byte("new")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Changed", func() error {
				if e.told(key) == 0 {
					return errors.New("not told")
				}
				return nil
			})
		})
	}
}

// A server that was emptied tells of no key by name.
func TestServerThatIsEmptied(t *testing.T) {
	sv := launch(t)
	s := openAt(t, sv)
	e := follow(s)
	key := create(t, s, record())
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	wantTrust(t, s, key)
	doubts := e.doubts.Load()
	sv.must(t, "FLUSHALL")
	wantDoubt(t, e, doubts)
	if _, err := s.Load(context.Background(), key); err != session.ErrAbsent {
		t.Errorf("Load: %v, want %v", err, session.ErrAbsent)
	}
}

// The specification's own example, and those of a Redis.
func TestSlot(t *testing.T) {
	if got := slot("123456789"); got != 0x31c3 {
		t.Errorf("slot = %#x, want 0x31c3", got)
	}
	for _, tag := range []string{"0", "7", "1023", "abc"} {
		if got, want := fmt.Sprint(":", slot(tag)), cluster[0].must(t, "CLUSTER", "KEYSLOT", tag); got != want {
			t.Errorf("the slot of %q is %s, want %s", tag, got, want)
		}
	}
}

// lying is a session's key in a slot of a node.
func lying(s *Store, node *server) session.Key {
	for {
		key := random[session.Key]()
		if s.following.masters.Load().master(s.following.slots[s.layout.number(key)]) == node.addr() {
			return key
		}
	}
}

// Each node of a Cluster proves its own partitions, and those only.
func TestNodeThatStandsStill(t *testing.T) {
	t.Parallel()
	nodes, err := launchCluster(t.TempDir(), "--cluster-node-timeout", "60000")
	for _, node := range nodes {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	const liveness = 400 * time.Millisecond
	s := openWith(t, Options{Addresses: []string{nodes[0].addr()}, Cluster: true, Liveness: liveness, Timeout: time.Second})
	e := follow(s)
	wantTrust(t, s, random[session.Key]())
	here, there := lying(s, nodes[0]), lying(s, nodes[1])
	wantTrust(t, s, here)
	wantTrust(t, s, there)
	nodes[1].signal(syscall.SIGSTOP)
	awaitNoTrust(t, s, there, time.Now())
	for begun := time.Now(); time.Since(begun) < 2*liveness; time.Sleep(time.Millisecond) {
		if s.Trusted(there, time.Now()) {
			t.Fatal("a session is trusted whose node stands still")
		}
	}
	wantTrust(t, s, here)
	doubts := e.doubts.Load()
	nodes[1].signal(syscall.SIGCONT)
	wantDoubt(t, e, doubts)
	wantTrust(t, s, there)
}

// A replica that was made the master is read, and what was read at the former one
// is in doubt.
func TestNodeThatIsReplaced(t *testing.T) {
	for _, row := range []struct {
		name    string
		replace func(t *testing.T, master, replica *server)
	}{
		{"by an operator", func(t *testing.T, _, replica *server) {
			eventually(t, "failover", func() error { // the nodes may not agree yet that it may
				answer, err := replica.say("CLUSTER", "FAILOVER")
				if err == nil && !strings.Contains(answer, "send CLUSTER FAILOVER to a replica") {
					err = fmt.Errorf("it is no master: %s", answer)
				}
				return err
			})
		}},
		{"as it died", func(t *testing.T, master, _ *server) { master.kill() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			masters, replicas := launchPairs(t, "--cluster-node-timeout", "1000")
			s := openWith(t, Options{Addresses: []string{masters[0].addr()}, Cluster: true, Liveness: 400 * time.Millisecond, Timeout: time.Second})
			e := follow(s)
			wantTrust(t, s, random[session.Key]())
			key := lying(s, masters[1])
			if err := s.Create(t.Context(), key, record()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			awaitReplica(t, masters[1])
			doubts := e.doubts.Load()
			begun := time.Now()
			row.replace(t, masters[1], replicas[1])
			wantDoubt(t, e, doubts)
			eventually(t, "Load", func() error {
				_, err := s.Load(t.Context(), key)
				if isAnswer(err) {
					t.Fatalf("Load: %v", err)
				}
				return err
			})
			wantTrust(t, s, key)
			t.Logf("trusted again after %v", time.Since(begun))
			s.following.mu.Lock()
			defer s.following.mu.Unlock()
			if got := s.following.owner[s.layout.number(key)].addr; got != replicas[1].addr() {
				t.Errorf("it is read at %s, want %s", got, replicas[1].addr())
			}
		})
	}
}

// Trusted is on the path of every request.
func TestTrustedCostsNothing(t *testing.T) {
	s := openAt(t, shared)
	key, now := random[session.Key](), time.Now()
	if n := testing.AllocsPerRun(100, func() { s.Trusted(key, now) }); n != 0 {
		t.Errorf("Trusted allocates %v times", n)
	}
	// It looks at memory only, whoever holds what.
	s.following.mu.Lock()
	defer s.following.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Trusted(key, now)
	s.Ahead()
}

package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
)

// promptly is within what a change is to be told (issue "many replicas": a logout
// is effective on all others within 100 ms). It is measured and logged; a test
// fails only after soon, as machines are busy.
const promptly = 100 * time.Millisecond

// ear is a Follower that keeps when it was told of what.
type ear struct {
	mu     sync.Mutex // guards what follows
	told   map[session.Key]time.Time
	doubts int
}

func follow(s session.Shared) *ear {
	e := &ear{told: map[session.Key]time.Time{}}
	s.Follow(e)
	return e
}

func (e *ear) Changed(key session.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.told[key]; !ok {
		e.told[key] = time.Now()
	}
}

func (e *ear) Doubt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doubts++
}

// forget makes the next change of a session count.
func (e *ear) forget(key session.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.told, key)
}

func (e *ear) heard(key session.Key) (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.told[key]
	return at, ok
}

// await waits until a session's change is told, and returns when it was.
func (e *ear) await(t *testing.T, what string, key session.Key) time.Time {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < soon; time.Sleep(time.Millisecond) {
		if at, ok := e.heard(key); ok {
			return at
		}
	}
	t.Fatalf("%s is not told", what)
	return time.Time{}
}

// neighbour is a key that a store which spreads sessions by their keys keeps close.
func neighbour(of session.Key) session.Key {
	key := random[session.Key]()
	copy(key[:8], of[:8])
	return key
}

// writes are all that changes a session.
var writes = []struct {
	name string
	do   func(t *testing.T, s session.Store, key session.Key, tag session.Tag)
}{
	{"Replace", func(t *testing.T, s session.Store, key session.Key, _ session.Tag) {
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
	}},
	{"End", func(t *testing.T, s session.Store, key session.Key, _ session.Tag) { end(t, s, key, session.Logout) }},
	{"EndTagged", func(t *testing.T, s session.Store, _ session.Key, tag session.Tag) {
		endTagged(t, s, tag, session.BackChannel, session.Scope{})
	}},
	{"Sweep", func(t *testing.T, s session.Store, _ session.Key, _ session.Tag) { sweep(t, s, limits) }},
}

// sharedRows are for two stores that tell of each other's writes.
var sharedRows = []struct {
	name string
	run  func(t *testing.T, one, other session.Shared)
}{
	{"whatever one changes the other is told of, if it had loaded it", func(t *testing.T, one, other session.Shared) {
		e := follow(other)
		for _, w := range writes {
			var took []time.Duration
			for range 20 {
				tag := random[session.Tag]()
				rec := record(tag)
				if w.name == "Sweep" {
					rec.Used = ago(idle)
				}
				key := create(t, one, rec)
				load(t, other, key)
				e.forget(key)
				w.do(t, one, key, tag)
				done := time.Now()
				took = append(took, max(0, e.await(t, w.name, key).Sub(done)))
			}
			slices.Sort(took)
			t.Logf("%s is told %v after it was done in the median, %v at most; it should be %v", w.name, took[len(took)/2], took[len(took)-1], promptly)
		}
	}},
	{"a change is told again when the session was loaded again", func(t *testing.T, one, other session.Shared) {
		e := follow(other)
		key := create(t, one, record())
		for version := range uint64(20) {
			if got := load(t, other, key).Version; got != version+1 {
				t.Fatalf("version = %d, want %d", got, version+1)
			}
			e.forget(key)
			if err := one.Replace(t.Context(), key, version+1, []byte("new")); err != nil {
				t.Fatalf("Replace: %v", err)
			}
			e.await(t, "Replace", key)
		}
	}},
	{"a load that meets a change reads what is new, or the change is told", func(t *testing.T, one, other session.Shared) {
		e := follow(other)
		for range 100 {
			key := create(t, one, record())
			load(t, other, key)
			e.forget(key)
			var loaded session.Record
			parallel(2, func(i int) {
				if i == 0 {
					loaded = load(t, other, key)
				} else if err := one.Replace(t.Context(), key, 1, []byte("new")); err != nil {
					t.Errorf("Replace: %v", err)
				}
			})
			if loaded.Version == 1 {
				e.await(t, "Replace", key)
			}
		}
	}},
	// A session in use is touched again and again, and nobody wants to hear of it.
	{"a touch is not told", func(t *testing.T, one, other session.Shared) {
		e := follow(other)
		touched := create(t, one, record())
		changed := neighbour(touched)
		if err := one.Create(t.Context(), changed, record()); err != nil {
			t.Fatalf("Create: %v", err)
		}
		load(t, other, touched)
		load(t, other, changed)
		e.forget(touched)
		e.forget(changed)
		touch(t, one, touched, now)
		if err := one.Replace(t.Context(), changed, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		e.await(t, "Replace", changed)
		if _, ok := e.heard(touched); ok {
			t.Error("a touch is told")
		}
	}},
	{"what was not loaded is not told", func(t *testing.T, one, other session.Shared) {
		e := follow(other)
		strange := create(t, one, record())
		known := neighbour(strange)
		if err := one.Create(t.Context(), known, record()); err != nil {
			t.Fatalf("Create: %v", err)
		}
		load(t, other, known)
		for _, key := range []session.Key{strange, known} {
			end(t, one, key, session.Logout)
		}
		e.await(t, "End", known)
		if _, ok := e.heard(strange); ok {
			t.Error("the end of a session is told that was not loaded")
		}
	}},
	{"a store that can be reached is trusted, and goes on to be", func(t *testing.T, one, other session.Shared) {
		key := create(t, one, record())
		for begun := time.Now(); !other.Trusted(key, time.Now()); time.Sleep(time.Millisecond) {
			if time.Since(begun) > soon {
				t.Fatal("it is not trusted")
			}
		}
		load(t, other, key)
		if at := time.Now(); other.Trusted(key, at.Add(24*time.Hour)) {
			t.Error("it is trusted for a day without another word")
		}
		if ahead := other.Ahead(); ahead != 0 {
			t.Errorf("Ahead = %v of a store with our own clock", ahead)
		}
	}},
	{"a store that is closed is not trusted for long", func(t *testing.T, one, other session.Shared) {
		key := create(t, other, record())
		load(t, other, key)
		if err := other.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		for begun := time.Now(); other.Trusted(key, time.Now()); time.Sleep(time.Millisecond) {
			if time.Since(begun) > soon {
				t.Fatal("it is trusted for ever")
			}
		}
	}},
}

// runShared checks stores that tell of what others do.
func runShared(t *testing.T, open func(t *testing.T) []session.Store) {
	t.Run("Shared", func(t *testing.T) {
		for _, r := range sharedRows {
			t.Run(r.name, func(t *testing.T) {
				stores := open(t)
				one, shared := stores[0].(session.Shared)
				if !shared {
					t.Fatalf("%T tells nobody of what others do", stores[0])
				}
				r.run(t, one, stores[1].(session.Shared))
			})
		}
	})
}

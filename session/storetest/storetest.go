// Package storetest checks that a session.Store keeps its contract. Every store
// passes the same suite, and a bug found in one of them gets its test here.
//
// Times are handed in, never waited for, unless it is the waiting that a row is
// about. They are whole milliseconds close to the real clock, and what should
// have run out has run out by that clock too, so that a store may let its
// database expire things.
package storetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sessiongate/session"
)

type row struct {
	name string
	run  func(t *testing.T, s session.Store)
}

// Run runs the suite. Every subtest calls open for a store of its own, fresh
// and empty, which open closes by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) session.Store) {
	for _, group := range []struct {
		name string
		rows []row
	}{
		{"Create", createRows},
		{"Load", loadRows},
		{"Replace", replaceRows},
		{"End", endRows},
		{"EndTagged", endTaggedRows},
		{"Mark", markRows},
		{"Tagged", taggedRows},
		{"Touch", touchRows},
		{"Once", onceRows},
		{"Lease", leaseRows},
		{"Sweep", sweepRows},
		{"Count", countRows},
		{"Bytes", bytesRows},
		{"Race", raceRows},
		{"Unknown", unknownRows},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, r := range group.rows {
				t.Run(r.name, func(t *testing.T) { r.run(t, open(t)) })
			}
		})
	}
}

// now is close enough to the present for every test.
var now = time.Now().Truncate(time.Millisecond)

const (
	idle     = 30 * time.Minute
	lifetime = 8 * time.Hour
)

var limits = session.Limits{Now: now, Idle: idle, Lifetime: lifetime}

// random fills a key, a tag or a binding.
func random[T ~[32]byte]() T {
	var b [32]byte
	rand.Read(b[:])
	return T(b)
}

// record is one of a session that began a minute ago and may last.
func record(tags ...session.Tag) session.Record {
	return session.Record{
		Binding: random[[32]byte](),
		Began:   now.Add(-2 * time.Minute),
		Created: now.Add(-time.Minute),
		Expires: now.Add(time.Hour),
		Used:    now.Add(-time.Minute),
		Tags:    tags,
		Listing: []byte("listing"),
		Data:    []byte("data"),
	}
}

// create adds the record under a new key.
func create(t *testing.T, s session.Store, rec session.Record) session.Key {
	t.Helper()
	key := random[session.Key]()
	if err := s.Create(t.Context(), key, rec); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return key
}

// createMany adds n records, many at a time.
func createMany(t *testing.T, s session.Store, n int, rec session.Record) []session.Key {
	t.Helper()
	keys := make([]session.Key, n)
	for i := range keys {
		keys[i] = random[session.Key]()
	}
	createAll(t, s, keys, rec)
	return keys
}

// createAll adds the record under each of the keys, many at a time.
func createAll(t *testing.T, s session.Store, keys []session.Key, rec session.Record) {
	t.Helper()
	parallel(64, func(worker int) {
		for i := worker; i < len(keys); i += 64 {
			if err := s.Create(t.Context(), keys[i], rec); err != nil {
				t.Errorf("Create: %v", err)
				return
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// parallel runs f n times at once and waits for all.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

func load(t *testing.T, s session.Store, key session.Key) session.Record {
	t.Helper()
	rec, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return rec
}

func end(t *testing.T, s session.Store, key session.Key, reason session.Reason) session.Record {
	t.Helper()
	rec, err := s.End(t.Context(), key, reason, session.Condition{})
	if err != nil {
		t.Fatalf("End: %v", err)
	}
	return rec
}

// endTagged ends what carries the tag and is in the scope.
func endTagged(t *testing.T, s session.Store, tag session.Tag, reason session.Reason, sc session.Scope) []session.Ending {
	t.Helper()
	endings, err := s.EndTagged(t.Context(), tag, reason, sc)
	if err != nil {
		t.Fatalf("EndTagged: %v", err)
	}
	return endings
}

func sweep(t *testing.T, s session.Store, l session.Limits) []session.Ending {
	t.Helper()
	endings, err := s.Sweep(t.Context(), l)
	if err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	return endings
}

func touch(t *testing.T, s session.Store, key session.Key, at time.Time) {
	t.Helper()
	if err := s.Touch(t.Context(), []session.Touch{{Key: key, At: at}}); err != nil {
		t.Fatalf("Touch: %v", err)
	}
}

func count(t *testing.T, s session.Store) int {
	t.Helper()
	n, err := s.Count(t.Context())
	if err != nil {
		t.Fatalf("Count: %v", err)
	}
	return n
}

// wantError wants an error that is exactly the contract's, ErrAbsent without a
// reason for instance.
func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error = %v, want %v", what, got, want)
	}
	var ended *session.Ended
	if errors.As(got, &ended) {
		t.Errorf("%s: error = %v, want no reason", what, got)
	}
}

func wantEnded(t *testing.T, what string, got error, want session.Reason) {
	t.Helper()
	var ended *session.Ended
	if !errors.As(got, &ended) || ended.Reason != want {
		t.Errorf("%s: error = %v, want Ended(%s)", what, got, want)
	}
}

// wantGone wants the session to be ended, with the reason.
func wantGone(t *testing.T, s session.Store, key session.Key, want session.Reason) {
	t.Helper()
	_, err := s.Load(t.Context(), key)
	wantEnded(t, "Load", err, want)
}

func wantRecord(t *testing.T, got, want session.Record) {
	t.Helper()
	if got.Version != want.Version {
		t.Errorf("Version = %d, want %d", got.Version, want.Version)
	}
	if got.Binding != want.Binding {
		t.Errorf("Binding = %x, want %x", got.Binding, want.Binding)
	}
	for _, at := range []struct {
		name      string
		got, want time.Time
	}{
		{"Began", got.Began, want.Began},
		{"Created", got.Created, want.Created},
		{"Expires", got.Expires, want.Expires},
		{"Used", got.Used, want.Used},
	} {
		if !at.got.Equal(at.want) {
			t.Errorf("%s = %v, want %v", at.name, at.got, at.want)
		}
	}
	if !slices.Equal(got.Tags, want.Tags) {
		t.Errorf("Tags = %x, want %x", got.Tags, want.Tags)
	}
	wantBytes(t, "Listing", got.Listing, want.Listing)
	wantBytes(t, "Data", got.Data, want.Data)
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	if len(got)+len(want) > 200 {
		t.Errorf("%s: %d bytes differ from the %d wanted", what, len(got), len(want))
		return
	}
	t.Errorf("%s = %q, want %q", what, got, want)
}

// wantEndings wants exactly these keys, each once, with the reason and the
// binding.
func wantEndings(t *testing.T, got []session.Ending, reason session.Reason, binding [32]byte, keys ...session.Key) {
	t.Helper()
	missing := map[session.Key]bool{}
	for _, key := range keys {
		missing[key] = true
	}
	for _, e := range got {
		if !missing[e.Key] {
			t.Errorf("%x ended twice or should not have ended", e.Key[:4])
		}
		delete(missing, e.Key)
		if e.Reason != reason {
			t.Errorf("Reason = %s, want %s", e.Reason, reason)
		}
		if e.Binding != binding {
			t.Errorf("Binding = %x, want %x", e.Binding, binding)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d sessions were not told of", len(missing), len(keys))
	}
}

package storetest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

var createRows = []row{
	{"a created session is found as it was given", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag](), random[session.Tag]())
		got := load(t, s, create(t, s, rec))
		rec.Version = 1
		wantRecord(t, got, rec)
	}},
	{"the store sets the version to 1, whatever it is given", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Version = 77
		if got := load(t, s, create(t, s, rec)).Version; got != 1 {
			t.Errorf("Version = %d, want 1", got)
		}
	}},
	{"a key taken by a live session exists and nothing is changed", func(t *testing.T, s session.Store) {
		first, tag := record(random[session.Tag]()), random[session.Tag]()
		key := create(t, s, first)
		wantError(t, "Create", s.Create(t.Context(), key, record(tag)), session.ErrExists)
		first.Version = 1
		wantRecord(t, load(t, s, key), first)
		endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{})
		if err != nil || len(endings) != 0 {
			t.Errorf("EndTagged by the refused record's tag = %v, %v, want nothing", endings, err)
		}
	}},
	{"a key taken by a tombstone exists and stays ended", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		end(t, s, key, session.Logout)
		wantError(t, "Create", s.Create(t.Context(), key, record()), session.ErrExists)
		wantGone(t, s, key, session.Logout)
	}},
	{"of many that create the same key exactly one succeeds", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		wantOneWinner(t, 20, session.ErrExists, func(int) error { return s.Create(t.Context(), key, record()) })
	}},
	{"the begin of a login that nobody knows stays unknown", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Began = time.Time{}
		key := create(t, s, rec)
		if got := load(t, s, key).Began; !got.IsZero() {
			t.Errorf("Began = %v, want the zero time", got)
		}
		if got := end(t, s, key, session.Logout).Began; !got.IsZero() {
			t.Errorf("Began of the ended = %v, want the zero time", got)
		}
	}},
	{"a session without tags, listing and data is one", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Listing, rec.Data = nil, nil
		got := load(t, s, create(t, s, rec))
		rec.Version = 1
		wantRecord(t, got, rec)
	}},
}

// wantOneWinner runs f at once n times: one call succeeds, the others get lost.
func wantOneWinner(t *testing.T, n int, lost error, f func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	parallel(n, func(i int) { errs[i] = f(i) })
	winners := 0
	for _, err := range errs {
		if err == nil {
			winners++
		} else if !errors.Is(err, lost) {
			t.Errorf("error = %v, want %v", err, lost)
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d succeeded, want 1", winners, n)
	}
}

var loadRows = []row{
	{"an unknown key is absent, without a reason", func(t *testing.T, s session.Store) {
		create(t, s, record())
		_, err := s.Load(t.Context(), random[session.Key]())
		wantError(t, "Load", err, session.ErrAbsent)
	}},
	{"an ended session is absent and tells its reason", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		end(t, s, key, session.BackChannel)
		_, err := s.Load(t.Context(), key)
		wantEnded(t, "Load", err, session.BackChannel)
		if !errors.Is(err, session.ErrAbsent) {
			t.Errorf("Load: error = %v, want one that is ErrAbsent", err)
		}
	}},
	{"a session that ran out by the clock is still found", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Created, rec.Used, rec.Expires = now.Add(-9*time.Hour), now.Add(-2*time.Hour), now.Add(-time.Minute)
		got := load(t, s, create(t, s, rec))
		rec.Version = 1
		wantRecord(t, got, rec)
	}},
	{"each session has its own record", func(t *testing.T, s session.Store) {
		one, other := record(), record()
		one.Data, other.Data = []byte("one"), []byte("other")
		oneKey, otherKey := create(t, s, one), create(t, s, other)
		wantBytes(t, "Data", load(t, s, oneKey).Data, one.Data)
		wantBytes(t, "Data", load(t, s, otherKey).Data, other.Data)
	}},
	{"a record of 200 KB is found whole", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Data = bytes.Repeat([]byte("0123456789"), 20<<10)
		key := create(t, s, rec)
		wantBytes(t, "Data", load(t, s, key).Data, rec.Data)
		bigger := bytes.Repeat([]byte("9876543210"), 21<<10)
		if err := s.Replace(t.Context(), key, 1, bigger); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		wantBytes(t, "Data", load(t, s, key).Data, bigger)
		wantBytes(t, "Data of the ended", end(t, s, key, session.Logout).Data, bigger)
	}},
}

var replaceRows = []row{
	{"data is written and all else is as it was", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		key := create(t, s, rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		rec.Version, rec.Data = 2, []byte("new")
		wantRecord(t, load(t, s, key), rec)
	}},
	{"the version counts every write of data", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		for version := uint64(1); version <= 20; version++ {
			if err := s.Replace(t.Context(), key, version, []byte{byte(version)}); err != nil {
				t.Fatalf("Replace at version %d: %v", version, err)
			}
		}
		got := load(t, s, key)
		if got.Version != 21 {
			t.Errorf("Version = %d, want 21", got.Version)
		}
		wantBytes(t, "Data", got.Data, []byte{20})
	}},
	{"another version is a conflict and nothing is changed", func(t *testing.T, s session.Store) {
		rec := record()
		key := create(t, s, rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		for _, version := range []uint64{0, 1, 3} {
			wantError(t, "Replace", s.Replace(t.Context(), key, version, []byte("wrong")), session.ErrConflict)
		}
		rec.Version, rec.Data = 2, []byte("new")
		wantRecord(t, load(t, s, key), rec)
	}},
	{"of many that replace the same version exactly one succeeds", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		wantOneWinner(t, 20, session.ErrConflict, func(i int) error {
			return s.Replace(t.Context(), key, 1, []byte{byte(i)})
		})
		if got := load(t, s, key).Version; got != 2 {
			t.Errorf("Version = %d, want 2", got)
		}
	}},
	{"an unknown key is absent and stays so", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		for _, version := range []uint64{0, 1} {
			wantError(t, "Replace", s.Replace(t.Context(), key, version, []byte("new")), session.ErrAbsent)
		}
		_, err := s.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
	}},
	{"a session that ended is never brought back", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		end(t, s, key, session.Logout)
		for _, version := range []uint64{0, 1, 2} {
			wantEnded(t, "Replace", s.Replace(t.Context(), key, version, []byte("new")), session.Logout)
		}
		wantGone(t, s, key, session.Logout)
	}},
}

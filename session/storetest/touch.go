package storetest

import (
	"testing"
	"time"

	"sessiongate/session"
)

var touchRows = []row{
	{"used moves forward and the version stays", func(t *testing.T, s session.Store) {
		rec := record()
		key := create(t, s, rec)
		touch(t, s, key, now)
		rec.Version, rec.Used = 1, now
		wantRecord(t, load(t, s, key), rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Errorf("Replace after Touch: %v", err)
		}
	}},
	{"used never moves back", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		touch(t, s, key, now)
		touch(t, s, key, now.Add(-time.Second))
		if got := load(t, s, key).Used; !got.Equal(now) {
			t.Errorf("Used = %v, want %v", got, now)
		}
	}},
	{"a write of data does not move used back", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		touch(t, s, key, now)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		if got := load(t, s, key).Used; !got.Equal(now) {
			t.Errorf("Used = %v, want %v", got, now)
		}
	}},
	{"many sessions are touched at once, the latest touch of each counts", func(t *testing.T, s session.Store) {
		var touches []session.Touch
		keys := createMany(t, s, 1000, record())
		for _, at := range []time.Time{now.Add(-time.Second), now, now.Add(-2 * time.Second)} {
			for _, key := range keys {
				touches = append(touches, session.Touch{Key: key, At: at})
			}
		}
		if err := s.Touch(t.Context(), touches); err != nil {
			t.Fatalf("Touch: %v", err)
		}
		for _, key := range keys {
			if got := load(t, s, key).Used; !got.Equal(now) {
				t.Fatalf("Used = %v, want %v", got, now)
			}
		}
	}},
	{"those not live are passed over and stay as they are", func(t *testing.T, s session.Store) {
		live, ended, unknown := create(t, s, record()), create(t, s, record()), random[session.Key]()
		end(t, s, ended, session.Logout)
		err := s.Touch(t.Context(), []session.Touch{{Key: unknown, At: now}, {Key: ended, At: now}, {Key: live, At: now}})
		if err != nil {
			t.Errorf("Touch: %v", err)
		}
		if got := load(t, s, live).Used; !got.Equal(now) {
			t.Errorf("Used = %v, want %v", got, now)
		}
		wantGone(t, s, ended, session.Logout)
		_, err = s.Load(t.Context(), unknown)
		wantError(t, "Load", err, session.ErrAbsent)
		if err := s.Create(t.Context(), unknown, record()); err != nil {
			t.Errorf("Create after Touch: %v", err)
		}
	}},
	{"no touch at all is no error", func(t *testing.T, s session.Store) {
		if err := s.Touch(t.Context(), nil); err != nil {
			t.Errorf("Touch: %v", err)
		}
	}},
}

package storetest

import (
	"testing"
	"time"

	"sessiongate/session"
)

var endRows = []row{
	{"the record is returned as it was at that moment", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		key := create(t, s, rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		touch(t, s, key, now)
		rec.Version, rec.Data, rec.Used = 2, []byte("new"), now
		wantRecord(t, end(t, s, key, session.Logout), rec)
		wantGone(t, s, key, session.Logout)
	}},
	{"every reason is kept", func(t *testing.T, s session.Store) {
		for _, reason := range []session.Reason{
			session.IdleTimeout, session.Lifetime, session.Logout, session.BackChannel, session.FrontChannel,
			session.Revoked, session.RefreshRejected, session.TokenExpired, session.Replaced,
		} {
			key := create(t, s, record())
			end(t, s, key, reason)
			wantGone(t, s, key, reason)
		}
	}},
	{"the first reason stays", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		key := create(t, s, record(tag))
		end(t, s, key, session.Logout)
		_, err := s.End(t.Context(), key, session.Revoked, session.Condition{})
		wantEnded(t, "End", err, session.Logout)
		if _, err := s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{}); err != nil {
			t.Errorf("EndTagged: %v", err)
		}
		sweep(t, s, session.Limits{Now: now.Add(time.Hour), Idle: time.Minute, Lifetime: time.Minute})
		wantGone(t, s, key, session.Logout)
	}},
	{"an unknown key is absent", func(t *testing.T, s session.Store) {
		_, err := s.End(t.Context(), random[session.Key](), session.Logout, session.Condition{})
		wantError(t, "End", err, session.ErrAbsent)
	}},
	{"an ended session tells its reason before any condition", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		end(t, s, key, session.Logout)
		_, err := s.End(t.Context(), key, session.Revoked, session.Condition{Version: 7})
		wantEnded(t, "End", err, session.Logout)
	}},
	{"another version is a conflict and the session lives", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		for _, version := range []uint64{1, 3} {
			_, err := s.End(t.Context(), key, session.RefreshRejected, session.Condition{Version: version})
			wantError(t, "End", err, session.ErrConflict)
		}
		wantBytes(t, "Data", load(t, s, key).Data, []byte("new"))
		if _, err := s.End(t.Context(), key, session.RefreshRejected, session.Condition{Version: 2}); err != nil {
			t.Errorf("End at its version: %v", err)
		}
		wantGone(t, s, key, session.RefreshRejected)
	}},
	{"a session used after UnusedSince is a conflict and lives", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		touch(t, s, key, now)
		_, err := s.End(t.Context(), key, session.IdleTimeout, session.Condition{UnusedSince: now.Add(-time.Millisecond)})
		wantError(t, "End", err, session.ErrConflict)
		load(t, s, key)
	}},
	{"a session last used at UnusedSince ends", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		touch(t, s, key, now)
		if _, err := s.End(t.Context(), key, session.IdleTimeout, session.Condition{UnusedSince: now}); err != nil {
			t.Errorf("End: %v", err)
		}
		wantGone(t, s, key, session.IdleTimeout)
	}},
	{"both parts of a condition must be met", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		used := load(t, s, key).Used
		for _, c := range []session.Condition{
			{Version: 2, UnusedSince: used},
			{Version: 1, UnusedSince: used.Add(-time.Millisecond)},
		} {
			_, err := s.End(t.Context(), key, session.IdleTimeout, c)
			wantError(t, "End", err, session.ErrConflict)
		}
		if _, err := s.End(t.Context(), key, session.IdleTimeout, session.Condition{Version: 1, UnusedSince: used}); err != nil {
			t.Errorf("End: %v", err)
		}
	}},
	{"of many that end a session exactly one does and its reason stays", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		reasons := []session.Reason{session.Logout, session.Revoked, session.BackChannel, session.Replaced}
		var won session.Reason
		wantOneWinner(t, 20, session.ErrAbsent, func(i int) error {
			_, err := s.End(t.Context(), key, reasons[i%len(reasons)], session.Condition{})
			if err == nil {
				won = reasons[i%len(reasons)]
			}
			return err
		})
		wantGone(t, s, key, won)
	}},
}

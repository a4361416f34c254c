package storetest

import (
	"context"
	"errors"
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

var endTaggedRows = []row{
	{"every session with the tag ends and no other", func(t *testing.T, s session.Store) {
		tag, otherTag := random[session.Tag](), random[session.Tag]()
		rec := record(otherTag, tag)
		keys := createMany(t, s, 3, rec)
		other, untagged := create(t, s, record(otherTag)), create(t, s, record())

		endings, err := s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.BackChannel, rec.Binding, keys...)
		for _, key := range keys {
			wantGone(t, s, key, session.BackChannel)
		}
		load(t, s, other)
		load(t, s, untagged)
	}},
	{"no session with the tag is no error", func(t *testing.T, s session.Store) {
		create(t, s, record(random[session.Tag]()))
		endings, err := s.EndTagged(t.Context(), random[session.Tag](), session.BackChannel, session.Scope{})
		if err != nil || len(endings) != 0 {
			t.Errorf("EndTagged = %v, %v, want nothing", endings, err)
		}
	}},
	{"those listed in except live on and keep their tag", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 5, rec)
		spared := append([]session.Key{random[session.Key]()}, keys[3:]...)
		endings, err := s.EndTagged(t.Context(), tag, session.Replaced, session.Scope{Except: spared})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Replaced, rec.Binding, keys[:3]...)
		load(t, s, keys[3])
		load(t, s, keys[4])
		if endings, err = s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Logout, rec.Binding, keys[3:]...)
	}},
	// BC-06: a logout token that is sent again ends nobody's next session.
	{"those whose login began then or later live on and keep their tag", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		var keys [4]session.Key
		for i, after := range []time.Duration{-time.Hour, -time.Millisecond, 0, time.Millisecond} {
			rec.Began = ago(time.Minute).Add(after)
			keys[i] = create(t, s, rec)
		}
		sc := session.Scope{BeganBefore: ago(time.Minute)}
		wantEndings(t, endTagged(t, s, tag, session.BackChannel, sc), session.BackChannel, rec.Binding, keys[:2]...)
		for _, key := range keys[:2] {
			wantGone(t, s, key, session.BackChannel)
		}
		for _, key := range keys[2:] {
			load(t, s, key)
		}
		wantEndings(t, endTagged(t, s, tag, session.BackChannel, sc), "", rec.Binding)
		wantEndings(t, endTagged(t, s, tag, session.Revoked, session.Scope{}), session.Revoked, rec.Binding, keys[2:]...)
	}},
	{"a session of whose login nobody knows the begin is not spared for it", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		rec.Began = time.Time{}
		key := create(t, s, rec)
		endings := endTagged(t, s, tag, session.BackChannel, session.Scope{BeganBefore: ago(time.Hour)})
		wantEndings(t, endings, session.BackChannel, rec.Binding, key)
	}},
	{"either part of a scope spares a session", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		early, late := record(tag), record(tag)
		early.Began, late.Began = ago(time.Hour), ago(time.Minute)
		ends, listed := create(t, s, early), create(t, s, early)
		began, both := create(t, s, late), create(t, s, late)
		endings := endTagged(t, s, tag, session.Revoked, session.Scope{
			Except:      []session.Key{listed, both},
			BeganBefore: ago(time.Minute),
		})
		wantEndings(t, endings, session.Revoked, early.Binding, ends)
		for _, key := range []session.Key{listed, began, both} {
			load(t, s, key)
		}
	}},
	{"thousands of which many are spared, and the first and last of them all, end but for those", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		ending, late := record(tag), record(tag)
		ending.Began, late.Began = ago(time.Hour), ago(time.Minute)
		spared := createMany(t, s, 600, late)
		for i, keys := range [][]session.Key{make([]session.Key, 600), make([]session.Key, 600)} {
			for j := range keys {
				keys[j] = random[session.Key]()
				keys[j][0] = byte(0xff * i) // before all others, and after
			}
			createAll(t, s, keys, late)
			spared = append(spared, keys...)
		}
		listed, over := createMany(t, s, 30, ending), createMany(t, s, 1200, ending)
		endings := endTagged(t, s, tag, session.BackChannel, session.Scope{Except: listed, BeganBefore: ago(time.Minute)})
		wantEndings(t, endings, session.BackChannel, ending.Binding, over...)
		for _, key := range append(spared, listed...) {
			load(t, s, key)
		}
	}},
	{"one broken off half way tells what it ended", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 3000, rec)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go cancelWhenFewer(ctx, cancel, s, len(keys))
		endings, err := s.EndTagged(ctx, tag, session.Revoked, session.Scope{})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("EndTagged: error = %v, want %v", err, context.Canceled)
		}
		wantToldOf(t, s, endings, session.Revoked, rec.Binding, keys, err == nil)
	}},
	{"the tags of a session that ended lead nowhere", func(t *testing.T, s session.Store) {
		byEnd, byTag, bySweep := random[session.Tag](), random[session.Tag](), random[session.Tag]()
		end(t, s, create(t, s, record(byEnd)), session.Logout)
		create(t, s, record(byTag, random[session.Tag]()))
		if _, err := s.EndTagged(t.Context(), byTag, session.Logout, session.Scope{}); err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		rec := record(bySweep)
		rec.Expires = now.Add(-time.Second)
		create(t, s, rec)
		sweep(t, s, limits)
		for _, tag := range []session.Tag{byEnd, byTag, bySweep} {
			endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
			if err != nil || len(endings) != 0 {
				t.Errorf("EndTagged = %v, %v, want nothing", endings, err)
			}
		}
	}},
	{"a tag given twice ends its session once", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag, tag)
		key := create(t, s, rec)
		endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Revoked, rec.Binding, key)
	}},
	{"a tag of more than a thousand sessions ends them all", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		keys := createMany(t, s, 1201, rec)
		endings, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{Except: []session.Key{keys[0]}})
		if err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantEndings(t, endings, session.Revoked, rec.Binding, keys[1:]...)
		load(t, s, keys[0])
	}},
	{"a session that several end at once is told of once", func(t *testing.T, s session.Store) {
		one, other := random[session.Tag](), random[session.Tag]()
		rec := record(one, other)
		keys := createMany(t, s, 50, rec)
		told := make([][]session.Ending, 8)
		parallel(len(told), func(i int) {
			var err error
			if told[i], err = s.EndTagged(t.Context(), []session.Tag{one, other}[i%2], session.Revoked, session.Scope{}); err != nil {
				t.Errorf("EndTagged: %v", err)
			}
		})
		var all []session.Ending
		for _, endings := range told {
			all = append(all, endings...)
		}
		wantEndings(t, all, session.Revoked, rec.Binding, keys...)
	}},
}

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

var onceRows = []row{
	{"a key is claimed once until its time", func(t *testing.T, s session.Store) {
		key, until := random[session.Key](), now.Add(time.Hour)
		if err := s.Once(t.Context(), key, until); err != nil {
			t.Fatalf("Once: %v", err)
		}
		for range 3 {
			wantError(t, "Once", s.Once(t.Context(), key, until), session.ErrExists)
		}
		if err := s.Once(t.Context(), random[session.Key](), until); err != nil {
			t.Errorf("Once of another key: %v", err)
		}
	}},
	{"a claim that ran out can be had again", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		if err := s.Once(t.Context(), key, now.Add(-time.Second)); err != nil {
			t.Fatalf("Once: %v", err)
		}
		if err := s.Once(t.Context(), key, now.Add(time.Hour)); err != nil {
			t.Errorf("Once after the claim ran out: %v", err)
		}
		wantError(t, "Once", s.Once(t.Context(), key, now.Add(time.Hour)), session.ErrExists)
	}},
	{"a refused claim does not make the first one longer", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		if err := s.Once(t.Context(), key, time.Now().Add(50*time.Millisecond)); err != nil {
			t.Fatalf("Once: %v", err)
		}
		err := s.Once(t.Context(), key, now.Add(time.Hour))
		for begun := time.Now(); errors.Is(err, session.ErrExists) && time.Since(begun) < 5*time.Second; {
			time.Sleep(20 * time.Millisecond)
			err = s.Once(t.Context(), key, now.Add(time.Hour))
		}
		if err != nil {
			t.Errorf("Once long after the first claim ran out: %v", err)
		}
	}},
	{"of many that claim at once exactly one wins", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		wantOneWinner(t, 30, session.ErrExists, func(int) error {
			return s.Once(t.Context(), key, now.Add(time.Hour))
		})
		ranOut := random[session.Key]()
		if err := s.Once(t.Context(), ranOut, now.Add(-time.Second)); err != nil {
			t.Fatalf("Once: %v", err)
		}
		wantOneWinner(t, 30, session.ErrExists, func(int) error {
			return s.Once(t.Context(), ranOut, now.Add(time.Hour))
		})
	}},
	{"claims, sessions and leases share no keys", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		if err := s.Once(t.Context(), key, now.Add(time.Hour)); err != nil {
			t.Fatalf("Once: %v", err)
		}
		_, err := s.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
		if err := s.Create(t.Context(), key, record()); err != nil {
			t.Errorf("Create: %v", err)
		}
		if _, err := s.Acquire(t.Context(), key, time.Minute); err != nil {
			t.Errorf("Acquire: %v", err)
		}
		end(t, s, key, session.Logout)
		wantError(t, "Once", s.Once(t.Context(), key, now.Add(time.Hour)), session.ErrExists)
	}},
}

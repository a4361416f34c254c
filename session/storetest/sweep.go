package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

// sweepRow creates one session and sweeps it.
func sweepRow(name string, begun, used, expires time.Time, l session.Limits, want session.Reason) row {
	return row{name, func(t *testing.T, s session.Store) {
		rec := record()
		rec.Created, rec.Used, rec.Expires = begun, used, expires
		key := create(t, s, rec)
		endings := sweep(t, s, l)
		if want == "" {
			wantEndings(t, endings, want, rec.Binding)
			load(t, s, key)
			return
		}
		wantEndings(t, endings, want, rec.Binding, key)
		wantGone(t, s, key, want)
		if again := sweep(t, s, l); len(again) != 0 {
			t.Errorf("a second Sweep tells of %v", again)
		}
	}}
}

func ago(d time.Duration) time.Time { return now.Add(-d) }

var sweepRows = []row{
	sweepRow("a session within all limits lives",
		ago(time.Hour), ago(idle-time.Millisecond), now.Add(time.Millisecond), limits, ""),
	sweepRow("a session ends when it was idle as long as it may be",
		ago(time.Hour), ago(idle), now.Add(time.Hour), limits, session.IdleTimeout),
	sweepRow("a session ends at Expires",
		ago(time.Hour), ago(time.Minute), now, limits, session.Lifetime),
	sweepRow("a session ends at Created and Lifetime before Expires",
		ago(lifetime), ago(time.Minute), now.Add(time.Hour), limits, session.Lifetime),
	sweepRow("a session ends at Expires before Created and Lifetime",
		ago(lifetime-time.Hour), ago(time.Minute), ago(time.Minute), limits, session.Lifetime),
	sweepRow("a session over by both ends as lifetime before idle",
		ago(9*time.Hour), ago(2*time.Hour), now.Add(time.Hour), limits, session.Lifetime),

	{"a shortened lifetime reaches sessions that exist", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Created = ago(2 * time.Hour)
		key := create(t, s, rec)
		wantEndings(t, sweep(t, s, limits), "", rec.Binding)
		short := session.Limits{Now: now, Idle: idle, Lifetime: time.Hour}
		wantEndings(t, sweep(t, s, short), session.Lifetime, rec.Binding, key)
	}},
	{"a shortened idle timeout reaches sessions that exist", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Used = ago(5 * time.Minute)
		key := create(t, s, rec)
		wantEndings(t, sweep(t, s, limits), "", rec.Binding)
		short := session.Limits{Now: now, Idle: 5 * time.Minute, Lifetime: lifetime}
		wantEndings(t, sweep(t, s, short), session.IdleTimeout, rec.Binding, key)
	}},
	{"a session that a touch kept from being idle lives until it is idle again", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Used = ago(2 * idle)
		key := create(t, s, rec)
		for _, used := range []time.Duration{20 * time.Minute, 10 * time.Minute} {
			touch(t, s, key, ago(used))
			wantEndings(t, sweep(t, s, limits), "", rec.Binding)
			// A sweep in which the touch is old news finds the session as well.
			wantEndings(t, sweep(t, s, session.Limits{Now: now, Idle: used + time.Second, Lifetime: lifetime}), "", rec.Binding)
		}
		short := session.Limits{Now: now, Idle: 10 * time.Minute, Lifetime: lifetime}
		wantEndings(t, sweep(t, s, short), session.IdleTimeout, rec.Binding, key)
	}},
	{"every session that is over is told of, with its own reason and binding", func(t *testing.T, s session.Store) {
		tired, old, fresh := record(), record(), record()
		tired.Used, old.Expires = ago(idle), now
		tiredKey, oldKey := create(t, s, tired), create(t, s, old)
		create(t, s, fresh)
		want := map[session.Ending]bool{
			{Key: tiredKey, Binding: tired.Binding, Reason: session.IdleTimeout}: true,
			{Key: oldKey, Binding: old.Binding, Reason: session.Lifetime}:        true,
		}
		for _, e := range sweep(t, s, limits) {
			if !want[e] {
				t.Errorf("unwanted ending %v", e)
			}
			delete(want, e)
		}
		for e := range want {
			t.Errorf("missing ending %v", e)
		}
	}},
	{"a tombstone tells its reason until the grace after Expires is over", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Expires = now.Add(-session.TombstoneGrace + time.Hour/2) // far from over by the real clock
		key := create(t, s, rec)
		end(t, s, key, session.Logout)
		sweep(t, s, limits)
		wantGone(t, s, key, session.Logout)
	}},
	{"a tombstone is forgotten when the grace after Expires is over", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		rec.Created, rec.Expires = ago(9*time.Hour), now.Add(-session.TombstoneGrace)
		key := create(t, s, rec)
		// A store may have forgotten it by itself at any time from now on.
		if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil && !errors.Is(err, session.ErrAbsent) {
			t.Fatalf("End: %v", err)
		}
		wantEndings(t, sweep(t, s, limits), "", rec.Binding)
		_, err := s.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
		wantError(t, "Replace", s.Replace(t.Context(), key, 1, []byte("new")), session.ErrAbsent)
		if err := s.Create(t.Context(), key, record()); err != nil {
			t.Errorf("Create of a forgotten key: %v", err)
		}
	}},
	{"a claim that has not run out is not forgotten", func(t *testing.T, s session.Store) {
		lasting, ranOut := random[session.Key](), random[session.Key]()
		if err := errors.Join(
			s.Once(t.Context(), lasting, now.Add(time.Hour)),
			s.Once(t.Context(), ranOut, now.Add(-time.Second)),
		); err != nil {
			t.Fatalf("Once: %v", err)
		}
		sweep(t, s, limits)
		wantError(t, "Once", s.Once(t.Context(), lasting, now.Add(time.Hour)), session.ErrExists)
		if err := s.Once(t.Context(), ranOut, now.Add(time.Hour)); err != nil {
			t.Errorf("Once of a claim that ran out: %v", err)
		}
	}},
	{"a sweep does not take a renewed claim for the one that ran out", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		if err := errors.Join(
			s.Once(t.Context(), key, now.Add(-time.Second)),
			s.Once(t.Context(), key, now.Add(time.Hour)),
		); err != nil {
			t.Fatalf("Once: %v", err)
		}
		sweep(t, s, limits)
		wantError(t, "Once", s.Once(t.Context(), key, now.Add(time.Hour)), session.ErrExists)
	}},
	{"a mark that has not run out is not forgotten", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		mark(t, s, rec.Tags[0], markNow(session.BackChannel))
		sweep(t, s, limits)
		wantBarred(t, s, rec, session.BackChannel)
	}},
	{"a sweep does not take a renewed mark for the one that ran out", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		mark(t, s, rec.Tags[0], session.Mark{Reason: session.Revoked, BeganBefore: now, Until: now.Add(-time.Second)})
		mark(t, s, rec.Tags[0], markNow(session.BackChannel))
		sweep(t, s, limits)
		wantBarred(t, s, rec, session.BackChannel)
	}},
	{"thousands are ended in one call and thousands live on", func(t *testing.T, s session.Store) {
		tired, fresh := record(), record()
		tired.Used = ago(idle)
		gone, kept := createMany(t, s, 2500, tired), createMany(t, s, 1500, fresh)
		wantEndings(t, sweep(t, s, limits), session.IdleTimeout, tired.Binding, gone...)
		for _, key := range kept {
			load(t, s, key)
		}
		wantCount(t, s, len(kept))
	}},
	{"an empty store is swept without error", func(t *testing.T, s session.Store) {
		if endings := sweep(t, s, limits); len(endings) != 0 {
			t.Errorf("Sweep = %v, want nothing", endings)
		}
	}},
	{"a sweep broken off half way tells what it ended", func(t *testing.T, s session.Store) {
		rec := record()
		rec.Used = ago(idle)
		keys := createMany(t, s, 3000, rec)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go cancelWhenFewer(ctx, cancel, s, len(keys))
		endings, err := s.Sweep(ctx, limits)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Sweep: error = %v, want %v", err, context.Canceled)
		}
		wantToldOf(t, s, endings, session.IdleTimeout, rec.Binding, keys, err == nil)
	}},
}

// cancelWhenFewer cancels as soon as the store has fewer than n sessions.
func cancelWhenFewer(ctx context.Context, cancel func(), s session.Store, n int) {
	for ctx.Err() == nil {
		if left, err := s.Count(ctx); err != nil || left < n {
			cancel()
		}
	}
}

// wantToldOf wants endings to be of those of the keys that have ended, and them
// to be all if the call was finished.
func wantToldOf(t *testing.T, s session.Store, endings []session.Ending, reason session.Reason, binding [32]byte, keys []session.Key, finished bool) {
	t.Helper()
	// What the call may have left under way is done when a later write is.
	touch(t, s, keys[0], now)
	var ended []session.Key
	for _, key := range keys {
		if _, err := s.Load(t.Context(), key); errors.Is(err, session.ErrAbsent) {
			ended = append(ended, key)
		}
	}
	wantEndings(t, endings, reason, binding, ended...)
	if finished && len(ended) != len(keys) {
		t.Errorf("ended %d of %d without an error", len(ended), len(keys))
	}
}

var countRows = []row{
	{"an empty store has none", func(t *testing.T, s session.Store) {
		wantCount(t, s, 0)
	}},
	{"live sessions count, those that ended do not", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		keys := createMany(t, s, 60, record())
		createMany(t, s, 20, record(tag))
		tired := record()
		tired.Used = ago(idle)
		createMany(t, s, 10, tired)
		wantCount(t, s, 90)
		for _, key := range keys[:15] {
			end(t, s, key, session.Logout)
		}
		wantCount(t, s, 75)
		if _, err := s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{}); err != nil {
			t.Fatalf("EndTagged: %v", err)
		}
		wantCount(t, s, 55)
		sweep(t, s, limits)
		wantCount(t, s, 45)
	}},
	{"touches of sessions that are not live count nothing", func(t *testing.T, s session.Store) {
		createMany(t, s, 10, record())
		var touches []session.Touch
		for range 20 {
			ended := create(t, s, record())
			end(t, s, ended, session.Logout)
			touches = append(touches, session.Touch{Key: ended, At: now}, session.Touch{Key: random[session.Key](), At: now})
		}
		if err := s.Touch(t.Context(), touches); err != nil {
			t.Fatalf("Touch: %v", err)
		}
		wantCount(t, s, 10)
	}},
	{"refused and repeated calls count nothing", func(t *testing.T, s session.Store) {
		keys := createMany(t, s, 40, record())
		for _, key := range keys[:20] {
			end(t, s, key, session.Logout)
		}
		for _, key := range keys {
			wantError(t, "Create", s.Create(t.Context(), key, record()), session.ErrExists)
		}
		for _, key := range keys[:20] {
			if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err == nil {
				t.Error("End of an ended session: no error")
			}
		}
		wantCount(t, s, 20)
	}},
}

// wantCount allows for a little: a store may count in the background.
func wantCount(t *testing.T, s session.Store, want int) {
	t.Helper()
	if got := count(t, s); got < want-2 || got > want+2 {
		t.Errorf("Count = %d, want %d", got, want)
	}
}

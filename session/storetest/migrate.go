package storetest

import (
	"bytes"
	"errors"
	"maps"
	"testing"
	"time"

	"sessiongate/session"
)

// RunMigrate checks that all of a store moves to another one, of whatever kind.
// Every subtest calls open for two stores of its own, fresh and empty, which open
// closes by t.Cleanup.
func RunMigrate(t *testing.T, open func(t *testing.T) (from, to session.Portable)) {
	for _, r := range migrateRows {
		t.Run(r.name, func(t *testing.T) {
			from, to := open(t)
			r.run(t, from, to)
		})
	}
}

func move(t *testing.T, from, to session.Portable) session.Tally {
	t.Helper()
	tally, err := session.Move(t.Context(), from, to)
	if err != nil {
		t.Fatalf("Move: %v", err)
	}
	return tally
}

func wantFates(t *testing.T, what string, got map[session.Fate]int, want map[session.Fate]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

type fates = map[session.Fate]int

var migrateRows = []struct {
	name string
	run  func(t *testing.T, from, to session.Portable)
}{
	{"a live session moves as it is, with its version, its use and all that leads to it", func(t *testing.T, from, to session.Portable) {
		rec := record(random[session.Tag](), random[session.Tag]())
		rec.Data = bytes.Repeat([]byte{0, 1, 255}, 1000)
		key := create(t, from, rec)
		for version := uint64(1); version <= 11; version++ { // no longer one digit
			if err := from.Replace(t.Context(), key, version, rec.Data); err != nil {
				t.Fatal(err)
			}
		}
		rec.Version, rec.Used = 12, ago(time.Second)
		touch(t, from, key, rec.Used)
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateAdded: 1})
		wantRecord(t, load(t, to, key), rec)
		wantCount(t, to, 1)
		for _, tag := range rec.Tags {
			wantListed(t, to, tag, key)
		}
		wantError(t, "Replace of a former version", to.Replace(t.Context(), key, 11, nil), session.ErrConflict)
		if err := to.Replace(t.Context(), key, 12, []byte("new")); err != nil {
			t.Errorf("Replace: %v", err)
		}
		wantEndings(t, endTagged(t, to, rec.Tags[0], session.BackChannel, session.Scope{}), session.BackChannel, rec.Binding, key)
		wantCount(t, to, 0)
	}},
	{"what moved is swept by what it was", func(t *testing.T, from, to session.Portable) {
		rec := record()
		used := create(t, from, rec)
		rec.Used = ago(idle + time.Second)
		unused := create(t, from, rec)
		rec.Used, rec.Created = now, ago(lifetime+time.Second)
		old := create(t, from, rec)
		move(t, from, to)
		sweep(t, to, limits)
		wantGone(t, to, unused, session.IdleTimeout)
		wantGone(t, to, old, session.Lifetime)
		load(t, to, used)
	}},
	{"an ended session stays ended, with its reason, and no record comes back", func(t *testing.T, from, to session.Portable) {
		rec := record(random[session.Tag]())
		key := create(t, from, rec)
		end(t, from, key, session.Revoked)
		wantFates(t, "tombstones", move(t, from, to).Tombstones, fates{session.FateAdded: 1})
		wantGone(t, to, key, session.Revoked)
		wantError(t, "Create", to.Create(t.Context(), key, rec), session.ErrExists)
		wantListed(t, to, rec.Tags[0])
		wantFates(t, "tombstones", move(t, from, to).Tombstones, fates{session.FateKept: 1})
	}},
	{"a session that ended where it went is not brought back", func(t *testing.T, from, to session.Portable) {
		key := create(t, from, record(random[session.Tag]()))
		move(t, from, to)
		end(t, to, key, session.Logout)
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateOver: 1})
		wantGone(t, to, key, session.Logout)
		wantCount(t, to, 0)
	}},
	{"a session that ended where it came from ends where it went", func(t *testing.T, from, to session.Portable) {
		rec := record(random[session.Tag]())
		key := create(t, from, rec)
		move(t, from, to)
		end(t, from, key, session.BackChannel)
		wantFates(t, "tombstones", move(t, from, to).Tombstones, fates{session.FateEnded: 1})
		wantGone(t, to, key, session.BackChannel)
		wantListed(t, to, rec.Tags[0])
		wantCount(t, to, 0)
	}},
	{"a newer record is not overwritten, nor a later use", func(t *testing.T, from, to session.Portable) {
		rec := record()
		key := create(t, from, rec)
		move(t, from, to)
		if err := to.Replace(t.Context(), key, 1, []byte("newer")); err != nil {
			t.Fatal(err)
		}
		touch(t, to, key, now)
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateKept: 1})
		rec.Version, rec.Data, rec.Used = 2, []byte("newer"), now
		wantRecord(t, load(t, to, key), rec)
	}},
	{"an older record is, and its use moves forward", func(t *testing.T, from, to session.Portable) {
		rec := record(random[session.Tag]())
		key := create(t, from, rec)
		move(t, from, to)
		if err := from.Replace(t.Context(), key, 1, []byte("newer")); err != nil {
			t.Fatal(err)
		}
		touch(t, from, key, now)
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateRenewed: 1})
		rec.Version, rec.Data, rec.Used = 2, []byte("newer"), now
		wantRecord(t, load(t, to, key), rec)
		wantListed(t, to, rec.Tags[0], key)
		wantCount(t, to, 1)
	}},
	{"a record of the same version stays, and its use moves forward", func(t *testing.T, from, to session.Portable) {
		rec := record()
		key := create(t, from, rec)
		move(t, from, to)
		touch(t, from, key, now)
		move(t, from, to)
		rec.Version, rec.Used = 1, now
		wantRecord(t, load(t, to, key), rec)
		sweep(t, to, session.Limits{Now: now.Add(30 * time.Second), Idle: time.Minute})
		load(t, to, key)
	}},
	{"a mark moves, with its reason and its time", func(t *testing.T, from, to session.Portable) {
		tag := random[session.Tag]()
		mark(t, from, tag, markNow(session.BackChannel))
		wantFates(t, "marks", move(t, from, to).Marks, fates{session.FateAdded: 1})
		wantBarred(t, to, began(ago(time.Millisecond), tag), session.BackChannel)
		create(t, to, began(now, tag))
		wantFates(t, "marks", move(t, from, to).Marks, fates{session.FateKept: 1})
		wantBarred(t, to, began(ago(time.Millisecond), tag), session.BackChannel)
	}},
	{"a session that was logged out before it came does not start", func(t *testing.T, from, to session.Portable) {
		tag := random[session.Tag]()
		key := create(t, from, began(ago(time.Second), random[session.Tag](), tag))
		mark(t, to, tag, markNow(session.BackChannel))
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateOver: 1})
		_, err := to.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
		wantCount(t, to, 0)
	}},
	{"a claim moves: nobody can use a state or a logout token a second time", func(t *testing.T, from, to session.Portable) {
		key, over := random[session.Key](), random[session.Key]()
		if err := errors.Join(from.Once(t.Context(), key, now.Add(time.Hour)), from.Once(t.Context(), over, now.Add(-time.Second))); err != nil {
			t.Fatal(err)
		}
		if got := move(t, from, to).Claims[session.FateAdded]; got != 1 {
			t.Errorf("%d claims were added, want 1", got)
		}
		wantError(t, "Once", to.Once(t.Context(), key, now.Add(time.Hour)), session.ErrExists)
		if err := to.Once(t.Context(), over, now.Add(time.Hour)); err != nil {
			t.Errorf("Once of a claim that had run out: %v", err)
		}
		wantFates(t, "claims", fates{session.FateKept: move(t, from, to).Claims[session.FateKept]}, fates{session.FateKept: 1})
	}},
	{"a record whose time is over is left behind", func(t *testing.T, from, to session.Portable) {
		rec := record()
		rec.Expires = ago(session.TombstoneGrace + time.Minute)
		key := create(t, from, rec)
		wantFates(t, "sessions", move(t, from, to).Sessions, fates{session.FateOver: 1})
		_, err := to.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
	}},
	{"many sessions move, a page at a time, and none is lost", func(t *testing.T, from, to session.Portable) {
		tag := random[session.Tag]()
		const n = 2*session.ExportPage + 7
		keys := createMany(t, from, n, record(tag))
		for _, key := range keys[:n/2] {
			end(t, from, key, session.Logout)
		}
		tally := move(t, from, to)
		wantFates(t, "sessions", tally.Sessions, fates{session.FateAdded: n - n/2})
		wantFates(t, "tombstones", tally.Tombstones, fates{session.FateAdded: n / 2})
		wantCount(t, to, n-n/2)
		err := from.Export(t.Context(), func(items []session.Item) error {
			if len(items) == 0 || len(items) > session.ExportPage {
				t.Errorf("a page of %d items", len(items))
			}
			return nil
		})
		if err != nil {
			t.Errorf("Export: %v", err)
		}
		for _, key := range keys[n/2:] {
			load(t, to, key)
		}
		if got := endTagged(t, to, tag, session.Revoked, session.Scope{}); len(got) != n-n/2 {
			t.Errorf("EndTagged ended %d of %d", len(got), n-n/2)
		}
	}},
	{"what fails half way can be repeated", func(t *testing.T, from, to session.Portable) {
		createMany(t, from, session.ExportPage+10, record())
		broken := errors.New("broken")
		err := from.Export(t.Context(), func(items []session.Item) error {
			if _, err := to.Import(t.Context(), items); err != nil {
				t.Fatal(err)
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Fatalf("Export: %v", err)
		}
		half := count(t, to)
		if half == 0 || half > session.ExportPage {
			t.Fatalf("%d sessions after a page", half)
		}
		tally := move(t, from, to)
		wantFates(t, "sessions", tally.Sessions, fates{session.FateKept: half, session.FateAdded: session.ExportPage + 10 - half})
		wantCount(t, to, session.ExportPage+10)
	}},
}

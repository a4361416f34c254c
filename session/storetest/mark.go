package storetest

import (
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

func mark(t *testing.T, s session.Store, tag session.Tag, m session.Mark) {
	t.Helper()
	if err := s.Mark(t.Context(), tag, m); err != nil {
		t.Fatalf("Mark: %v", err)
	}
}

// markNow is a mark of logins that began before now, for an hour.
func markNow(reason session.Reason) session.Mark {
	return session.Mark{Reason: reason, BeganBefore: now, Until: now.Add(time.Hour)}
}

// began is a record of a session whose login began then.
func began(at time.Time, tags ...session.Tag) session.Record {
	rec := record(tags...)
	rec.Began = at
	return rec
}

// wantBarred wants that a mark keeps the session from being created.
func wantBarred(t *testing.T, s session.Store, rec session.Record, want session.Reason) {
	t.Helper()
	key := random[session.Key]()
	wantEnded(t, "Create", s.Create(t.Context(), key, rec), want)
	_, err := s.Load(t.Context(), key)
	wantError(t, "Load", err, session.ErrAbsent)
}

var markRows = []row{
	{"a session whose login began before the mark never starts and is told its reason", func(t *testing.T, s session.Store) { // BC-12
		for _, reason := range []session.Reason{session.BackChannel, session.Revoked} {
			tag := random[session.Tag]()
			mark(t, s, tag, markNow(reason))
			for _, before := range []time.Duration{time.Millisecond, time.Second, 9 * time.Hour} {
				wantBarred(t, s, began(ago(before), tag), reason)
			}
		}
	}},
	{"one whose login began at that very moment or later starts", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		mark(t, s, tag, markNow(session.BackChannel))
		create(t, s, began(now, tag))
		create(t, s, began(now.Add(time.Millisecond), tag))
	}},
	{"one of whose login nobody knows the begin never starts", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		mark(t, s, tag, markNow(session.BackChannel))
		wantBarred(t, s, began(time.Time{}, tag), session.BackChannel)
	}},
	{"a mark of one tag says nothing of another", func(t *testing.T, s session.Store) {
		mark(t, s, random[session.Tag](), markNow(session.BackChannel))
		create(t, s, record(random[session.Tag]()))
		create(t, s, record())
	}},
	{"one marked tag of several is enough", func(t *testing.T, s session.Store) {
		tags := []session.Tag{random[session.Tag](), random[session.Tag](), random[session.Tag]()}
		for i := range tags {
			rec := record(tags...)
			rec.Tags[i] = random[session.Tag]()
			mark(t, s, rec.Tags[i], markNow(session.BackChannel))
			wantBarred(t, s, rec, session.BackChannel)
		}
	}},
	{"of several marked tags the one that is met counts", func(t *testing.T, s session.Store) {
		met, unmet, over := random[session.Tag](), random[session.Tag](), random[session.Tag]()
		mark(t, s, met, markNow(session.BackChannel))
		mark(t, s, unmet, session.Mark{Reason: session.Revoked, BeganBefore: ago(time.Hour), Until: now.Add(time.Hour)})
		mark(t, s, over, session.Mark{Reason: session.Logout, BeganBefore: now, Until: now.Add(-time.Second)})
		wantBarred(t, s, record(unmet, over, met), session.BackChannel)
		wantBarred(t, s, record(met, over, unmet), session.BackChannel)
		create(t, s, record(unmet, over))
	}},
	{"a session that was refused has left nothing behind", func(t *testing.T, s session.Store) {
		marked, other := random[session.Tag](), random[session.Tag]()
		mark(t, s, marked, markNow(session.BackChannel))
		createMany(t, s, 10, record())
		key, rec := random[session.Key](), record(other, marked)
		for range 10 {
			wantEnded(t, "Create", s.Create(t.Context(), key, rec), session.BackChannel)
		}
		wantCount(t, s, 10)
		for _, tag := range rec.Tags {
			wantListed(t, s, tag)
			wantEndings(t, endTagged(t, s, tag, session.Revoked, session.Scope{}), "", rec.Binding)
		}
		_, err := s.Load(t.Context(), key)
		wantError(t, "Load", err, session.ErrAbsent)
		wantError(t, "Replace", s.Replace(t.Context(), key, 1, []byte("new")), session.ErrAbsent)
		rec.Began, rec.Version = now, 1
		if err := s.Create(t.Context(), key, rec); err != nil {
			t.Fatalf("Create of a later login under the key: %v", err)
		}
		wantRecord(t, load(t, s, key), rec)
	}},
	{"a mark ends no session that lives already", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		key := create(t, s, rec)
		mark(t, s, rec.Tags[0], markNow(session.BackChannel))
		rec.Version = 1
		wantRecord(t, load(t, s, key), rec)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Errorf("Replace: %v", err)
		}
		wantListed(t, s, rec.Tags[0], key)
	}},
	{"an end of all that carry the tag leaves its mark", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		key := create(t, s, rec)
		mark(t, s, rec.Tags[0], markNow(session.BackChannel))
		wantEndings(t, endTagged(t, s, rec.Tags[0], session.Revoked, session.Scope{}), session.Revoked, rec.Binding, key)
		wantBarred(t, s, rec, session.BackChannel)
	}},
	{"an older mark does not loosen a newer one", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		mark(t, s, tag, markNow(session.BackChannel))
		mark(t, s, tag, session.Mark{Reason: session.Revoked, BeganBefore: ago(time.Minute), Until: now.Add(2 * time.Hour)})
		wantBarred(t, s, began(ago(time.Millisecond), tag), session.BackChannel)
		wantBarred(t, s, began(ago(time.Hour), tag), session.BackChannel)
		create(t, s, began(now, tag))
	}},
	{"a newer mark takes the place of an older one", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		mark(t, s, tag, session.Mark{Reason: session.Revoked, BeganBefore: ago(time.Minute), Until: now.Add(2 * time.Hour)})
		create(t, s, began(ago(time.Minute), tag))
		mark(t, s, tag, markNow(session.BackChannel))
		wantBarred(t, s, began(ago(time.Millisecond), tag), session.BackChannel)
		wantBarred(t, s, began(ago(time.Hour), tag), session.BackChannel)
		create(t, s, began(now, tag))
	}},
	{"a mark lasts as long as the longest of its tag, whichever came first", func(t *testing.T, s session.Store) {
		long := session.Mark{Reason: session.Revoked, BeganBefore: ago(time.Minute), Until: now.Add(time.Hour)}
		short := session.Mark{Reason: session.BackChannel, BeganBefore: now}
		for _, longFirst := range []bool{true, false} {
			var tag session.Tag
			for life := brief; !time.Now().Before(short.Until); life *= 2 { // both in time, on any machine
				tag, short.Until = random[session.Tag](), time.Now().Truncate(time.Millisecond).Add(life)
				marks := []session.Mark{short, long}
				if longFirst {
					marks = []session.Mark{long, short}
				}
				mark(t, s, tag, marks[0])
				mark(t, s, tag, marks[1])
			}
			time.Sleep(time.Until(short.Until) + time.Millisecond)
			wantBarred(t, s, began(ago(time.Second), tag), session.BackChannel)
		}
	}},
	{"a mark that ran out holds nobody back, swept or not", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		mark(t, s, tag, session.Mark{Reason: session.BackChannel, BeganBefore: now, Until: now.Add(-time.Millisecond)})
		create(t, s, record(tag))
		sweep(t, s, limits)
		create(t, s, record(tag))
	}},
	{"a mark that ran out adds nothing to the next one, swept or not", func(t *testing.T, s session.Store) {
		next := session.Mark{Reason: session.BackChannel, BeganBefore: ago(time.Minute), Until: now.Add(time.Hour)}
		for _, swept := range []bool{false, true} {
			tag := random[session.Tag]()
			mark(t, s, tag, session.Mark{Reason: session.Revoked, BeganBefore: now, Until: now.Add(-time.Millisecond)})
			if swept {
				sweep(t, s, limits)
			}
			mark(t, s, tag, next)
			create(t, s, began(ago(time.Second), tag))
			wantBarred(t, s, began(ago(time.Hour), tag), session.BackChannel)
		}
	}},
	{"a mark runs out by the real clock, and not before", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		until := time.Now().Truncate(time.Millisecond).Add(brief)
		mark(t, s, rec.Tags[0], session.Mark{Reason: session.BackChannel, BeganBefore: now, Until: until})
		key := random[session.Key]()
		err := s.Create(t.Context(), key, rec)
		for begun := time.Now(); isEnded(err, session.BackChannel) && time.Since(begun) < soon; {
			time.Sleep(brief / 10)
			err = s.Create(t.Context(), key, rec)
		}
		if err != nil {
			t.Errorf("Create after the mark ran out: %v", err)
		}
		if early := time.Until(until); early > 0 {
			t.Errorf("Create succeeded %v before the mark ran out", early)
		}
	}},
	{"of many marks of a tag at once the latest counts", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		parallel(30, func(i int) {
			m := session.Mark{Reason: session.Revoked, BeganBefore: ago(time.Duration(i) * time.Second), Until: now.Add(time.Hour)}
			if i == 0 {
				m.Reason = session.BackChannel
			}
			if err := s.Mark(t.Context(), rec.Tags[0], m); err != nil {
				t.Errorf("Mark: %v", err)
			}
		})
		rec.Began = ago(time.Millisecond)
		wantBarred(t, s, rec, session.BackChannel)
	}},
	{"marks, sessions and claims share no keys", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		tag := session.Tag(key)
		rec := began(now, tag)
		mark(t, s, tag, markNow(session.BackChannel))
		if err := errors.Join(s.Once(t.Context(), key, now.Add(time.Hour)), s.Create(t.Context(), key, rec)); err != nil {
			t.Errorf("Once and Create: %v", err)
		}
		end(t, s, key, session.Logout)
		sweep(t, s, limits)
		wantBarred(t, s, record(tag), session.BackChannel)
		wantError(t, "Once", s.Once(t.Context(), key, now.Add(time.Hour)), session.ErrExists)
	}},
}

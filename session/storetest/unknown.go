package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

var bytesRows = []row{
	{"what was returned stays as it is, whatever is written later", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		rec.Data = bytes.Repeat([]byte("abcdefgh"), 300)
		keys := createMany(t, s, 50, rec)
		ended := end(t, s, keys[0], session.Logout)
		loaded := load(t, s, keys[1])
		for round := range 20 {
			for _, key := range keys[1:] {
				if err := s.Replace(t.Context(), key, uint64(round+1), bytes.Repeat([]byte{byte(round)}, 500*round)); err != nil {
					t.Fatalf("Replace: %v", err)
				}
			}
		}
		end(t, s, keys[1], session.Logout)
		for _, got := range []session.Record{ended, loaded} {
			wantBytes(t, "Data", got.Data, rec.Data)
			wantBytes(t, "Listing", got.Listing, rec.Listing)
			if got.Tags[0] != rec.Tags[0] {
				t.Errorf("Tags = %x, want %x", got.Tags, rec.Tags)
			}
		}
	}},
	{"what was returned may be written to and the store does not notice", func(t *testing.T, s session.Store) {
		rec := record(random[session.Tag]())
		rec.Data = bytes.Repeat([]byte("abcdefgh"), 1000) // no store keeps it in a corner
		key := create(t, s, rec)
		for range 2 { // the second time from any cache
			got := load(t, s, key)
			scribble(got)
		}
		rec.Version = 1
		wantRecord(t, load(t, s, key), rec)
		scribble(end(t, s, key, session.Logout))
		wantGone(t, s, key, session.Logout)
	}},
	{"what was given may be reused after the call", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		given := record(tag)
		given.Listing, given.Data = []byte("listing"), []byte("data")
		key := create(t, s, given)
		scribble(given)
		got := load(t, s, key)
		wantBytes(t, "Listing", got.Listing, []byte("listing"))
		wantBytes(t, "Data", got.Data, []byte("data"))
		if got.Tags[0] != tag {
			t.Errorf("Tags = %x, want %x", got.Tags[0], tag)
		}
		data := []byte("new")
		if err := s.Replace(t.Context(), key, 1, data); err != nil {
			t.Fatalf("Replace: %v", err)
		}
		copy(data, "xxx")
		wantBytes(t, "Data", load(t, s, key).Data, []byte("new"))
	}},
}

// scribble writes over all that a record points to.
func scribble(rec session.Record) {
	copy(rec.Data, bytes.Repeat([]byte("x"), len(rec.Data)))
	copy(rec.Listing, bytes.Repeat([]byte("x"), len(rec.Listing)))
	for i := range rec.Tags {
		rec.Tags[i] = session.Tag{}
	}
}

// calls are all that a store can be asked, about one key and a tag.
func calls(s session.Store, key session.Key, tag session.Tag) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Create":  func(ctx context.Context) error { return s.Create(ctx, random[session.Key](), record()) },
		"Load":    func(ctx context.Context) error { _, err := s.Load(ctx, key); return err },
		"Replace": func(ctx context.Context) error { return s.Replace(ctx, key, 1, []byte("new")) },
		"End": func(ctx context.Context) error {
			_, err := s.End(ctx, key, session.Logout, session.Condition{})
			return err
		},
		"EndTagged": func(ctx context.Context) error {
			_, err := s.EndTagged(ctx, tag, session.Logout, session.Scope{})
			return err
		},
		"Mark": func(ctx context.Context) error {
			return s.Mark(ctx, tag, session.Mark{Reason: session.BackChannel, BeganBefore: now, Until: now.Add(time.Hour)})
		},
		"Tagged":  func(ctx context.Context) error { _, err := s.Tagged(ctx, tag, session.Key{}, 10); return err },
		"Touch":   func(ctx context.Context) error { return s.Touch(ctx, []session.Touch{{Key: key, At: now}}) },
		"Once":    func(ctx context.Context) error { return s.Once(ctx, key, now.Add(time.Hour)) },
		"Acquire": func(ctx context.Context) error { _, err := s.Acquire(ctx, key, long); return err },
		"Sweep":   func(ctx context.Context) error { _, err := s.Sweep(ctx, limits); return err },
		"Ping":    func(ctx context.Context) error { return s.Ping(ctx) },
	}
}

// wantUnknown wants an error of the third kind: one that no caller can take for
// an answer.
func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || isAnswer(err) || errors.Is(err, session.ErrLeaseLost) {
		t.Errorf("%s: error = %v, want one that says nothing about the session", what, err)
	}
}

var unknownRows = []row{
	{"a store that can be reached answers a ping", func(t *testing.T, s session.Store) {
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	}},
	{"a context that is over means unknown and changes nothing", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		rec := record(tag)
		key := create(t, s, rec)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, call := range calls(s, key, tag) {
			err := call(ctx)
			wantUnknown(t, name, err)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error = %v, want %v", name, err, context.Canceled)
			}
		}
		rec.Version = 1
		wantRecord(t, load(t, s, key), rec)
		wantCount(t, s, 1)
		create(t, s, rec) // there is no mark
		if err := s.Once(t.Context(), key, now.Add(time.Hour)); err != nil {
			t.Errorf("Once: %v", err)
		}
		acquire(t, s, key, long)
	}},
	{"a closed store knows nothing of any session", func(t *testing.T, s session.Store) {
		tag := random[session.Tag]()
		live, ended := create(t, s, record(tag)), create(t, s, record(tag))
		end(t, s, ended, session.Logout)
		lease := acquire(t, s, live, long)
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		for _, key := range []session.Key{live, ended, random[session.Key]()} {
			for name, call := range calls(s, key, tag) {
				wantUnknown(t, name, call(t.Context()))
			}
		}
		wantUnknown(t, "Renew", s.Renew(t.Context(), lease, long))
		_, err := s.Count(t.Context())
		wantUnknown(t, "Count", err)
	}},
	{"calls that a close meets are done or say that they are not", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		acquire(t, s, key, long)
		parallel(9, func(i int) {
			switch i {
			case 0:
				time.Sleep(brief / 5)
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			case 1: // waits for a lease that nobody gives back
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				defer cancel()
				_, err := s.Acquire(ctx, key, long)
				wantUnknown(t, "Acquire", err)
				if errors.Is(err, context.DeadlineExceeded) {
					t.Error("Close did not end the waiting for a lease")
				}
			default:
				created := random[session.Key]()
				for s.Create(t.Context(), created, record()) == nil {
					if _, err := s.Load(t.Context(), created); err != nil {
						wantUnknown(t, "Load", err)
					}
					created = random[session.Key]()
				}
			}
		})
	}},
}

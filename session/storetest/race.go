package storetest

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"sessiongate/session"
)

var raceRows = []row{
	{"no interleaving of writes brings an ended session back", func(t *testing.T, s session.Store) {
		parallel(16, func(worker int) {
			for i := worker; i < 1000; i += 16 {
				raceEnd(t, s)
			}
		})
	}},
	{"a touch and an end by UnusedSince never both win", func(t *testing.T, s session.Store) {
		parallel(16, func(worker int) {
			for i := worker; i < 300; i += 16 {
				raceIdle(t, s)
			}
		})
	}},
	// BC-12: a logout token may overtake the login it is about.
	{"of a mark and a Create at once the Create fails or the EndTagged after the mark ends it", func(t *testing.T, s session.Store) {
		parallel(16, func(worker int) {
			for i := worker; i < 1000; i += 16 {
				raceMark(t, s)
			}
		})
	}},
	{"a touch before a sweep keeps its session, one during it at most", raceSweep},
}

// raceEnd lets every kind of write loose on one session.
func raceEnd(t *testing.T, s session.Store) {
	tag := random[session.Tag]()
	key := random[session.Key]()
	if err := s.Create(t.Context(), key, record(tag)); err != nil {
		t.Errorf("Create: %v", err)
		return
	}
	var winners [4]session.Reason // by goroutine
	over := func(reason session.Reason) {
		if _, err := s.Load(t.Context(), key); !isEnded(err, reason) {
			t.Errorf("Load after an end by %s: error = %v", reason, err)
		}
	}
	replace := func(int) error {
		rec, err := s.Load(t.Context(), key)
		if err != nil {
			return err
		}
		return s.Replace(t.Context(), key, rec.Version, []byte("new"))
	}
	writes := []func(i int) error{
		func(i int) error {
			_, err := s.End(t.Context(), key, session.Logout, session.Condition{})
			if err == nil {
				winners[i] = session.Logout
				over(session.Logout)
			}
			return err
		},
		func(i int) error {
			endings, err := s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{})
			if len(endings) > 0 {
				winners[i] = session.BackChannel
				over(session.BackChannel)
			}
			return err
		},
		replace,
		func(int) error {
			for _, write := range []error{
				replace(0),
				s.Touch(t.Context(), []session.Touch{{Key: key, At: now}}),
				s.Create(t.Context(), key, record()),
			} {
				if write != nil && !isAnswer(write) {
					return write
				}
			}
			return nil
		},
	}
	rand.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	parallel(len(writes), func(i int) {
		time.Sleep(rand.N(100 * time.Microsecond))
		if err := writes[i](i); err != nil && !isAnswer(err) {
			t.Errorf("neither done nor refused: %v", err)
		}
	})
	var won []session.Reason
	for _, reason := range winners {
		if reason != "" {
			won = append(won, reason)
		}
	}
	if len(won) != 1 {
		t.Errorf("ended by %v, want by exactly one", won)
		return
	}
	over(won[0])
}

// isAnswer tells an answer of the contract from an error of the third kind.
func isAnswer(err error) bool {
	return errors.Is(err, session.ErrAbsent) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrExists)
}

func isEnded(err error, reason session.Reason) bool {
	var ended *session.Ended
	return errors.As(err, &ended) && ended.Reason == reason
}

// raceIdle lets a touch race the end of a session that nobody seems to use.
func raceIdle(t *testing.T, s session.Store) {
	key, rec := random[session.Key](), record()
	if err := s.Create(t.Context(), key, rec); err != nil {
		t.Errorf("Create: %v", err)
		return
	}
	var ended session.Record
	var endErr, touchErr error
	parallel(2, func(i int) {
		time.Sleep(rand.N(50 * time.Microsecond))
		if i == 0 {
			touchErr = s.Touch(t.Context(), []session.Touch{{Key: key, At: now}})
			return
		}
		ended, endErr = s.End(t.Context(), key, session.IdleTimeout, session.Condition{UnusedSince: rec.Used})
	})
	if touchErr != nil {
		t.Errorf("Touch: %v", touchErr)
	}
	got, err := s.Load(t.Context(), key)
	switch {
	case endErr == nil:
		if !ended.Used.Equal(rec.Used) || !isEnded(err, session.IdleTimeout) {
			t.Errorf("ended with Used = %v (unused since %v), then Load: %v", ended.Used, rec.Used, err)
		}
	case errors.Is(endErr, session.ErrConflict):
		if err != nil || !got.Used.Equal(now) {
			t.Errorf("End refused, then Load = Used %v, %v, want %v", got.Used, err, now)
		}
	default:
		t.Errorf("End: %v", endErr)
	}
}

func raceSweep(t *testing.T, s session.Store) {
	rec := record()
	rec.Used = ago(idle)
	before, during := createMany(t, s, 300, rec), createMany(t, s, 300, rec)
	for _, key := range before {
		touch(t, s, key, now)
	}
	var endings []session.Ending
	parallel(9, func(i int) {
		var err error
		if i == 0 {
			endings, err = s.Sweep(t.Context(), limits)
		} else {
			for n := i - 1; n < len(during) && err == nil; n += 8 {
				err = s.Touch(t.Context(), []session.Touch{{Key: during[n], At: now}})
			}
		}
		if err != nil {
			t.Errorf("Sweep or Touch: %v", err)
		}
	})
	for _, key := range before {
		load(t, s, key)
	}
	var ended []session.Key
	for _, key := range during {
		got, err := s.Load(t.Context(), key)
		if isEnded(err, session.IdleTimeout) {
			ended = append(ended, key)
		} else if err != nil || !got.Used.Equal(now) {
			t.Errorf("survived the sweep with Used %v, error %v", got.Used, err)
		}
	}
	wantEndings(t, endings, session.IdleTimeout, rec.Binding, ended...)
}

// raceMark lets logins race the logout that is about all of them but the last,
// which began when the others had ended.
func raceMark(t *testing.T, s session.Store) {
	tag := random[session.Tag]()
	var keys [4]session.Key
	var errs [len(keys)]error
	var endings []session.Ending
	parallel(len(keys)+1, func(i int) {
		time.Sleep(rand.N(100 * time.Microsecond))
		if i < len(keys) {
			rec := record(random[session.Tag](), tag)
			if i == len(keys)-1 {
				rec.Began = now
			}
			keys[i] = random[session.Key]()
			errs[i] = s.Create(t.Context(), keys[i], rec)
			return
		}
		err := s.Mark(t.Context(), tag, session.Mark{Reason: session.Revoked, BeganBefore: now, Until: now.Add(time.Hour)})
		if err == nil {
			endings, err = s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{BeganBefore: now})
		}
		if err != nil {
			t.Errorf("Mark or EndTagged: %v", err)
		}
	})
	told := map[session.Key]bool{}
	for _, e := range endings {
		told[e.Key] = true
	}
	for i, key := range keys {
		_, err := s.Load(t.Context(), key)
		switch {
		case i == len(keys)-1:
			if errs[i] != nil || err != nil || told[key] {
				t.Errorf("a login that began after the logout: Create: %v, Load: %v, ended %t", errs[i], err, told[key])
			}
		case errs[i] == nil:
			if !isEnded(err, session.BackChannel) || !told[key] {
				t.Errorf("Create succeeded, then Load: %v, ended %t", err, told[key])
			}
		case isEnded(errs[i], session.Revoked):
			if !errors.Is(err, session.ErrAbsent) || isEnded(err, session.BackChannel) || told[key] {
				t.Errorf("Create failed, then Load: %v, ended %t", err, told[key])
			}
		default:
			t.Errorf("Create: %v", errs[i])
		}
	}
}

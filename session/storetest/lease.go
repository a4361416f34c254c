package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

const (
	// brief is the life of a lease that should run out in the test.
	brief = 50 * time.Millisecond
	// long is the life of one that should not.
	long = time.Minute
	// soon is much longer than anything takes that should happen.
	soon = 10 * time.Second
)

func acquire(t *testing.T, s session.Store, key session.Key, ttl time.Duration) session.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	lease, err := s.Acquire(ctx, key, ttl)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	return lease
}

// wantHeld wants that nobody else gets a lease now.
func wantHeld(t *testing.T, s session.Store, key session.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	if _, err := s.Acquire(ctx, key, long); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire of a held lease: error = %v, want %v", err, context.DeadlineExceeded)
	}
}

func release(t *testing.T, s session.Store, l session.Lease) {
	t.Helper()
	if err := s.Release(t.Context(), l); err != nil {
		t.Errorf("Release: %v", err)
	}
}

var leaseRows = []row{
	{"a lease is exclusive, for its key only", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		if got := acquire(t, s, key, long).Key; got != key {
			t.Errorf("Key = %x, want %x", got, key)
		}
		wantHeld(t, s, key)
		acquire(t, s, random[session.Key](), long)
	}},
	// However long the answer took: the store's time began before it.
	{"a lease tells a time until which it lasts for certain", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		first := acquire(t, s, key, 10*brief)
		if left := time.Until(first.Until); left <= 0 || left > 10*brief {
			t.Errorf("Until is in %v, want up to %v", left, 10*brief)
		}
		second := acquire(t, s, key, long)
		granted := second.Until.Add(-long)
		if granted.After(time.Now()) {
			t.Errorf("Until is %v after the lease was granted, want %v", time.Until(second.Until), long)
		}
		if granted.Add(brief).Before(first.Until) {
			t.Errorf("the second lease was granted %v before the first was over", first.Until.Sub(granted))
		}
	}},
	{"no session is needed and an ended one is no obstacle", func(t *testing.T, s session.Store) {
		acquire(t, s, random[session.Key](), long)
		key := create(t, s, record())
		end(t, s, key, session.Logout)
		acquire(t, s, key, long)
	}},
	{"a lease keeps nobody from the session itself", func(t *testing.T, s session.Store) {
		key := create(t, s, record())
		acquire(t, s, key, long)
		if err := s.Replace(t.Context(), key, 1, []byte("new")); err != nil {
			t.Errorf("Replace: %v", err)
		}
		end(t, s, key, session.Logout)
	}},
	{"every lease has its own token", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		first := acquire(t, s, key, long)
		release(t, s, first)
		second, other := acquire(t, s, key, long), acquire(t, s, random[session.Key](), long)
		if first.Token == "" || first.Token == second.Token || second.Token == other.Token {
			t.Errorf("tokens %q, %q and %q, want three that differ", first.Token, second.Token, other.Token)
		}
	}},
	{"waiting ends when the context is cancelled", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		acquire(t, s, key, long)
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(brief, cancel).Stop()
		begun := time.Now()
		if _, err := s.Acquire(ctx, key, long); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire: error = %v, want %v", err, context.Canceled)
		}
		if waited := time.Since(begun); waited > soon {
			t.Errorf("Acquire waited %v", waited)
		}
	}},
	{"one that gave up waiting takes nothing away", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lease := acquire(t, s, key, long)
		wantHeld(t, s, key)
		release(t, s, lease)
		acquire(t, s, key, long)
	}},
	{"whoever waits gets the lease when it is released", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lease := acquire(t, s, key, long)
		var released atomic.Bool
		time.AfterFunc(brief, func() {
			released.Store(true)
			if err := s.Release(context.WithoutCancel(t.Context()), lease); err != nil {
				t.Errorf("Release: %v", err)
			}
		})
		acquire(t, s, key, long)
		if !released.Load() {
			t.Error("Acquire returned before the lease was released")
		}
	}},
	{"of many that want the lease one at a time has it, and all get it", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		inside, had := 0, 0 // guarded by the lease: the race detector checks it
		parallel(20, func(int) {
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			lease, err := s.Acquire(ctx, key, long)
			if err != nil {
				t.Errorf("Acquire: %v", err)
				return
			}
			inside++
			if inside != 1 {
				t.Errorf("%d hold the lease", inside)
			}
			time.Sleep(time.Millisecond)
			inside--
			had++
			release(t, s, lease)
		})
		if had != 20 {
			t.Errorf("%d of 20 got the lease", had)
		}
	}},
	{"a lease runs out, and not before", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		begun := time.Now()
		acquire(t, s, key, brief)
		acquire(t, s, key, long)
		if waited := time.Since(begun); waited < brief-time.Millisecond {
			t.Errorf("a lease of %v ran out after %v", brief, waited)
		}
		wantHeld(t, s, key)
	}},
	{"a renewed lease lasts from then", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lease := acquire(t, s, key, 6*brief)
		if err := s.Renew(t.Context(), lease, long); err != nil {
			t.Fatalf("Renew: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*brief)
		defer cancel()
		if _, err := s.Acquire(ctx, key, long); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire: error = %v, want %v", err, context.DeadlineExceeded)
		}
		if err := s.Renew(t.Context(), lease, brief); err != nil {
			t.Fatalf("Renew: %v", err)
		}
		acquire(t, s, key, long) // well before the minute of the first Renew
	}},
	{"a lease that ran out is lost, even if nobody else has it", func(t *testing.T, s session.Store) {
		lease := acquire(t, s, random[session.Key](), brief)
		time.Sleep(2 * brief)
		wantError(t, "Renew", s.Renew(t.Context(), lease, long), session.ErrLeaseLost)
	}},
	{"a lost lease cannot be renewed away from the new holder", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lost := acquire(t, s, key, brief)
		lease := acquire(t, s, key, long)
		wantError(t, "Renew", s.Renew(t.Context(), lost, brief), session.ErrLeaseLost)
		wantHeld(t, s, key)
		if err := s.Renew(t.Context(), lease, long); err != nil {
			t.Errorf("Renew by the new holder: %v", err)
		}
	}},
	{"releasing a lost lease is no error and does not free the new holder's", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lost := acquire(t, s, key, brief)
		lease := acquire(t, s, key, long)
		release(t, s, lost)
		wantHeld(t, s, key)
		if err := s.Renew(t.Context(), lease, long); err != nil {
			t.Errorf("Renew by the new holder: %v", err)
		}
	}},
	{"a released lease is lost, and releasing it again is no error", func(t *testing.T, s session.Store) {
		lease := acquire(t, s, random[session.Key](), long)
		release(t, s, lease)
		release(t, s, lease)
		wantError(t, "Renew", s.Renew(t.Context(), lease, long), session.ErrLeaseLost)
	}},
	{"a lease is released even if the context of its holder is over", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		lease := acquire(t, s, key, long)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Release(ctx, lease); err != nil {
			t.Errorf("Release: %v", err)
		}
		acquire(t, s, key, long)
	}},
	{"a token that was never given out is worth nothing", func(t *testing.T, s session.Store) {
		key := random[session.Key]()
		forged := session.Lease{Key: key, Token: "forged"}
		wantError(t, "Renew", s.Renew(t.Context(), forged, long), session.ErrLeaseLost)
		lease := acquire(t, s, key, long)
		release(t, s, forged)
		release(t, s, session.Lease{Key: random[session.Key](), Token: lease.Token})
		wantHeld(t, s, key)
	}},
}

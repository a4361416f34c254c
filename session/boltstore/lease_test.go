package boltstore

import (
	"testing"
	"time"

	"sessiongate/session"
)

// A lease's timer may fire, wait for the lock, and find the lease renewed or
// somebody else's.
func TestALateTimerFreesNobody(t *testing.T) {
	s := open(t)
	key := session.Key{1}
	lease, err := s.Acquire(t.Context(), key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	first := s.leases.held[key]
	s.leases.expire(key, first)
	if err := s.Renew(t.Context(), lease, time.Minute); err != nil {
		t.Errorf("Renew after a timer that was too early: %v", err)
	}

	if err := s.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	lease, err = s.Acquire(t.Context(), key, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	first.until = time.Now().Add(-time.Second)
	s.leases.expire(key, first)
	if err := s.Renew(t.Context(), lease, time.Minute); err != nil {
		t.Errorf("Renew after the timer of the lease before: %v", err)
	}
}

// A lease that nobody gives back, of a session that nobody asks for again, must
// not stay in memory.
func TestLeasesThatRanOutAreForgotten(t *testing.T) {
	s := open(t)
	for i := range 100 {
		if _, err := s.Acquire(t.Context(), session.Key{byte(i)}, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		s.leases.mu.Lock()
		n := len(s.leases.held)
		s.leases.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d leases are left", n)
		}
	}
}

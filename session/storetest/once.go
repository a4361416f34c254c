package storetest

import (
	"errors"
	"testing"
	"time"

	"sessiongate/session"
)

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

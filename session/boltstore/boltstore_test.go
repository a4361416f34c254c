package boltstore

import (
	"path/filepath"
	"testing"

	"sessiongate/session"
	"sessiongate/session/storetest"
)

func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func open(t testing.TB) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "sessions.db"))
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) session.Store { return open(t) })
}

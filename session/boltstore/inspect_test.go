package boltstore

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInspectTellsWhatOpenWouldAndLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sessions.db")
	want := func(path string, want Place) {
		t.Helper()
		if got, err := Inspect(path); err != nil || got != want {
			t.Errorf("Inspect = %+v, %v, want %+v", got, err, want)
		}
	}
	want(file, Place{})
	want(filepath.Join(dir, "a", "b", "sessions.db"), Place{})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	s := openAt(t, file)
	want(file, Place{Exists: true, Held: true})
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("the holder: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(file, Place{Exists: true})
	openAt(t, file)
	if _, err := Inspect(dir); err == nil {
		t.Error("a directory passes for a file")
	}
	if _, err := Inspect("/proc/self/sessions.db"); err == nil {
		t.Error("a directory in which nobody writes passes")
	}
}

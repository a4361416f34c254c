package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
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
	text, pipe := filepath.Join(dir, "text"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(text, []byte("notes\n"), 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, pipe} {
		if _, err := Inspect(path); err == nil {
			t.Errorf("%s passes for a file of ours", filepath.Base(path))
		}
	}
	if _, err := Inspect("/proc/self/sessions.db"); err == nil {
		t.Error("a directory in which nobody writes passes")
	}
}

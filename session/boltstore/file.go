package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

var (
	errDamaged = errors.New("boltstore: the file is damaged")
	// errNewer is errDamaged as far as this version goes, and whole for another.
	errNewer = errors.New("boltstore: the file is of a newer version")
	// errSetAside: if it is the answer for a second time, new files get damaged.
	errSetAside  = errors.New("the file was damaged and has been set aside, and so was the new one: the disk cannot be relied on")
	errForeign   = errors.New("it is a file of something else")
	errIrregular = errors.New("it is no regular file: session.store.bbolt.path has to name a file")
	errHeld      = errors.New("it is open in another process")
)

// leadsTo follows symbolic links: what takes the file's place has to take the
// place of what they lead to.
func leadsTo(path string) (string, error) {
	for range 40 { // as many as Linux follows
		target, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing at all
		}
		if !filepath.IsAbs(target) {
			target = filepath.Dir(path) + string(filepath.Separator) + target
		}
		path = target
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: syscall.ELOOP}
}

// claim opens and locks the file at path, and makes it if there is none.
func claim(path string, wait time.Duration) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errIrregular
	}
	deadline := time.Now().Add(wait)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(file, deadline); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if names(path, file) {
			return file, nil
		}
		// Its holder has put another in its place, by compaction or quarantine.
		if err := file.Close(); err != nil {
			return nil, err
		}
		if !time.Now().Before(deadline) {
			return nil, errHeld
		}
	}
}

// names tells whether the path leads to the file.
func names(path string, file *os.File) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	info, err := file.Stat()
	return err == nil && os.SameFile(there, info)
}

// shut keeps others from reading the file.
func (s *Store) shut(file *os.File) error {
	info, err := file.Stat()
	if err != nil || info.Mode().Perm() == 0o600 {
		return err
	}
	if err := file.Chmod(0o600); err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		s.log.Warn("others could read or write the store's file; now they cannot", "event", "store_permissions",
			"path", s.path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	return nil
}

// lookAround warns of a directory in which others may replace the file.
func (s *Store) lookAround() error {
	dir := filepath.Dir(s.path)
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		s.log.Warn("others may replace the store's file: take their right to write in its directory", "event", "store_permissions",
			"path", dir, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	return nil
}

// keptAside is how many quarantined files there are at most: a disk that damages
// one after the other must not be filled by them.
const keptAside = 5

// quarantined is between the name of the file and the time in the names of those
// that were set aside.
const quarantined = ".quarantined-"

// setAside puts the file that info describes under another name, because it could
// not be used for a reason, and returns errSetAside. What is at path by now may be
// another.
func (s *Store) setAside(info os.FileInfo, reason error) error {
	file, err := claim(s.path, s.Wait)
	if err != nil {
		return err
	}
	defer file.Close()
	if now, err := file.Stat(); err != nil {
		return err
	} else if !os.SameFile(info, now) {
		return errSetAside // by another process, which found the same
	}
	aside, err := s.free(time.Now())
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(s.path, aside), syncDir(filepath.Dir(s.path))); err != nil {
		return fmt.Errorf("%w; it could not be set aside: %w; move %s away to start without its sessions", reason, err, s.path)
	}
	advice := "look after the disk; the file set aside is of no use to the gateway, delete it when nobody wants to look into it"
	if errors.Is(reason, errNewer) {
		advice = "to have its sessions back, stop the gateway, move the file set aside back to path, and start the version that wrote it"
	}
	s.log.Error("the store's file cannot be used and was set aside: a new one begins, and everybody has to log in again",
		"event", "store_quarantined", "path", s.path, "set_aside", aside, "error", reason, "advice", advice)
	if err := s.prune(); err != nil {
		s.log.Warn("quarantined files could not be deleted", "event", "store_quarantine_pruned", "path", s.path, "error", err)
	}
	return errSetAside
}

// free returns a name for a file that is set aside now, which no other has.
func (s *Store) free(now time.Time) (string, error) {
	for ; ; now = now.Add(time.Millisecond) {
		aside := s.path + quarantined + now.UTC().Format("20060102T150405.000Z")
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, nil
		} else if err != nil {
			return "", err
		}
	}
}

// prune deletes the oldest of those set aside.
func (s *Store) prune() error {
	all, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	prefix := filepath.Base(s.path) + quarantined
	all = slices.DeleteFunc(all, func(e fs.DirEntry) bool {
		return len(e.Name()) <= len(prefix) || e.Name()[:len(prefix)] != prefix
	})
	for len(all) > keptAside { // by name, and so by time
		oldest := filepath.Join(filepath.Dir(s.path), all[0].Name())
		s.log.Info("the oldest quarantined file is deleted", "event", "store_quarantine_pruned", "path", oldest)
		if err := os.Remove(oldest); err != nil {
			return err
		}
		all = all[1:]
	}
	return nil
}

// syncDir makes what was created or renamed in a directory outlive a power
// failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// bbolt never gives room back: the file stays as large as it ever was. So before it
// is twice as large as it would have to be, what is in it is copied to a new one,
// which takes its place. Meanwhile the old one is read and written as
// ever. The copy need not be of one moment: what is written from its beginning on
// is noted, by its keys, and copied again, until so little is left that the writer
// can wait for it.

const (
	// rest is how long after one look at the file's size comes the next.
	rest = 2 * time.Minute
	// least is a size that is not worth it.
	least = 4 << 20
	// portion is how much is copied in one transaction, so that the reader's is
	// short: it keeps bbolt from mapping a file that outgrew its map.
	portion = 4 << 20
	// remainder is how many entries may be left for the writer to wait for.
	remainder = 256
	// rounds is how often it is tried to get there.
	rounds = 20
	// fullness is how full pages of the copy are, so that not every write splits one.
	fullness = 0.9
)

// compacting is the end of the copy's name.
const compacting = ".compacting"

var errClosing = errors.New("boltstore: closing")

// compactNowAndThen runs until the store closes.
func (s *Store) compactNowAndThen() {
	look := time.NewTicker(s.rest)
	defer look.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-look.C:
		}
		if err := s.compactIfWorthIt(); err != nil && !errors.Is(err, errClosing) {
			s.log.Warn("the store's file could not be compacted, it stays larger than it has to be",
				"event", "store_compaction_failed", "path", s.path, "error", err)
		}
	}
}

// compactIfWorthIt compacts the file if it is about to be twice as large as what it
// needs, of which there is only an estimate.
func (s *Store) compactIfWorthIt() error {
	info, err := os.Stat(s.path)
	if err != nil || info.Size() <= s.least {
		return err
	}
	needed, err := s.needed()
	if err != nil || 4*info.Size() <= 7*needed {
		return err
	}
	if f, err := s.fileSystem(filepath.Dir(s.path)); err != nil {
		return err
	} else if f.free >= 0 && f.free < 2*needed {
		return fmt.Errorf("boltstore: the disk has room for %d bytes, and it takes %d", f.free, 2*needed)
	}
	return s.compact()
}

// needed is about how large the file would be if it were compacted. It counts the
// pages as bbolt splits them, at least two entries in each: with large records that
// is much more than their bytes.
func (s *Store) needed() (int64, error) {
	pageSize := s.db.Load().pageSize
	pages, branches := 0, 0
	last, size, n := []byte(nil), 0, 0 // the page that is being filled
	end := func() {
		pages += (size + pageSize - 1) / pageSize
		size, n = headerLen, 0
	}
	err := s.walk(func(bucket, key, value []byte) error {
		added := elementLen + len(key) + len(value)
		if full := float64(size+added) > fullness*float64(pageSize); full && n >= 2 || !bytes.Equal(bucket, last) {
			end()
			last = bucket
			branches += elementLen + len(key)
		}
		size, n = size+added, n+1
		return nil
	}, func() error { return nil })
	end()
	return int64(pages*pageSize) + int64(branches) + growth, err
}

// walk goes through all entries, a portion at a time, and calls between after each.
// What is written meanwhile it may see or not. Slices are valid until fn returns.
func (s *Store) walk(fn func(bucket, key, value []byte) error, between func() error) error {
	for _, name := range append([][]byte{meta}, contents...) {
		for after := []byte(nil); ; {
			last, err := s.walkPortion(name, after, fn)
			if err == nil {
				err = between()
			}
			if err != nil {
				return err
			}
			if last == nil {
				break
			}
			after = last
		}
	}
	return nil
}

// walkPortion goes on after a key and returns the last, nil at the bucket's end.
func (s *Store) walkPortion(bucket, after []byte, fn func(bucket, key, value []byte) error) (last []byte, err error) {
	select {
	case <-s.closing:
		return nil, errClosing
	default:
	}
	err = guard(func() error {
		db := s.db.Load()
		if err := db.intact(); err != nil {
			return err
		}
		return db.View(func(tx *bbolt.Tx) error {
			c := tx.Bucket(bucket).Cursor()
			key, value := c.Seek(after)
			if after != nil && bytes.Equal(key, after) {
				key, value = c.Next()
			}
			for size := 0; key != nil; key, value = c.Next() {
				if err := fn(bucket, key, value); err != nil {
					return err
				}
				if size += elementLen + len(key) + len(value); size > portion {
					last = bytes.Clone(key)
					return nil
				}
			}
			return nil
		})
	})
	return last, err
}

// compact puts a copy in the place of the file.
func (s *Store) compact() (err error) {
	s.oneCopy.Lock()
	defer s.oneCopy.Unlock()
	begun := time.Now()
	before := s.db.Load()
	copied, err := s.newCopy()
	if err != nil {
		return err
	}
	taken := false
	defer func() {
		_ = s.pause(func() { s.changed = nil }) // if it failed half way
		if !taken {
			err = errors.Join(err, guard(copied.Close), removeLeftover(s.path))
		}
	}()
	if err := s.pause(func() { s.changed = map[entry]struct{}{} }); err != nil {
		return err
	}
	if err := s.copyAll(copied); err != nil {
		return err
	}
	if err := s.catchUp(copied); err != nil {
		return err
	}
	var paused time.Duration
	var failed error
	err = s.pause(func() {
		begun := time.Now()
		taken, failed = s.exchange(copied)
		paused = time.Since(begun)
	})
	if err := errors.Join(err, failed); err != nil || !taken {
		return err
	}
	s.tell(before, copied, time.Since(begun), paused)
	return guard(before.Close) // when those who read in it have done so
}

func (s *Store) tell(before, after *opened, took, paused time.Duration) {
	var sizes [2]int64
	for i, db := range []*opened{before, after} {
		_ = guard(func() error {
			return db.View(func(tx *bbolt.Tx) error { sizes[i] = tx.Size(); return nil })
		})
	}
	s.log.Info("the store's file was compacted", "event", "store_compacted", "path", s.path, "from", sizes[0], "to", sizes[1],
		"seconds", took.Seconds(), "writers_waited_seconds", paused.Seconds())
}

// newCopy makes the file that may take the place of the one there is. It is locked
// from the beginning: no other process can slip in between.
func (s *Store) newCopy() (*opened, error) {
	if err := removeLeftover(s.path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(s.path+compacting, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	db, err := openBolt(file)
	if err != nil {
		return nil, errors.Join(err, removeLeftover(s.path))
	}
	return db, nil
}

// removeLeftover removes the copy of a compaction that did not come to its end.
func removeLeftover(path string) error {
	err := os.Remove(path + compacting)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// pause runs do between two writes.
func (s *Store) pause(do func()) error {
	done := make(chan struct{})
	select {
	case s.pauses <- func() { do(); close(done) }:
		<-done
		return nil
	case <-s.closing:
		return errClosing
	}
}

// copyAll copies all entries, each portion in a transaction of its own: a disk
// that is given all at once makes the writers wait.
func (s *Store) copyAll(to *opened) error {
	tx, err := to.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = guard(tx.Rollback) }() // after Commit it does nothing
	next := func() error {
		if err := guard(tx.Commit); err != nil {
			return err
		}
		tx, err = to.Begin(true)
		return err
	}
	for _, name := range append([][]byte{meta}, contents...) {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	err = s.walk(func(bucket, key, value []byte) error {
		b := tx.Bucket(bucket)
		b.FillPercent = fullness
		return b.Put(key, bytes.Clone(value)) // bbolt keeps the value until Commit
	}, next)
	if err != nil {
		return err
	}
	return guard(tx.Commit)
}

// catchUp copies again what was written meanwhile, until little is left.
func (s *Store) catchUp(to *opened) error {
	for range rounds {
		var changed map[entry]struct{}
		err := s.pause(func() {
			if len(s.changed) > remainder {
				changed, s.changed = s.changed, map[entry]struct{}{}
			}
		})
		if err != nil || changed == nil {
			return err
		}
		if err := s.copyAgain(to, changed); err != nil {
			return err
		}
	}
	return nil // the writer has to wait a bit longer
}

// copyAgain copies entries as they are now.
func (s *Store) copyAgain(to *opened, changed map[entry]struct{}) error {
	return guard(func() error {
		return to.Update(func(tx *bbolt.Tx) error {
			return s.db.Load().View(func(from *bbolt.Tx) error {
				for e := range changed {
					if err := copyEntry(tx.Bucket([]byte(e.bucket)), from.Bucket([]byte(e.bucket)), []byte(e.key)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	})
}

func copyEntry(to, from *bbolt.Bucket, key []byte) error {
	found, value := from.Cursor().Seek(key)
	if !bytes.Equal(found, key) {
		return to.Delete(key)
	}
	return to.Put(key, bytes.Clone(value))
}

// exchange is the writer's part: it brings the copy up to date and puts it in the
// file's place. A crash at any point leaves one of the two under the file's name,
// and both hold all that was acknowledged. taken: it is the copy, whatever the
// error.
func (s *Store) exchange(copied *opened) (taken bool, err error) {
	if s.broken != nil {
		return false, s.broken
	}
	if err := s.copyAgain(copied, s.changed); err != nil {
		return false, err
	}
	if err := os.Rename(s.path+compacting, s.path); err != nil {
		return false, err
	}
	s.changed = nil
	s.db.Store(copied)
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		// After a power failure the old file may be back, without what is written from
		// here on.
		return true, s.breakDown(err)
	}
	return true, nil
}

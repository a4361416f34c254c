// Package boltstore keeps sessions in one bbolt file, for one process.
//
// The file holds, by bucket:
//
//	meta      "format" -> the version of this layout
//	sessions  key -> a live record or a tombstone (record.go)
//	used      key -> the last use; apart, so that a touch rewrites no tokens.
//	          There is an entry for each live session and for no other
//	tags      tag, key -> nothing
//	once      key -> until when it is claimed
//	marks     tag -> a mark (record.go)
//	due       kind, time, key -> nothing: what Sweep walks (sweep.go)
//
// Writers are grouped: whatever waits while a commit is under way shares the
// next one (commit.go). Readers wait for nobody.
package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"sessiongate/session"
)

// format is the version of the layout that this package writes.
const format = 2

// formerFormat had no marks, and records without the begin of their login. Both
// are read as they are.
const formerFormat = 1

// mapSize is the address space that is reserved for the file at open. A file
// that outgrows it has to wait for its readers each time it is mapped anew.
const mapSize = 256 << 20

// growth is by how much the file grows at a time, so that its size tells how
// much is in it.
const growth = 1 << 20

var (
	meta     = []byte("meta")
	sessions = []byte("sessions")
	used     = []byte("used")
	tags     = []byte("tags")
	once     = []byte("once")
	marks    = []byte("marks")
	due      = []byte("due")

	formatKey = []byte("format")
)

var (
	errClosed  = errors.New("boltstore: closed")
	errDamaged = errors.New("boltstore: the file is damaged")
)

// Options of Open. The zero value is right.
type Options struct {
	// Wait is how long Open waits for another process to let go of the file. 0
	// means a second.
	Wait time.Duration
}

// Store is a session.Store in a bbolt file.
type Store struct {
	db     *bbolt.DB
	live   atomic.Int64
	leases leases

	writes chan *write
	// stopped is closed when the writer has returned.
	stopped chan struct{}
	// broken is why nothing may be written any more. It is the writer's.
	broken error

	// mu is held for reading by each call in progress; it guards closed.
	mu     sync.RWMutex
	closed bool
	// closing wakes those who wait for a lease.
	closing   chan struct{}
	closeOnce sync.Once
}

var _ session.Store = (*Store)(nil)

// Open opens the store in the file at path and makes file and directory where
// they are missing, for the owner's eyes only.
func Open(path string, o Options) (*Store, error) {
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	db, err := openFile(path, o.Wait)
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("boltstore: %s is open in another process: one bbolt file serves one process; "+
			"stop the other one, or use a store that several processes can share", path)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Store{
		db:      db,
		leases:  leases{held: map[session.Key]*held{}},
		writes:  make(chan *write, maxGroup),
		stopped: make(chan struct{}),
		closing: make(chan struct{}),
	}
	if err := guard(s.prepare); err != nil {
		return nil, errors.Join(openError(path, err), guard(db.Close))
	}
	go s.writer()
	return s, nil
}

func openError(path string, err error) error {
	if errors.Is(err, errDamaged) {
		return fmt.Errorf("%w; move %s away to start without its sessions", err, path)
	}
	return fmt.Errorf("boltstore: open %s: %w", path, err)
}

func openFile(path string, wait time.Duration) (*bbolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	created := errors.Is(err, fs.ErrNotExist)
	if err != nil && !created {
		return nil, err
	}
	if !created && info.Size() > 0 {
		if err := verify(path, wait); err != nil {
			return nil, err
		}
	}
	db, err := openBolt(path, bbolt.Options{
		Timeout:         wait,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true, // else each commit writes the whole list of free pages
		InitialMmapSize: mapSize,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growth
	if created {
		err = syncDir(filepath.Dir(path))
	}
	return db, err
}

// openBolt is bbolt.Open with panics made errors. A file to write is closed to
// others, whoever created it.
func openBolt(path string, o bbolt.Options) (*bbolt.DB, error) {
	o.OpenFile = func(path string, flag int, mode os.FileMode) (*os.File, error) {
		file, err := os.OpenFile(path, flag, mode)
		if err != nil || o.ReadOnly {
			return file, err
		}
		if err := file.Chmod(mode); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	}
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &o)
		return err
	})
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch) {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return db, err
}

// syncDir makes a file that was just created outlive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prepare makes the buckets of a new file and counts the sessions of an old one.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first != nil && tx.Bucket(meta) == nil {
			return errors.New("it is a bbolt file of something else")
		}
		m, err := tx.CreateBucketIfNotExists(meta)
		if err != nil {
			return err
		}
		if v := m.Get(formatKey); v != nil && !bytes.Equal(v, []byte{format}) && !bytes.Equal(v, []byte{formerFormat}) {
			return fmt.Errorf("the file has format %d and this version reads %d: it was written by a newer sessiongate; "+
				"run that one, or move the file away to start without its sessions", v, format)
		}
		if err := m.Put(formatKey, []byte{format}); err != nil {
			return err
		}
		for _, name := range [][]byte{sessions, used, tags, once, marks, due} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(used).ForEach(func(_, _ []byte) error {
			s.live.Add(1)
			return nil
		})
	})
}

// guard makes the panics by which bbolt reports a damaged file errors, reading
// beyond the file's end among them. What it says then is "unknown": a damaged
// page must neither end the process nor pass for a session's absence.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return fn()
}

// enter admits a call; without an error its caller has to s.mu.RUnlock.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("boltstore: not begun: %w", err)
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errClosed
	}
	return nil
}

// view runs fn in a read transaction. The error of fn is returned as it is.
func (s *Store) view(ctx context.Context, fn func(*txn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return fn(&txn{tx: tx}) })
	})
}

// Count returns how many live sessions there are, from memory.
func (s *Store) Count(ctx context.Context) (int, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	return int(s.live.Load()), nil
}

// Ping waits for its turn among the writers, so it also tells of a disk that
// hangs, and of a file that is not written any more because it is damaged.
func (s *Store) Ping(ctx context.Context) error {
	return s.update(ctx, func(*txn) error { return nil })
}

// Close waits for calls in progress and closes the file. Those who wait for a
// lease are sent away.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	close(s.closing)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()

	close(s.writes) // nobody sends any more: senders hold mu
	<-s.stopped
	if s.broken != nil {
		return s.broken // bbolt may hold its lock for ever, and Close would wait for it
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("boltstore: close: %w", err)
	}
	return nil
}

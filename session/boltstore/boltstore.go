// Package boltstore keeps sessions in one bbolt file, for one process.
//
// The file holds, by bucket:
//
//	meta      "format" -> the version of this layout, "sum" -> a checksum of
//	          all other buckets' content (sum.go)
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
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"sessiongate/session"
)

// format is the version of the layout that this package writes.
const format = 3

// Former formats are read as they are: the first had no marks and records without
// the begin of their login, the second no sum.
const firstFormat = 1

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

// contents are the buckets but meta.
var contents = [][]byte{sessions, used, tags, once, marks, due}

var errClosed = errors.New("boltstore: closed")

// Options of Open. The zero value is right.
type Options struct {
	// Wait is how long Open waits for another process to let go of the file. 0
	// means 800 ms, so that within a second people know.
	Wait time.Duration
	// Log is told what happens to the file; default: nothing is logged.
	Log        *slog.Logger
	Registerer prometheus.Registerer // default: nothing is exported

	// What follows is for tests; 0 means what is right.

	fileSystem func(dir string) (fileSystem, error)
	// rest is how long after the last look at the file's size comes the next, and
	// least a size up to which it does not matter.
	rest  time.Duration
	least int64
}

// Store is a session.Store in a bbolt file.
type Store struct {
	path string // where the file is, behind all symbolic links
	Options
	log    *slog.Logger
	db     atomic.Pointer[opened] // compaction changes it
	live   atomic.Int64
	leases leases
	// beganAnew: the file that was there is set aside.
	beganAnew bool

	writes chan *write
	// pauses are what the writer does between two writes.
	pauses chan func()
	// stopped is closed when the writer has returned.
	stopped chan struct{}
	// broken is why nothing may be written any more. It is the writer's, as is
	// changed: what was written since a compaction began, nil if none is under way.
	broken  error
	changed map[entry]struct{}
	// noticed: somebody has been told of damage.
	noticed atomic.Bool

	// mu is held for reading by each call in progress; it guards closed.
	mu     sync.RWMutex
	closed bool
	// closing wakes those who wait for a lease, and ends compaction.
	closing   chan struct{}
	closeOnce sync.Once
	compactor sync.WaitGroup
	oneCopy   sync.Mutex // held by a compaction: there is one name for copies
}

// opened is a file that bbolt has open.
type opened struct {
	*bbolt.DB
	file     *os.File
	pageSize int
}

var _ session.Store = (*Store)(nil)

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

// intact tells whether one can begin to read. If bbolt finds no meta page then,
// because somebody has cut the file off or written over it, it panics with its locks
// held, and whoever comes next waits for ever.
func (o *opened) intact() error {
	size := int64(o.pageSize)
	var last [1]byte
	var m [headerLen + metaLen]byte
	_, err := o.file.ReadAt(last[:], 2*size-1)
	for range 3 { // the writer may be at one of them, and then at the other
		for _, at := range []int64{0, size} { // one is enough for bbolt
			if err == nil {
				_, err = o.file.ReadAt(m[:], at)
			}
			if err == nil && page(m[:]).meta() == nil {
				return nil
			}
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: its end is missing", errDamaged)
	case err != nil:
		return fmt.Errorf("boltstore: %w", err)
	}
	return fmt.Errorf("%w: it has no meta page", errDamaged)
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
	for {
		db := s.db.Load()
		err := db.intact()
		if err == nil {
			err = guard(func() error {
				return db.View(func(tx *bbolt.Tx) error { return fn(&txn{tx: tx}) })
			})
		}
		if s.db.Load() == db || !errors.Is(err, berrors.ErrDatabaseNotOpen) && !errors.Is(err, os.ErrClosed) {
			return s.notice(err)
		}
		// A compaction has put another in its place meanwhile.
	}
}

// notice tells of the first damage that is found while the file is in use. What is
// whole is served on; the next start judges the file.
func (s *Store) notice(err error) error {
	if errors.Is(err, errDamaged) && s.noticed.CompareAndSwap(false, true) {
		s.log.Error("the store's file is damaged: some sessions cannot be read or written, and are answered by 503; "+
			"look after the disk, and restart: then the file is set aside and a new one begins, if it is as bad as that",
			"event", "store_damaged", "path", s.path, "error", err)
	}
	return err
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
	s.compactor.Wait()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()

	close(s.writes) // nobody sends any more: senders hold mu
	<-s.stopped
	if s.broken != nil {
		return s.broken // bbolt may hold its lock for ever, and Close would wait for it
	}
	if err := s.db.Load().Close(); err != nil {
		return fmt.Errorf("boltstore: close: %w", err)
	}
	return nil
}

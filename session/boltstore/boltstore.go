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
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
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

// Open opens the store in the file at path and makes file and directory where
// they are missing, for the owner's eyes only.
//
// A file that is damaged, or of a newer version, is set aside, and the store
// begins empty: sessions can be made again by logging in, and an outage that lasts
// until somebody comes helps nobody. A file that is something else's, that another
// process has open, that is on a network or cannot be opened is an error.
func Open(path string, o Options) (*Store, error) {
	s := &Store{
		Options: o, log: o.Log,
		leases:  leases{held: map[session.Key]*held{}},
		writes:  make(chan *write, maxGroup),
		pauses:  make(chan func()),
		stopped: make(chan struct{}),
		closing: make(chan struct{}),
	}
	s.defaults()
	if err := s.open(path); err != nil {
		return nil, openError(path, err)
	}
	s.register(s.Registerer)
	go s.writer()
	s.compactor.Go(s.compactNowAndThen)
	return s, nil
}

func (s *Store) defaults() {
	if s.Wait == 0 {
		s.Wait = 800 * time.Millisecond
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.fileSystem == nil {
		s.fileSystem = look
	}
	if s.rest == 0 {
		s.rest = rest
	}
	if s.least == 0 {
		s.least = least
	}
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, errHeld), errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("boltstore: %s is open in another process: one bbolt file serves one process; "+
			"stop the other one, or use a store that several processes can share", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("boltstore: open %s: %w%s%s", path, err, owner(filepath.Dir(path)), owner(path))
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("boltstore: open %s: %w: the gateway has to write there; mount it for writing, or change session.store.bbolt.path", path, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("boltstore: open %s: %w: the disk is full and there is no store on it yet; free some of it", path, err)
	}
	return fmt.Errorf("boltstore: open %s: %w", path, err)
}

func (s *Store) open(path string) (err error) {
	if s.path, err = leadsTo(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	if err := s.judgePlace(); err != nil {
		return err
	}
	err = s.load()
	if errors.Is(err, errSetAside) {
		s.beganAnew = true
		err = s.load()
	}
	if err != nil {
		return err
	}
	return s.lookAround()
}

// load opens the file that is there. errSetAside: it was unfit, and is no longer
// there.
func (s *Store) load() error {
	file, err := claim(s.path, s.Wait)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	err = s.use(file, info)
	if errors.Is(err, errDamaged) || errors.Is(err, errNewer) {
		return s.setAside(info, err)
	}
	return err
}

// use opens a file that was claimed, and closes it if that fails.
func (s *Store) use(file *os.File, info os.FileInfo) error {
	if info.Size() > 0 {
		if err := guard(func() error { return verify(file) }); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	db, err := openBolt(file) // from here on the file is bbolt's
	if err != nil && info.Size() == 0 {
		return errors.Join(err, s.empty(info))
	}
	if err != nil {
		return err
	}
	err = guard(func() error { return s.prepare(db) })
	if err == nil {
		err = s.shut(file)
	}
	if err == nil && info.Size() == 0 {
		err = syncDir(filepath.Dir(s.path))
	}
	if err == nil {
		err = removeLeftover(s.path)
	}
	if err != nil {
		return errors.Join(err, guard(db.Close))
	}
	s.db.Store(db)
	return nil
}

// empty makes a new file empty again that bbolt could not begin, on a full disk. Half
// of a beginning would pass for damage when there is room.
func (s *Store) empty(info os.FileInfo) error {
	file, err := claim(s.path, s.Wait)
	if err != nil {
		return err
	}
	if now, err := file.Stat(); err == nil && os.SameFile(info, now) {
		err = file.Truncate(0)
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

// openBolt is bbolt.Open with panics made errors.
func openBolt(file *os.File) (*opened, error) {
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(file.Name(), 0o600, &bbolt.Options{
			Timeout:         time.Second, // it has the lock, where there are locks
			FreelistType:    bbolt.FreelistMapType,
			NoFreelistSync:  true, // else each commit writes the whole list of free pages
			InitialMmapSize: mapSize,
			NoStatistics:    true,
			OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, closed(file.Close()))
	}
	db.AllocSize = growth
	return &opened{db, file, db.Info().PageSize}, nil
}

// closed makes nothing of a file's being closed already.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// prepare judges the content of an old file, makes the buckets of a new one, and
// counts the sessions. It writes only if it has to: on a full disk, what is there
// can still be served.
func (s *Store) prepare(db *opened) error {
	version := byte(0) // of a new file
	s.live.Store(0)
	err := db.View(func(tx *bbolt.Tx) (err error) {
		if version, err = formatOf(tx); err != nil || version == 0 {
			return err
		}
		if version == format && sumOf(tx) != storedSum(tx) {
			return fmt.Errorf("%w: its checksum is wrong", errDamaged)
		}
		return tx.Bucket(used).ForEach(func(_, _ []byte) error {
			s.live.Add(1)
			return nil
		})
	})
	if err != nil || version == format {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		m, err := tx.CreateBucketIfNotExists(meta)
		if err != nil {
			return err
		}
		for _, name := range contents {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return errors.Join(m.Put(formatKey, []byte{format}), m.Put(sumKey, encodeSum(sumOf(tx))))
	})
}

// formatOf returns the format of a file whose buckets are those of it, 0 if it has
// none yet.
func formatOf(tx *bbolt.Tx) (byte, error) {
	missing, strange := 0, 0
	for _, name := range append([][]byte{meta}, contents...) {
		if tx.Bucket(name) == nil {
			missing++
		}
	}
	err := tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if !bytes.Equal(name, meta) && !slices.ContainsFunc(contents, func(b []byte) bool { return bytes.Equal(name, b) }) {
			strange++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errDamaged, err) // a key among the buckets
	}
	switch found := 1 + len(contents) - missing; {
	case found == 0 && strange == 0:
		return 0, nil
	case found == 0:
		return 0, errForeign
	case tx.Bucket(meta) == nil:
		return 0, fmt.Errorf("%w: its format is missing", errDamaged)
	}
	v := tx.Bucket(meta).Get(formatKey)
	switch {
	case len(v) != 1 || v[0] < firstFormat:
		return 0, fmt.Errorf("%w: it has no format", errDamaged)
	case v[0] > format:
		return 0, fmt.Errorf("%w: it has format %d and this one reads up to %d", errNewer, v[0], format)
	case strange > 0 || missing > 0 && v[0] != firstFormat: // which had no marks
		return 0, fmt.Errorf("%w: %d buckets are missing and %d are strange", errDamaged, missing, strange)
	}
	return v[0], nil
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

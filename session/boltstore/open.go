package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"sessiongate/session"
)

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

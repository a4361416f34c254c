package boltstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiongate/session"
)

// openWith is openAt with options, and what was logged.
func openWith(t testing.TB, path string, o Options) (*Store, *journal) {
	t.Helper()
	var log journal
	o.Log = log.logger()
	s, err := Open(path, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, &log
}

// compactedSize is how large a file with the same content is at least: what
// bbolt's own compaction makes of it.
func compactedSize(t testing.TB, s *Store) int64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "compacted.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.AllocSize = growth
	s.oneCopy.Lock()
	defer s.oneCopy.Unlock()
	if err := bbolt.Compact(db, s.db.Load().DB, 1<<20); err != nil {
		t.Fatal(err)
	}
	return fileSize(t, path)
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// shrunken fills a store and ends most of its sessions again.
func shrunken(t *testing.T, s *Store, n, left int) []session.Key {
	t.Helper()
	keys := fill(t, s, n)
	for chunk := range slices.Chunk(keys[left:], 500) {
		if _, err := s.endEach(t.Context(), chunk, session.Logout); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func TestCompactionLeavesWhatIsThereAndLittleElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, _ := openWith(t, path, Options{rest: time.Hour})
	keys := shrunken(t, s, 3000, 300)
	content := snapshot(t, s, keys)
	before := fileSize(t, path)

	if err := s.compactIfWorthIt(); err != nil {
		t.Fatal(err)
	}
	after, least := fileSize(t, path), compactedSize(t, s)
	if after >= before/2 || after > 2*least {
		t.Errorf("size %d of %d, want less than half, and at most twice the %d that it takes", after, before, least)
	}
	wantMode(t, path, 0o600)
	for range 2 { // and so after a restart
		wantConsistent(t, s)
		if !slices.EqualFunc(snapshot(t, s, keys), content, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
			t.Error("something has changed")
		}
		wantLogin(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, _ = openWith(t, path, Options{rest: time.Hour})
		content = snapshot(t, s, keys)
	}
	wantOnly(t, path)
}

// wantOnly wants that nothing is left beside the file.
func wantOnly(t *testing.T, path string) {
	t.Helper()
	all, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(all) != 1 {
		t.Errorf("%v, %v, want the store's file only", all, err)
	}
}

// The estimate by which compaction is decided on has to be about right, or it would
// happen over and over, or never.
func TestWhatAFileNeedsIsKnown(t *testing.T) {
	for name, data := range map[string]func() int{
		"no tokens":            func() int { return 0 },
		"small tokens":         func() int { return 300 },
		"two to a page":        func() int { return 1900 },
		"just too large":       func() int { return 2100 },
		"larger than a page":   func() int { return 5000 },
		"of all sizes":         func() int { return rand.N(9000) },
		"opaque and JWT mixed": func() int { return []int{200, 3500}[rand.N(2)] },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := openWith(t, filepath.Join(t.TempDir(), "sessions.db"), Options{rest: time.Hour})
			var all sync.WaitGroup
			for i := range uint64(2000) {
				rec := loginRecord()
				rec.Data = make([]byte, data())
				all.Go(func() {
					if err := s.Create(t.Context(), numbered(i), rec); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			needed, err := s.needed()
			least := compactedSize(t, s)
			if off := max(needed-least, least-needed); err != nil || off > least/10+growth {
				t.Errorf("needed = %d, %v, and it takes %d", needed, err, least)
			}
		})
	}
}

// While a compaction runs, sessions are created, refreshed, used, ended and read.
// Nothing of that may be lost or undone.
func TestCompactionLosesNothingThatIsWrittenMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, log := openWith(t, path, Options{rest: time.Hour})
	old := shrunken(t, s, 4000, 400)[:400]
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var mu sync.Mutex
	versions, ended := map[session.Key]uint64{}, map[session.Key]bool{}
	for i := range 8 {
		clients.Go(func() {
			for n := uint64(0); ctx.Err() == nil; n++ {
				key := old[rand.N(len(old)/8)*8+i] // of this client alone
				if n%3 == 0 {
					key = numbered(n<<8 + uint64(i))
					if err := s.Create(t.Context(), key, loginRecord()); err != nil {
						t.Errorf("Create: %v", err)
					}
				}
				rec, err := s.Load(t.Context(), key)
				mu.Lock()
				gone, version := ended[key], versions[key]
				mu.Unlock()
				if gone {
					if end := new(session.Ended); !errors.As(err, &end) {
						t.Errorf("Load of an ended session: %v", err)
					}
					continue
				}
				if err != nil || rec.Version < version {
					t.Errorf("Load: version %d, %v, want %d", rec.Version, err, version)
					continue
				}
				if n%5 == 0 {
					_, err = s.End(t.Context(), key, session.Logout, session.Condition{})
					gone = true
				} else {
					err = s.Replace(t.Context(), key, rec.Version, make([]byte, rand.N(5000)))
				}
				if err != nil {
					t.Errorf("Replace or End: %v", err)
				}
				mu.Lock()
				ended[key], versions[key] = gone, rec.Version+1
				mu.Unlock()
			}
		})
	}
	for range 5 {
		if err := s.compact(); err != nil {
			t.Errorf("compact: %v", err)
		}
	}
	stop()
	clients.Wait()
	if n := len(log.lines(t, "store_compacted")); n != 5 {
		t.Errorf("it was told %d times, want 5", n)
	}
	wantConsistent(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, log = openWith(t, path, Options{rest: time.Hour})
	if n := len(log.lines(t, "store_quarantined")); n > 0 {
		t.Fatal("its sum is wrong")
	}
	for key, version := range versions {
		rec, err := s.Load(t.Context(), key)
		if ended[key] != (err != nil) || err == nil && rec.Version != version {
			t.Errorf("version %d, %v, want %d, ended: %t", rec.Version, err, version, ended[key])
		}
	}
	t.Logf("%d sessions were written", len(versions))
}

// A store that is closed, or whose file was found damaged, while it is compacted
// stays as it is.
func TestCompactionIsGivenUp(t *testing.T) {
	for name, row := range map[string]struct {
		do   func(s *Store)
		want error
	}{
		"at a shutdown":            {func(s *Store) { close(s.closing) }, errClosing},
		"when the file is damaged": {func(s *Store) { _ = s.pause(func() { s.broken = errDamaged }) }, errDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			s, err := Open(path, Options{rest: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			keys := fill(t, s, 100)
			row.do(s)
			if err := s.compact(); !errors.Is(err, row.want) {
				t.Errorf("compact: error = %v, want %v", err, row.want)
			}
			if _, err := s.Load(t.Context(), keys[7]); err != nil {
				t.Errorf("Load: %v", err)
			}
			wantOnly(t, path)
			_ = s.pause(func() { s.broken = nil })
			if err := s.db.Load().Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, path)
			if _, err := s.Load(t.Context(), keys[7]); err != nil {
				t.Errorf("Load: %v", err)
			}
		})
	}
}

func TestCompactionWaitsForRoomOnTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	room := int64(1 << 20)
	s, _ := openWith(t, path, Options{rest: time.Hour, fileSystem: func(string) (fileSystem, error) { return fileSystem{free: room}, nil }})
	shrunken(t, s, 3000, 300)
	before := fileSize(t, path)
	if err := s.compactIfWorthIt(); err == nil || !strings.Contains(err.Error(), "the disk has room for 1048576 bytes") {
		t.Errorf("compactIfWorthIt: error = %v, want one about the disk", err)
	}
	if got := fileSize(t, path); got != before {
		t.Errorf("size %d, want %d", got, before)
	}
	room = 1 << 30
	if err := s.compactIfWorthIt(); err != nil || fileSize(t, path) >= before/2 {
		t.Errorf("compactIfWorthIt: %v, %d bytes", err, fileSize(t, path))
	}
}

// Readers begin in the old file while the new one takes its place.
func TestReadersAreNotDisturbedByCompaction(t *testing.T) {
	s, _ := openWith(t, filepath.Join(t.TempDir(), "sessions.db"), Options{rest: time.Hour})
	keys := fill(t, s, 200)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Load(t.Context(), keys[rand.N(len(keys))]); err != nil {
					t.Errorf("Load: %v", err)
					return
				}
			}
		})
	}
	for range 30 {
		if err := s.compact(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	readers.Wait()
}

// A process that waits for the file has the old one open when a compaction puts
// another in its place. It must not take the old one's lock for the store's.
func TestASecondProcessDoesNotSlipInDuringCompaction(t *testing.T) { // ST-10
	path := filepath.Join(t.TempDir(), "sessions.db")
	s, _ := openWith(t, path, Options{rest: time.Hour})
	fill(t, s, 100)
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), childOpen+"="+path)
	said := make(chan string)
	go func() {
		out, err := child.CombinedOutput()
		said <- fmt.Sprintf("%v: %s", err, out)
	}()
	for {
		select {
		case out := <-said:
			if !strings.Contains(out, path+" is open in another process") {
				t.Errorf("it said %q", out)
			}
			return
		default:
		}
		if err := s.compact(); err != nil {
			t.Fatal(err)
		}
	}
}

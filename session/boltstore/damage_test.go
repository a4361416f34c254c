package boltstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiongate/session"
)

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// lines are those of an event.
func (j *journal) lines(t testing.TB, event string) []map[string]any {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []map[string]any
	for d := json.NewDecoder(bytes.NewReader(j.text.Bytes())); ; {
		var line map[string]any
		err := d.Decode(&line)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if line["event"] == event {
			all = append(all, line)
		}
	}
}

func verifyAt(t *testing.T, path string) error {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return verify(file)
}

// wantQuarantined opens the file at path and wants it set aside as it is, for a
// reason, and sessions that can be made. It returns what the file is called now.
func wantQuarantined(t *testing.T, path, reason string) string {
	t.Helper()
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	aside, told := "", 0
	for range 2 { // nor does a second start find anything wrong
		var log journal
		s, err := Open(path, Options{Log: log.logger()})
		if err != nil {
			t.Fatalf("Open: %v, want the file set aside", err)
		}
		for _, line := range log.lines(t, "store_quarantined") {
			told++
			aside, _ = line["set_aside"].(string)
			if line["level"] != "ERROR" || line["path"] != path || !strings.Contains(fmt.Sprint(line["error"]), reason) || line["advice"] == "" {
				t.Errorf("log = %v, want an error with the path, %q and what to do", line, reason)
			}
		}
		wantLogin(t, s)
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if told != 1 {
		t.Fatalf("it was told %d times, want once", told)
	}
	if now, err := os.ReadFile(aside); err != nil || !bytes.Equal(now, was) {
		t.Errorf("the file that was set aside has changed: %v", err)
	}
	return aside
}

// wantLogin wants that a session can be made, read and ended.
func wantLogin(t *testing.T, s *Store) {
	t.Helper()
	var key session.Key
	for i := range key {
		key[i] = byte(rand.N(256))
	}
	now := time.Now()
	if err := s.Create(t.Context(), key, session.Record{Created: now, Used: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Errorf("Create: %v", err)
	}
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Errorf("Load: %v", err)
	}
	if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
		t.Errorf("End: %v", err)
	}
}

// snapshot is all that a store tells of the sessions of some keys.
func snapshot(t *testing.T, s *Store, keys []session.Key) []any {
	t.Helper()
	var all []any
	for _, key := range keys {
		rec, err := s.Load(t.Context(), key)
		all = append(all, rec, fmt.Sprint(err))
	}
	for tag := range 256 {
		listed, err := s.Tagged(t.Context(), session.Tag{byte(tag)}, session.Key{}, 1000)
		all = append(all, listed, fmt.Sprint(err))
	}
	return all
}

// contentful writes a file with pages of every kind, and returns it, what is in
// it, and the keys of its sessions.
func contentful(t *testing.T) (file []byte, content []any, keys []session.Key) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	keys = fill(t, s, 300)
	now := time.Now()
	for i, key := range keys[:100] {
		if err := s.Replace(t.Context(), key, 1, bytes.Repeat([]byte("new"), 100*i)); err != nil { // up to several pages
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := s.End(t.Context(), key, session.Logout, session.Condition{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Once(t.Context(), key, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 { // a bucket so small that it has no page of its own
		if err := s.Mark(t.Context(), session.Tag{byte(i)}, session.Mark{Reason: session.BackChannel, Until: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	content = snapshot(t, s, keys)
	size := 0
	_ = s.db.Load().View(func(tx *bbolt.Tx) error { size = int(tx.Size()); return nil })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file[:size], content, keys // the rest is room to grow into
}

// bbolt answers a damaged file by panics, some of them in goroutines of its own
// (bbolt#446, bbolt#778), and does not notice all damage: a start has to survive
// it all (pains.md, b2) and must not find anything changed.
func TestADamagedFileIsSetAside(t *testing.T) {
	good, _, _ := contentful(t)
	size := os.Getpagesize()
	for _, damage := range []struct {
		name, want string
		do         func(b []byte) []byte
	}{
		{"cut off early", "end is missing", func(b []byte) []byte { return b[:8*size] }},
		{"cut off in a page", "end is missing", func(b []byte) []byte { return b[:8*size+100] }},
		{"cut off after the meta pages", "end is missing", func(b []byte) []byte { return b[:2*size] }},
		{"cut off in a meta page", "end is missing", func(b []byte) []byte { return b[:size/2] }},
		{"cut off after a few bytes", "cut off", func(b []byte) []byte { return b[:3] }},
		{"all zero", "it is none", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"both meta pages zeroed", "it is none", func(b []byte) []byte { return append(make([]byte, 2*size), b[2*size:]...) }},
		// With the newer of them the last write would be lost: a logout that was answered.
		{"the first meta page damaged", "first meta page", func(b []byte) []byte { b[headerLen+20] ^= 1; return b }},
		{"the second meta page damaged", "second meta page", func(b []byte) []byte { b[size+headerLen+20] ^= 1; return b }},
		{"of another version of bbolt", "bbolt's version 3", func(b []byte) []byte { b[headerLen+4] = 3; return b }},
		{"all but the meta pages zeroed", "is none", func(b []byte) []byte { clear(b[2*size:]); return b }},
		{"every page but the meta pages points astray", "damaged", func(b []byte) []byte {
			for i := 2 * size; i+size <= len(b); i += size {
				copy(b[i+16:], bytes.Repeat([]byte{0xff}, 32))
			}
			return b
		}},
		{"branches lead nowhere", "damaged", func(b []byte) []byte {
			return branches(b, size, func(p []byte) { clear(p[headerLen+8 : headerLen+16]) })
		}},
		{"branches without elements", "without elements", func(b []byte) []byte {
			return branches(b, size, func(p []byte) { copy(p[headerLen:], bytes.Repeat([]byte{0xff}, elementLen)); clear(p[10:12]) })
		}},
		{"a bucket is missing", "1 buckets are missing and 1 are strange", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("tags"), []byte("tagt")) }},
		{"one bit of a session's tokens", "checksum is wrong", func(b []byte) []byte {
			b[bytes.Index(b, []byte("newnewnew"))] ^= 1
			return b
		}},
		{"other bytes without meaning", "it is none", func([]byte) []byte { return bytes.Repeat([]byte{0, 1, 2, 0xff}, 10000) }},
	} {
		t.Run(damage.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			if err := os.WriteFile(path, damage.do(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			wantQuarantined(t, path, damage.want)
		})
	}
}

// Whatever happens to a file, a start finds all as it was or sets it aside, and
// logins work.
func TestAnythingAnywhereIsFoundOrHarmless(t *testing.T) {
	good, content, keys := contentful(t)
	size := os.Getpagesize()
	harmless := 0
	const seeds = 200
	for seed := range uint64(seeds) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		b := bytes.Clone(good)
		at := rnd.IntN(len(b)/size) * size
		p := b[at : at+size]
		switch rnd.IntN(5) {
		case 0: // one bit anywhere
			p[rnd.IntN(size)] ^= 1 << rnd.IntN(8)
		case 1: // one bit of the page's head
			p[rnd.IntN(64)] ^= 1 << rnd.IntN(8)
		case 2:
			for range 1 + rnd.IntN(40) {
				p[rnd.IntN(1+rnd.IntN(size))] ^= byte(1 + rnd.IntN(255)) // mostly in the page's head
			}
		case 3:
			clear(p[rnd.IntN(size):])
		case 4:
			b = b[:at+rnd.IntN(size)]
		}
		path := filepath.Join(t.TempDir(), fmt.Sprint(seed))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var log journal
		s, err := Open(path, Options{Log: log.logger()})
		if err != nil {
			t.Fatalf("seed %d: Open: %v", seed, err)
		}
		if len(log.lines(t, "store_quarantined")) == 0 { // an empty file has nothing to set aside
			if harmless++; len(b) > 0 && !reflect.DeepEqual(snapshot(t, s, keys), content) {
				t.Errorf("seed %d: something has changed", seed)
			}
			if len(b) > 0 {
				wantConsistent(t, s)
			}
		}
		wantLogin(t, s)
		if err := s.Close(); err != nil {
			t.Errorf("seed %d: Close: %v", seed, err)
		}
	}
	t.Logf("%d of %d were harmless: a free page, or room in one", harmless, seeds)
	if harmless == 0 || harmless > seeds/2 {
		t.Errorf("%d of %d were harmless, want some and not many", harmless, seeds)
	}
}

// A meta page that is whole and says that there are more pages than the file has, or
// any memory could note: somebody has put files together.
func TestAFileThatIsShorterThanItSaysIsDamaged(t *testing.T) {
	for _, pages := range []uint64{0, 1 << 20, 1 << 45, math.MaxUint64} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			s := openAt(t, path)
			fill(t, s, 10)
			pageSize := s.db.Load().pageSize
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{0, pageSize} {
				m := b[at+headerLen:]
				order.PutUint64(m[40:], pages)
				sum := fnv.New64a()
				sum.Write(m[:metaLen-8])
				order.PutUint64(m[metaLen-8:], sum.Sum64())
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			wantQuarantined(t, path, "")
		})
	}
}

func TestAFileOfANewerFormatIsSetAsideAndCanComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	keys := fill(t, s, 10)
	setFormat := func(s *Store, v byte) {
		t.Helper()
		err := s.db.Load().Update(func(tx *bbolt.Tx) error { return tx.Bucket(meta).Put(formatKey, []byte{v}) })
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	setFormat(s, format+1)
	aside := wantQuarantined(t, path, "it has format 4 and this one reads up to 3")

	// What the newer version would do with it.
	b, err := os.ReadFile(aside)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("format\x04"), []byte("format\x03")), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	for _, key := range keys {
		if _, err := s.Load(t.Context(), key); err != nil {
			t.Errorf("Load: %v", err)
		}
	}
}

// A write of an older version would not keep the sum: only what this one wrote
// last is compared.
func TestAFileWithoutItsSumIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	fill(t, s, 10)
	err := s.db.Load().Update(func(tx *bbolt.Tx) error { return tx.Bucket(meta).Delete(sumKey) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	wantQuarantined(t, path, "checksum is wrong")
}

func TestQuarantineKeepsTheNewestOfSeveral(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sessions.db")
	var asides []string
	for i := range keptAside + 3 { // within milliseconds: no name is used twice
		if err := os.WriteFile(path, []byte{0, byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		asides = append(asides, wantQuarantined(t, path, "cut off"))
	}
	for i, aside := range asides {
		b, err := os.ReadFile(aside)
		if gone := i < 3; gone != errors.Is(err, os.ErrNotExist) {
			t.Errorf("quarantined file %d: %v, want it gone: %t", i, err, gone)
		} else if !gone && !bytes.Equal(b, []byte{0, byte(i)}) {
			t.Errorf("quarantined file %d is another", i)
		}
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 1+keptAside {
		t.Errorf("%d files, %v, want the store and %d", len(all), err, keptAside)
	}
}

// Two processes that start at once on a damaged file must not set aside what the
// other has just made.
func TestQuarantineOfAFileThatAnotherProcessHasSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	if err := os.WriteFile(path, []byte{0}, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path)
	keys := fill(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	late := &Store{path: path, log: slog.New(slog.DiscardHandler)}
	late.defaults()
	if err := late.setAside(damaged, errDamaged); !errors.Is(err, errSetAside) {
		t.Errorf("setAside: error = %v, want %v", err, errSetAside)
	}
	if _, err := openAt(t, path).Load(t.Context(), keys[0]); err != nil {
		t.Errorf("Load: %v", err)
	}
}

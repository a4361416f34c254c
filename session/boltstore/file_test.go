package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiongate/session"
)

func TestOpenMakesFileAndDirectoryForTheOwnerOnly(t *testing.T) { // ST-06
	dir := filepath.Join(t.TempDir(), "var", "sessiongate")
	path := filepath.Join(dir, "sessions.db")
	openAt(t, path)
	wantMode(t, dir, 0o700)
	wantMode(t, path, 0o600)
}

func TestTheFileGrowsWithWhatIsInIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	fill(t, openAt(t, path), 100)
	if info, err := os.Stat(path); err != nil || info.Size() > 4<<20 {
		t.Errorf("a hundred sessions: %d bytes, %v", info.Size(), err)
	}
}

func TestOpenClosesAFileThatOthersCouldRead(t *testing.T) { // CVE-2012-2760
	path := filepath.Join(t.TempDir(), "sessions.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	openAt(t, path)
	wantMode(t, path, 0o600)
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("mode of %s = %o, want %o", path, got, want)
	}
}

func TestOpenRefusesASecondProcess(t *testing.T) { // ST-10
	path := filepath.Join(t.TempDir(), "sessions.db")
	openAt(t, path)
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), childOpen+"="+path)
	begun := time.Now()
	out, err := child.CombinedOutput()
	if err == nil {
		t.Fatal("a second process could open the file")
	}
	if want := path + " is open in another process: one bbolt file serves one process"; !strings.Contains(string(out), want) {
		t.Errorf("it said %q, want %q", out, want)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}

	begun = time.Now()
	if _, err := Open(path, Options{}); err == nil {
		t.Error("the same process could open it twice")
	}
	if took := time.Since(begun); took > 1500*time.Millisecond { // a second, on a machine that has other things to do
		t.Errorf("it took %v to say so, want less than a second", took)
	}
}

// A start on a disk that is full, to the last page of the file, has to serve what is
// there.
func TestOpenWritesNothingToAFileThatIsAsItShouldBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	fill(t, s, 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := openAt(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file has changed: %v", err)
	}
}

func TestOpenWaitsForAProcessThatStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	first := openAt(t, path)
	time.AfterFunc(100*time.Millisecond, func() { _ = first.Close() })
	s, err := Open(path, Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// formerRecord is a live record as formerFormat wrote it.
func formerRecord(rec session.Record) []byte {
	b := binary.BigEndian.AppendUint64([]byte("L"), rec.Version)
	b = append(b, rec.Binding[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(rec.Created.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(rec.Expires.UnixNano()))
	b = binary.AppendUvarint(b, uint64(len(rec.Tags)))
	for _, tag := range rec.Tags {
		b = append(b, tag[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(rec.Listing)))
	return append(append(b, rec.Listing...), rec.Data...)
}

// writeFormerFile writes a file as it was with formerFormat: with live sessions
// of the record, a tombstone and a claim of Once.
func writeFormerFile(t *testing.T, path string, rec session.Record, tombstone, claim session.Key, live ...session.Key) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	number := func(at time.Time) []byte { return binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())) }
	entry := func(kind string, at time.Time, key session.Key) []byte {
		return slices.Concat([]byte(kind), number(at), key[:])
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		var errs []error
		put := func(bucket string, key, value []byte) {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err == nil {
				err = b.Put(key, value)
			}
			errs = append(errs, err)
		}
		put("meta", []byte("format"), []byte{1})
		for _, key := range live {
			put("sessions", key[:], formerRecord(rec))
			put("used", key[:], slices.Concat(number(rec.Used), number(rec.Used)))
			for _, tag := range rec.Tags {
				put("tags", slices.Concat(tag[:], key[:]), nil)
			}
			put("due", entry("U", rec.Used, key), nil)
			put("due", entry("C", rec.Created, key), nil)
			put("due", entry("E", rec.Expires, key), nil)
		}
		put("sessions", tombstone[:], []byte("Tlogout"))
		put("due", entry("T", rec.Expires, tombstone), nil)
		put("once", claim[:], number(rec.Expires))
		put("due", entry("O", rec.Expires, claim), nil)
		return errors.Join(errs...)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAFileOfTheFormerFormatIsReadAndWrittenOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	now := time.Now().Round(0)
	tag := session.Tag{7}
	rec := session.Record{
		Version: 3, Binding: [32]byte{9}, Created: now.Add(-time.Hour), Expires: now.Add(time.Hour), Used: now.Add(-time.Minute),
		Tags: []session.Tag{{6}, tag}, Listing: []byte("listing"), Data: bytes.Repeat([]byte("data"), 1000),
	}
	read, replaced, ended, over := session.Key{1}, session.Key{2}, session.Key{3}, session.Key{4}
	tombstone, claim := session.Key{5}, session.Key{6}
	writeFormerFile(t, path, rec, tombstone, claim, read, replaced, ended, over)

	want := rec
	for range 2 { // as it was, and as it was written since
		s := openAt(t, path)
		wantConsistent(t, s)
		_ = s.db.Load().View(func(tx *bbolt.Tx) error {
			if got := tx.Bucket(meta).Get(formatKey); !bytes.Equal(got, []byte{3}) {
				t.Errorf("format = %v, want 3, so that no older version opens the file any more", got)
			}
			return nil
		})
		if got, err := s.Load(t.Context(), read); err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("Load = %+v, %v, want %+v", got, err, rec)
		}
		if got, err := s.Load(t.Context(), replaced); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %+v, %v, want %+v", got, err, want)
		}
		listed, err := s.Tagged(t.Context(), tag, read, 1)
		unread := want
		unread.Data = nil
		if err != nil || len(listed) != 1 || !reflect.DeepEqual(listed[0], session.Listed{Key: replaced, Record: unread}) {
			t.Errorf("Tagged = %+v, %v, want %+v", listed, err, unread)
		}
		var told *session.Ended
		if _, err := s.Load(t.Context(), tombstone); !errors.As(err, &told) || told.Reason != session.Logout {
			t.Errorf("Load of a tombstone: %v", err)
		}
		if err := s.Once(t.Context(), claim, now); !errors.Is(err, session.ErrExists) {
			t.Errorf("Once: error = %v, want %v", err, session.ErrExists)
		}

		if err := s.Replace(t.Context(), replaced, want.Version, []byte("new")); err != nil {
			t.Errorf("Replace: %v", err)
		}
		want.Version, want.Data = want.Version+1, []byte("new")
		if err := s.Touch(t.Context(), []session.Touch{{Key: replaced, At: now}}); err != nil {
			t.Errorf("Touch: %v", err)
		}
		want.Used = now
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	s := openAt(t, path)
	if got, err := s.End(t.Context(), ended, session.Revoked, session.Condition{}); err != nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("End = %+v, %v, want %+v", got, err, rec)
	}
	// When their logins began nobody knows: none is spared for it.
	endings, err := s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{Except: []session.Key{read}, BeganBefore: now.Add(-8 * time.Hour)})
	if err != nil || len(endings) != 2 || endings[0] != (session.Ending{Key: replaced, Binding: rec.Binding, Reason: session.BackChannel}) {
		t.Errorf("EndTagged = %v, %v, want two sessions", endings, err)
	}
	wantConsistent(t, s)
	if endings, err := s.Sweep(t.Context(), session.Limits{Now: rec.Expires.Add(session.TombstoneGrace)}); err != nil || len(endings) != 1 {
		t.Errorf("Sweep = %v, %v, want the one that is left", endings, err)
	}
	wantConsistent(t, s)
}

func TestOpenLeavesTheFilesOfOthersAlone(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(other, 0o640, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, Options{}); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("Open of another program's bbolt file: error = %v", err)
	}

	text := filepath.Join(t.TempDir(), "config.yaml")
	want := bytes.Repeat([]byte("a: b\n"), 5000)
	if err := os.WriteFile(text, want, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(text, Options{}); err == nil {
		t.Error("Open of a text: no error")
	}
	wantMode(t, text, 0o644)
	if got, err := os.ReadFile(text); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the text has changed: %v", err)
	}
}

// branches does something to every page that is a branch.
func branches(b []byte, size int, do func(page []byte)) []byte {
	for i := 2 * size; i+size <= len(b); i += size {
		if page(b[i:]).flags() == branchPage && page(b[i:]).id() == uint64(i/size) {
			do(b[i : i+size])
		}
	}
	return b
}

// Two buckets that share a page: the keys are in order wherever one looks, but
// what is written to one would appear in the other.
func TestVerifyFindsAPageUsedTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	fill(t, s, 300)
	entry := map[string][]byte{} // a bucket's name and root page, as they are in the file
	_ = s.db.Load().View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{tags, used} {
			entry[string(name)] = order.AppendUint64(bytes.Clone(name), uint64(tx.Bucket(name).RootPage()))
		}
		return nil
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shared := append([]byte("used"), entry["tags"][len("tags"):]...)
	if err := os.WriteFile(path, bytes.ReplaceAll(b, entry["used"], shared), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verifyAt(t, path); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "used twice") {
		t.Errorf("verify: error = %v, want one about a page that is used twice", err)
	}
}

// A small bucket has no page of its own: its only page is inside the value that
// names it. bbolt believes what it says there, and a bucket without any page
// ends the process.
func TestVerifyLooksIntoSmallBuckets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	fill(t, s, 300)
	tag := session.Tag(bytes.Repeat([]byte{7}, 32))
	for _, tag := range []session.Tag{tag, {8}} {
		if err := s.Mark(t.Context(), tag, session.Mark{Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	var root []byte
	_ = s.db.Load().View(func(tx *bbolt.Tx) error {
		if tx.Bucket(marks).RootPage() != 0 {
			t.Error("the bucket of two marks is not a small one")
		}
		root = order.AppendUint64(nil, uint64(tx.Bucket(tags).RootPage()))
		return nil
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyAt(t, path); err != nil {
		t.Fatalf("verify of a sound file: %v", err)
	}
	noRoot := append([]byte("tags"), make([]byte, 8)...)
	for name, row := range map[string]struct {
		do   func(b []byte) []byte
		want string
	}{
		"no page at all": {func(b []byte) []byte { return bytes.ReplaceAll(b, append([]byte("tags"), root...), noRoot) },
			"has no page"},
		"not a leaf": {smallBuckets(func(_ page, _ int, inside page) { order.PutUint16(inside[8:], branchPage) }),
			"has no page"},
		"too many elements": {smallBuckets(func(_ page, _ int, inside page) { order.PutUint16(inside[10:], 0xffff) }),
			"too many elements"},
		"a key that is cut off": {smallBuckets(func(_ page, _ int, inside page) { order.PutUint32(inside[headerLen+8:], 0xffff) }),
			"element 0 is cut off"},
		"a bucket that is cut off": {smallBuckets(func(p page, i int, _ page) { order.PutUint32(p[headerLen+i*elementLen+12:], bucketLen-1) }),
			"is cut off"},
		"keys out of order": {func(b []byte) []byte { return bytes.ReplaceAll(b, tag[:], bytes.Repeat([]byte{9}, 32)) },
			"keys are out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			if err := os.WriteFile(path, row.do(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := verifyAt(t, path); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("verify: error = %v, want %v and %q", err, errDamaged, row.want)
			}
			wantQuarantined(t, path, row.want)
		})
	}
}

// smallBuckets does something to every bucket of marks: to element i of a page,
// and to the page inside.
func smallBuckets(do func(p page, i int, inside page)) func(b []byte) []byte {
	return func(b []byte) []byte {
		size := os.Getpagesize()
		for at := 2 * size; at+size <= len(b); at += size {
			p := page(b[at : at+size])
			elements, err := p.elements()
			if err != nil {
				continue
			}
			for i, e := range elements {
				if string(e.key) == "marks" && e.inside != nil && e.inside.count() > 0 { // not one of before
					do(p, i, e.inside)
				}
			}
		}
		return b
	}
}

// Keys out of order are what a torn write leaves: each page is sound by itself.
func TestVerifyFindsKeysOutOfOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	keys := fill(t, s, 300)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	moved := []byte(fmt.Sprintf("%032d", 999))
	for name, damaged := range map[string][]byte{
		"in a page":         bytes.ReplaceAll(b, keys[100][:], moved),
		"from page to page": moveLast(bytes.Clone(b), moved),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := verifyAt(t, path); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "out of order") {
				t.Errorf("verify: error = %v, want one about keys out of order", err)
			}
		})
	}
}

// moveLast changes the last key of each page of sessions.
func moveLast(b, to []byte) []byte {
	size := os.Getpagesize()
	for at := 2 * size; at+size <= len(b); at += size {
		p := page(b[at : at+size])
		if elements, err := p.elements(); err == nil && p.flags() == leafPage && len(elements) > 0 {
			if key := elements[len(elements)-1].key; len(key) == len(to) {
				copy(key, to)
			}
		}
	}
	return b
}

// A record that makes no sense is not the absence of a session, and stands in
// the way of no other.
func TestARecordThatCannotBeReadIsUnknown(t *testing.T) {
	for name, value := range map[string][]byte{
		"of a kind from the future": []byte("Z..."),
		"cut off":                   encode(session.Record{})[:40],
		"cut off in its times":      encode(session.Record{})[:60],
		"with too many tags":        append(encode(session.Record{})[:65], 0xff, 0xff, 0xff, 0xff, 0x0f),
		"of the former layout":      {wasLive, 0, 0, 0, 0, 0, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			tag := session.Tag{7}
			damaged, healthy := session.Key{1}, session.Key{2}
			for _, key := range []session.Key{damaged, healthy} {
				if err := s.Create(t.Context(), key, session.Record{Created: time.Now(), Tags: []session.Tag{tag}}); err != nil {
					t.Fatal(err)
				}
			}
			err := s.db.Load().Update(func(tx *bbolt.Tx) error { return tx.Bucket(sessions).Put(damaged[:], value) })
			if err != nil {
				t.Fatal(err)
			}
			wantDamaged := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, errDamaged) || errors.Is(err, session.ErrAbsent) {
					t.Errorf("%s: error = %v, want %v", what, err, errDamaged)
				}
			}
			_, err = s.Load(t.Context(), damaged)
			wantDamaged("Load", err)
			wantDamaged("Replace", s.Replace(t.Context(), damaged, 1, nil))
			_, err = s.End(t.Context(), damaged, session.Logout, session.Condition{})
			wantDamaged("End", err)

			_, err = s.Tagged(t.Context(), tag, session.Key{}, 1)
			wantDamaged("Tagged", err)
			if listed, err := s.Tagged(t.Context(), tag, damaged, 1); err != nil || len(listed) != 1 || listed[0].Key != healthy {
				t.Errorf("Tagged after the damaged one = %v, %v, want the healthy session", listed, err)
			}

			endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{})
			wantDamaged("EndTagged", err)
			if len(endings) != 1 || endings[0].Key != healthy {
				t.Errorf("EndTagged = %v, want the healthy session", endings)
			}
			limits := session.Limits{Now: time.Now()}
			_, err = s.Sweep(t.Context(), limits)
			wantDamaged("Sweep", err)
			if _, err = s.Sweep(t.Context(), limits); err != nil {
				t.Errorf("a second Sweep: error = %v, want it to be past that record", err)
			}
		})
	}
}

// A session that an index names and that is not there has not ended: nobody
// knows what became of it. It stands in the way of no other, however many.
func TestAnIndexEntryWithoutItsSessionIsDamage(t *testing.T) {
	s := open(t)
	tag := session.Tag{7}
	for name, value := range map[string][]byte{"gone": nil, "a tombstone": {isTombstone, 'x'}} {
		t.Run(name, func(t *testing.T) {
			lost := session.Key{1, 0, 5, 1} // after a few others
			if err := s.Create(t.Context(), lost, session.Record{Tags: []session.Tag{tag}}); err != nil {
				t.Fatal(err)
			}
			for i := range step + 10 {
				key := session.Key{1, byte(i >> 8), byte(i)}
				key[31] = name[0]
				if err := s.Create(t.Context(), key, session.Record{Tags: []session.Tag{tag}}); err != nil {
					t.Fatal(err)
				}
			}
			err := s.db.Load().Update(func(tx *bbolt.Tx) error {
				if value == nil {
					return tx.Bucket(sessions).Delete(lost[:])
				}
				return tx.Bucket(sessions).Put(lost[:], value)
			})
			if err != nil {
				t.Fatal(err)
			}

			if listed, err := s.Tagged(t.Context(), tag, session.Key{}, 10); !errors.Is(err, errDamaged) || len(listed) > 0 {
				t.Errorf("Tagged = %d sessions, %v, want %v", len(listed), err, errDamaged)
			}
			endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{})
			if !errors.Is(err, errDamaged) || errors.Is(err, session.ErrAbsent) || len(endings) != step+10 {
				t.Errorf("EndTagged = %d sessions, %v, want %d and %v", len(endings), err, step+10, errDamaged)
			}
			err = s.db.Load().Update(func(tx *bbolt.Tx) error {
				return errors.Join(tx.Bucket(sessions).Delete(lost[:]), tx.Bucket(tags).Delete(tagEntry(tag, lost)))
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A mark that makes no sense says nothing, and that is not "there is no mark".
// When it runs out it is forgotten like any other.
func TestAMarkThatCannotBeReadIsUnknown(t *testing.T) {
	for name, value := range map[string][]byte{"cut off": make([]byte, 15), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			tag, now := session.Tag{7}, time.Now()
			if err := s.Mark(t.Context(), tag, session.Mark{Reason: session.BackChannel, BeganBefore: now, Until: now.Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
			err := s.db.Load().Update(func(tx *bbolt.Tx) error { return tx.Bucket(marks).Put(tag[:], value) })
			if err != nil {
				t.Fatal(err)
			}
			key, rec := session.Key{1}, session.Record{Began: now, Tags: []session.Tag{tag}}
			var ended *session.Ended
			if err := s.Create(t.Context(), key, rec); !errors.Is(err, errDamaged) || errors.As(err, &ended) {
				t.Errorf("Create: error = %v, want %v", err, errDamaged)
			}
			if err := s.Mark(t.Context(), tag, session.Mark{BeganBefore: now, Until: now.Add(time.Minute)}); !errors.Is(err, errDamaged) {
				t.Errorf("Mark: error = %v, want %v", err, errDamaged)
			}
			if err := s.Create(t.Context(), key, session.Record{Tags: []session.Tag{{8}}}); err != nil {
				t.Errorf("Create without that tag: %v", err)
			}
			if _, err := s.Sweep(t.Context(), session.Limits{Now: now.Add(time.Hour)}); err != nil {
				t.Errorf("Sweep: %v", err)
			}
			if err := s.Create(t.Context(), session.Key{2}, rec); err != nil {
				t.Errorf("Create after the Sweep: %v", err)
			}
			wantConsistent(t, s)
		})
	}
}

// fill adds n sessions of about 2 KB.
func fill(t testing.TB, s *Store, n int) []session.Key {
	t.Helper()
	keys := make([]session.Key, n)
	errs := make(chan error, n)
	for i := range keys {
		keys[i] = session.Key([]byte(fmt.Sprintf("%032d", i)))
		go func() {
			now := time.Now()
			errs <- s.Create(t.Context(), keys[i], session.Record{
				Created: now, Used: now, Expires: now.Add(time.Hour),
				Tags: []session.Tag{{byte(i)}}, Data: bytes.Repeat([]byte{byte(i)}, 2000),
			})
		}()
	}
	for range keys {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

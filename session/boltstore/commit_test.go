package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sessiongate/session"
)

// wantConsistent wants that the buckets agree with each other.
func wantConsistent(t *testing.T, s *Store) {
	t.Helper()
	err := s.db.Load().View(func(tx *bbolt.Tx) error {
		txn := &txn{tx: tx}
		wantDue, wantTags, live := map[string]bool{}, map[string]bool{}, 0
		err := tx.Bucket(sessions).ForEach(func(k, value []byte) error {
			key := session.Key(k)
			rec, err := txn.lookup(key)
			if errors.Is(err, session.ErrAbsent) {
				return nil // a tombstone: it is counted below
			}
			if err != nil {
				return err
			}
			live++
			wantDue[string(dueEntry(byExpiry, stamp(rec.Expires), key))] = true
			wantDue[string(dueEntry(byCreation, stamp(rec.Created), key))] = true
			filed := binary.BigEndian.Uint64(txn.get(used, k)[8:])
			wantDue[string(dueEntry(byUse, filed, key))] = true
			for _, tag := range rec.Tags {
				wantTags[string(tagEntry(tag, key))] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
		claims, burials, ends := 0, 0, 0
		_ = tx.Bucket(due).ForEach(func(entry, _ []byte) error {
			switch entry[0] {
			case byClaim:
				claims++
				key := dueKey(entry)
				if value := txn.get(once, key[:]); value == nil || binary.BigEndian.Uint64(value) != dueStamp(entry) {
					t.Errorf("a due entry of a claim that is not there")
				}
			case byMark:
				ends++
				tag := dueKey(entry)
				if m, err := decodeMark(txn.get(marks, tag[:])); err != nil || stamp(m.Until) != dueStamp(entry) {
					t.Errorf("a due entry of a mark that is not there: %v", err)
				}
			case byBurial:
				burials++
			default:
				if !wantDue[string(entry)] {
					t.Errorf("a due entry %q of a session that is not there", entry[0])
				}
				delete(wantDue, string(entry))
			}
			return nil
		})
		_ = tx.Bucket(tags).ForEach(func(entry, _ []byte) error {
			if !wantTags[string(entry)] {
				t.Errorf("a tag of a session that is not there")
			}
			delete(wantTags, string(entry))
			return nil
		})
		if len(wantDue)+len(wantTags) > 0 {
			t.Errorf("%d due entries and %d tags are missing", len(wantDue), len(wantTags))
		}
		for what, n := range map[string][2]int{
			"live sessions counted":    {int(s.live.Load()), live},
			"last uses":                {size(tx, used), live},
			"entries for tombstones":   {burials, size(tx, sessions) - live},
			"entries for Once's claim": {claims, size(tx, once)},
			"entries for marks":        {ends, size(tx, marks)},
		} {
			if n[0] != n[1] {
				t.Errorf("%s: %d, want %d", what, n[0], n[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func size(tx *bbolt.Tx, bucket []byte) int {
	n := 0
	_ = tx.Bucket(bucket).ForEach(func(_, _ []byte) error { n++; return nil })
	return n
}

// After any sequence of operations the buckets agree, and when all is over and
// forgotten nothing is left.
func TestBucketsAgreeAfterAnySequence(t *testing.T) {
	s := open(t)
	begun := time.Now()
	moment := func() time.Time { return begun.Add(rand.N(10 * time.Hour)) }
	key := func() session.Key { return session.Key{byte(rand.N(40))} }
	tag := func() session.Tag { return session.Tag{byte(rand.N(10))} }
	for i := range 3000 {
		var err error
		switch rand.N(12) {
		case 0, 1:
			err = s.Create(t.Context(), key(), session.Record{
				Began: moment(), Created: moment(), Used: moment(), Expires: moment(), Tags: []session.Tag{tag(), tag()}, Data: make([]byte, rand.N(9000)),
			})
		case 2:
			err = s.Replace(t.Context(), key(), uint64(1+rand.N(2)), make([]byte, rand.N(9000)))
		case 3:
			_, err = s.End(t.Context(), key(), session.Logout, session.Condition{UnusedSince: moment()})
		case 4:
			if rand.N(5) == 0 {
				_, err = s.EndTagged(t.Context(), tag(), session.Revoked, session.Scope{Except: []session.Key{key()}, BeganBefore: moment()})
			}
		case 5, 6:
			err = s.Touch(t.Context(), []session.Touch{{Key: key(), At: moment()}, {Key: key(), At: moment()}})
		case 7, 8:
			err = s.Once(t.Context(), session.Key{byte(rand.N(4))}, begun.Add(-time.Hour+rand.N(2*time.Hour)))
		case 9:
			err = s.Mark(t.Context(), tag(), session.Mark{BeganBefore: moment(), Until: begun.Add(-time.Hour + rand.N(2*time.Hour))})
		case 10:
			_, err = s.Tagged(t.Context(), tag(), key(), 3)
		case 11:
			if rand.N(5) > 0 {
				continue
			}
			_, err = s.Sweep(t.Context(), session.Limits{Now: moment(), Idle: rand.N(10 * time.Hour), Lifetime: rand.N(10 * time.Hour)})
		}
		if err != nil && !errors.Is(err, session.ErrAbsent) && !errors.Is(err, session.ErrConflict) && !errors.Is(err, session.ErrExists) {
			t.Fatal(err)
		}
		if i%10 == 0 {
			wantConsistent(t, s)
		}
	}
	wantConsistent(t, s)
	if _, err := s.Sweep(t.Context(), session.Limits{Now: begun.Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), session.Limits{Now: begun.Add(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	_ = s.db.Load().View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{sessions, used, tags, once, marks, due} {
			if n := size(tx, bucket); n != 0 {
				t.Errorf("%d left in %s", n, bucket)
			}
		}
		return nil
	})
}

func TestLimitsOfZeroEndNothing(t *testing.T) {
	s := open(t)
	key := session.Key{1}
	now := time.Now()
	if err := s.Create(t.Context(), key, session.Record{Created: now.Add(-time.Hour), Used: now.Add(-time.Hour), Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if endings, err := s.Sweep(t.Context(), session.Limits{Now: now}); err != nil || len(endings) > 0 {
		t.Errorf("Sweep = %v, %v, want nothing", endings, err)
	}
}

// together keeps the writer busy until all writes are waiting, so that they
// share a transaction.
func together(t *testing.T, s *Store, fns ...func(*txn) error) []error {
	t.Helper()
	busy, goOn := make(chan struct{}), make(chan struct{})
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	var once sync.Once
	wg.Go(func() {
		_ = s.update(t.Context(), func(*txn) error {
			once.Do(func() { close(busy); <-goOn })
			return nil
		})
	})
	<-busy
	for i, fn := range fns {
		wg.Go(func() { errs[i] = s.update(t.Context(), fn) })
		for len(s.writes) <= i {
			time.Sleep(time.Millisecond)
		}
	}
	close(goOn)
	wg.Wait()
	return errs
}

func TestAWriteThatFailsFailsAlone(t *testing.T) {
	for name, bad := range map[string]func(*txn) error{
		"bbolt refuses it": func(tx *txn) error { tx.put(sessions, []byte("half"), nil); tx.put(sessions, nil, nil); return nil },
		"it panics":        func(tx *txn) error { tx.put(sessions, []byte("half"), nil); panic("page 7 is gone") },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			put := func(key string) func(*txn) error {
				return func(tx *txn) error { tx.put(sessions, []byte(key), []byte("x")); tx.live++; return nil }
			}
			errs := together(t, s, put("before"), bad, func(*txn) error { return session.ErrConflict }, put("after"))
			if errs[0] != nil || errs[1] == nil || errs[3] != nil {
				t.Errorf("errors = %v, want only the second to fail", errs)
			}
			if !errors.Is(errs[2], session.ErrConflict) {
				t.Errorf("error = %v, want %v", errs[2], session.ErrConflict)
			}
			_ = s.db.Load().View(func(tx *bbolt.Tx) error {
				b := tx.Bucket(sessions)
				if b.Get([]byte("before")) == nil || b.Get([]byte("after")) == nil || b.Get([]byte("half")) != nil {
					t.Error("want what the good writes wrote and nothing of the bad one")
				}
				return nil
			})
			if got := s.live.Load(); got != 2 {
				t.Errorf("counted %d, want 2", got)
			}
		})
	}
}

func TestAWriteGivenUpLeavesTheWriterAlone(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	err := s.update(ctx, func(*txn) error { cancel(); <-waiting; return nil })
	close(waiting)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

// A call that gave up may still be carried out, but not with what its caller
// has put into the slices since.
func TestACallThatGaveUpWritesWhatItWasGiven(t *testing.T) {
	s := open(t)
	now := time.Now()
	loaded, created, touched := session.Key{1}, session.Key{2}, session.Key{3}
	for _, key := range []session.Key{loaded, touched} {
		if err := s.Create(t.Context(), key, session.Record{Created: now}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	data, tags := []byte("data"), []session.Tag{{7}}
	touches := []session.Touch{{Key: touched, At: now}}

	busy, goOn := make(chan struct{}), make(chan struct{})
	go func() { _ = s.update(t.Context(), func(*txn) error { close(busy); <-goOn; return nil }) }()
	<-busy
	var calls sync.WaitGroup
	for _, call := range []func() error{
		func() error { return s.Replace(ctx, loaded, 1, data) },
		func() error {
			return s.Create(ctx, created, session.Record{Created: now, Tags: tags, Data: data, Listing: data})
		},
		func() error { return s.Touch(ctx, touches) },
	} {
		calls.Go(func() {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v, want %v", err, context.Canceled)
			}
		})
	}
	for len(s.writes) < 3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	calls.Wait()
	copy(data, "xxxx")
	tags[0], touches[0] = session.Tag{8}, session.Touch{}
	close(goOn)
	if err := s.Ping(t.Context()); err != nil { // after the writes that were waiting
		t.Fatal(err)
	}

	for key, want := range map[session.Key]string{loaded: "data", created: "data"} {
		if rec, err := s.Load(t.Context(), key); err != nil || string(rec.Data) != want {
			t.Errorf("Data = %q, %v, want %q", rec.Data, err, want)
		}
	}
	if rec, err := s.Load(t.Context(), touched); err != nil || !rec.Used.Equal(now) {
		t.Errorf("Used = %v, %v, want %v", rec.Used, err, now)
	}
	wantConsistent(t, s)
}

// A tag that nobody carries is free for anybody to ask about: whoever does must
// not stand in the way of those who write, nor wait for them.
func TestEndTaggedOfNobodyIsNoWrite(t *testing.T) { // BC-11
	s := open(t)
	tag, began := session.Tag{7}, time.Now()
	for i := range step + 1 {
		if err := s.Create(t.Context(), session.Key{byte(i >> 8), byte(i), 1}, session.Record{Began: began, Tags: []session.Tag{tag}}); err != nil {
			t.Fatal(err)
		}
	}
	busy, goOn := make(chan struct{}), make(chan struct{})
	defer close(goOn)
	go func() { _ = s.update(t.Context(), func(*txn) error { close(busy); <-goOn; return nil }) }()
	<-busy
	for name, call := range map[string]func() ([]session.Ending, error){
		"a tag that nobody carries": func() ([]session.Ending, error) {
			return s.EndTagged(t.Context(), session.Tag{8}, session.FrontChannel, session.Scope{})
		},
		"all are spared": func() ([]session.Ending, error) {
			return s.EndTagged(t.Context(), tag, session.BackChannel, session.Scope{BeganBefore: began})
		},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if endings, err := call(); err != nil || len(endings) > 0 {
				t.Errorf("%s: EndTagged = %d endings, %v, want nothing", name, len(endings), err)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits for the writer", name)
		}
	}
	if n := len(s.writes); n != 0 {
		t.Errorf("%d writes are waiting", n)
	}
}

// EndTagged looks first and writes later: in between sessions may end, or turn
// out to be damaged.
func TestEndTaggedBelievesWhatIsThereWhenItsTurnComes(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(tx *txn, key session.Key)
		want      int
		wantErr   error
	}{
		"nothing happened":      {func(*txn, session.Key) {}, 2, nil},
		"one ended":             {func(tx *txn, key session.Key) { rec, _ := tx.lookup(key); tx.end(key, rec, session.Logout) }, 1, nil},
		"one turned out broken": {func(tx *txn, key session.Key) { tx.put(sessions, key[:], []byte("Z...")) }, 0, errDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			tag := session.Tag{7}
			for _, key := range []session.Key{{1}, {2}} {
				if err := s.Create(t.Context(), key, session.Record{Tags: []session.Tag{tag}}); err != nil {
					t.Fatal(err)
				}
			}
			var endings []session.Ending
			var err error
			behind(t, s, func(tx *txn) error { row.meanwhile(tx, session.Key{2}); return nil },
				func() { endings, err = s.EndTagged(t.Context(), tag, session.Revoked, session.Scope{}) })
			if !errors.Is(err, row.wantErr) || len(endings) != row.want {
				t.Errorf("EndTagged = %d endings, %v, want %d, %v", len(endings), err, row.want, row.wantErr)
			}
		})
	}
}

// What a call ended it tells of, and once: if its write runs again because
// another one of its commit failed, and if its caller gives up meanwhile.
func TestEndingsAreToldOnce(t *testing.T) {
	tag := session.Tag{7}
	ends := map[string]func(context.Context, *Store) ([]session.Ending, error){
		"EndTagged": func(ctx context.Context, s *Store) ([]session.Ending, error) {
			return s.EndTagged(ctx, tag, session.Revoked, session.Scope{})
		},
		"Sweep": func(ctx context.Context, s *Store) ([]session.Ending, error) {
			return s.Sweep(ctx, session.Limits{Now: time.Now()})
		},
	}
	for name, end := range ends {
		for _, givenUp := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, given up %t", name, givenUp), func(t *testing.T) {
				s := open(t)
				if err := s.Create(t.Context(), session.Key{1}, session.Record{Tags: []session.Tag{tag}}); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var endings []session.Ending
				var err error
				behind(t, s,
					func(*txn) error {
						if givenUp {
							cancel()
						}
						return nil
					},
					func() { endings, err = end(ctx, s) },
					func() { _ = s.update(t.Context(), func(*txn) error { panic("page 7 is gone") }) })
				if len(endings) != 1 || err != nil && !errors.Is(err, ctx.Err()) {
					t.Errorf("%d endings, %v, want one", len(endings), err)
				}
			})
		}
	}
}

// behind lets the calls queue, in this order, behind a write that ends with
// last, and waits for all.
func behind(t *testing.T, s *Store, last func(*txn) error, calls ...func()) {
	t.Helper()
	busy, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.update(t.Context(), func(tx *txn) error { close(busy); <-goOn; return last(tx) }); err != nil {
			t.Error(err)
		}
	})
	<-busy
	for i, call := range calls {
		wg.Go(call)
		for len(s.writes) <= i {
			time.Sleep(time.Millisecond)
		}
	}
	close(goOn)
	wg.Wait()
}

// A writer that found the file damaged while it committed must not go on.
func TestNothingIsWrittenToAFileFoundDamaged(t *testing.T) {
	s, err := Open(t.TempDir()+"/sessions.db", Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := session.Key{1}
	if err := s.Create(t.Context(), key, session.Record{Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	err = s.update(t.Context(), func(tx *txn) error {
		tx.put(sessions, []byte("x"), nil)
		tx.tx.OnCommit(func() { panic("invalid page type") })
		return nil
	})
	if !errors.Is(err, errDamaged) {
		t.Errorf("error = %v, want %v", err, errDamaged)
	}
	if err := s.Create(t.Context(), session.Key{2}, session.Record{}); !errors.Is(err, errDamaged) {
		t.Errorf("Create: error = %v, want %v", err, errDamaged)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, errDamaged) {
		t.Errorf("Ping: error = %v, want %v", err, errDamaged)
	}
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Errorf("Load: %v, want reads to go on", err)
	}
	if err := s.Close(); !errors.Is(err, errDamaged) {
		t.Errorf("Close: error = %v, want %v", err, errDamaged)
	}
}

// An end that is answered by "conflict" because of a write that then fails to
// be committed must not be believed.
func TestAnswersOfAFailedCommitAreVoid(t *testing.T) {
	s := open(t)
	big := make([]byte, bbolt.MaxKeySize) // fits
	s.db.Load().MaxSize = 1               // and nothing fits any more
	errs := together(t, s,
		func(tx *txn) error { tx.put(sessions, big, make([]byte, 64<<20)); return nil },
		func(*txn) error { return session.ErrConflict })
	s.db.Load().MaxSize = 0
	for i, err := range errs {
		if err == nil || errors.Is(err, session.ErrConflict) {
			t.Errorf("write %d: error = %v, want that of the commit", i, err)
		}
	}
	if err := s.Create(t.Context(), session.Key{1}, session.Record{}); err != nil {
		t.Errorf("Create when there is room again: %v", err)
	}
}

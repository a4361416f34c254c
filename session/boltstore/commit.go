package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// maxGroup is the most writes that share a commit.
const maxGroup = 128

// write is an operation that waits for its transaction.
type write struct {
	fn   func(*txn) error
	done chan error // has room for one: its sender never waits
}

// update runs fn in a write transaction and returns when it is on disk. What
// waits while a commit is under way shares the next one: a lone writer waits
// for nobody, a hundred wait for one fsync.
//
// An error of fn is its answer, and fn must not have written before it. It may
// run twice, so it sets what it hands out anew each time; what it reads may not
// be the caller's to change, since it may run even after ctx ended.
func (s *Store) update(ctx context.Context, fn func(*txn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.mu.RUnlock()

	w := &write{fn: fn, done: make(chan error, 1)}
	select {
	case s.writes <- w:
	case <-ctx.Done():
		return fmt.Errorf("boltstore: not begun: %w", ctx.Err())
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("boltstore: not waited for: %w", ctx.Err())
	}
}

// writer is the one goroutine that writes.
func (s *Store) writer() {
	defer close(s.stopped)
	for {
		select {
		case w, ok := <-s.writes:
			if !ok {
				return
			}
			s.commit(s.gather(w))
		case do := <-s.pauses:
			do()
		}
	}
}

// gather adds to a write those that wait already.
func (s *Store) gather(first *write) []*write {
	group := []*write{first}
	for len(group) < maxGroup {
		select {
		case w, ok := <-s.writes:
			if !ok {
				return group
			}
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

// commit runs a group in one transaction and tells each its answer. If one of
// them fails, each runs in a transaction of its own, so that it fails alone.
func (s *Store) commit(group []*write) {
	answers := make([]error, len(group))
	err := s.transact(group, answers)
	var failed *failure
	if errors.As(err, &failed) && len(group) > 1 {
		for _, w := range group {
			s.commit([]*write{w})
		}
		return
	}
	for i, w := range group {
		if err != nil {
			w.done <- err // answers found on the way to a failed commit are void
			continue
		}
		w.done <- answers[i]
	}
}

// failure is the error of a write that may have written half of what it should.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func (s *Store) transact(group []*write, answers []error) error {
	if s.broken != nil {
		return s.broken
	}
	tx, err := s.begin()
	if err != nil {
		return err
	}
	defer func() { _ = guard(tx.Rollback) }() // after Commit it does nothing

	t := &txn{tx: tx, changed: s.changed}
	for i, w := range group {
		answers[i] = guard(func() error { return w.fn(t) })
		if errors.Is(answers[i], errDamaged) {
			t.err = s.notice(answers[i]) // whether it had written, nobody knows
		}
		if t.err != nil {
			return &failure{t.err}
		}
	}
	if !t.dirty {
		return nil
	}
	if err := guard(t.finish); errors.Is(err, errDamaged) {
		return s.breakDown(err) // bbolt's picture of the file may be wrong
	} else if err != nil {
		return fmt.Errorf("boltstore: commit: %w", err)
	}
	s.live.Add(t.live)
	return nil
}

// begin begins to write, which takes a look at the meta pages.
func (s *Store) begin() (tx *bbolt.Tx, err error) {
	err = guard(func() (err error) {
		tx, err = s.db.Load().Begin(true)
		return err
	})
	if errors.Is(err, errDamaged) {
		return nil, s.breakDown(err)
	}
	if err != nil {
		return nil, fmt.Errorf("boltstore: begin: %w", err)
	}
	return tx, nil
}

// breakDown writes no more: what would be written might damage what is still
// whole.
func (s *Store) breakDown(err error) error {
	s.broken = err
	s.log.Error("nothing is written to the store any more: sessions that can be read go on, logins are answered by 503; restart",
		"event", "store_broken", "path", s.path, "error", err)
	return s.notice(err)
}

// txn is a transaction of the file. Its writes stick to the first error, so
// that operations read as what they do; commit looks at it.
type txn struct {
	tx    *bbolt.Tx
	dirty bool
	err   error
	live  int64  // by how much the number of live sessions changes
	sum   uint64 // by how much that of the content does
	// changed collects what is written, for a compaction under way, even if it is
	// not committed: nobody knows for certain.
	changed map[entry]struct{}
}

// entry is one of the file's.
type entry struct{ bucket, key string }

// get returns a slice that is valid inside the transaction only.
func (t *txn) get(bucket, key []byte) []byte {
	return t.tx.Bucket(bucket).Get(key)
}

func (t *txn) put(bucket, key, value []byte) {
	t.dirty = true
	if t.err == nil {
		t.account(bucket, key)
		t.sum += sum(bucket, key, value)
		t.err = t.tx.Bucket(bucket).Put(key, value)
	}
}

func (t *txn) del(bucket, key []byte) {
	t.dirty = true
	if t.err == nil {
		t.account(bucket, key)
		t.err = t.tx.Bucket(bucket).Delete(key)
	}
}

// account is for an entry that is about to be written: what was in its place no
// longer counts.
func (t *txn) account(bucket, key []byte) {
	if found, value := t.tx.Bucket(bucket).Cursor().Seek(key); bytes.Equal(found, key) {
		t.sum -= sum(bucket, key, value)
	}
	if t.changed != nil {
		t.changed[entry{string(bucket), string(key)}] = struct{}{}
	}
}

// finish commits.
func (t *txn) finish() error {
	m := t.tx.Bucket(meta)
	if err := m.Put(sumKey, encodeSum(storedSum(t.tx)+t.sum)); err != nil {
		return err
	}
	if t.changed != nil {
		t.changed[entry{string(meta), string(sumKey)}] = struct{}{}
	}
	return t.tx.Commit()
}

package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sessiongate/session"
)

// step is the most sessions that end in one transaction, so that other writers
// get their turn.
const step = 500

// Create adds a session.
func (s *Store) Create(ctx context.Context, key session.Key, rec session.Record) error {
	rec.Version = 1
	value := encode(rec)
	rec.Tags = slices.Clone(rec.Tags)
	return s.update(ctx, func(t *txn) error {
		if t.get(sessions, key[:]) != nil {
			return session.ErrExists
		}
		if err := t.barred(rec); err != nil {
			return err
		}
		t.put(sessions, key[:], value)
		for _, tag := range rec.Tags {
			t.put(tags, tagEntry(tag, key), nil)
		}
		use := stamp(rec.Used)
		t.put(used, key[:], encodeUsed(use, use))
		t.put(due, dueEntry(byUse, use, key), nil)
		t.put(due, dueEntry(byCreation, stamp(rec.Created), key), nil)
		t.put(due, dueEntry(byExpiry, stamp(rec.Expires), key), nil)
		t.live++
		return nil
	})
}

// Load returns a live session's record.
func (s *Store) Load(ctx context.Context, key session.Key) (session.Record, error) {
	var found session.Record
	err := s.view(ctx, func(t *txn) error {
		rec, err := t.lookup(key)
		found = clone(rec)
		return err
	})
	return found, err
}

// Replace writes data if the session is live and at the version.
func (s *Store) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	data = bytes.Clone(data)
	return s.update(ctx, func(t *txn) error {
		rec, err := t.lookup(key)
		if err != nil {
			return err
		}
		if rec.Version != version {
			return session.ErrConflict
		}
		rec.Version++
		rec.Data = data
		t.put(sessions, key[:], encode(rec))
		return nil
	})
}

// End turns a live session that meets the condition into a tombstone.
func (s *Store) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	var ended session.Record
	err := s.update(ctx, func(t *txn) error {
		rec, err := t.lookup(key)
		if err != nil {
			return err
		}
		if c.Version != 0 && rec.Version != c.Version {
			return session.ErrConflict
		}
		if !c.UnusedSince.IsZero() && rec.Used.After(c.UnusedSince) {
			return session.ErrConflict
		}
		ended = clone(rec)
		t.end(key, rec, reason)
		return nil
	})
	if err != nil {
		return session.Record{}, err // and ended may still be written
	}
	return ended, nil
}

// barred tells whether a mark keeps a session from being created.
func (t *txn) barred(rec session.Record) error {
	for _, tag := range rec.Tags {
		value := t.get(marks, tag[:])
		if value == nil {
			continue
		}
		m, err := decodeMark(value)
		if err != nil {
			return err
		}
		if rec.Began.Before(m.BeganBefore) && time.Now().Before(m.Until) {
			return &session.Ended{Reason: m.Reason}
		}
	}
	return nil
}

// Mark marks a tag.
func (s *Store) Mark(ctx context.Context, tag session.Tag, m session.Mark) error {
	return s.update(ctx, func(t *txn) error { return t.mark(tag, m) })
}

func (t *txn) mark(tag session.Tag, m session.Mark) error {
	if value := t.get(marks, tag[:]); value != nil {
		former, err := decodeMark(value)
		if err != nil {
			return err
		}
		t.del(due, dueEntry(byMark, stamp(former.Until), session.Key(tag)))
		m = both(former, m)
	}
	t.put(marks, tag[:], encodeMark(m))
	t.put(due, dueEntry(byMark, stamp(m.Until), session.Key(tag)), nil)
	return nil
}

// both is what is left of two marks of a tag. One that ran out counts for
// nothing, as if Sweep had been there.
func both(former, m session.Mark) session.Mark {
	if !time.Now().Before(former.Until) {
		return m
	}
	if former.BeganBefore.After(m.BeganBefore) {
		m.BeganBefore, m.Reason = former.BeganBefore, former.Reason
	}
	if former.Until.After(m.Until) {
		m.Until = former.Until
	}
	return m
}

// Tagged lists live sessions that carry the tag.
func (s *Store) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	var all []session.Listed
	err := s.view(ctx, func(t *txn) error {
		for _, key := range t.tagged(tag, after, limit) {
			rec, err := t.indexed(key)
			if err != nil {
				return err
			}
			rec.Data = nil
			all = append(all, session.Listed{Key: key, Record: clone(rec)})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// EndTagged ends the live sessions that carry the tag. It walks them in steps, so
// that other writers get their turn, and is no writer where there is nothing to
// end: the tag may be anybody's guess.
func (s *Store) EndTagged(ctx context.Context, tag session.Tag, reason session.Reason, sc session.Scope) ([]session.Ending, error) {
	var all []session.Ending
	var damage error
	var after session.Key
	for more := true; more; {
		var keys []session.Key
		err := s.view(ctx, func(t *txn) error {
			walked := t.tagged(tag, after, step)
			for _, key := range walked {
				after = key
				rec, err := t.indexed(key)
				if err != nil {
					damage = err
				} else if !spared(sc, key, rec) {
					keys = append(keys, key)
				}
			}
			more = len(walked) == step
			return nil
		})
		if err != nil {
			return all, err
		}
		if len(keys) == 0 {
			continue
		}
		ended, err := s.endEach(ctx, keys, reason)
		if err != nil {
			return all, err
		}
		all = append(all, ended...)
	}
	return all, damage
}

func spared(sc session.Scope, key session.Key, rec session.Record) bool {
	return slices.Contains(sc.Except, key) || !sc.BeganBefore.IsZero() && !rec.Began.Before(sc.BeganBefore)
}

// endEach ends those of the sessions that still live. It is not left alone when
// ctx ends: its endings would be lost.
func (s *Store) endEach(ctx context.Context, keys []session.Key, reason session.Reason) ([]session.Ending, error) {
	var ended []session.Ending
	err := s.update(context.WithoutCancel(ctx), func(t *txn) error {
		ended = nil
		for _, key := range keys {
			rec, err := t.lookup(key)
			if errors.Is(err, session.ErrAbsent) {
				continue // somebody was faster
			}
			if err != nil {
				return err
			}
			t.end(key, rec, reason)
			ended = append(ended, session.Ending{Key: key, Binding: rec.Binding, Reason: reason})
		}
		return nil
	})
	return ended, err
}

// Touch moves Used forward, all in one transaction.
func (s *Store) Touch(ctx context.Context, touches []session.Touch) error {
	touches = slices.Clone(touches)
	return s.update(ctx, func(t *txn) error {
		for _, touch := range touches {
			value := t.get(used, touch.Key[:])
			if len(value) != usedLen || !touch.At.After(lastUsed(value)) {
				continue
			}
			t.put(used, touch.Key[:], encodeUsed(stamp(touch.At), binary.BigEndian.Uint64(value[8:])))
		}
		return nil
	})
}

// Once claims a key until a time.
func (s *Store) Once(ctx context.Context, key session.Key, until time.Time) error {
	return s.update(ctx, func(t *txn) error {
		if value := t.get(once, key[:]); value != nil {
			claimed := binary.BigEndian.Uint64(value)
			if moment(claimed).After(time.Now()) {
				return session.ErrExists
			}
			t.del(due, dueEntry(byClaim, claimed, key))
		}
		t.put(once, key[:], binary.BigEndian.AppendUint64(nil, stamp(until)))
		t.put(due, dueEntry(byClaim, stamp(until), key), nil)
		return nil
	})
}

// lookup returns a live session's record, whose slices are valid inside the
// transaction only. ErrAbsent, *Ended.
func (t *txn) lookup(key session.Key) (session.Record, error) {
	return decode(t.get(sessions, key[:]), t.get(used, key[:]))
}

// indexed is lookup for a session that an index names, which has to be there.
func (t *txn) indexed(key session.Key) (session.Record, error) {
	rec, err := t.lookup(key)
	if errors.Is(err, session.ErrAbsent) {
		err = fmt.Errorf("%w: an index names a session that is not there", errDamaged)
	}
	return rec, err
}

// end puts a tombstone in the place of a live session. Nothing leads to the
// session any more but its key.
func (t *txn) end(key session.Key, rec session.Record, reason session.Reason) {
	filed := binary.BigEndian.Uint64(t.get(used, key[:])[8:])
	t.del(due, dueEntry(byUse, filed, key))
	t.del(due, dueEntry(byCreation, stamp(rec.Created), key))
	t.del(due, dueEntry(byExpiry, stamp(rec.Expires), key))
	t.put(due, dueEntry(byBurial, stamp(rec.Expires), key), nil)
	t.del(used, key[:])
	for _, tag := range rec.Tags {
		t.del(tags, tagEntry(tag, key))
	}
	t.put(sessions, key[:], append([]byte{isTombstone}, reason...))
	t.live--
}

func tagEntry(tag session.Tag, key session.Key) []byte {
	return append(tag[:], key[:]...)
}

// tagged returns up to limit sessions that carry the tag, by their keys, of those
// after a key.
func (t *txn) tagged(tag session.Tag, after session.Key, limit int) []session.Key {
	var keys []session.Key
	c := t.tx.Bucket(tags).Cursor()
	begin := tagEntry(tag, after)
	for entry, _ := c.Seek(begin); bytes.HasPrefix(entry, tag[:]) && len(keys) < limit; entry, _ = c.Next() {
		if !bytes.Equal(entry, begin) {
			keys = append(keys, session.Key(entry[len(tag):]))
		}
	}
	return keys
}

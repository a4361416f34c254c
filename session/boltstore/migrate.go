package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sessiongate/session"
)

var _ session.Portable = (*Store)(nil)

// Export gives f all that the file holds, page by page: each is a transaction of
// its own, so that no page of the file is kept for as long as f takes.
func (s *Store) Export(ctx context.Context, f func([]session.Item) error) error {
	for _, part := range []struct {
		bucket []byte
		prefix []byte
		item   func(t *txn, key, value []byte) (session.Item, bool, error)
	}{
		{marks, nil, exportMark},
		{once, nil, exportClaim},
		{due, []byte{byBurial}, exportTombstone},
		{used, nil, exportLive},
	} {
		after := part.prefix
		for more := true; more; {
			var items []session.Item
			err := s.view(ctx, func(t *txn) error {
				items = nil
				n := 0
				c := t.tx.Bucket(part.bucket).Cursor()
				key, value := c.Seek(after)
				if bytes.Equal(key, after) {
					key, value = c.Next()
				}
				for ; key != nil && bytes.HasPrefix(key, part.prefix) && n < session.ExportPage; key, value = c.Next() {
					n++
					after = bytes.Clone(key)
					item, ok, err := part.item(t, key, value)
					if err != nil {
						return err
					}
					if ok {
						items = append(items, item)
					}
				}
				more = n == session.ExportPage
				return nil
			})
			if err != nil {
				return err
			}
			if len(items) == 0 {
				continue
			}
			if err := f(items); err != nil {
				return err
			}
		}
	}
	return nil
}

func exportMark(_ *txn, key, value []byte) (session.Item, bool, error) {
	m, err := decodeMark(value)
	return session.Item{Key: session.Key(key), Mark: &m, Until: m.Until}, true, err
}

func exportClaim(_ *txn, key, value []byte) (session.Item, bool, error) {
	return session.Item{Key: session.Key(key), Claimed: true, Until: moment(binary.BigEndian.Uint64(value))}, true, nil
}

func exportTombstone(t *txn, entry, _ []byte) (session.Item, bool, error) {
	key := dueKey(entry)
	_, err := t.lookup(key)
	var end *session.Ended
	if !errors.As(err, &end) {
		return session.Item{}, false, fmt.Errorf("%w: an index names a tombstone that is not there", errDamaged)
	}
	return session.Item{Key: key, Ended: end.Reason, Until: moment(dueStamp(entry)).Add(session.TombstoneGrace)}, true, nil
}

func exportLive(t *txn, key, _ []byte) (session.Item, bool, error) {
	rec, err := t.indexed(session.Key(key))
	if err != nil {
		return session.Item{}, false, err
	}
	rec = clone(rec)
	return session.Item{Key: session.Key(key), Record: &rec}, true, nil
}

// Import adds what is missing, in one transaction.
func (s *Store) Import(ctx context.Context, items []session.Item) ([]session.Fate, error) {
	// What is written may be so after this returned: it is not the caller's any more.
	mine := make([]session.Item, len(items))
	for i, item := range items {
		mine[i] = item
		if item.Record != nil {
			rec := clone(*item.Record)
			mine[i].Record = &rec
		}
	}
	var fates []session.Fate
	err := s.update(ctx, func(t *txn) error {
		fates = make([]session.Fate, len(mine))
		for i, item := range mine {
			var err error
			if fates[i], err = t.take(item, time.Now()); err != nil {
				t.err = err // what was written of the page before it is not wanted
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fates, nil
}

func (t *txn) take(item session.Item, now time.Time) (session.Fate, error) {
	switch {
	case item.Over(now):
		return session.FateOver, nil
	case item.Record != nil:
		return t.takeLive(item.Key, *item.Record)
	case item.Ended != "":
		return t.takeTombstone(item)
	case item.Mark != nil:
		return t.takeMark(session.Tag(item.Key), *item.Mark)
	}
	return t.takeClaim(item, now), nil
}

func (t *txn) takeLive(key session.Key, rec session.Record) (session.Fate, error) {
	former, err := t.lookup(key)
	var end *session.Ended
	switch {
	case errors.As(err, &end):
		return session.FateOver, nil
	case errors.Is(err, session.ErrAbsent):
		err := t.barred(rec)
		if errors.As(err, &end) {
			return session.FateOver, nil
		}
		if err != nil {
			return 0, err
		}
		t.add(key, rec)
		return session.FateAdded, nil
	case err != nil:
		return 0, err
	}
	if rec.Used.After(former.Used) {
		filed := t.get(used, key[:])[8:]
		t.put(used, key[:], encodeUsed(stamp(rec.Used), binary.BigEndian.Uint64(filed)))
	}
	if rec.Version <= former.Version {
		return session.FateKept, nil
	}
	former.Version, former.Data = rec.Version, rec.Data
	t.put(sessions, key[:], encode(former))
	return session.FateRenewed, nil
}

// add writes a record with all that leads to it.
func (t *txn) add(key session.Key, rec session.Record) {
	t.put(sessions, key[:], encode(rec))
	for _, tag := range rec.Tags {
		t.put(tags, tagEntry(tag, key), nil)
	}
	use := stamp(rec.Used)
	t.put(used, key[:], encodeUsed(use, use))
	t.put(due, dueEntry(byUse, use, key), nil)
	t.put(due, dueEntry(byCreation, stamp(rec.Created), key), nil)
	t.put(due, dueEntry(byExpiry, stamp(rec.Expires), key), nil)
	t.live++
}

func (t *txn) takeTombstone(item session.Item) (session.Fate, error) {
	rec, err := t.lookup(item.Key)
	var end *session.Ended
	switch {
	case errors.As(err, &end):
		return session.FateKept, nil
	case errors.Is(err, session.ErrAbsent):
		t.put(sessions, item.Key[:], append([]byte{isTombstone}, item.Ended...))
		t.put(due, dueEntry(byBurial, stamp(item.Until.Add(-session.TombstoneGrace)), item.Key), nil)
		return session.FateAdded, nil
	case err != nil:
		return 0, err
	}
	t.end(item.Key, rec, item.Ended)
	return session.FateEnded, nil
}

func (t *txn) takeMark(tag session.Tag, m session.Mark) (session.Fate, error) {
	fate := session.FateAdded
	if t.get(marks, tag[:]) != nil {
		fate = session.FateKept // or both are one now
	}
	return fate, t.mark(tag, m)
}

func (t *txn) takeClaim(item session.Item, now time.Time) session.Fate {
	if value := t.get(once, item.Key[:]); value != nil {
		claimed := binary.BigEndian.Uint64(value)
		if moment(claimed).After(now) {
			return session.FateKept
		}
		t.del(due, dueEntry(byClaim, claimed, item.Key))
	}
	t.put(once, item.Key[:], binary.BigEndian.AppendUint64(nil, stamp(item.Until)))
	t.put(due, dueEntry(byClaim, stamp(item.Until), item.Key), nil)
	return session.FateAdded
}

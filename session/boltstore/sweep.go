package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"sessiongate/session"
)

// The kinds of entries in the due bucket, each filed under a time that no
// configuration enters: the limits come with each Sweep, and a shortened one
// needs no entry rewritten.
const (
	byExpiry   byte = 'E' // a live session, under Expires
	byCreation byte = 'C' // a live session, under Created
	byUse      byte = 'U' // a live session, under a use of it, the last or one before
	byBurial   byte = 'T' // a tombstone, under the Expires of its session
	byClaim    byte = 'O' // a claim of Once, under its end
	byMark     byte = 'M' // a mark, by its tag in place of a key, under its end
)

func dueEntry(kind byte, stamp uint64, key session.Key) []byte {
	b := append(make([]byte, 0, 1+8+len(key)), kind)
	return append(binary.BigEndian.AppendUint64(b, stamp), key[:]...)
}

// pass is a walk over the entries of a kind, from the oldest until a time.
type pass struct {
	kind  byte
	until time.Time
}

// passes are the walks that limits ask for. An Idle or a Lifetime of 0 limits
// nothing: a forgotten setting must not end every session.
func passes(l session.Limits) []pass {
	all := []pass{
		{byExpiry, l.Now},
		{byBurial, l.Now.Add(-session.TombstoneGrace)},
		{byClaim, l.Now},
		{byMark, l.Now},
	}
	if l.Lifetime > 0 {
		all = append(all, pass{byCreation, l.Now.Add(-l.Lifetime)})
	}
	if l.Idle > 0 {
		all = append(all, pass{byUse, l.Now.Add(-l.Idle)})
	}
	return all
}

// over tells whether and why a session has run out.
func over(rec session.Record, l session.Limits) (session.Reason, bool) {
	switch {
	case !l.Now.Before(rec.Expires),
		l.Lifetime > 0 && !l.Now.Before(rec.Created.Add(l.Lifetime)):
		return session.Lifetime, true
	case l.Idle > 0 && !l.Now.Before(rec.Used.Add(l.Idle)):
		return session.IdleTimeout, true
	}
	return "", false
}

// Sweep ends and forgets what is over by the limits.
func (s *Store) Sweep(ctx context.Context, l session.Limits) ([]session.Ending, error) {
	var all []session.Ending
	var damage error
	for _, p := range passes(l) {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return all, fmt.Errorf("boltstore: sweep: %w", err)
			}
			var ended []session.Ending
			// A step is not left alone when ctx ends: its endings would be lost.
			err := s.update(context.WithoutCancel(ctx), func(t *txn) error {
				ended, more = nil, false
				entries := t.due(p)
				for _, entry := range entries {
					reason, binding, err := t.settle(entry, l)
					if err != nil {
						damage = err
					} else if reason != "" {
						ended = append(ended, session.Ending{Key: dueKey(entry), Binding: binding, Reason: reason})
					}
				}
				more = len(entries) == step
				return nil
			})
			if err != nil {
				return all, err
			}
			all = append(all, ended...)
		}
	}
	return all, damage
}

// due returns up to step entries of a pass. It copies: a cursor loses its place
// when what it walks is deleted.
func (t *txn) due(p pass) [][]byte {
	var entries [][]byte
	until := stamp(p.until)
	c := t.tx.Bucket(due).Cursor()
	for entry, _ := c.Seek([]byte{p.kind}); len(entry) > 0 && entry[0] == p.kind && len(entries) < step; entry, _ = c.Next() {
		if dueStamp(entry) > until {
			break
		}
		entries = append(entries, bytes.Clone(entry))
	}
	return entries
}

func dueStamp(entry []byte) uint64    { return binary.BigEndian.Uint64(entry[1:]) }
func dueKey(entry []byte) session.Key { return session.Key(entry[9:]) }

// settle deals with what an entry stands for. If it ended a session, it returns
// the reason and the binding. A record that cannot be read loses its entry, or
// no sweep would ever get past it.
func (t *txn) settle(entry []byte, l session.Limits) (session.Reason, [32]byte, error) {
	key := dueKey(entry)
	switch entry[0] {
	case byBurial:
		t.del(sessions, key[:])
		t.del(due, entry)
		return "", [32]byte{}, nil
	case byClaim:
		t.del(once, key[:])
		t.del(due, entry)
		return "", [32]byte{}, nil
	case byMark:
		t.del(marks, key[:])
		t.del(due, entry)
		return "", [32]byte{}, nil
	}
	rec, err := t.indexed(key)
	if err != nil {
		t.del(due, entry)
		return "", [32]byte{}, err
	}
	reason, ended := over(rec, l)
	if !ended { // only byUse: it was used since it was filed
		use := stamp(rec.Used)
		t.del(due, entry)
		t.put(due, dueEntry(byUse, use, key), nil)
		t.put(used, key[:], encodeUsed(use, use))
		return "", [32]byte{}, nil
	}
	t.end(key, rec, reason)
	return reason, rec.Binding, nil
}

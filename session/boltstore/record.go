package boltstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"sessiongate/session"
)

// A value of the sessions bucket begins with what it is. A layout that changes
// gets a new letter, so that old records stay readable.
const (
	// isLive: version 8, binding 32, began 8, created 8, expires 8, number of tags,
	// tags 32 each, length of listing, listing, data. Numbers are uvarints.
	isLive byte = 'M'
	// wasLive is isLive without began, as formerFormat wrote it.
	wasLive byte = 'L'
	// isTombstone: the reason.
	isTombstone byte = 'T'
)

func encode(rec session.Record) []byte {
	b := make([]byte, 0, 1+8+32+8+8+8+2*binary.MaxVarintLen64+32*len(rec.Tags)+len(rec.Listing)+len(rec.Data))
	b = append(b, isLive)
	b = binary.BigEndian.AppendUint64(b, rec.Version)
	b = append(b, rec.Binding[:]...)
	b = binary.BigEndian.AppendUint64(b, stamp(rec.Began))
	b = binary.BigEndian.AppendUint64(b, stamp(rec.Created))
	b = binary.BigEndian.AppendUint64(b, stamp(rec.Expires))
	b = binary.AppendUvarint(b, uint64(len(rec.Tags)))
	for _, tag := range rec.Tags {
		b = append(b, tag[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(rec.Listing)))
	b = append(b, rec.Listing...)
	return append(b, rec.Data...)
}

// decode reads a value of the sessions bucket and of the used bucket. Listing
// and Data of the record point into the value.
func decode(value, lastUse []byte) (session.Record, error) {
	if len(value) == 0 {
		return session.Record{}, session.ErrAbsent
	}
	d := decoder{rest: value}
	kind := d.take(1)[0]
	switch kind {
	case isLive, wasLive:
	case isTombstone:
		return session.Record{}, &session.Ended{Reason: session.Reason(d.rest)}
	default:
		return session.Record{}, fmt.Errorf("%w: a record of unknown kind %q", errDamaged, kind)
	}
	rec := session.Record{Version: d.uint64(), Binding: [32]byte(d.take(32))}
	if kind == isLive {
		rec.Began = moment(d.uint64())
	}
	rec.Created, rec.Expires = moment(d.uint64()), moment(d.uint64())
	rec.Tags = make([]session.Tag, 0, d.count(32))
	for range cap(rec.Tags) {
		rec.Tags = append(rec.Tags, session.Tag(d.take(32)))
	}
	rec.Listing = d.take(d.count(1))
	rec.Data = d.rest
	if d.short || len(lastUse) != usedLen {
		return session.Record{}, fmt.Errorf("%w: a record that was cut off", errDamaged)
	}
	rec.Used = lastUsed(lastUse)
	return rec, nil
}

// clone makes a decoded record outlive its transaction.
func clone(rec session.Record) session.Record {
	rec.Listing = bytes.Clone(rec.Listing)
	rec.Data = bytes.Clone(rec.Data)
	return rec
}

// decoder takes a value apart. It gives zeroes where the value is too short.
type decoder struct {
	rest  []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.short = true
		return make([]byte, n)
	}
	taken := d.rest[:n:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// count reads how many things of a size follow: no more than there is room for.
func (d *decoder) count(size int) int {
	n, l := binary.Uvarint(d.rest)
	if l <= 0 || n > uint64(len(d.rest)-l)/uint64(size) {
		d.short = true
		return 0
	}
	d.rest = d.rest[l:]
	return int(n)
}

// A value of the used bucket: the last use, and the use under which the session
// is filed in the due bucket. Sweep brings the second up to the first when it
// comes across, so that a touch writes in one place.
const usedLen = 16

func encodeUsed(last, filed uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, last), filed)
}

func lastUsed(value []byte) time.Time { return moment(binary.BigEndian.Uint64(value)) }

// A value of the marks bucket: began before, until, the reason.

func encodeMark(m session.Mark) []byte {
	b := binary.BigEndian.AppendUint64(nil, stamp(m.BeganBefore))
	b = binary.BigEndian.AppendUint64(b, stamp(m.Until))
	return append(b, m.Reason...)
}

func decodeMark(value []byte) (session.Mark, error) {
	d := decoder{rest: value}
	m := session.Mark{BeganBefore: moment(d.uint64()), Until: moment(d.uint64())}
	m.Reason = session.Reason(d.rest)
	if d.short {
		return session.Mark{}, fmt.Errorf("%w: a mark that was cut off", errDamaged)
	}
	return m, nil
}

// stamp is a time as the file keeps it, in nanoseconds since 1970: big endian
// they sort as the times do. The zero time, and whatever else was before, is 0.
func stamp(t time.Time) uint64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return uint64(t.UnixNano())
}

func moment(stamp uint64) time.Time {
	if stamp == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(stamp))
}
